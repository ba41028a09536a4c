"""Who may do what: an admin is known by a token or a certificate, has one role, in one tenant or in the whole broker.

Reading is an auditor's, everyday acts an operator's; policies, keys, tenants and admins are an owner's. An act that
`ROLES` does not name is an owner's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from casemate.broker import identities
from casemate.broker.identities import Access, Admin, build
from casemate.broker.oidc import RANK, Role
from casemate.broker.refusals import Missing
from casemate.crypto import pins
from casemate.drivers.store import accounts, vaulted
from casemate.errors import Finding, Refused

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

__all__ = [
    "ROLES",
    "Access",
    "Admin",
    "Caller",
    "admit",
    "build",
    "demand",
    "demand_app",
    "demand_path",
    "demand_repo",
    "demand_seen",
    "identify",
    "in_repo",
    "tenant_of_app",
    "tenant_of_path",
]

_LOG = logging.getLogger("casemate.access")
_SAFE = ("GET", "HEAD")
# The lowest role that may do an act; what is not here is an owner's.
ROLES: dict[str, Role] = {
    "app.list": "auditor",
    "app.found": "operator",
    "app.platforms": "owner",
    "app.audiences": "owner",
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
    "admin.whoami": "auditor",
}


class Caller(Protocol):
    """What is asked of a request (Starlette's)."""

    @property
    def headers(self) -> Any:
        """Headers by name."""

    @property
    def state(self) -> Any:
        """Attributes that live as long as the request."""

    @property
    def method(self) -> str:
        """The method's name."""


def admit(broker: Broker, request: Caller, act: str) -> Admin:
    """The admin who asks, in whichever tenant; `demand` asks for the tenant too.

    401 (`admin.token`) without proof, 403 (`admin.role`) when the role is too low for `act`.
    """
    with _noted(broker, request, act):
        found = identify(broker, request)
        least = ROLES.get(act, "owner")
        if RANK[found.role] < RANK[least]:
            raise Refused.because("admin.role", expected=least, found=found.role, hint=f"{act} needs the role {least}")
        return found


def demand(broker: Broker, request: Caller, act: str, *, tenant: str | None) -> Admin:
    """`admit`, and `act` must be on what is this admin's: of `tenant`, or (None) of the whole broker: 403 otherwise."""
    found = admit(broker, request, act)
    if not found.sees(tenant):
        with _noted(broker, request, act):
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
        tenant = accounts.tenant_of(tx, app_id) if pins.is_digest(app_id) else None
    if tenant is None or not found.sees(tenant):
        shown = app_id[:80] if pins.is_digest(app_id) else repr(app_id[:80])
        with _noted(broker, request, act, crossed=tenant is not None):
            raise Missing(f"no app {shown}", hint="casemate app list shows the apps of this broker")
    return found


def demand_seen(broker: Broker, request: Caller, act: str, missing: Missing) -> None:
    """Answer an attempt on another tenant's thing as if there were none, and note it."""
    with _noted(broker, request, act, crossed=True):
        raise missing


def tenant_of_app(broker: Broker, app_id: str) -> str | None:
    """The tenant of an app, None when there is no such app."""
    with broker.store.read() as tx:
        return accounts.tenant_of(tx, app_id)


def demand_path(broker: Broker, request: Caller, act: str, path: str) -> Admin:
    """`demand` for a resource; another tenant's and one that does not exist look alike (`Missing`)."""
    found = admit(broker, request, act)
    tenant = tenant_of_path(broker, path)
    if not found.sees(tenant):
        with _noted(broker, request, act, crossed=tenant is not None):
            raise Missing(f"no resource {path}")
    return found


def tenant_of_path(broker: Broker, path: str) -> str | None:
    """Whose a resource is: by the settings' map of repositories, else its app's tenant, else nobody's (None)."""
    mapped = broker.settings.repos.get(path.partition("/")[0])
    if mapped is not None:
        return mapped
    with broker.store.read() as tx:
        owned = vaulted.owner(tx, path)
        return accounts.tenant_of(tx, owned.app_id) if owned else None


def demand_repo(broker: Broker, path: str, tenant: str | None) -> None:
    """A repository that the settings give to one tenant takes nothing of another's apps."""
    found = in_repo(broker, path, tenant)
    if not found.ok:
        raise Refused((found,))


def in_repo(broker: Broker, path: str, tenant: str | None) -> Finding:
    """`resource.repo`: whether something of `tenant` may lie at `path`."""
    mapped = broker.settings.repos.get(path.partition("/")[0])
    ok = mapped is None or mapped == tenant
    hint = "" if ok else "choose another repository; the setting `repos` says whose each one is"
    found = "that" if ok else "another tenant's"
    return Finding("resource.repo", "a repository of this app's tenant, or nobody's", found, hint, ok=ok)


def identify(broker: Broker, request: Caller) -> Admin:
    """Who asks: by bearer token, else by client certificate; remembered for this request."""
    found = getattr(request.state, "admin", None)
    if isinstance(found, Admin):
        return found
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    certificate = getattr(request.state, "client_certificate", None)
    if scheme.lower() == "bearer" and token.strip():
        found = identities.by_token(broker, token.strip(), console=getattr(request, "console", False))
    elif isinstance(certificate, bytes):
        _demand_same_site(request)
        found = identities.by_certificate(broker, certificate)
    else:
        raise identities.nobody("none")
    request.state.admin = found
    return found


def _demand_same_site(request: Caller) -> None:
    """Browsers show a certificate for every page that asks them to; only our own pages may make them act."""
    origin = request.headers.get("origin", "")
    foreign = origin and urlsplit(origin).netloc != request.headers.get("host", "")
    if request.method not in _SAFE and (
        foreign or request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
    ):
        raise Refused.because(
            "admin.origin", expected="a request of this broker's own pages", found="another site's", hint="use a token"
        )


@contextmanager
def _noted(broker: Broker, request: Caller, act: str, *, crossed: bool = False) -> Iterator[None]:
    """Count a refusal and say in the log who tried what; never a token."""
    try:
        yield
    except (Refused, Missing) as error:
        rule = error.findings[0].rule if isinstance(error, Refused) and error.findings else "admin.missing"
        rule = "admin.tenant" if crossed else rule
        who = getattr(request.state, "admin", None)
        fields = {"act": act, "rule": rule, "who": who.who if isinstance(who, Admin) else None}
        _LOG.warning("admin refused", extra={"fields": fields})
        if rule != "admin.missing":
            broker.log.count("admin", [rule])
        raise
