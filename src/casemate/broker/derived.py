"""Derived keys: the same for the same app and path on whichever TEE it runs, stored nowhere.

`kbs:///REPO/derived.ALGORITHM/TAG` is a resource that nobody has to store. HKDF-SHA256 (RFC 5869) with

    IKM   32 random bytes of this broker (the shared key `derive`, sealed like every other)
    salt  `casemate derived keys v1`
    info  `casemate derived key v1` 0 app id 0 repo/type/tag 0 purpose 0 algorithm

where 0 is one zero byte, purpose is `resource` for what a guest reads and `volume` for a volume's key, and the output's
length is the algorithm's. Another app at the same path gets another key, so such a path has no owner.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from casemate.broker.settings import Settings
from casemate.broker.shared import shared
from casemate.broker.vault import Vault
from casemate.drivers.store import Store
from casemate.errors import Malformed

VERSION = 1
RESOURCE, VOLUME = "resource", "volume"
_PREFIX = "derived."
_SALT = b"casemate derived keys v1"
_LABEL = "casemate derived key v1"
_ROOT = 32
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
# Algorithm → bytes that are derived for it (FIPS 186-5, A.2.1 wants 64 bits more than the order of a curve has).
SIZES = {"aes-128": 16, "aes-256": 32, "aes-256-xts": 64, "hmac-sha256": 32, "ed25519": 32, "p256": 40}


@dataclass(frozen=True)
class Deriver:
    """Derives keys from the broker's root."""

    root: bytes

    def key(self, app_id: str, path: str, purpose: str) -> bytes:
        """The key at a derived path: raw bytes, or PKCS#8 PEM for a signature algorithm."""
        algorithm = algorithm_of(path)
        if algorithm is None:
            raise Malformed("resource path: not of a derived key")
        raw = self.raw(app_id, path, purpose, algorithm, SIZES[algorithm])
        if algorithm == "ed25519":
            return _pem(ed25519.Ed25519PrivateKey.from_private_bytes(raw))
        if algorithm == "p256":
            return _pem(ec.derive_private_key(int.from_bytes(raw, "big") % (_P256_ORDER - 1) + 1, ec.SECP256R1()))
        return raw

    def raw(self, app_id: str, path: str, purpose: str, algorithm: str, size: int) -> bytes:
        """`size` bytes for a label; none of its parts may hold a zero byte."""
        parts = (_LABEL, app_id, path, purpose, algorithm)
        if any("\0" in part for part in parts):
            raise Malformed("derived key: a zero byte in its label")
        return HKDF(hashes.SHA256(), size, _SALT, "\0".join(parts).encode()).derive(self.root)


def is_derived(path: str) -> bool:
    """Whether a path (``repo/type/tag``) is kept for derived keys."""
    return path.split("/")[1].startswith(_PREFIX)


def algorithm_of(path: str) -> str | None:
    """The algorithm of a derived path; None for a path of stored secrets. An unknown algorithm is `Malformed`."""
    if not is_derived(path):
        return None
    name = path.split("/")[1].removeprefix(_PREFIX)
    if name not in SIZES:
        raise Malformed(f"resource path: derived.{name[:32]} is not known", hint="known: " + ", ".join(sorted(SIZES)))
    return name


def build(settings: Settings, store: Store, vault: Vault, clock: Callable[[], datetime]) -> Deriver:
    """The deriver on the root that all replicas share."""
    return Deriver(shared(store, vault, "derive", lambda: os.urandom(_ROOT), clock()))


def _pem(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, plain)
