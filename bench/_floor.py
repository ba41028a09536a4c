"""The bare crypto of one handshake, and the table of where a handshake's time goes beside it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from casemate.crypto import jwe, jwk

_ROUNDS = 200


class Floor(NamedTuple):
    """CPU seconds of what no broker can leave out, by name; `guest` is that of the guest's own crypto."""

    parts: dict[str, float]
    guest: float

    @property
    def total(self) -> float:
        """All of the server's."""
        return sum(self.parts.values())


def measured() -> Floor:
    """Measure on this machine, now. The vendor's chain counts as known: one chip's handshakes all bring the same."""
    chip, signer, guest = (ec.generate_private_key(c) for c in (ec.SECP384R1(), ec.SECP256R1(), ec.SECP256R1()))
    body, message = os.urandom(0x2A0), os.urandom(2000)
    signature, public = chip.sign(body, ec.ECDSA(hashes.SHA384())), chip.public_key()
    token = signer.sign(message, ec.ECDSA(hashes.SHA256()))
    recipient, log, aead = (
        jwk.from_public_key(guest.public_key()),
        ed25519.Ed25519PrivateKey.generate(),
        AESGCM(bytes(32)),
    )
    sealed = aead.encrypt(bytes(12), message, b"")

    def cookies() -> None:
        for _ in range(3):  # the challenge and the session are sealed, the challenge is opened
            aead.encrypt(bytes(12), message, b"")

    parts: dict[str, Callable[[], object]] = {
        "report's signature (P-384 verify)": lambda: public.verify(signature, body, ec.ECDSA(hashes.SHA384())),
        "token (ES256 sign)": lambda: signer.sign(message, ec.ECDSA(hashes.SHA256())),
        "token (ES256 verify)": lambda: signer.public_key().verify(token, message, ec.ECDSA(hashes.SHA256())),
        "resource (ECDH-ES+A256KW)": lambda: jwe.seal(bytes(32), recipient),
        "secret at rest (AES-256-GCM twice)": lambda: (
            aead.decrypt(bytes(12), sealed, b""),
            aead.decrypt(bytes(12), sealed, b""),
        ),
        "cookies (AES-256-GCM)": cookies,
        "log (Ed25519 sign, at most one a batch)": lambda: log.sign(message),
        "digests": lambda: [hashlib.sha256(message).digest() for _ in range(20)],
    }
    asked = _cpu(lambda: (ec.generate_private_key(ec.SECP256R1()), chip.sign(body, ec.ECDSA(hashes.SHA384()))))
    return Floor({name: _cpu(act) for name, act in parts.items()}, asked)


def _cpu(act: Callable[[], object]) -> float:
    act()
    begun = time.thread_time()
    for _ in range(_ROUNDS):
        act()
    return (time.thread_time() - begun) / _ROUNDS


# Steps of the broker (`Meter.laps`) and the kind of work that each mostly is.
KINDS = {
    "attest verify": "crypto",
    "attest token": "crypto",
    "release seal": "crypto",
    "attest consult": "storage",
    "attest endorse": "storage",
    "release judge": "policy",
    "attest appraise": "policy",
    "attest policy": "policy",
    "attest record": "log",
    "release record": "log",
}


def table(each: dict[str, float], floor: Floor) -> Iterator[str]:
    """Lines of the table; `each` has milliseconds of CPU per handshake by step or thread."""
    each = dict(each)
    whole, loop, writer, pool = (each.pop(name) for name in ("process", "loop", "writer", "pool"))
    kinds = dict.fromkeys(("crypto", "policy", "storage", "log", "framework"), 0.0)
    for name, spent in each.items():
        kinds[KINDS.get(name, "framework")] += spent
    kinds["log"] += writer
    kinds["framework"] += whole - writer - sum(each.values())
    yield f"where {whole:.2f} ms of CPU go, one server process:"
    yield "    " + ", ".join(f"{name} {spent:.2f}" for name, spent in kinds.items())
    yield f"    event loop (TLS, HTTP) {loop:.2f}; the log's writer {writer:.2f}; threads {pool:.2f}, of that:"
    for name, spent in sorted(each.items(), key=lambda pair: -pair[1]):
        yield f"        {name:<16} {spent:.3f}  {KINDS.get(name, 'framework')}"
    yield "    the floor: " + ", ".join(f"{name} {spent * 1e3:.3f}" for name, spent in floor.parts.items())
