"""Reference values from files as a judge of claims (`casemate.policy.references`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from casemate.errors import Finding, Malformed, Refused
from casemate.policy import references
from casemate.policy.references import ReferenceTrust
from casemate.schema.claims import Claims
from casemate.schema.reference import Reference
from casemate.tee.files import File
from casemate.verifier.files import Judge


def judge(documents: Sequence[File], trust: ReferenceTrust, now: datetime) -> Judge:
    """The rules of every document (signer, time, scope), then the claims against all that they state.

    A document is believed about the TEE that the claims are of. One that is refused is told with its rules, and its
    values are not looked at.
    """

    def apply(claims: Claims) -> Iterable[Finding]:
        scoped = replace(trust, scope={**trust.scope, "tee": claims.tee})
        findings: list[Finding] = []
        believed: list[Reference] = []
        for document in documents:
            try:
                believed += references.read(document.data, scoped, now)
            except Refused as refusal:
                findings += [Finding(f.rule, f.expected, f"{f.found} (in {document.name})", f.hint, f.ok)
                             for f in refusal.findings if not f.ok]  # fmt: skip
            except Malformed as error:
                raise Malformed(f"{document.name}: {error}", hint=error.hint) from error
        return [*findings, *(references.compare(claims, believed, now) if believed or not findings else ())]

    return apply
