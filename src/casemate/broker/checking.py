"""What `casemate serve --check` looks at: everything that would keep a broker from starting, without starting it.

Nothing is made or changed. A store on a server is not asked: it may be another machine's. One in a SQLite file is read,
to see that the master keys are its own. Keys are never shown.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from casemate.broker.assemble import ADMIN_PUBLIC, TLS_KEY, open_vault
from casemate.broker.settings import Settings
from casemate.broker.shared import label
from casemate.broker.vault import Vault
from casemate.drivers import keyfiles
from casemate.errors import Unusable
from casemate.tee import ROOMS

_STORES = ("sqlite", "postgresql")
_KEYS_TRIED = 16  # of the store's newest keys


def check(settings: Settings) -> None:
    """Nothing, or `Unusable` with what is wrong and where."""
    _address(settings.host)
    for network in settings.rate_exempt:
        _network(network)
    for tee in settings.refused_tees:
        if tee not in ROOMS:
            raise Unusable(f"refused_tees: {tee!r} is not a TEE", hint="known: " + ", ".join(sorted(ROOMS)))
    if settings.workers > 1 and settings.port == 0:
        raise Unusable("workers need a port that is not 0", hint="set `port`")
    url = _store(settings)
    vault = _keys(settings)
    try:
        _opens(url, vault)
    finally:
        vault.close()


def is_unmade(settings: Settings) -> bool:
    """Whether the store is a SQLite file that is not there yet."""
    place = _file(_store(settings))
    return place is not None and not place.exists()


def _address(host: str) -> None:
    try:
        socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unusable(f"host: {host!r} is no address of this machine") from error


def _network(network: str) -> None:
    try:
        ipaddress.ip_network(network)
    except ValueError as error:
        raise Unusable(f"rate_exempt: {network!r} is not a network", hint="192.0.2.0/24, for example") from error


def _store(settings: Settings) -> URL:
    """The URL of a store that a broker can be started on, as far as can be told without a connection."""
    hint = "sqlite:/// or postgresql+psycopg://"
    try:
        url = make_url(settings.store_url)
        dialect = url.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise Unusable("store: not the URL of a database that is known", hint=hint) from error
    if url.get_backend_name() not in _STORES:
        raise Unusable(f"store: Casemate keeps nothing in {url.get_backend_name()}", hint=hint)
    try:
        dialect.import_dbapi()
    except ImportError as error:
        raise Unusable(f"store: the driver of {url.drivername} is not installed", hint=hint) from error
    if (place := _file(url)) is not None:
        _writable(place)
    return url


def _file(url: URL) -> Path | None:
    """The file of a SQLite store; None for another store."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith((":", "file:")):
        return None
    return Path(url.database)


def _writable(place: Path) -> None:
    if not place.parent.is_dir():
        raise Unusable(f"store: there is no folder {place.parent}")
    if place.exists() and not place.is_file():
        raise Unusable(f"store: {place} is not a regular file")
    needed = [(place.parent, os.W_OK | os.X_OK), *([(place, os.R_OK | os.W_OK)] if place.exists() else [])]
    for path, access in needed:
        if not os.access(path, access):
            raise Unusable(f"store: {path} cannot be written by this user", hint="check as the user who serves")


def _opens(url: URL, vault: Vault) -> None:
    """`Unusable` when a SQLite store is sealed under other master keys than these."""
    place = _file(url)
    if place is None or not place.exists():
        return
    # Without a log beside it nobody has the file open, and `immutable` keeps SQLite from making one.
    how = "mode=ro" if place.with_name(place.name + "-wal").exists() else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"file:{quote(str(place.absolute()))}?{how}", uri=True, timeout=10)) as store:
            if not store.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'keys'").fetchall():
                return
            newest = "SELECT name, sealed FROM keys ORDER BY created DESC LIMIT ?"
            held = store.execute(newest, (_KEYS_TRIED,)).fetchall()
    except sqlite3.Error as error:
        raise Unusable(f"store: {place} cannot be read as SQLite ({type(error).__name__})") from error
    for name, sealed in held:
        vault.open(label(name), sealed)


def _keys(settings: Settings) -> Vault:
    folder = settings.folder
    tls = serialization.load_pem_private_key(keyfiles.read(folder / TLS_KEY), password=None)
    admin = serialization.load_pem_public_key(keyfiles.read(folder / ADMIN_PUBLIC))
    if not isinstance(tls, ec.EllipticCurvePrivateKey) or not isinstance(admin, ed25519.Ed25519PublicKey):
        raise Unusable(f"{folder}: the TLS key must be EC, the admin key Ed25519")
    return open_vault(settings)
