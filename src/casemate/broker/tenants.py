"""Tenants: whose apps, resources, policies, reference values and admins there are, and what each of them settled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from casemate.broker import journal
from casemate.broker.access import ROLES
from casemate.broker.oidc import TENANT, WHOLE
from casemate.broker.refusals import Conflicting, Missing
from casemate.drivers.store import accounts
from casemate.errors import Malformed, Refused

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

# With any act under the two-person rule these are too: else one owner could lift it, or make a second self.
IMPLIED = ("tenant.set", "admin.set")
# One route does both, now or later: with either under the rule the other one is too.
_TOGETHER = ("resource.delete", "resource.schedule")
_MAX_ACTS = 64


class Tenant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a tenant (or, as `*`, the broker for what is its own) settled.

    `unsigned_references`: reference values need no signature. `two_person`: acts that a second owner must approve.
    `max_decisions`: how many decisions its admins are shown at most.
    """

    unsigned_references: bool = False
    two_person: Annotated[tuple[str, ...], Meta(max_length=_MAX_ACTS)] = ()
    max_decisions: Annotated[int, Meta(ge=1, le=10000)] = 10000

    def holds(self, act: str) -> bool:
        """Whether an act waits for a second owner."""
        also = (*IMPLIED, *(_TOGETHER if any(one in self.two_person for one in _TOGETHER) else ()))
        return act in self.two_person or (bool(self.two_person) and act in also)


class Changes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings to change; what is left out stays."""

    unsigned_references: bool | msgspec.UnsetType = msgspec.UNSET
    two_person: Annotated[tuple[str, ...], Meta(max_length=_MAX_ACTS)] | msgspec.UnsetType = msgspec.UNSET
    max_decisions: Annotated[int, Meta(ge=1, le=10000)] | msgspec.UnsetType = msgspec.UNSET


def name_of(text: str) -> str | None:
    """A tenant's name from outside; `*` is the broker itself (None)."""
    if text == WHOLE:
        return None
    if not TENANT.fullmatch(text):
        raise Malformed("a tenant's name has up to 128 letters, digits, `.`, `_` and `-`")
    return text


def settings(broker: Broker, name: str | None) -> Tenant:
    """What a tenant (None: the broker itself) settled; one that does not exist settled nothing."""
    with broker.store.read() as tx:
        return settled(tx, name)


def settled(tx: Connection, name: str | None) -> Tenant:
    """`settings` inside a transaction."""
    found = accounts.tenant(tx, name)
    return msgspec.json.decode(found, type=Tenant) if found is not None else Tenant()


def listing(broker: Broker) -> dict[str | None, Tenant]:
    """Every tenant; the broker itself is None."""
    with broker.store.read() as tx:
        found: dict[str | None, Tenant] = {
            name: msgspec.json.decode(text, type=Tenant) for name, text in accounts.all_tenants(tx).items()
        }
    return {None: found.pop(WHOLE, Tenant()), **found}


def add(broker: Broker, name: str, *, who: str) -> None:
    """Make a tenant; `Conflicting` when there is one of that name."""
    if name_of(name) is None:
        raise Malformed("`*` is the broker itself and no tenant's name")

    def act(tx: Connection) -> None:
        if accounts.tenant(tx, name) is not None:
            raise Conflicting.because(
                "tenant.name", expected="a new name", found=f"{name}: there is one", hint="casemate tenant list"
            )
        make(tx, broker, name, who=who)

    broker.store.written(act)


def make(tx: Connection, broker: Broker, name: str, *, who: str) -> None:
    """Record a tenant with the default settings."""
    accounts.set_tenant(tx, name, msgspec.json.encode(Tenant()).decode(), broker.clock())
    journal.admin(broker, tx, who=who, act="tenant.set", facts={"tenant": name, "new": True})


def change(broker: Broker, name: str | None, changes: Changes, *, who: str) -> Tenant:
    """Change a tenant's settings; `Missing` when there is none of that name."""
    said = {field: value for field, value in msgspec.structs.asdict(changes).items() if value is not msgspec.UNSET}
    _demand_acts(said.get("two_person", ()))

    def act(tx: Connection) -> Tenant:
        if name is not None and accounts.tenant(tx, name) is None:
            raise Missing(f"no tenant {name}", hint="casemate tenant list")
        made = msgspec.structs.replace(settled(tx, name), **said)
        if made.two_person:
            _demand_two(tx, broker, name)
        accounts.set_tenant(tx, name, msgspec.json.encode(made).decode(), broker.clock())
        facts = {"tenant": name, **msgspec.to_builtins(made)}
        journal.admin(broker, tx, who=who, act="tenant.set", facts=facts)
        return made

    return broker.store.written(act)


def _demand_acts(acts: tuple[str, ...]) -> None:
    for name in acts:
        if ROLES.get(name) == "auditor" or not name.isascii() or not 3 <= len(name) <= 64:
            raise Malformed(f"two_person: {name[:64]!r} is no act that changes something")


def _demand_two(tx: Connection, broker: Broker, name: str | None) -> None:
    # The key of `init` is one owner; an issuer may make others that nobody can count.
    if accounts.owners(tx, name, own=True) < 1 and not broker.access.issuers:
        raise Refused.because(
            "tenant.two_person",
            expected="a recorded owner of its own beside the key of `init`: one approves what another asks for",
            found="none",
            hint="casemate admin add --role owner",
        )
