"""What `casemate serve --check` looks at: everything that would keep a broker from starting, without starting it.

The store is not opened: it may be another machine's, or in use. Keys are read, never shown.
"""

from __future__ import annotations

import ipaddress
import socket

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from casemate.broker.assemble import ADMIN_PUBLIC, TLS_KEY, open_vault
from casemate.broker.settings import Settings
from casemate.drivers import keyfiles
from casemate.errors import Unusable
from casemate.tee import ROOMS


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
    _store(settings)
    _keys(settings)


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


def _store(settings: Settings) -> None:
    try:
        make_url(settings.store_url).get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise Unusable(
            "store: not the URL of a database that is known", hint="sqlite:/// or postgresql+psycopg://"
        ) from error


def _keys(settings: Settings) -> None:
    folder = settings.folder
    tls = serialization.load_pem_private_key(keyfiles.read(folder / TLS_KEY), password=None)
    admin = serialization.load_pem_public_key(keyfiles.read(folder / ADMIN_PUBLIC))
    if not isinstance(tls, ec.EllipticCurvePrivateKey) or not isinstance(admin, ed25519.Ed25519PublicKey):
        raise Unusable(f"{folder}: the TLS key must be EC, the admin key Ed25519")
    open_vault(settings).close()
