"""Judge a TDX quote: the DCAP wall's rules (dcap/verify.py), then the TD's report and its event log.

Rules (checks)
  tdx.report_data            the report data that was asked for, zeros behind it
  tdx.initdata               MRCONFIGID is the initdata digest, zeros behind it
  tdx.log.format, tdx.log.rtmr0..3   an event log that comes along replays to every RTMR (CCEL register n+1 is RTMR n)
Rules (cautions)
  tdx.attributes.debug       none of the bits that let the host look into the TD
  tdx.attributes.septve      SEPT_VE_DISABLE: the host cannot make the kernel handle faults on its own memory
  tdx.attributes.migratable  the TD cannot be migrated
  tdx.attributes.unknown     no bits that have no meaning here
  tdx.service_td             no service TD is bound (TD 1.5)

Heavy imports stand inside: the guest imports this room to collect.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from casemate.errors import Malformed, Unusable
from casemate.schema.claims import Claims
from casemate.schema.endorsements import PRODUCTION, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee.rules import Rules

if TYPE_CHECKING:
    from casemate.boot.eventlog import EventLog
    from casemate.tee.dcap.quote import Quote, TdReport

NAME = "tdx"
_ALGORITHM = "sha384"


def verify(evidence: Evidence, endorsements: Endorsements, request: Request, now: datetime) -> Claims:
    """Claims of a genuine quote, or `Refused` with every failed rule; `Unusable` when only collateral is missing."""
    from casemate.tee.dcap import claims as shared
    from casemate.tee.dcap import verify as dcap
    from casemate.tee.tdx import report as wire

    if evidence.tee != NAME:
        raise Unusable(f"evidence of {evidence.tee[:32]!r} was given to the TDX room")
    quote, body, log_bytes = wire.parse_evidence(evidence.primary)
    rules = Rules(NAME)
    platform = dcap.judge(NAME, quote, endorsements, now, rules)
    attributes = wire.attributes(body)
    _attributes(attributes, body, rules)
    if request.report_data is not None:
        rules.register("report_data", request.report_data, body.report_data, "the TD answered another question")
    if request.initdata_digest is not None:
        hint = "the TD was launched with another initdata"
        rules.initdata(request.initdata_digest, body.mr_config_id, hint)
    log = _log(log_bytes, body, rules) if log_bytes is not None else None
    rules.settle("collateral.")
    root = platform.root
    if root is None or not platform.complete:
        raise rules.refusal()
    return Claims(
        tee=NAME,
        platform_class=root.platform_class,
        memory_encrypted=root.platform_class == PRODUCTION,
        debug=attributes.debug,
        measurement={"mrtd": body.mr_td.hex()} | {f"rtmr{i}": value.hex() for i, value in enumerate(body.rtmrs)},
        report_data=body.report_data.hex(),
        init_data=body.mr_config_id.hex(),
        fresh=request.report_data is not None,
        vouched_by=root.name,
        values=_values(quote, body, log) | shared.values(platform, endorsements),
        checks=tuple(rules.checks),
        cautions=tuple(rules.cautions),
        tcb_status=platform.status,
        valid_until=platform.valid_until,
    )


def _attributes(attributes: Any, body: TdReport, rules: Rules) -> None:
    from casemate.tee.tdx import report as wire

    shown = body.td_attributes.hex()
    rules.caution(
        "attributes.debug", not attributes.debug, "no debugging or profiling", shown, "launch the TD without it"
    )
    rules.caution("attributes.septve", attributes.has(wire.SEPT_VE_DISABLE), "SEPT_VE_DISABLE", shown,
                  "launch the TD with sept-ve-disable")  # fmt: skip
    rules.caution("attributes.migratable", not attributes.has(wire.MIGRATABLE), "no migration", shown,
                  "launch the TD without migration")  # fmt: skip
    rules.caution("attributes.unknown", not attributes.unknown, "known attributes", f"{attributes.unknown:#x}",
                  "a newer release may know them")  # fmt: skip
    if body.mr_servicetd is not None:
        found = body.mr_servicetd.hex()
        rules.caution(
            "service_td", not any(body.mr_servicetd), "no service TD", found, "a bound TD may act on this one"
        )


def _log(data: bytes, body: TdReport, rules: Rules) -> EventLog | None:
    """Replay the log; every RTMR must come out, also those without an event."""
    from casemate.boot import eventlog

    hint = "the log is another boot's, or something extended a register without logging it"
    try:
        log = eventlog.parse(data, padded=True)
        values = eventlog.replay(log, _ALGORITHM)
    except Malformed as error:
        rules.check("log.format", False, "an event log with SHA-384 digests", error, "the log was changed or cut")
        return None
    rules.check("log.format", True, "an event log with SHA-384 digests", f"{len(log.events)} events")
    for index, expected in enumerate(body.rtmrs):
        replayed = values.pop(index + 1, bytes(len(expected)))
        rules.equal(f"log.rtmr{index}", expected, replayed, hint)
    rules.check(
        "log.registers", not values, "events of RTMR 0 to 3", f"registers {sorted(values)}" if values else "only those"
    )
    return log


def _values(quote: Quote, body: TdReport, log: EventLog | None) -> dict[str, Any]:
    from casemate.boot import ccel
    from casemate.tee.tdx import report as wire

    header, attributes = quote.header, wire.attributes(body)
    fields = {
        "tcb_svn": body.tee_tcb_svn, "mr_seam": body.mr_seam, "mrsigner_seam": body.mrsigner_seam,
        "seam_attributes": body.seam_attributes, "td_attributes": body.td_attributes, "xfam": body.xfam,
        "mr_td": body.mr_td, "mr_config_id": body.mr_config_id, "mr_owner": body.mr_owner,
        "mr_owner_config": body.mr_owner_config, "report_data": body.report_data,
    } | {f"rtmr_{i}": value for i, value in enumerate(body.rtmrs)}  # fmt: skip
    if body.tee_tcb_svn2 is not None and body.mr_servicetd is not None:
        fields |= {"tee_tcb_svn2": body.tee_tcb_svn2, "mr_servicetd": body.mr_servicetd}
    found: dict[str, Any] = {
        "quote": {
            "header": {
                "version": header.version.to_bytes(2, "little").hex(),
                "att_key_type": header.key_type.to_bytes(2, "little").hex(),
                "tee_type": header.tee_type.to_bytes(4, "little").hex(),
                "reserved": (header.qe_svn + header.pce_svn).hex(),
                "vendor_id": header.vendor_id.hex(),
                "user_data": header.user_data.hex(),
            },
            "body": {name: value.hex() for name, value in fields.items()},
        },
        "td_attributes": {
            "debug": attributes.debug,
            "key_locker": attributes.has(wire.KEY_LOCKER),
            "perfmon": attributes.has(wire.PERFMON),
            "protection_keys": attributes.has(wire.PROTECTION_KEYS),
            "septve_disable": attributes.has(wire.SEPT_VE_DISABLE),
        },
        "trailing_bytes": quote.trailing,
    }
    if header.version == 5:
        size = len(quote.signed) - 54
        found["quote"] |= {
            "type": quote.body_type.to_bytes(2, "little").hex(),
            "size": size.to_bytes(4, "little").hex(),
        }
    return found | ({"uefi_event_logs": ccel.claims(log)} if log is not None else {})
