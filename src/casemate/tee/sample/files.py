"""Sample evidence in files: CoCo's JSON object."""

from __future__ import annotations

from casemate.schema.endorsements import Endorsements
from casemate.tee.files import Case, Gathered, statements


def gather(case: Case) -> Gathered | None:
    """The first object with `svn` and `report_data` and nothing else, or None."""
    for statement in statements(case, "sample"):
        if set(statement.primary) == {"svn", "report_data"}:
            evidence = statement.evidence("sample")
            return Gathered(evidence=evidence, endorsements=Endorsements(), used=(statement.name,))
    return None
