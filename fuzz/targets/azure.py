"""What a paravisor of Azure says: its report, the runtime data in it, and the evidence around both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fuzz.target import One, target


def _machines() -> Iterable[Any]:
    from casemate.testing.azure import FakeCvm, trust_domain

    for version in (0, 1, 2):
        yield FakeCvm(version=version)
        yield FakeCvm(trust_domain(), version=version)


def _reports() -> Iterable[bytes]:
    for machine in _machines():
        yield machine.hcl_report(b"r" * 48)


@target("hcl-report", _reports)
def hcl_report() -> One:
    """HCL reports of both kinds, with their runtime data."""
    from casemate.tee.hcl import report

    def one(data: bytes) -> object:
        found = report.parse(data, report.kind_of(data) or report.SNP)
        return report.parse_runtime_data(found.runtime_data)

    return one


def _runtime_data() -> Iterable[bytes]:
    from casemate.tee.hcl import report

    for data in _reports():
        yield report.parse(data, report.kind_of(data)).runtime_data


@target("hcl-runtime-data", _runtime_data)
def hcl_runtime_data() -> One:
    """The paravisor's JSON, without a report around it."""
    from casemate.tee.hcl import report

    return report.parse_runtime_data


def _evidence() -> Iterable[bytes]:
    from casemate.schema.request import Request
    from casemate.wire import jcs

    for machine in _machines():
        yield jcs.canonical(machine.collect(Request(report_data=b"r" * 48)).primary)


@target("azure-evidence", _evidence, longest=65536)
def azure_evidence() -> One:
    """Azure's part of an attestation message, in every version."""
    from casemate.tee.hcl import report
    from casemate.wire import jcs

    def one(data: bytes) -> object:
        primary = jcs.parse_object(data)
        return report.parse_evidence(primary, "td_quote" if "td_quote" in primary else "vcek")

    return one
