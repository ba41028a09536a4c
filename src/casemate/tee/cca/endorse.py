"""Endorsements of a CCA token: none to fetch. The relying party gives the platform's key (`casemate.tee.cca.keys`)."""

from __future__ import annotations

from collections.abc import Callable

from casemate.errors import Unusable
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence


def endorse(evidence: Evidence, fetch: Callable[[str], bytes]) -> Endorsements:
    """`Unusable`: nobody publishes the keys of all platforms."""
    del evidence, fetch
    raise Unusable(
        "the key of a CCA platform cannot be fetched", hint="get it from the platform's maker and give it as an anchor"
    )
