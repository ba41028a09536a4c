"""On what proof a decision rests, as digests for its receipt: who keeps the evidence can show that it is that one.

Evidence: SHA-256 over RFC 8785 ``{"additional", "initdata", "primary", "tee"}``, initdata by the SHA-256 of its bytes.
Collateral: SHA-256 over RFC 8785 of ``{"anchors", "certificates", "collateral"}``, each by the SHA-256 of its bytes:
anchors and certificates as sorted lists, collateral from name to digest. `sha256:` and hex, everywhere.
"""

from __future__ import annotations

from casemate.crypto import pins
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.wire import jcs


def evidence(found: Evidence) -> str:
    """The digest of evidence."""
    initdata = None if found.initdata is None else pins.digest(found.initdata)
    whole = {"tee": found.tee, "primary": found.primary, "additional": found.additional, "initdata": initdata}
    return pins.digest(jcs.canonical(whole))


def collateral(found: Endorsements) -> str:
    """The digest of what evidence was judged by: anchors, certificates, collateral; never of keys."""
    whole = {
        "anchors": sorted(pins.digest(anchor.certificate) for anchor in found.anchors),
        "certificates": sorted(pins.digest(one) for one in found.certificates),
        "collateral": {name: pins.digest(one) for name, one in found.collateral.items()},
    }
    return pins.digest(jcs.canonical(whole))
