"""Enclave image files made for tests, as the format's own builder lays them out, signed or not, valid or broken.

image = FakeImage(ramdisks=(b"init", b"app")).signed()
data = image.build()
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from casemate.crypto import cose
from casemate.testing import pki
from casemate.wire import cbor

HEADER = struct.Struct(">4sHHQQHH32Q32QI")
SECTION = struct.Struct(">HHQ")


@dataclass(frozen=True)
class FakeImage:
    """Contents of an image. `certificate` (PEM) and `message` (COSE_Sign1) make the signature section."""

    kernel: bytes = b"a kernel"
    cmdline: bytes = b"reboot=k panic=30"
    ramdisks: tuple[bytes, ...] = (b"the first ramdisk", b"the second")
    metadata: bytes = b'{"ImageName":"fake"}'
    certificate: bytes = b""
    message: bytes = b""
    version: int = 4
    flags: int = 0

    def sections(self) -> list[tuple[int, bytes]]:
        """(type, content), in the order of the builder."""
        found = [(1, self.kernel), (2, self.cmdline)] + ([(5, self.metadata)] if self.version >= 4 else [])
        found += [(3, ramdisk) for ramdisk in self.ramdisks]
        if self.message:
            entry = {"signing_certificate": list(self.certificate), "signature": list(self.message)}
            found.append((4, cbor.dumps([entry])))
        return found

    def build(self) -> bytes:
        """The file."""
        return assemble(self.sections(), version=self.version, flags=self.flags)

    def signed(
        self, pcr0: bytes, *, index: int = 0, key: ec.EllipticCurvePrivateKey | None = None, flip: bool = False
    ) -> FakeImage:
        """This image with a signature over `pcr0` by a new signer; `key` signs in place of the certificate's own."""
        signer = pki.Authority("Fake image signer")
        payload = cbor.dumps({"register_index": index, "register_value": list(pcr0)})
        protected = cbor.dumps({1: cose.ES384})
        by = key or signer.key
        if not isinstance(by, ec.EllipticCurvePrivateKey):
            raise TypeError("images are signed with elliptic curves")
        r, s = decode_dss_signature(by.sign(cose.signed_bytes(protected, payload), ec.ECDSA(hashes.SHA384())))
        signature = r.to_bytes(48, "big") + (s ^ int(flip)).to_bytes(48, "big")
        message = cbor.dumps([protected, {}, payload, signature])
        return dataclasses.replace(self, certificate=pki.pem(signer.certificate), message=message)


def assemble(
    sections: list[tuple[int, bytes]], *, version: int = 4, flags: int = 0, shift: int = 0, count: int | None = None
) -> bytes:
    """A file of these sections with a right checksum; `shift` and `count` make the header's table lie."""
    body, offsets, sizes = b"", [0] * 32, [0] * 32
    for number, (kind, content) in enumerate(sections):
        offsets[number], sizes[number] = HEADER.size + 4 + len(body) + shift, len(content)
        body += SECTION.pack(kind, 0, len(content)) + content
    announced = len(sections) if count is None else count
    head = HEADER.pack(b".eif", version, flags, 1 << 30, 2, 0, announced, *offsets, *sizes, 0)
    return head + zlib.crc32(head + body).to_bytes(4, "big") + body
