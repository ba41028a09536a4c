"""What a policy is given: the input of an attestation policy (coco-kbs 0.4.0), the input and data of a resource policy.

attestation   input = {"<tee>": claims, "report_data", "init_data", "init_data_claims"?, "runtime_data_claims"?,
                       "casemate"?: what the manifest's appraisal found}
              data  = {"reference": {id: value}}; `query_reference_value(id)` gives the same values
resource      input = the claims of the token
              data  = {"plugin", "resource-path": [repo, type, tag], "query": {…}}
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from typing import Any

from casemate.errors import Finding, Malformed
from casemate.schema.claims import Claims
from casemate.wire import jcs

MAX_DEPTH = 60
MAX_INPUT = 8 << 20


def attestation(
    claims: Claims,
    *,
    values: dict[str, Any] | None = None,
    runtime: dict[str, Any] | None = None,
    initdata: dict[str, Any] | None = None,
    appraisal: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The input about one attester; `values` are those of one device, by default all of the claims.

    `initdata` are the claims of the bound document, `runtime` those of what the evidence bound, None where unknown.
    """
    found: dict[str, Any] = {
        claims.tee: claims.values if values is None else values,
        "report_data": claims.report_data,
        "init_data": claims.init_data,
    }
    if initdata is not None:
        found["init_data_claims"] = initdata
    if runtime is not None:
        found["runtime_data_claims"] = runtime
    if appraisal is not None:
        found["casemate"] = appraisal
    plain: dict[str, Any] | None = jcs.copied(found)
    return dict(bounded(found)) if plain is None else plain


def appraisal(claims: Claims, findings: Iterable[Finding]) -> dict[str, Any]:
    """What Casemate's own appraisal says, for a policy: `rules` maps each rule that was applied to whether it held."""
    rules: dict[str, bool] = {}
    for finding in findings:
        rules[finding.rule] = rules.get(finding.rule, True) and finding.ok
    return {
        "platform_class": claims.platform_class,
        "memory_encrypted": claims.memory_encrypted,
        "debug": claims.debug,
        "tcb_status": claims.tcb_status,
        "measurement": claims.measurement,
        "cautions": sorted({finding.rule for finding in claims.cautions}),
        "rules": rules,
    }


def resource(plugin: str, path: str, query: dict[str, str]) -> dict[str, Any]:
    """The data of a resource policy."""
    return {"plugin": plugin, "resource-path": path.split("/"), "query": query}


def bounded(value: Any, depth: int = 0) -> Any:
    """Plain JSON that a policy can be given: times as text, no number that is none; `Malformed` when it is too deep."""
    if depth > MAX_DEPTH:
        raise Malformed(f"policy input: at most {MAX_DEPTH} levels are allowed")
    if isinstance(value, dict):
        return {str(key): bounded(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [bounded(item, depth + 1) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def digest(document: Any) -> str:
    """Hex SHA-256 of a document, for remembering."""
    return hashlib.sha256(
        json.dumps(document, sort_keys=True, separators=(",", ":")).encode("utf-8", "surrogatepass")
    ).hexdigest()


def text_digest(policy: str) -> str:
    """`sha256:<hex>` of a policy's text."""
    return "sha256:" + hashlib.sha256(policy.encode("utf-8", "surrogatepass")).hexdigest()


def parse(raw: bytes, name: str) -> dict[str, Any]:
    """A JSON document from a file."""
    return jcs.parse_object(raw, name, limit=MAX_INPUT)
