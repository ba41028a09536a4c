"""Wiring of the broker role: settings in, a broker out. Nothing here decides."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from casemate.broker import derived, identities, log, policies, rollback, signers
from casemate.broker.derived import Deriver
from casemate.broker.identities import Access
from casemate.broker.keyring import Keyring
from casemate.broker.log import Log
from casemate.broker.meter import Meter
from casemate.broker.policies import Policies
from casemate.broker.rollback import Memory
from casemate.broker.settings import FILE, Settings, load
from casemate.broker.signers import RingCookies, Signers
from casemate.broker.vault import KEY_SIZE, Vault
from casemate.crypto import pins, selfsigned
from casemate.drivers import keyfiles, masterkey
from casemate.drivers.store import Store
from casemate.errors import Unusable

MASTER_KEY, TLS_KEY, TLS_CERTIFICATE, ADMIN_PUBLIC = "master.key", "tls.key", "tls.crt", "admin.pub"


@dataclass(frozen=True)
class Broker:
    """Everything that a decision needs. `clock` tells the time; `pin` is that of the broker's own TLS key."""

    settings: Settings
    store: Store
    vault: Vault
    cookies: RingCookies
    signer: Signers
    pin: str
    admin: ed25519.Ed25519PublicKey
    clock: Callable[[], datetime]
    log: Log
    deriver: Deriver
    access: Access
    keyrings: tuple[Keyring, ...]
    policies: Policies
    memory: Memory
    meter: Meter = field(default_factory=Meter)

    def close(self) -> None:
        """End the log's writer, give back the store's connections."""
        self.log.close()
        self.memory.close()
        self.policies.close()
        self.store.close()
        self.vault.close()


def assemble(
    settings: Settings,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    accept_rollback: int | None = None,
) -> Broker:
    """A broker on its folder's keys; the store is migrated, shared keys are made when absent.

    A store that is behind what was seen of it is `Refused`, unless `accept_rollback` names its log's size.
    """
    folder = settings.folder
    vault = open_vault(settings)
    tls = serialization.load_pem_private_key(keyfiles.read(folder / TLS_KEY), password=None)
    admin = serialization.load_pem_public_key(keyfiles.read(folder / ADMIN_PUBLIC))
    if not isinstance(tls, ec.EllipticCurvePrivateKey) or not isinstance(admin, ed25519.Ed25519PublicKey):
        raise Unusable(f"{folder}: the TLS key must be EC, the admin key Ed25519")
    renew_certificate(settings, tls, clock())
    store = Store(settings.store_url)
    store.migrate()
    signing = Keyring(store, vault, signers.SIGNING, signers.make, clock)
    sealing = Keyring(store, vault, signers.COOKIE, lambda: os.urandom(KEY_SIZE), clock)
    made = Broker(
        settings=settings,
        store=store,
        vault=vault,
        cookies=RingCookies(sealing),
        signer=Signers(signing),
        pin=pins.digest(_spki(tls)),
        admin=admin,
        clock=clock,
        log=log.build(store, vault, clock),
        memory=rollback.build(settings, store, demanding=accept_rollback is None),
        deriver=derived.build(settings, store, vault, clock),
        access=identities.build(settings, admin),
        keyrings=(signing, sealing),
        policies=policies.build(settings),
    )
    if accept_rollback is not None:
        rollback.accept(made, accept_rollback)
    made.memory.start()
    return made


def open_vault(settings: Settings) -> Vault:
    """The vault on the settings' master keys; it reads them anew when the settings' file changed."""
    folder, path = settings.folder, settings.folder / FILE

    def stamp() -> object:
        try:
            found = path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def reread() -> tuple[masterkey.MasterKey, ...]:
        return masterkey.open_all(load(folder).masters, folder)

    return Vault(masterkey.open_all(settings.masters, folder), reread=reread, stamp=stamp)


def renew_certificate(settings: Settings, key: ec.EllipticCurvePrivateKey, now: datetime) -> None:
    """Make the TLS certificate when there is none or it nears its end; the key, and so the pin, stays."""
    from cryptography import x509

    path = settings.folder / TLS_CERTIFICATE
    if path.exists() and not selfsigned.is_due(x509.load_pem_x509_certificate(path.read_bytes()), key, now):
        return
    made = selfsigned.certificate(key, settings.names, now)
    keyfiles.write(path, made.public_bytes(serialization.Encoding.PEM))


def _spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
