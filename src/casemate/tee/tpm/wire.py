"""TPM 2.0 commands as bytes and their answers, over any transport: what the guest and the platform CA need, no more.

Standard: TPM 2.0 Library Part 3 (commands), Part 1 section 24 (credential protection), Part 2 for constants.

    command   tag u16 | size u32 | code u32 | handles | [authorisation size u32 | sessions] | parameters
    response  tag u16 | size u32 | code u32 | [handle] | [parameter size u32] | parameters | sessions

All authorisations here are empty passwords, except the EK's, which is a policy (PolicySecret of the endorsement
hierarchy). A transport is anything with `transmit(bytes) -> bytes`: a device file, a socket.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Protocol

from casemate.errors import Malformed, Unavailable
from casemate.tee.tpm import report
from casemate.tee.tpm.report import sized
from casemate.wire.cursor import Cursor

NO_SESSIONS, SESSIONS = 0x8001, 0x8002
RS_PW = 0x40000009
RH_NULL = 0x40000007
EK_HANDLE, EK_CERTIFICATE_INDEX = 0x81010001, 0x01C00002
MAX_RESPONSE = 4096
_NV_CHUNK = 1024  # MAX_NV_BUFFER_SIZE of every TPM since 2014 is at least this
_RETRY = {0x922, 0x908, 0x90A}  # TPM_RC_RETRY, TPM_RC_YIELDED, TPM_RC_TESTING
_ATTEMPTS = 8

# TPMA_NV: owner and the empty password may read and write; no dictionary-attack lockout.
_NV_ATTRIBUTES = 0x00000002 | 0x00000004 | 0x00020000 | 0x00040000 | 0x02000000


class Transport(Protocol):
    """A way to a TPM."""

    def transmit(self, command: bytes) -> bytes:
        """Send one command, return the whole response."""
        ...


class TpmRefusal(Unavailable):
    """The TPM answered with an error; `code` is its TPM_RC."""

    def __init__(self, command: int, code: int) -> None:
        super().__init__(f"the TPM answered {code:#05x} to command {command:#05x}")
        self.code = code


class Tpm:
    """TPM commands over a transport. Errors: `TpmRefusal` for a TPM_RC, `Malformed` for bytes that are no response."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def startup(self) -> None:
        """TPM2_Startup(CLEAR); a TPM that was started already is fine."""
        try:
            self._plain(0x144, _u16(0))
        except TpmRefusal as refusal:
            if refusal.code != 0x100:  # TPM_RC_INITIALIZE
                raise

    def shutdown(self) -> None:
        """TPM2_Shutdown(CLEAR): the next start finds an orderly state, so that the clock counts as safe."""
        self._plain(0x145, _u16(0))

    def create_primary(self, hierarchy: int, template: bytes) -> tuple[int, bytes]:
        """(transient handle, TPMT_PUBLIC) of a primary key made from `template` (a TPMT_PUBLIC)."""
        sensitive = sized(sized(b"") + sized(b""))
        body = sensitive + sized(template) + sized(b"") + _u32(0)
        read = self._authorised(0x131, (hierarchy,), body, handle=True)
        handle = int.from_bytes(read.take(4), "big")
        read.take(4)
        return handle, read.sized16()

    def read_public(self, handle: int) -> tuple[bytes, bytes]:
        """(TPMT_PUBLIC, name) of an object."""
        read = self._plain(0x173, _u32(handle))
        return read.sized16(), read.sized16()

    def evict(self, handle: int, persistent: int) -> None:
        """Make a transient object persistent, or remove it when both handles are the same."""
        self._authorised(0x120, (report.RH_OWNER, handle), _u32(persistent))

    def flush(self, handle: int) -> None:
        """Drop a transient object or a session."""
        self._plain(0x165, _u32(handle))

    def handles(self, first: int, count: int = 8) -> list[int]:
        """Existing handles from `first` on, of its type."""
        read = self._plain(0x17A, _u32(1) + _u32(first) + _u32(count))
        read.take(5)  # moreData, capability
        return [read.be32() for _ in range(min(read.be32(), count))]

    def nv_define(self, index: int, size: int) -> None:
        """Make an NV index of `size` bytes that anybody inside may read and the owner may write."""
        public = _u32(index) + _u16(report.ALG_SHA256) + _u32(_NV_ATTRIBUTES) + sized(b"") + _u16(size)
        self._authorised(0x12A, (report.RH_OWNER,), sized(b"") + sized(public))

    def nv_undefine(self, index: int) -> None:
        """Remove an NV index of the owner."""
        self._authorised(0x122, (report.RH_OWNER, index), b"")

    def nv_size(self, index: int) -> int:
        """The size of an NV index."""
        read = Cursor(self._plain(0x169, _u32(index)).sized16(), "TPMS_NV_PUBLIC")
        read.take(10)
        read.sized16()
        return read.be16()

    def nv_write(self, index: int, data: bytes) -> None:
        """Write `data` from the start of an index."""
        for start in range(0, len(data), _NV_CHUNK):
            body = sized(data[start : start + _NV_CHUNK]) + _u16(start)
            self._authorised(0x137, (report.RH_OWNER, index), body)

    def nv_read(self, index: int, *, owner: bool = False) -> bytes:
        """The whole content of an index that is readable with its own empty password, or else by the `owner`."""
        size, out = self.nv_size(index), b""
        while len(out) < size:
            body = _u16(min(_NV_CHUNK, size - len(out))) + _u16(len(out))
            part = self._authorised(0x14E, (report.RH_OWNER if owner else index, index), body).sized16()
            if not part:
                raise Malformed("TPM response: an empty NV read")
            out += part
        return out

    def quote(self, key: int, qualifying: bytes) -> tuple[bytes, bytes]:
        """(TPMS_ATTEST, TPMT_SIGNATURE) over all SHA-256 PCRs with `qualifying` (at most 32 bytes here)."""
        body = sized(qualifying) + _u16(report.ALG_NULL) + report.quote_selection()
        read = self._authorised(0x158, (key,), body)
        attest = read.sized16()
        return attest, read.take(read.remaining)

    def read_pcrs(self) -> list[bytes]:
        """All 24 PCRs of the SHA-256 bank, eight to a call (a TPM returns no more)."""
        values: list[bytes] = []
        for first in range(0, report.PCR_COUNT, 8):
            read = self._plain(0x17E, report.selection(range(first, first + 8)))
            read.be32()
            report.read_selections(read)
            part = [read.sized16(64) for _ in range(min(read.be32(), 8))]
            if len(part) != 8 or any(len(p) != 32 for p in part):
                raise Malformed("TPM response: the SHA-256 bank is not whole; is it active?")
            values += part
        return values

    def extend(self, pcr: int, digest: bytes) -> None:
        """Extend a PCR of the SHA-256 bank by a 32-byte digest."""
        self._authorised(0x182, (pcr,), _u32(1) + _u16(report.ALG_SHA256) + digest)

    def activate_credential(self, key: int, *, blob: bytes, encrypted: bytes, ek: int = EK_HANDLE) -> bytes:
        """The secret of a credential made for `key`'s name and `ek`; the EK's policy is met here."""
        session = self._endorsement_session()
        try:
            sessions = _password() + _u32(session) + sized(b"") + b"\x01" + sized(b"")
            body = _u32(key) + _u32(ek) + _u32(len(sessions)) + sessions + sized(blob) + sized(encrypted)
            read = self._call(SESSIONS, 0x147, body)
        finally:
            self.flush(session)
        return _parameters(read).sized16(64)

    def _endorsement_session(self) -> int:
        """A policy session that satisfies the standard EK policy: PolicySecret(TPM_RH_ENDORSEMENT)."""
        body = _u32(RH_NULL) + _u32(RH_NULL) + sized(os.urandom(16)) + sized(b"") + b"\x01"
        session = self._plain(0x176, body + _u16(report.ALG_NULL) + _u16(report.ALG_SHA256)).be32()
        try:
            body = sized(b"") + sized(b"") + sized(b"") + _u32(0)
            self._authorised(0x151, (report.RH_ENDORSEMENT, session), body)
        except BaseException:
            self.flush(session)
            raise
        return session

    def _plain(self, code: int, body: bytes) -> Cursor:
        return self._call(NO_SESSIONS, code, body)

    def _authorised(self, code: int, handles: tuple[int, ...], body: bytes, *, handle: bool = False) -> Cursor:
        """A command whose first handle is authorised by an empty password. `handle`: the response begins with one."""
        session = _password()
        whole = b"".join(map(_u32, handles)) + _u32(len(session)) + session + body
        read = self._call(SESSIONS, code, whole)
        return read if handle else _parameters(read)

    def _call(self, tag: int, code: int, body: bytes) -> Cursor:
        command = _u16(tag) + _u32(10 + len(body)) + _u32(code) + body
        for _ in range(_ATTEMPTS):
            response = self._transport.transmit(command)
            if len(response) > MAX_RESPONSE:
                raise Malformed(f"TPM response: {len(response)} bytes, at most {MAX_RESPONSE} allowed")
            read = Cursor(response, "TPM response")
            _, size, result = read.be16(), read.be32(), read.be32()
            if size != len(response):
                raise Malformed(f"TPM response: says {size} bytes and has {len(response)}")
            if result == 0:
                return read
            if result not in _RETRY:
                break
        raise TpmRefusal(code, result)


