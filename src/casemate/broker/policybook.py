"""The policies that a broker keeps: set them, take them back, look at them and at their history."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from casemate.broker import journal, trust
from casemate.broker.policies import RESOURCE_NAME
from casemate.broker.refusals import Missing
from casemate.drivers.rego import Compiled, Pool
from casemate.drivers.store import policies as stored
from casemate.drivers.store.policies import ATTESTATION, RESOURCE, Stored
from casemate.errors import Malformed, Problem
from casemate.policy.rego import lint, shipped
from casemate.policy.rego.plan import Program

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from casemate.broker.assemble import Broker

KINDS = (ATTESTATION, RESOURCE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def demand_name(kind: str, name: str) -> None:
    """`Malformed` unless a policy of that kind can have that name."""
    if kind not in KINDS or not _NAME.fullmatch(name):
        raise Malformed("policy: a kind (attestation, resource) and a name of letters, digits and _.- are wanted")
    if kind == RESOURCE and name != RESOURCE_NAME:
        raise Malformed(f"policy: the resource policy is called {RESOURCE_NAME}")


def check(pool: Pool, kind: str, text: str, group: str = "") -> tuple[Compiled, list[lint.Remark]]:
    """The compiled policy and what is to be said of it; `Malformed` when it can't be compiled.

    `group` is the tenant whose turn at the compiler it takes: `Compiling` when it gets none.
    """
    compiled = pool.fresh(text, group)
    return compiled, lint.lint(text, Program(compiled.plan), kind)


def put(broker: Broker, tenant: str, kind: str, name: str, text: str, *, who: str) -> dict[str, Any]:
    """Set a tenant's policy ("" is the whole broker's); `Malformed` when it does not compile or lacks its rules."""
    demand_name(kind, name)
    compiled, remarks = check(broker.policies.pool, kind, text, tenant)
    if wrong := lint.errors(remarks):
        problems = [Problem("policy", remark.message, line=remark.line) for remark in wrong]
        raise Malformed("policy: " + "; ".join(map(str, problems)), problems=problems)

    def act(tx: Connection) -> int:
        held = stored.current(tx, tenant).get((kind, name))
        where, now = (tenant, kind, name), broker.clock()
        version = stored.put(tx, where, text, digest=compiled.digest, who=who, now=now)
        same = held is not None and held.digest == compiled.digest
        ended = {} if same else _recalled(broker, tx, tenant, kind)
        _log(broker, tx, who, tenant, kind=kind, name=name, version=version, digest=compiled.digest, **ended)
        return version

    version = broker.store.written(act)
    warnings = [remark._asdict() for remark in remarks]
    return {"kind": kind, "name": name, "version": version, "digest": compiled.digest, "remarks": warnings}


def remove(broker: Broker, tenant: str, kind: str, name: str, *, who: str) -> dict[str, Any]:
    """Take a tenant's policy back: what holds without it holds again. The history stays."""
    demand_name(kind, name)

    def act(tx: Connection) -> int:
        held = stored.current(tx, tenant).get((kind, name))
        if held is None or held.tenant != tenant:
            raise Missing(f"no {kind} policy {name}", hint="casemate policy list")
        version = stored.put(tx, (tenant, kind, name), None, digest="", who=who, now=broker.clock())
        ended = _recalled(broker, tx, tenant, kind)
        _log(broker, tx, who, tenant, kind=kind, name=name, version=version, digest=None, **ended)
        return version

    return {"kind": kind, "name": name, "version": broker.store.written(act)}


def listing(broker: Broker, tenant: str) -> list[dict[str, Any]]:
    """The policies that hold for a tenant: where each comes from (`tenant`, `broker`, `shipped`)."""
    with broker.store.read() as tx:
        held = stored.current(tx, tenant)
    found = {key: _entry(policy) for key, policy in held.items()}
    names = [(ATTESTATION, f"default_{kind}") for kind in shipped.CLASSES]
    for kind, name in [*names, (RESOURCE, RESOURCE_NAME)]:
        found.setdefault((kind, name), {"kind": kind, "name": name, "from": "shipped", "version": 0, "digest": None})
    return [found[key] for key in sorted(found)]


def read(broker: Broker, tenant: str, kind: str, name: str) -> dict[str, Any]:
    """The policy that holds, with its text, and the history of the tenant's own versions; `Missing`."""
    demand_name(kind, name)
    with broker.store.read() as tx:
        held = stored.current(tx, tenant).get((kind, name))
        text = stored.text(tx, held) if held else None
        history = stored.history(tx, tenant, kind, name)
    if held is not None:
        return {**_entry(held), "text": text, "history": history}
    own = shipped.text(shipped.RESOURCE if kind == RESOURCE else name)
    if own is None:
        raise Missing(f"no {kind} policy {name}", hint="casemate policy list")
    entry = {"kind": kind, "name": name, "from": "shipped", "version": 0, "digest": None}
    return {**entry, "text": own, "history": history}


def _entry(policy: Stored) -> dict[str, Any]:
    source = "tenant" if policy.tenant else "broker"
    facts = {"version": policy.version, "digest": policy.digest}
    return {"kind": policy.kind, "name": policy.name, "from": source, **facts}


def _recalled(broker: Broker, tx: Connection, tenant: str, kind: str) -> dict[str, int]:
    """Results by another attestation policy are over: guests attest anew. A resource policy is asked at each read."""
    return trust.recalled(broker, tx, "policy.set", tenant=tenant or None) if kind == ATTESTATION else {}


def _log(broker: Broker, tx: Connection, who: str, tenant: str, **facts: Any) -> None:
    journal.admin(broker, tx, who=who, act="policy.set", facts={"tenant": tenant or None, **facts})
