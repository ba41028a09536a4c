"""Who a caller is, by a token or by the certificate of its TLS connection.

Rules
1. A token of a configured issuer is judged by that issuer's keys alone, any other by the recorded keys of admins and
   the key of `init`. Audience, time and length of life are always asked; clocks may differ by `SKEW` seconds.
2. Who somebody is comes from what was proved (the key, the certificate, issuer and subject), never from what a token of
   an admin's own key says of itself: the two-person rule rests on it.
3. A certificate that TLS accepted is somebody only when it, or its subject below its CA, was recorded.
4. A refusal does not say which rule failed: strangers learn nothing, the log knows.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from casemate.broker.oidc import RANK, WHOLE, Issuer, Role
from casemate.broker.refusals import Unauthenticated
from casemate.broker.settings import Settings
from casemate.crypto import jws, pins
from casemate.drivers.issuers import Keys, Source
from casemate.drivers.store import accounts
from casemate.errors import CasemateError, Malformed, Refused, Unusable

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

AUDIENCE = "KBS"
ADMIN = "admin"  # the role that tokens of the key of `init` name, as CoCo's do: owner of the whole broker
INIT = "init#admin"
PROOF = "casemate-admin"  # the audience of a word by which a key's holder agrees to be an admin of a tenant
CONSOLE = "casemate-console"  # the audience of a token that only signs in at the console, and may live longer
MAX_LIFETIME = 300
MAX_CONSOLE = 3600
SKEW = 60
_MAX_AUTHORITIES = 64
_LOG = logging.getLogger("casemate.access")


class Admin(msgspec.Struct, frozen=True):
    """Who acts: `who` is `issuer#subject`; `tenant` None stands for the whole broker."""

    who: str
    role: Role
    tenant: str | None = None

    def sees(self, tenant: str | None) -> bool:
        """Whether what belongs to `tenant` (None: to the broker itself) is this admin's to see."""
        return self.tenant is None or self.tenant == tenant


@dataclass(frozen=True)
class Access:
    """What identities are judged by: the settings' issuers, and the CAs of client certificates (DER by fingerprint)."""

    issuers: dict[str, tuple[Issuer, Keys]]
    authorities: dict[str, x509.Certificate]
    first: ed25519.Ed25519PublicKey

    @cached_property
    def first_key(self) -> jws.Key:
        """The key of `init`."""
        return jws.of(self.first)

    @cached_property
    def first_kid(self) -> str:
        """Its thumbprint."""
        return jws.thumbprint(self.first)


def build(settings: Settings, first: ed25519.Ed25519PublicKey) -> Access:
    """Access by these settings; `first` is the admin's key of `init`. Files are named from the broker's folder."""

    def keys(issuer: Issuer) -> Keys:
        jwks = issuer.jwks if issuer.jwks.startswith("https://") or not issuer.jwks else str(folder / issuer.jwks)
        return Keys(Source(issuer.issuer, jwks, folder / issuer.ca if issuer.ca else None))

    folder = settings.folder
    issuers = {issuer.issuer: (issuer, keys(issuer)) for issuer in settings.admin_issuers}
    if len(issuers) != len(settings.admin_issuers):
        raise Malformed("admin_issuers: one issuer is named twice")
    return Access(issuers, authorities(folder / settings.client_ca) if settings.client_ca else {}, first)


def authorities(path: Path) -> dict[str, x509.Certificate]:
    """The certificates (PEM) under which clients' certificates are accepted, by fingerprint."""
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes()[: 1 << 20])
    except (OSError, ValueError) as error:
        raise Unusable(f"{path} holds no certificates in PEM", hint="see the setting client_ca") from error
    if len(found) > _MAX_AUTHORITIES:
        raise Unusable(f"{path} holds {len(found)} certificates, at most {_MAX_AUTHORITIES} are allowed")
    return {pins.digest(one.public_bytes(serialization.Encoding.DER)): one for one in found}


def by_token(broker: Broker, token: str, *, console: bool = False) -> Admin:
    """The admin of a token; `Unauthenticated` (`admin.token`), `Refused` (`admin.*`), or `Unavailable`.

    With `console` one for the console's login will do too.
    """
    try:
        said = jws.parse(token)
        issuer = said.claims.get("iss")
        named = broker.access.issuers.get(issuer) if isinstance(issuer, str) else None
        return _of_key(broker, said, console) if named is None else _of_issuer(broker, said, *named)
    except Malformed as error:
        _LOG.info("token refused", extra={"fields": {"rule": "admin.token", "why": str(error)[:200]}})
        raise nobody("another one") from None


