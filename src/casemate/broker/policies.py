"""Policies in Rego at the broker: which one holds, what it is asked, and what its answer means.

Rules
1. A tenant's own policy comes before the whole broker's, that before the one that Casemate ships.
2. An attestation policy shapes the result's trust vector; whether keys leave is decided by appraisal and at `judge`.
3. For an app's own guests the resource policy of the app's tenant is asked, wherever a path lies, and can only narrow
   what the built-in rules allow. A guest without a manifest may get what lies without an app in a repository that the
   settings give to a tenant, if that tenant's policy allows it.
4. A policy that gives no answer refuses that request. Shipped policies are answered without a child (`shipped`).
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from casemate.broker import repositories, resources
from casemate.broker.meter import BROKEN_ATTESTATION, BROKEN_RESOURCE
from casemate.broker.sessions import Session, demand_key
from casemate.drivers.rego import Broken, Compiled, Pool
from casemate.drivers.store import accounts, registry, rvps, vaulted
from casemate.drivers.store import policies as stored
from casemate.drivers.store.policies import ATTESTATION, RESOURCE, Stored
from casemate.drivers.store.tables_policy import attestations
from casemate.errors import Finding, Malformed, Refused
from casemate.policy.rego import inputs, results
from casemate.release.submods import parts
from casemate.schema.claims import Claims

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from casemate.broker.assemble import Broker
    from casemate.broker.settings import Settings
    from casemate.drivers.store.known import View

DEFAULT = "default"
RESOURCE_NAME = "resource-policy"
_REMEMBERED = 4096
_SWEPT = 200  # transactions of one sweep
_REMEMBERED_BYTES = 16 << 10  # of one attestation's claims


@dataclass
class Policies:
    """The evaluators, texts by digest, and what was decided before."""

    pool: Pool
    texts: OrderedDict[str, str] = field(default_factory=OrderedDict)
    known: OrderedDict[tuple[str, ...], bool] = field(default_factory=OrderedDict)
    claims: OrderedDict[str, dict[str, Any]] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def remember(self, held: OrderedDict[Any, Any], key: Any, value: Any, most: int = _REMEMBERED) -> None:
        """Keep a value; the oldest one goes."""
        with self.lock:
            held[key] = value
            while len(held) > most:
                held.popitem(last=False)

    def close(self) -> None:
        """End the evaluators."""
        self.pool.close()


@dataclass(frozen=True)
class Basis:
    """What was read for an attestation: the tenant, the policies that hold, reference values where one is asked."""

    tenant: str
    held: dict[tuple[str, str], Stored]
    texts: dict[str, str]
    references: dict[str, Any]


@dataclass(frozen=True)
class Appraised:
    """The submodules with the policies' vectors, what the policies were given, and what became of them."""

    submods: dict[str, dict[str, Any]]
    inputs: list[dict[str, Any]]
    tenant: str
    findings: tuple[Finding, ...]

    def demand(self) -> None:
        """`Refused` when a policy gave no answer."""
        if self.findings:
            raise Refused(self.findings)


def build(settings: Settings) -> Policies:
    """The policies' part of a broker; children start with the first question."""
    return Policies(Pool(settings.policy_children, seconds=settings.policy_seconds, threads=settings.threads))


def basis(broker: Broker, tx: Connection, tenant: str, now: datetime, known: View | None = None) -> Basis:
    """What the policies of a tenant ("" is the whole broker) rest on, read in a transaction."""
    held = current(known or broker.store.known.at(tx), tx, tenant)
    asked = [policy for (kind, _), policy in held.items() if kind == ATTESTATION]
    texts = {policy.digest: _text(broker, tx, policy) for policy in asked}
    return Basis(tenant, held, texts, references(tx, tenant, now) if asked else {})


def current(known: View, tx: Connection, tenant: str) -> dict[tuple[str, str], Stored]:
    """The policies that hold for a tenant."""
    return known.get(("policies", tenant), lambda: stored.current(tx, tenant))


def references(tx: Connection, tenant: str, now: datetime) -> dict[str, Any]:
    """What `query_reference_value` knows: registered values by id, accepted images as `<tee>/<register>`."""
    found: dict[str, Any] = {}
    for one in registry.references(tx, None, tenant or None):
        if one.expires is None or one.expires > now:
            for register, value in one.values.items():
                known = found.setdefault(f"{one.tee}/{register}", [])
                if value not in known:
                    known.append(value)
    return {**found, **rvps.every(tx, tenant, now)}


