"""Making a broker's folder: its keys, its settings. Done once; doing it again changes nothing that exists."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from casemate.broker.assemble import ADMIN_PUBLIC, MASTER_KEY, TLS_KEY
from casemate.broker.settings import FILE, Settings, as_toml, load
from casemate.broker.vault import KEY_SIZE
from casemate.crypto import pins, selfsigned
from casemate.drivers import keyfiles

ADMIN_KEY = "admin.key"


def prepare(folder: Path, admin_key: Path, **options: Any) -> Settings:
    """Keys and settings in `folder`; the admin's private key goes to `admin_key`. `options` are fields of Settings."""
    for made in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        made.mkdir(mode=0o700, exist_ok=True)  # `parents=True` would leave those open to other users
    keyfiles.once(folder / MASTER_KEY, lambda: os.urandom(KEY_SIZE))
    keyfiles.once(folder / TLS_KEY, lambda: selfsigned.key_pem(ec.generate_private_key(ec.SECP256R1())))
    private = serialization.load_pem_private_key(keyfiles.once(admin_key, _admin_key), password=None)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    keyfiles.once(folder / ADMIN_PUBLIC, lambda: public)
    if not (folder / FILE).exists():
        keyfiles.write(folder / FILE, _toml(options))
    return load(folder)


def pin(folder: Path) -> str:
    """The pin of the broker's TLS key."""
    key = serialization.load_pem_private_key(keyfiles.read(folder / TLS_KEY), password=None)
    return pins.digest(
        key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def _admin_key() -> bytes:
    plain = serialization.NoEncryption()
    key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def _toml(options: dict[str, Any]) -> bytes:
    head = "# Settings of this broker; `casemate serve --check` prints every one, also those that are not here\n"
    return (head + as_toml(msgspec.to_builtins(options, enc_hook=str))).encode()