def by_certificate(broker: Broker, der: bytes) -> Admin:
    """The admin of a client certificate that TLS accepted."""
    try:
        certificate = x509.load_der_x509_certificate(der)
    except ValueError:
        raise nobody("a certificate that cannot be read") from None
    now = broker.clock()
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise nobody("a certificate that is not current")
    names = [f"certificate:{pins.digest(der)}"]
    names += [subject_of(fingerprint, certificate) for fingerprint in signers(broker.access, certificate)]
    with broker.store.read() as tx:
        found = next((one for one in (accounts.admin(tx, name) for name in names) if one is not None), None)
    if found is None:
        raise nobody("a certificate that is no admin's")
    return _recorded(found)


def subject_of(authority: str, certificate: x509.Certificate) -> str:
    """What a subject below a CA (by fingerprint) is known by."""
    return f"subject:{authority}:{pins.digest(certificate.subject.public_bytes())}"


def nobody(found: str) -> Unauthenticated:
    """The refusal of a caller who did not prove to be an admin."""
    return Unauthenticated.because(
        "admin.token",
        expected=f"a current JWT of an admin's key (EdDSA or ES256, aud {AUDIENCE}, at most {MAX_LIFETIME} s) or of a "
        "configured issuer, or an admin's certificate",
        found=found,
        hint="the key that `init` made is needed: casemate admin token",
    )


def _of_key(broker: Broker, said: jws.Token, console: bool) -> Admin:
    longer = console and said.claims.get("aud") in (CONSOLE, [CONSOLE])
    audience, longest = (CONSOLE, MAX_CONSOLE) if longer else (AUDIENCE, MAX_LIFETIME)
    if said.kid is None or said.kid == broker.access.first_kid:
        _demand(said, (broker.access.first_key,))
        demand_current(broker, said.claims, audience, longest)
        if said.claims.get("role") != ADMIN:
            raise Refused.because("admin.role", expected=ADMIN, found="another role", hint="ask an admin")
        return Admin(INIT, "owner")
    with broker.store.read() as tx:
        found = accounts.admin(tx, f"key:{said.kid[:200]}")
    if found is None:
        raise Malformed("nobody has that key")
    _demand(said, (jws.of(serialization.load_pem_public_key(found.credential.encode())),))
    demand_current(broker, said.claims, audience, longest)
    return _recorded(found)


def _of_issuer(broker: Broker, said: jws.Token, issuer: Issuer, keys: Keys) -> Admin:
    _demand(said, keys.named(said.kid))
    demand_current(broker, said.claims, issuer.audience, issuer.max_seconds)
    who = issuer.who(said.claims)
    if who is None:
        raise Malformed("the token names no subject")
    with broker.store.read() as tx:
        found = accounts.admin(tx, f"token:{who}")
    if found is not None:
        return _recorded(found)
    role, scope = issuer.role(said.claims), issuer.scope(said.claims)
    if role is None or scope is None:
        raise Refused.because(
            "admin.role",
            expected="a role and a tenant, by the token's claims or by `casemate admin add`",
            found="none",
            hint="ask an owner",
        )
    if scope == WHOLE:
        return Admin(who, role)
    with broker.store.read() as tx:
        if accounts.tenant(tx, scope) is None:
            raise Refused.because(
                "admin.tenant", expected="a tenant of this broker", found="another", hint="casemate tenant add"
            )
    return Admin(who, role, scope)


def _demand(said: jws.Token, keys: tuple[jws.Key, ...]) -> None:
    if not any(said.signed_by(key) for key in keys):
        raise Malformed("no known key signed it")


def demand_current(broker: Broker, claims: dict[str, Any], audience: str, longest: int) -> None:
    """`Malformed` unless a token's claims are for that audience, current, and last at most `longest` seconds."""
    now = broker.clock().timestamp()
    said = claims.get("aud")
    if not (audience in said if isinstance(said, list) else said == audience):
        raise Malformed("it is for another audience")
    issued, ends, begins = (_moment(claims.get(name)) for name in ("iat", "exp", "nbf"))
    if issued is None or ends is None or (begins is None and "nbf" in claims):
        raise Malformed("its times are missing or no numbers")
    if issued > now + SKEW or (begins is not None and begins > now + SKEW):
        raise Malformed("it is not valid yet")
    if not now < ends <= issued + longest:
        raise Malformed("it has ended, or lives too long")


def _moment(value: object) -> float | int | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _recorded(found: accounts.Account) -> Admin:
    if found.role not in RANK:
        raise Unusable("the store names a role that is not known")
    return Admin(found.who, cast("Role", found.role), found.tenant)


def signers(access: Access, certificate: x509.Certificate) -> list[str]:
    """Fingerprints of the CAs that issued a certificate directly."""
    found = []
    for fingerprint, authority in access.authorities.items():
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature, CasemateError):
            continue
        found.append(fingerprint)
    return found
