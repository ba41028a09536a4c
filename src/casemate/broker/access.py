"""Who may do what: an admin is known by a token or a certificate, has one role, in one tenant or in the whole broker.

Reading is an auditor's, everyday acts an operator's; policies, keys, tenants and admins are an owner's. An act that
`ROLES` does not name is an owner's.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec
from cryptography.hazmat.primitives import serialization
from joserfc import jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import OKPKey

from casemate.broker.refusals import Missing, Unauthenticated
from casemate.crypto import pins
from casemate.drivers.store import registry
from casemate.errors import Refused

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

Role = Literal["owner", "operator", "auditor"]
RANK: dict[str, int] = {"auditor": 1, "operator": 2, "owner": 3}
AUDIENCE = "KBS"
ADMIN = "admin"  # the role that tokens of the key of `init` name, as CoCo's do: owner of the whole broker
MAX_LIFETIME = 300
SKEW = 60
# The lowest role that may do an act; what is not here is an owner's.
ROLES: dict[str, Role] = {
    "app.list": "auditor",
    "app.found": "operator",
    "app.platforms": "owner",
    "release.list": "auditor",
    "release.add": "operator",
    "release.revoke": "operator",
    "resource.list": "auditor",
    "resource.put": "operator",
    "resource.delete": "operator",
    "resource.schedule": "operator",
    "reference.list": "auditor",
    "reference.add": "operator",
    "reference.delete": "operator",
    "anchor.list": "auditor",
    "policy.list": "auditor",
    "policy.check": "auditor",
    "policy.simulate": "auditor",
    "decision.list": "auditor",
    "lease.list": "auditor",
    "lease.end": "operator",
    "log.read": "auditor",
    "receipt.read": "auditor",
    "collateral.list": "auditor",
    "metrics.read": "auditor",
    "console.read": "auditor",
    "tenant.list": "auditor",
    "admin.list": "auditor",
    "approval.list": "auditor",
    "key.list": "auditor",
}


class Admin(msgspec.Struct, frozen=True):
    """Who acts: `who` is `issuer#subject`; `tenant` None stands for the whole broker."""

    who: str
    role: Role
    tenant: str | None = None

    def sees(self, tenant: str | None) -> bool:
        """Whether what belongs to `tenant` (None: to the broker itself) is this admin's to see."""
        return self.tenant is None or self.tenant == tenant


class Caller(Protocol):
    """What is asked of a request (Starlette's)."""

    @property
    def headers(self) -> Any:
        """Headers by name."""

    @property
    def state(self) -> Any:
        """Attributes that live as long as the request."""


def admit(broker: Broker, request: Caller, act: str) -> Admin:
    """The admin who asks, in whichever tenant; `demand` asks for the tenant too.

    401 (`admin.token`) without proof, 403 (`admin.role`) when the role is too low for `act`.
    """
    found = getattr(request.state, "admin", None)
    if not isinstance(found, Admin):
        found = _known(broker, request)
        request.state.admin = found
    least = ROLES.get(act, "owner")
    if RANK[found.role] < RANK[least]:
        raise Refused.because("admin.role", expected=least, found=found.role, hint=f"{act} is an {least}'s to do")
    return found


def demand(broker: Broker, request: Caller, act: str, *, tenant: str | None) -> Admin:
    """`admit`, and `act` must be on what is this admin's: of `tenant`, or (None) of the whole broker: 403 otherwise."""
    found = admit(broker, request, act)
    if not found.sees(tenant):
        raise Refused.because(
            "admin.tenant",
            expected="an admin of that tenant" if tenant is not None else "an admin of the whole broker",
            found="one of another tenant" if tenant is not None else "one of a tenant",
            hint="ask whose it is",
        )
    return found


def demand_app(broker: Broker, request: Caller, act: str, app_id: str) -> Admin:
    """`demand` for an app; another tenant's app and one that does not exist look alike (`Missing`)."""
    found = admit(broker, request, act)
    with broker.store.read() as tx:
        known = registry.statement(tx, app_id) if pins.is_digest(app_id) else None
    if known is None or not found.sees(known.founding.tenant):
        shown = app_id[:80] if pins.is_digest(app_id) else repr(app_id[:80])
        raise Missing(f"no app {shown}", hint="casemate app list shows the apps of this broker")
    return found


def _known(broker: Broker, request: Caller) -> Admin:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    claims = _claims(broker, token.strip()) if scheme.lower() == "bearer" else None
    if claims is None:
        raise Unauthenticated.because(
            "admin.token",
            expected=f"a current JWT (EdDSA, aud {AUDIENCE}, at most {MAX_LIFETIME} s) of the admin's key",
            found="another one" if token else "none",
            hint="the key that `init` made is needed",
        )
    if claims.get("role") != ADMIN:
        raise Refused.because("admin.role", expected=ADMIN, found="another role", hint="ask an admin")
    return Admin("init#admin", "owner")


def _claims(broker: Broker, token: str) -> dict[str, Any] | None:
    raw = broker.admin.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    now = broker.clock().timestamp()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # CoCo's admin tokens say EdDSA, RFC 9864 says Ed25519
            claims = jwt.decode(token, OKPKey.import_key(raw), algorithms=["EdDSA", "Ed25519"]).claims
        issued, ends = float(claims["iat"]), float(claims["exp"])
    except (JoseError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    audience = claims.get("aud")
    named = AUDIENCE in audience if isinstance(audience, list) else audience == AUDIENCE
    timely = issued <= now + SKEW and now < ends <= issued + MAX_LIFETIME
    return claims if named and timely else None
