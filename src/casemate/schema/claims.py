"""Claims: what is known of an attester after its evidence was found genuine. Made only by a room's `verify`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from casemate.errors import Finding


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """Verified facts.

    `platform_class` is `development` or `production`; `memory_encrypted` says whether the hardware keeps the host out.
    `measurement` maps register names to hex (`pcr4`, `measurement`, `rtmr1`); `init_data` is the hex of the register
    that binds initdata, `report_data` the hex of the register that carried the request. `values` are the claims under
    the field's names (coco-wire 2.6), for policies. `checks` are the rules that passed. `fresh` is false when no
    report data was asked for.

    Genuine is not safe: `cautions` are failed rules about properties that a relying party may accept by name and
    otherwise refuses (debug, migration, ...). `tcb_status` is the vendor's word on the platform's patch level (Intel's
    terms; "" where the vendor has none). `privilege_level` is 0 for the most privileged layer of the guest (SNP's
    VMPL).

    `rests_on` names registers of which a relying party must know at least one, where the others are the word of a layer
    that only these identify (a paravisor): reference values without any of them match nothing.
    """

    tee: str
    platform_class: str
    memory_encrypted: bool
    debug: bool
    measurement: dict[str, str]
    report_data: str
    init_data: str
    fresh: bool
    vouched_by: str
    values: dict[str, Any]
    checks: tuple[Finding, ...] = ()
    valid_until: datetime | None = None
    cautions: tuple[Finding, ...] = ()
    tcb_status: str = ""
    privilege_level: int = 0
    rests_on: tuple[str, ...] = ()