def make_credential(ek_modulus: bytes, exponent: int, name: bytes, secret: bytes) -> tuple[bytes, bytes]:
    r"""(credential blob, encrypted seed): only a TPM that holds the RSA-2048 EK and an object named `name` opens it.

    Part 1 section 24.4: seed under RSA-OAEP-SHA256 with label "IDENTITY\0"; AES-128-CFB and HMAC keys by KDFa.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    seed = os.urandom(32)
    public = rsa.RSAPublicNumbers(exponent, int.from_bytes(ek_modulus, "big")).public_key()
    oaep = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=b"IDENTITY\0")
    storage = _kdfa(seed, b"STORAGE", name, 16)
    identity = _aes_cfb(storage, sized(secret))
    outer = hmac.digest(_kdfa(seed, b"INTEGRITY", b"", 32), identity + name, "sha256")
    return sized(outer) + identity, public.encrypt(seed, oaep)


def _aes_cfb(key: bytes, data: bytes) -> bytes:
    """AES-128-CFB encryption with a zero IV, block by block: the library calls the mode itself decrepit."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    block, out = bytes(16), b""
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305  # one block at a time, chained here
    for start in range(0, len(data), 16):
        mask = encryptor.update(block)
        block = bytes(a ^ b for a, b in zip(data[start : start + 16], mask, strict=False))
        out += block
    return out


def _kdfa(key: bytes, label: bytes, context: bytes, size: int) -> bytes:
    """KDFa of Part 1 section 11.4.10.2 with SHA-256, one round (at most 32 bytes)."""
    data = _u32(1) + label + b"\0" + context + _u32(8 * size)
    return hmac.new(key, data, hashlib.sha256).digest()[:size]


def _parameters(read: Cursor) -> Cursor:
    """The parameter area of a response with sessions."""
    return Cursor(read.take(read.be32()), "TPM response parameters")


def _password() -> bytes:
    """TPMS_AUTH_COMMAND of an empty password."""
    return _u32(RS_PW) + sized(b"") + b"\x00" + sized(b"")


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "big")
