"""MRENCLAVE and MRSIGNER of an enclave, from its SIGSTRUCT (Gramine's `.sig` file).

The enclave's pages are not measured anew here: MRENCLAVE is what the signer signed, and the processor starts no enclave
whose pages measure otherwise.
"""

from __future__ import annotations

import hashlib

from casemate.errors import Refused, Unusable
from casemate.schema.launch import Launch, Machine
from casemate.schema.measurement import Measurement
from casemate.schema.request import Request
from casemate.tee.sgx import sigstruct as wire


def machine(launch: Launch) -> Machine:
    """Not possible: an enclave is a process, not a VM."""
    raise Unusable("an SGX enclave is a process, not a VM", hint="start it with a library OS such as Gramine")


def measure(launch: Launch) -> Measurement:
    """What the signer of the launch's `image`, a SIGSTRUCT, signed (`sigstruct`); nothing else of a launch counts."""
    if not launch.image:
        raise Unusable("an SGX enclave is measured from its SIGSTRUCT (.sig file)", hint="name it with --image FILE")
    return sigstruct(launch.image)


def request(nonce: bytes, hint: bytes) -> Request:
    """The request that binds `nonce`: the report data, zeros behind it."""
    del hint
    return Request(report_data=nonce)


def sigstruct(data: bytes) -> Measurement:
    """`mr_enclave` and `mr_signer` (SHA-256 of the modulus as it stands there) of a SIGSTRUCT; `tee` is ``sgx``.

    `Malformed` when it is none; `Refused` (rule `sgx.sigstruct`) when its signature does not hold.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    found = wire.parse(data)
    try:
        key = rsa.RSAPublicNumbers(3, int.from_bytes(found.modulus, "little")).public_key()
        key.verify(found.signature.to_bytes(wire.NUMBER, "big"), found.signed, padding.PKCS1v15(), hashes.SHA256())
        holds = found.helpers
    except (InvalidSignature, ValueError):
        holds = False
    if not holds:
        found_text = "no such signature, or changed"
        raise Refused.because("sgx.sigstruct", expected="signed by its key", found=found_text, hint="sign it again")
    signer = hashlib.sha256(found.modulus).hexdigest()
    return Measurement(tee="sgx", values={"mr_enclave": found.mr_enclave.hex(), "mr_signer": signer})