def attestation(
    broker: Broker,
    base: Basis,
    judged: Sequence[Claims],
    findings: Sequence[Finding],
    submods: dict[str, dict[str, Any]],
    *,
    initdata: dict[str, Any] | None = None,
    policy_id: str = DEFAULT,
    group: str = "",
) -> Appraised:
    """The submodules (`ear.submods`) with the vectors of the policies `<policy_id>_<class>`.

    `group` is whose share of the evaluators it takes, by default the tenant's.
    """
    made = {name: dict(value) for name, value in submods.items()}
    given: list[dict[str, Any]] = []
    failed: list[Finding] = []
    for part in parts(judged):
        primary = part.claims is judged[0]
        own = findings if primary else [f for f in findings if f.rule.startswith(f"{part.claims.tee}.")]
        evidence = submods[part.name].get("ear.veraison.annotated-evidence", {})
        asked = inputs.attestation(
            part.claims,
            values=part.values,
            runtime=evidence.get("runtime_data_claims"),
            initdata=initdata if primary else None,
            appraisal=inputs.appraisal(part.claims, own),
        )
        given.append({"name": part.name, "class": part.kind, "input": asked})
        policy = base.held.get((ATTESTATION, f"{policy_id}_{part.kind}"))
        if policy is None and policy_id == DEFAULT:
            continue  # the shipped one, whose answer is there already
        if policy is None:
            wanted = f"an attestation policy {policy_id[:64]}_{part.kind}"
            failed.append(_finding("policy.attestation", wanted, "none of that name", "casemate policy list"))
            continue
        try:
            text = base.texts[policy.digest]
            whose = group or base.tenant
            view = appraised(broker.policies, text, asked, base.references, group=whose, policy_id=policy_id)
            made[part.name].update(view)
        except (Broken, Malformed) as error:
            failed.append(_finding(BROKEN_ATTESTATION, f"an answer of {policy.name} {policy.digest}", str(error)))
    return Appraised(made, given, base.tenant, tuple(failed))


def appraised(
    held: Policies, text: str, asked: dict[str, Any], references: dict[str, Any], *, group: str, policy_id: str
) -> dict[str, Any]:
    """Status, vector and extensions of one submodule; `Broken`, `Malformed`."""
    answer = held.pool.evaluate(
        held.pool.compiled(text, group),
        given=asked,
        references=references,
        rules=("trust_claims", "extensions"),
        group=group,
    )
    vector = results.vector(answer.values.get("trust_claims"))
    return {
        "ear.status": results.status(vector),
        "ear.appraisal-policy-id": policy_id,
        "ear.trustworthiness-vector": vector,
        **results.extensions(answer.values.get("extensions")),
    }


def kept(
    broker: Broker, session: Session, found: Appraised, *, allowed: bool, recorded: dict[str, Any]
) -> dict[str, Any]:
    """What `journal.decided` takes: `recorded` (of the lease) and the row of this attestation.

    Its claims are at hand for this session's reads, unless they are very long.
    """
    now = broker.clock()
    claims = broker.signer.claims(session, found.submods, now)
    said = stored.document(claims)
    if len(said) <= _REMEMBERED_BYTES:
        broker.policies.remember(broker.policies.claims, session.attestation, claims)
    row = stored.recorded(
        session.attestation,
        now,
        session.expires,
        said,
        found.inputs,
        tee=session.tee,
        app_id=session.app_id,
        tenant=found.tenant,
        allowed=allowed,
        evidence=session.evidence,
        collateral=session.collateral,
    )
    return {**recorded, "rows": (*recorded.get("rows", ()), (attestations, row))}


def sweep(broker: Broker) -> None:
    """Forget the oldest recorded attestations where there are too many, some at a time: guests wait meanwhile."""
    for _ in range(_SWEPT):
        with broker.store.read() as tx:
            over = stored.excess(tx, broker.clock())
        if not over:
            return
        with broker.store.write() as tx:
            stored.forget(tx, over)


@dataclass(frozen=True)
class Asked:
    """What the store says of a guest that asks for `path`: the built-in rules, and the policy that is to be asked."""

    path: str
    built_in: tuple[Finding, ...]
    policy: Stored | None
    text: str
    tenant: str

    @property
    def open(self) -> bool:
        """Whether the built-in rules allow it: what they refuse, no policy opens."""
        return all([f.ok for f in self.built_in])  # noqa: C419 - a list is faster than a generator here


