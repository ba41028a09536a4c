"""Recorded attestations before policies: why one was decided as it was, and who would be refused by another policy.

Nothing here changes anything. A replay is bounded in attestations and in time, and says when it did not see all. It
asks as a group of its own: what is tried spends nothing of what a tenant's guests have.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from casemate.broker import policies, policybook
from casemate.broker.policies import RESOURCE_NAME
from casemate.broker.refusals import Missing
from casemate.drivers.rego import Broken, Compiled, Pool
from casemate.drivers.store import policies as stored
from casemate.drivers.store.policies import ATTESTATION
from casemate.errors import Malformed
from casemate.policy.rego import inputs, lint, results

if TYPE_CHECKING:
    from casemate.broker.assemble import Broker

MOST = 2000
SECONDS = 20.0


def attestations(
    broker: Broker, tenant: str | None, since: datetime, until: datetime, limit: int
) -> list[dict[str, Any]]:
    """Recorded attestations of a period, newest first, without what policies were given."""
    with broker.store.read() as tx:
        found = stored.attestations(tx, tenant, since, until, min(limit, MOST))
    return [_brief(one) for one in found]


def _brief(one: dict[str, Any]) -> dict[str, Any]:
    kept = {name: one[name] for name in ("id", "time", "tee", "app", "tenant", "allowed")}
    return {**kept, "status": {name: part.get("ear.status") for name, part in one["claims"]["submods"].items()}}


def explain(
    broker: Broker, tenant: str | None, kind: str, identity: str, *, path: str = "", text: str | None = None
) -> dict[str, Any]:
    """What every rule says of a recorded attestation, under the policy that holds or under `text`; `Missing`.

    `tenant` limits whose attestations may be seen, None is all.
    """
    with broker.store.read() as tx:
        found = stored.attestation(tx, identity)
        if found is None or tenant not in (None, found["tenant"]):
            raise Missing("no such attestation", hint="it may be too old; casemate policy attestations")
        references = policies.references(tx, found["tenant"], broker.clock())
    pool, answers = broker.policies.pool, []
    tried = pool.fresh(text, tenant or "") if text is not None else None
    for name, given, data in _questions(kind, found, [path] if path else []):
        policy = name if kind == ATTESTATION else RESOURCE_NAME
        group = _group(found["tenant"])
        compiled = tried or pool.compiled(_holding(broker, found["tenant"], kind, policy), group, own=True)
        asked = {"given": given, "data": data, "references": references, "group": group, "own": True}
        told = explained(pool, compiled, kind, **asked)
        answers.append({"policy": policy, "about": data.get("resource-path") or name, **told})
    return {"attestation": _brief(found), "answers": answers}


def explained(pool: Pool, compiled: Compiled, kind: str, **asked: Any) -> dict[str, Any]:
    """Every rule's value and line, the missing reference values, and the result; the error where there is no answer.

    `asked` is what `Pool.evaluate` takes.
    """
    try:
        answer = pool.evaluate(compiled, **asked)
        result = outcome(kind, answer.values)
    except (Broken, Malformed) as error:
        return {"error": str(error), "rules": [], "missing": []}
    rules = [
        {
            "rule": name,
            "value": answer.values.get(name),
            "defined": name in answer.values,
            "line": answer.rows.get(name),
        }
        for name in compiled.rules
    ]
    return {"result": result, "rules": rules, "missing": answer.missing}


def outcome(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    """What rules' values mean; `Malformed`."""
    if kind != ATTESTATION:
        return {"allow": results.allowed(values.get("allow"))}
    vector = results.vector(values.get("trust_claims"))
    return {"status": results.status(vector), "vector": vector}


def simulate(
    broker: Broker,
    tenant: str | None,
    kind: str,
    name: str,
    text: str,
    *,
    since: datetime,
    until: datetime,
    paths: list[str],
) -> dict[str, Any]:
    """Who would be answered otherwise by `text` than by the policy that holds; `Malformed` when it cannot be set."""
    policybook.demand_name(kind, name)
    new, remarks = policybook.check(broker.policies.pool, kind, text, tenant or "")
    if wrong := lint.errors(remarks):
        raise Malformed("policy: " + "; ".join(remark.message for remark in wrong))
    if kind != ATTESTATION and not paths:
        raise Malformed("a resource policy is simulated for resources: name one at least")
    with broker.store.read() as tx:
        found = stored.attestations(tx, tenant, since, until, MOST)
        known = {whose: policies.references(tx, whose, broker.clock()) for whose in {one["tenant"] for one in found}}
    changed, seen, ends = [], 0, time.monotonic() + SECONDS
    for one in found:
        if time.monotonic() > ends:
            break
        seen += 1
        changed += list(_changes(broker, (kind, name), new, one, paths=paths, known=known[one["tenant"]]))
    refused = sum(1 for change in changed if change["refused"])
    return {"seen": seen, "recorded": len(found), "complete": seen == len(found) < MOST, "refused": refused,
            "changed": changed, "remarks": [remark._asdict() for remark in remarks]}  # fmt: skip


def _changes(
    broker: Broker,
    what: tuple[str, str],
    new: Compiled,
    one: dict[str, Any],
    *,
    paths: list[str],
    known: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    kind, name = what
    pool, group = broker.policies.pool, _group(one["tenant"])
    ours = {"group": group, "own": True}
    for policy, given, data in _questions(kind, one, paths):
        if kind == ATTESTATION and policy != name:
            continue
        asked = {"given": given, "data": data, "references": known, "rules": lint.ENTRIES[kind], **ours}
        before = _judged(pool, pool.compiled(_holding(broker, one["tenant"], kind, name), group, own=True), kind, asked)
        after = _judged(pool, new, kind, asked)
        if before != after:
            about = "/".join(data["resource-path"]) if data else policy
            yield {**_brief(one), "about": about, "before": before, "after": after, "refused": _refused(before, after)}


def _group(tenant: str) -> str:
    return f"{tenant} trials"


def _judged(pool: Pool, policy: Compiled, kind: str, asked: dict[str, Any]) -> dict[str, Any]:
    try:
        return outcome(kind, pool.evaluate(policy, **asked).values)
    except (Broken, Malformed) as error:
        return {"error": str(error)[:300]}


def _refused(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether somebody who passed would pass no more: no answer, no `allow`, or a worse status."""
    if "error" in after:
        return "error" not in before
    if "allow" in after:
        return not after["allow"] and bool(before.get("allow"))
    worse = results.STATUSES.index(after["status"])
    return "error" not in before and worse > results.STATUSES.index(before["status"])


def _questions(kind: str, one: dict[str, Any], paths: list[str]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """(policy's name, input, data) of what an attestation was or would be asked."""
    if kind == ATTESTATION:
        for part in one["inputs"]:
            yield f"{policies.DEFAULT}_{part['class']}", part["input"], {}
        return
    for path in paths:
        yield RESOURCE_NAME, one["claims"], inputs.resource("resource", path, {})


def _holding(broker: Broker, tenant: str, kind: str, name: str) -> str:
    return str(policybook.read(broker, tenant, kind, name)["text"])
