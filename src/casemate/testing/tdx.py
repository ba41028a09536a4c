"""A trust domain made for tests, on a fake platform (`casemate.testing.dcap`): any report field, any event log.

td = FakeTd(FakePlatform("tdx", version=5), fields={"mr_td": b"..."})
claims = verify(td.collect(request), td.endorsements, request, td.now)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from casemate.boot import eventlog
from casemate.errors import Malformed
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.testing.dcap import FakePlatform
from casemate.wire.encoding import b64

_EVENTS = ((2, b"kernel"), (3, b"initrd"))


def ccel(events: Iterable[tuple[int, bytes]] = _EVENTS, *, padding: int = 64) -> bytes:
    """A CCEL log of (register, text) events; register n+1 is RTMR n."""
    header = b"Spec ID Event03\0" + bytes(4) + b"\x00\x02\x00\x02" + _u32(1) + b"\x0c\x00\x30\x00" + b"\x00"
    out = _u32(1) + _u32(eventlog.EV_NO_ACTION) + bytes(20) + _u32(len(header)) + header
    for register, text in events:
        digest = hashlib.sha384(text).digest()
        out += _u32(register) + _u32(eventlog.EV_IPL) + _u32(1) + b"\x0c\x00" + digest + _u32(len(text)) + text
    return out + b"\xff" * padding


@dataclass
class FakeTd:
    """A TD whose RTMRs are those of `_EVENTS`; `log` is what it sends along (None for nothing)."""

    platform: FakePlatform = field(default_factory=lambda: FakePlatform("tdx"))
    fields: dict[str, bytes] = field(default_factory=dict)
    log: bytes | None = field(default_factory=ccel)

    @property
    def now(self) -> datetime:
        """A time at which everything is valid."""
        return self.platform.now

    @property
    def endorsements(self) -> Endorsements:
        """The platform's anchor and collateral."""
        return self.platform.endorsements

    def collect(self, request: Request) -> Evidence:
        """Evidence for `request`."""
        registers = _registers(ccel())
        fields = {f"rtmr{i}": registers.get(i + 1, bytes(48)) for i in range(4)}
        fields |= {"report_data": request.report_data or b"", "mr_config_id": request.initdata_digest or b""}
        quote = self.platform.quote(self.platform.td(**fields | self.fields))
        log = None if self.log is None else b64(self.log)
        return Evidence(tee="tdx", primary={"quote": b64(quote), "cc_eventlog": log})


def _registers(log: bytes) -> dict[int, bytes]:
    try:
        return eventlog.replay(eventlog.parse(log, padded=True), "sha384")
    except Malformed as error:
        raise AssertionError("the log made here is readable") from error


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")