def ask(broker: Broker, tx: Connection, session: Session, path: str) -> Asked:
    """What `judge` rests on, read in a transaction."""
    repo = path.partition("/")[0]
    mapped = broker.settings.repos.get(repo)
    known = broker.store.known.at(tx)
    demand_key(broker, known, tx, session.key)
    owned = vaulted.owner(tx, path)
    tenant = (mapped if session.app_id is None else _holder(known, tx, session.app_id)) or ""
    policy = current(known, tx, tenant).get((RESOURCE, RESOURCE_NAME))
    text = _text(broker, tx, policy) if policy is not None else ""
    shared = mapped is not None and owned is not None and owned.app_id == repositories.founding(mapped, repo).app_id
    alone = session.manifest_digest is None and shared and policy is not None
    built_in = () if alone else resources.judge(broker, tx, known, session, path, owned)
    return Asked(path, built_in, policy, text, tenant)


def judge(
    broker: Broker, session: Session, asked: Asked, *, plugin: str = "resource", query: dict[str, str] | None = None
) -> tuple[Finding, ...]:
    """Whether this guest may read a path now: the built-in rules, and the tenant's resource policy."""
    if asked.policy is None or not asked.open:
        return asked.built_in
    data = inputs.resource(plugin, asked.path, query or {})
    # Anybody may be a guest without a manifest: it spends nothing of what the tenant's own guests have.
    group = asked.tenant if session.app_id is not None else f"{asked.tenant} guests"
    return (*asked.built_in, _resource(broker, session, (asked.policy, asked.text), data, group))


def _holder(known: View, tx: Connection, app_id: str) -> str | None:
    """The tenant of an app."""
    return known.get(("tenant", app_id), lambda: accounts.tenant_of(tx, app_id))


def narrow(
    broker: Broker, session: Session, tenant: str, path: str, *, plugin: str, query: dict[str, str]
) -> tuple[Finding, ...]:
    """What the tenant's resource policy says of what a plugin gives; nothing when the tenant has none."""
    with broker.store.read() as tx:
        policy = current(broker.store.known.at(tx), tx, tenant).get((RESOURCE, RESOURCE_NAME))
        if policy is None:
            return ()
        text = _text(broker, tx, policy)
    return (_resource(broker, session, (policy, text), inputs.resource(plugin, path, query), tenant),)


def _resource(broker: Broker, session: Session, rego: tuple[Stored, str], data: dict[str, Any], group: str) -> Finding:
    policy, text = rego
    held, wanted = broker.policies, f"allow of {policy.name} {policy.digest}"
    key = (session.attestation, policy.digest, inputs.digest(data))
    known = held.known.get(key)
    if known is not None:
        return _allow(known, wanted)
    claims = claims_of(broker, session)
    if claims is None:
        return _finding("policy.resource", wanted, "the attestation is not recorded (any more)", "attest again")
    try:
        compiled = held.pool.compiled(text, group)
        answer = held.pool.evaluate(compiled, given=claims, data=data, rules=("allow",), group=group)
        allowed = results.allowed(answer.values.get("allow"))
    except (Broken, Malformed) as error:
        return _finding(BROKEN_RESOURCE, wanted, str(error))
    if not _volatile(compiled):
        held.remember(held.known, key, allowed)
    return _allow(allowed, wanted)


def _allow(allowed: bool, wanted: str) -> Finding:
    hint = "" if allowed else "the tenant's resource policy says no; casemate policy explain tells which rule"
    return Finding("policy.resource", wanted, "true" if allowed else "false or undefined", hint, ok=allowed)


def _finding(rule: str, wanted: str, found: str, hint: str = "casemate policy explain") -> Finding:
    return Finding(rule, wanted[:300], found[:300], hint)


def _volatile(compiled: Compiled) -> bool:
    """Whether the same question may have another answer later."""
    return any(name.startswith(("time.now", "rand.", "uuid.")) for name in compiled.needs)


def claims_of(broker: Broker, session: Session) -> dict[str, Any] | None:
    """The claims of a session's token, as they were recorded at its attestation; None when they are not (any more)."""
    if not session.attestation:
        return None
    claims = broker.policies.claims.get(session.attestation)
    if claims is None:
        with broker.store.read() as tx:
            said = stored.claims_of(tx, session.attestation)
        if said is None:
            return None
        claims = json.loads(said)
        if len(said) <= _REMEMBERED_BYTES:
            broker.policies.remember(broker.policies.claims, session.attestation, claims)
    return claims


def _text(broker: Broker, tx: Connection, policy: Stored) -> str:
    found = broker.policies.texts.get(policy.digest)
    if found is None:
        found = stored.text(tx, policy) or ""
        broker.policies.remember(broker.policies.texts, policy.digest, found, 256)
    return found
