"""On what proof a decision rests, as digests for its receipt: who keeps the evidence can show that it is that one.

Evidence: SHA-256 over RFC 8785 ``{"additional", "initdata", "primary", "tee"}``, initdata by the SHA-256 of its bytes.
Collateral: SHA-256 over RFC 8785 of ``{"anchors", "certificates", "collateral"}``, each by the SHA-256 of its bytes:
anchors and certificates as sorted lists, collateral from name to digest. `sha256:` and hex, everywhere.
"""

from __future__ import annotations

import json
from typing import Any

from casemate.crypto import pins
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.wire import jcs


def evidence(found: Evidence) -> str:
    """The digest of evidence."""
    initdata = None if found.initdata is None else pins.digest(found.initdata)
    whole = {"tee": found.tee, "primary": found.primary, "additional": found.additional, "initdata": initdata}
    return pins.digest(_canonical(whole))


def collateral(found: Endorsements) -> str:
    """The digest of what evidence was judged by: anchors, certificates, collateral; never of keys."""
    whole = {
        "anchors": sorted(pins.digest(anchor.certificate) for anchor in found.anchors),
        "certificates": sorted(pins.digest(one) for one in found.certificates),
        "collateral": {name: pins.digest(one) for name, one in found.collateral.items()},
    }
    return pins.digest(jcs.canonical(whole))


_LARGEST = 2**53 - 1  # RFC 8785 section 3.2.2.3: integers beyond are no JSON numbers


def _canonical(value: Any) -> bytes:
    """As `jcs.canonical`; evidence is mostly lists of bytes as numbers, for which Python's own encoder writes the same.

    It does where there are text, whole numbers, true, false and null alone, and names in ASCII: any other value takes
    the longer way.
    """
    if not _plain(value):
        return jcs.canonical(value)
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return jcs.canonical(value)  # which says what is wrong


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(type(name) is str and name.isascii() for name in value) and all(map(_plain, value.values()))
    if isinstance(value, list):
        if set(map(type, value)) == {int}:
            return bool(max(value) <= _LARGEST and min(value) >= -_LARGEST)
        return all(map(_plain, value))
    return value is None or type(value) in (str, bool) or (type(value) is int and abs(value) <= _LARGEST)
