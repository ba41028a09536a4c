"""PCR 0, 1, 2 and 8 of a Nitro enclave, computed from its image file (EIF).

Standard: AWS Nitro Enclaves user guide, "Where to get an enclave's measurements"; aws-nitro-enclaves-image-format.

    PCR 0   kernel, command line, every ramdisk        PCR 2   every ramdisk but the first
    PCR 1   kernel, command line, the first ramdisk    PCR 8   the signing certificate (DER); zero without one

Each is one extension of a zero register: SHA-384(48 zero bytes | SHA-384(content)). PCR 3 and 4 (role and id of the
parent instance) are known only where the enclave starts.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from casemate.errors import Refused, Unusable
from casemate.schema.launch import Launch, Machine
from casemate.schema.measurement import Measurement
from casemate.schema.request import Request
from casemate.tee.nitro import eif as wire

SIZE = 48


def machine(launch: Launch) -> Machine:
    """Not possible: enclaves are started by AWS's hypervisor, not by QEMU."""
    raise Unusable("a Nitro enclave cannot be started here", hint="start it with AWS's nitro-cli on an EC2 instance")


def measure(launch: Launch) -> Measurement:
    """The registers of `launch.image`, which is all that an enclave is started from."""
    if launch.firmware or launch.kernel or launch.vmm or launch.event_log or launch.guest_features is not None:
        raise Unusable("an enclave is measured from its image file (EIF) alone", hint="give --image and nothing else")
    if not launch.image:
        raise Unusable("there is no enclave image to measure", hint="casemate measure --tee nitro --image IMAGE.eif")
    return eif(launch.image)


def request(nonce: bytes, hint: bytes) -> Request:
    """The request that binds `nonce`: it is the document's nonce field."""
    del hint
    return Request(report_data=nonce)


def eif(data: bytes | memoryview) -> Measurement:
    """`pcr0`, `pcr1`, `pcr2` and, where the image is signed, `pcr8` of an image file; `tee` is ``nitro``.

    `Malformed` when it is no image or its checksum is another; `Refused` (rule `nitro.eif.signature`) when it carries
    a signature that does not hold: such an image does not start.
    """
    image = wire.parse(data)
    boot = (image.kernel, image.cmdline)
    values = {
        "pcr0": extended((*boot, *image.ramdisks)),
        "pcr1": extended((*boot, *image.ramdisks[:1])),
        "pcr2": extended(image.ramdisks[1:]),
    }
    if image.signature:
        values["pcr8"] = _signer(image.signature, values["pcr0"])
    return Measurement(tee="nitro", values={name: value.hex() for name, value in values.items()})


def extended(parts: Iterable[bytes | memoryview]) -> bytes:
    """A zero register after one extension by the SHA-384 of `parts`, one behind the other (48 bytes)."""
    content = hashlib.sha384()
    for part in parts:
        content.update(part)
    return hashlib.sha384(bytes(SIZE) + content.digest()).digest()


def _signer(section: memoryview, pcr0: bytes) -> bytes:
    """PCR 8 of a signature that holds; AWS's loader does not start an image whose signature does not."""
    from cryptography.hazmat.primitives.asymmetric import ec

    from casemate.crypto import chain, cose, pem

    given = wire.signer(section)
    (der,) = pem.certificates(given.certificate, "enclave image signing certificate", most=1)
    key = chain.load(der).cert.public_key()
    message = cose.parse(given.message, "enclave image signature", limit=wire.MAX_SIGNATURE)
    index, value = wire.signed_register(message.payload)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not message.verify(key):
        raise _refused("ES256 or ES384 by the certificate beside it", f"no such signature ({message.algorithm})")
    if index != 0 or not hmac.compare_digest(value, pcr0):
        raise _refused(f"PCR 0 {pcr0.hex()}", f"PCR {index} {value[:SIZE].hex()}")
    return extended((der,))


def _refused(expected: str, found: str) -> Refused:
    hint = "the image was changed after it was signed; sign it again with nitro-cli sign-eif"
    return Refused.because("nitro.eif.signature", expected=expected, found=found, hint=hint)
