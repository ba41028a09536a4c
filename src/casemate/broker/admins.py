"""Recorded admins: their keys, certificates and subjects. A tenant's owner makes and removes its own.

Public keys and certificates are public, and somebody is an admin of one tenant alone. So a tenant's owner records only
who agreed: the key's holder signs a proof, a JWT for the audience `casemate-admin` that names the tenant.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from sqlalchemy import Connection, exc

from casemate.broker import approvals, identities, journal
from casemate.broker.oidc import RANK, Role
from casemate.broker.refusals import Conflicting, Missing
from casemate.crypto import jws, pins
from casemate.crypto.signatures import PublicKey
from casemate.drivers.store import accounts
from casemate.drivers.store.accounts import Account
from casemate.errors import Malformed, Refused

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_MAX_PEM = 16 << 10
MAX_PROOF = 7 * 86400  # seconds: it may have to wait for a second owner


class NewAdmin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An admin and one thing that it is known by.

    `key` or `certificate` (PEM) with a `name`; with `renewable` every certificate of that subject from that CA counts.
    Or `issuer` and `subject` of a configured issuer's tokens. `proof` is the word of the key's holder, which a tenant's
    owner needs.
    """

    role: Role
    name: str = ""
    key: str = ""
    certificate: str = ""
    renewable: bool = False
    issuer: str = ""
    subject: str = ""
    proof: str = ""


def add(broker: Broker, tenant: str | None, asked: NewAdmin, *, by: identities.Admin) -> Account:
    """Record an admin of a tenant, or (None) of the whole broker; `Conflicting` when it is one already."""
    if by.tenant is not None and (asked.issuer or asked.renewable):
        raise Refused.because(
            "admin.tenant",
            expected="an owner of the whole broker, who answers for issuers and CAs",
            found="an owner of a tenant",
            hint="record a key or a certificate",
        )
    made = _account(broker, tenant, asked)
    if by.tenant is not None and not _agreed(broker, tenant, asked):
        raise Refused.because(
            "admin.proof",
            expected="a proof, by that key, that its holder is to be an admin of this tenant",
            found="another one" if asked.proof else "none",
            hint="who holds the key runs: casemate admin proof --tenant TENANT --key KEY",
        )

    def act(tx: Connection) -> None:
        if tenant is not None and accounts.tenant(tx, tenant) is None:
            raise Missing(f"no tenant {tenant}", hint="casemate tenant add")
        accounts.add_admin(tx, made, broker.clock())
        facts = {"tenant": tenant, "admin": made.who, "role": made.role, "known_by": made.known_by}
        journal.admin(broker, tx, who=by.who, act="admin.set", facts=facts)

    try:
        with broker.store.write() as tx:
            act(tx)
    except exc.IntegrityError:
        raise Conflicting.because(
            "admin.known",
            expected="a new name and a key, certificate or subject that is nobody's yet",
            found="one that is taken",
            hint="casemate admin list",
        ) from None
    return made


def remove(broker: Broker, who: str, *, by: str) -> None:
    """Forget an admin; what it asked for and nobody approved yet is rejected."""
    with broker.store.write() as tx:
        found = accounts.admin_named(tx, who)
        if found is None or not accounts.remove_admin(tx, who):
            raise Missing("no admin of that name", hint="casemate admin list")
        approvals.forget(tx, broker, who)
        facts = {"tenant": found.tenant, "admin": who, "role": None}
        journal.admin(broker, tx, who=by, act="admin.set", facts=facts)


def listing(broker: Broker) -> list[Account]:
    """Every recorded admin."""
    with broker.store.read() as tx:
        return accounts.all_admins(tx)


def named(broker: Broker, who: str) -> Account | None:
    """The recorded admin of that name, or None."""
    with broker.store.read() as tx:
        return accounts.admin_named(tx, who)


def _account(broker: Broker, tenant: str | None, asked: NewAdmin) -> Account:
    if asked.role not in RANK or sum(map(bool, (asked.key, asked.certificate, asked.issuer))) != 1:
        raise Malformed("admin: exactly one of `key`, `certificate`, and `issuer` with `subject` is wanted")
    if asked.issuer:
        return _by_token(broker, tenant, asked)
    if not _NAME.fullmatch(asked.name) or max(len(asked.key), len(asked.certificate)) > _MAX_PEM:
        raise Malformed("admin: a name of up to 64 letters, digits, `.`, `_`, `@` and `-` is wanted")
    shown = asked.name if tenant is None else f"{tenant}/{asked.name}"
    if asked.key:
        public = _public_key(asked.key)
        return Account(f"key#{shown}", f"key:{jws.thumbprint(public)}", _pem(public), asked.role, tenant, "")
    certificate = _certificate(asked.certificate)
    known_by = f"certificate:{pins.digest(certificate.public_bytes(serialization.Encoding.DER))}"
    if asked.renewable:
        known_by = _by_subject(broker, certificate)
    subject = certificate.subject.rfc4514_string()[:1000]
    return Account(f"certificate#{shown}", known_by, subject, asked.role, tenant, "")


def _agreed(broker: Broker, tenant: str | None, asked: NewAdmin) -> bool:
    public = _public_key(asked.key) if asked.key else _certificate(asked.certificate).public_key()
    try:
        said = jws.parse(asked.proof)
        identities.demand_current(broker, said.claims, identities.PROOF, MAX_PROOF)
        return said.signed_by(jws.of(public)) and said.claims.get("tenant") == tenant
    except Malformed:
        return False


def _by_token(broker: Broker, tenant: str | None, asked: NewAdmin) -> Account:
    named = broker.access.issuers.get(asked.issuer)
    who = named[0].who({"sub": asked.subject}) if named else None
    if who is None:
        raise Malformed("admin: an issuer of the setting admin_issuers and a subject are wanted")
    return Account(who, f"token:{who}", "", asked.role, tenant, "")


def _by_subject(broker: Broker, certificate: x509.Certificate) -> str:
    found = identities.signers(broker.access, certificate)
    if not found or not list(certificate.subject):
        raise Malformed("certificate: a subject, issued by a CA of the setting client_ca, is wanted")
    return identities.subject_of(found[0], certificate)


def _public_key(text: str) -> PublicKey:
    try:
        return jws.of(serialization.load_pem_public_key(text.encode())).public
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Malformed("key: a public key in PEM is wanted (Ed25519, EC P-256 or RSA)") from error


def _certificate(text: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(text.encode())
    except ValueError as error:
        raise Malformed("certificate: a certificate in PEM is wanted") from error


def _pem(public: PublicKey) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return public.public_bytes(encoding, form).decode()
