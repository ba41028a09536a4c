"""Reference values as CoCo's key broker registers them: messages of its provider, and every signed format of ours.

Who signed decides. What nobody signed (messages of type `sample` and `swid`, unsigned documents, and plain values at
the admin's own route) is taken from an owner alone, for a tenant that allows it (`unsigned_references`). Signed ones
(CoRIM, in-toto, SLSA, UVM endorsements, our own JSON) count when one of the tenant's `reference_signers` made them, and
then any operator may register them. Values expire: at the document's end, at the latest in a year.

An id or a name again replaces what was there; where that was another value, leases end (`trust`, rule 1).

Ids of signed documents: `<register>` where the document names no TEE, else `<tee>/<register>`; artefacts by their name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from casemate.broker import journal, leases, tenants
from casemate.broker.identities import Admin
from casemate.broker.refusals import Missing
from casemate.crypto import pins
from casemate.drivers.store import registry, rvps
from casemate.errors import Malformed, Refused, Unusable
from casemate.policy import references
from casemate.policy.references import swid
from casemate.policy.references.trust import ReferenceTrust
from casemate.schema.reference import AtLeast, OneOf, Reference, ReferenceValues
from casemate.wire import jcs
from casemate.wire.encoding import unb64

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from casemate.broker.assemble import Broker
    from casemate.schema.kbs import ReferenceMessage

VERSIONS = ("0.1.0", "0.2.0")
EVERYWHERE = "*"  # how settings name what holds for the whole broker
KEPT = timedelta(days=365)
MAX_IDS = 1024
MAX_VALUE = 64 << 10
_ID = re.compile(r"[A-Za-z0-9_.:/+-]{1,512}")
_SIGNED = ("corim", "signed", "in-toto", "slsa", "uvm", "casemate")
# Messages of CoCo's provider in which nothing is signed.
_UNSIGNED: dict[str, Callable[[bytes], Mapping[str, Any]]] = {
    "sample": lambda payload: jcs.parse_object(payload, "reference values"),
    "swid": swid.read,
}


class _Read(NamedTuple):
    values: dict[str, Any]
    signer: str
    expires: datetime
    references: tuple[Reference, ...]


def _ends(found: _Read) -> list[datetime | None]:
    return [found.expires, *(one.expires for one in found.references)]


def register(broker: Broker, tenant: str, message: ReferenceMessage, by: Admin) -> list[str]:
    """Take a message for a tenant ("" is the whole broker); the ids that it gave values to.

    `Refused` when nobody who is believed signed it (`demand_unsigned`), `Malformed` when it cannot be read.
    """
    if message.version not in VERSIONS:
        raise Malformed(f"reference value message: version {VERSIONS[0]} is wanted")
    payload = unb64(message.payload, "reference value message: payload")
    found = _read(broker, tenant, message.type, payload, by)
    bad = [name for name in found.values if not _ID.fullmatch(name)]
    if not 1 <= len(found.values) <= MAX_IDS or bad:
        raise Malformed(f"reference values: 1 to {MAX_IDS} ids of letters, digits and _.:/+- are wanted")
    if any(len(jcs.canonical(value)) > MAX_VALUE for value in found.values.values()):
        raise Malformed(f"reference values: a value is longer than {MAX_VALUE} bytes")
    if any(end is not None and not 1970 <= end.year <= 9998 for end in _ends(found)):
        raise Malformed("reference values: `expires` is a time from 1970 to 9998")
    source = pins.digest(payload)
    facts = {"tenant": tenant or None, "ids": sorted(found.values)[:16], "signer": found.signer, "source": source}

    def act(tx: Connection) -> None:
        now = broker.clock()
        known = rvps.every(tx, tenant, now)
        less = found.expires <= now or any(known.get(name, new) != new for name, new in found.values.items())
        rvps.put(tx, tenant, found.values, expires=found.expires, signer=found.signer, source=source, now=now)
        for plain in filter(None, (one.plain() for one in found.references)):
            less = accepted(tx, plain, now, tenant or None) or less
        ended = {"leases_ended": leases.recall(tx, now, "reference.add", tenant=tenant or None)} if less else {}
        journal.admin(broker, tx, who=by.who, act="reference.add", facts={**facts, **ended})

    broker.store.written(act)
    return sorted(found.values)


def accepted(tx: Connection, reference: ReferenceValues, now: datetime, tenant: str | None) -> bool:
    """Accept a guest image; whether that takes the place of another one, or is over already: less trust than before."""
    was = registry.reference(tx, reference.name, reference.tee, tenant)
    registry.add_reference(tx, reference, now, tenant)
    over = reference.expires is not None and reference.expires <= now
    return was is not None and (over or was != reference.values)


def value(broker: Broker, tenant: str, name: str) -> Any:
    """The value that a policy of `tenant` sees; `Missing` when there is none that still holds."""
    with broker.store.read() as tx:
        found = rvps.query(tx, tenant, name, broker.clock())
    if found is None:
        raise Missing("no such reference value", hint="it was never registered, or it has expired")
    return found


def listing(broker: Broker, tenant: str) -> list[dict[str, Any]]:
    """What a tenant registered, with signer and end."""
    with broker.store.read() as tx:
        return rvps.listing(tx, tenant)


def _read(broker: Broker, tenant: str, kind: str, payload: bytes, by: Admin) -> _Read:
    now = broker.clock()
    if kind in _UNSIGNED:
        demand_unsigned(broker, tenant, by)
        return _Read(dict(_UNSIGNED[kind](payload)), "", now + KEPT, ())
    if kind not in _SIGNED:
        raise Malformed("reference value message: type sample, swid, corim or signed is wanted")
    found = references.read(payload, _trust(broker, tenant), now)
    if not all(one.signer for one in found):
        demand_unsigned(broker, tenant, by)
    ends = [one.expires for one in found if one.expires is not None]
    signer = ", ".join(dict.fromkeys(one.signer for one in found if one.signer))
    return _Read(_values(found), signer, min([*ends, now + KEPT]), found)


def _values(found: tuple[Reference, ...]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for one in found:
        for name, wanted in one.registers.items():
            known = values.setdefault(f"{one.tee}/{name}" if one.tee else name, [])
            known += [item for item in _allowed(wanted) if item not in known]
        for name, digests in one.artefacts.items():
            values[name] = list(digests.values)
    return values


def _allowed(wanted: OneOf | AtLeast) -> list[Any]:
    return list(wanted.values) if isinstance(wanted, OneOf) else [wanted.value]


def _unsigned(broker: Broker, tenant: str) -> bool:
    return tenants.settings(broker, tenant or None).unsigned_references


def demand_unsigned(broker: Broker, tenant: str, by: Admin) -> None:
    """`Refused` unless an owner registers values that nobody signed, where the tenant ("": the broker) allows them."""
    if by.role != "owner":
        raise Refused.because(
            "reference.signature",
            expected="a signed document, or an owner",
            found=f"unsigned values of an {by.role}",
            hint="sign them and register the document, or ask an owner",
        )
    if not _unsigned(broker, tenant):
        raise Refused.because(
            "reference.signature",
            expected="a signed document",
            found="one that nobody signed",
            hint="sign it, or let the tenant's owner allow unsigned ones (casemate tenant set)",
        )


def _trust(broker: Broker, tenant: str) -> ReferenceTrust:
    files = broker.settings.reference_signers.get(tenant or EVERYWHERE, ())
    scope = {"tenant": tenant} if tenant else {}
    base = ReferenceTrust(allow_unsigned=_unsigned(broker, tenant), scope=scope)
    try:
        return references.load([(broker.settings.folder / path).read_bytes() for path in files], base)
    except OSError as error:
        raise Unusable(
            f"a signer's key cannot be read ({type(error).__name__})", hint="see the setting `reference_signers`"
        ) from error
