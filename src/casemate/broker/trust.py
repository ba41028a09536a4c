"""What the broker trusts: anchors of platforms, reference values, its settings on them; and what ends with such trust.

Rules
1. More trust takes effect with the next attestation. Less trust ends leases in the transaction of the act: an anchor or
   reference values that are removed or replaced by other ones, another attestation policy (`policybook`), platforms
   that an app no longer allows and releases that are revoked (`apps`). Each guest concerned attests anew; who still
   passes has a new lease, who does not has none.
2. What a tenant settles ends leases of its apps; what the broker settles, those of all.
3. The settings that judge platforms (`accepted_cautions`, `refused_tees`) change with a restart: a broker that starts
   with stricter ones than it had ends all leases.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import msgspec

from casemate.broker import journal, leases, rvps
from casemate.broker.identities import Admin
from casemate.broker.refusals import Missing
from casemate.crypto import pins
from casemate.drivers import keyfiles
from casemate.drivers.store import registry
from casemate.errors import Malformed
from casemate.schema.endorsements import DEVELOPMENT, PRODUCTION, Anchor
from casemate.schema.reference import ReferenceValues
from casemate.tee import anchoring

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from casemate.broker.assemble import Broker

CLASSES = (DEVELOPMENT, PRODUCTION)
JUDGED = "judged.json"  # in the broker's folder: the settings on platforms that it had last


def add_anchor(broker: Broker, anchor: Anchor, *, who: str) -> str:
    """Trust a root of platforms; returns its fingerprint. The same one again replaces its class, name and TEEs.

    A root is what the rooms of its TEEs take for one (`anchoring`): mostly a certificate, for Arm CCA a bare key.
    """
    if anchor.platform_class not in CLASSES:
        raise Malformed(f"platform_class: {' or '.join(CLASSES)} is wanted")
    anchor = anchoring.checked(anchor)

    def act(tx: Connection) -> str:
        was = registry.anchor(tx, pins.digest(anchor.certificate))
        fingerprint = registry.add_anchor(tx, anchor, broker.clock())
        less = was is not None and (was.platform_class != anchor.platform_class or bool({*was.tees} - {*anchor.tees}))
        facts = {"anchor": fingerprint, "platform_class": anchor.platform_class, "tees": list(anchor.tees)}
        ended = recalled(broker, tx, "anchor.add") if less else {}
        journal.admin(broker, tx, who=who, act="anchor.add", facts={**facts, **ended})
        return fingerprint

    return broker.store.written(act)


def remove_anchor(broker: Broker, fingerprint: str, *, who: str) -> int:
    """Trust a root no longer; how many leases ended. `Missing` when it was not trusted."""

    def act(tx: Connection) -> int:
        if not registry.remove_anchor(tx, fingerprint):
            raise Missing("no anchor of that fingerprint", hint="/casemate/v0/info lists what is trusted")
        ended = recalled(broker, tx, "anchor.delete")
        journal.admin(broker, tx, who=who, act="anchor.delete", facts={"anchor": fingerprint, **ended})
        return ended["leases_ended"]

    return broker.store.written(act)


def add_reference(broker: Broker, reference: ReferenceValues, *, tenant: str | None = None, by: Admin) -> None:
    """Accept a guest image, for a tenant's apps or (None) for all; for a year unless it says until when.

    Nobody signed it: see `rvps.demand_unsigned`.
    """
    if not reference.values or not all(re.fullmatch(r"[0-9a-f]{2,256}", value) for value in reference.values.values()):
        raise Malformed("reference values: at least one register with lower-case hex is wanted")
    if reference.expires is not None and reference.expires.tzinfo is None:
        raise Malformed("reference values: `expires` needs a time zone")
    if reference.expires is not None and not 1970 <= reference.expires.year <= 9998:
        raise Malformed("reference values: `expires` is a time from 1970 to 9998")
    rvps.demand_unsigned(broker, tenant or "", by)
    if reference.expires is None:
        reference = msgspec.structs.replace(reference, expires=broker.clock() + rvps.KEPT)

    def act(tx: Connection) -> None:
        less = rvps.accepted(tx, reference, broker.clock(), tenant)
        facts = {"tenant": tenant, "reference": reference.name, "tee": reference.tee, "values": reference.values}
        ended = recalled(broker, tx, "reference.add", tenant=tenant) if less else {}
        journal.admin(broker, tx, who=by.who, act="reference.add", facts={**facts, **ended})

    broker.store.written(act)


def remove_reference(broker: Broker, name: str, tee: str, *, tenant: str | None, who: str) -> int:
    """Accept a guest image no longer; how many leases ended. `Missing` when there is none of that name and TEE."""

    def act(tx: Connection) -> int:
        if not registry.remove_reference(tx, name, tee, tenant):
            raise Missing("no reference values of that name and TEE", hint="GET /casemate/v0/admin/reference-values")
        ended = recalled(broker, tx, "reference.delete", tenant=tenant)
        facts = {"tenant": tenant, "reference": name, "tee": tee, **ended}
        journal.admin(broker, tx, who=who, act="reference.delete", facts=facts)
        return ended["leases_ended"]

    return broker.store.written(act)


def references(broker: Broker, tenant: str | None = None) -> tuple[ReferenceValues, ...]:
    """Every guest image that is accepted for all, and those for a tenant's apps."""
    with broker.store.read() as tx:
        return registry.references(tx, tenant=tenant)


def recalled(broker: Broker, tx: Connection, why: str, **chosen: str | None) -> dict[str, int]:
    """End live leases (`leases.recall`; without a choice all of them); what the entry of the act says of it."""
    return {"leases_ended": leases.recall(tx, broker.clock(), why, **chosen)}


def settled(broker: Broker) -> None:
    """Rule 3, at the start. A broker that does not know what it judged by has nothing to compare, and ends nothing."""
    path = broker.settings.folder / JUDGED
    now = {name: sorted(getattr(broker.settings, name)) for name in ("accepted_cautions", "refused_tees")}
    was = _judged(path.read_bytes()) if path.exists() else now
    if was == now and path.exists():
        return
    if {*was["accepted_cautions"]} - {*now["accepted_cautions"]} or {*now["refused_tees"]} - {*was["refused_tees"]}:

        def act(tx: Connection) -> None:
            ended = recalled(broker, tx, "settings")
            if ended["leases_ended"]:
                journal.admin(broker, tx, who="broker", act="lease.end", facts={"settings": now, **ended})

        broker.store.written(act)
    keyfiles.write(path, json.dumps(now).encode())


def _judged(text: bytes) -> dict[str, list[str]]:
    """What `settled` wrote; a file that somebody else changed says that every caution was accepted."""
    kind: Any = dict[str, list[str]]
    try:
        found: dict[str, list[str]] = msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        found = {}
    return (
        found
        if found.keys() == {"accepted_cautions", "refused_tees"}
        else {
            "accepted_cautions": ["*"],
            "refused_tees": [],
        }
    )
