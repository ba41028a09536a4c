"""Reference values for others: signed from what `casemate measure` printed, and read again in any format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from casemate.crypto import signatures
from casemate.errors import Finding, Malformed, Unusable
from casemate.policy import references
from casemate.policy.references import ReferenceTrust, rules, signed
from casemate.schema.reference import Reference
from casemate.wire import jcs

LIMIT = 256 << 10


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the signer says beside the values. `scope` limits them (`app`, `tenant`, ...); `as_jws` chooses the form."""

    name: str
    days: int
    scope: Mapping[str, str] = {}
    as_jws: bool = False


def make(measurements: Sequence[bytes], key_pem: bytes, wanted: Wanted, now: datetime) -> bytes:
    """A signed document of `measurements` (JSON with `tee` and `values`); several are alternatives of one register."""
    key = private_key(key_pem)
    tee, values = _merged([_measurement(data) for data in measurements])
    payload = signed.compose(
        name=wanted.name,
        scope={**wanted.scope, "tee": tee},
        values=values,
        issued=now,
        expires=now + timedelta(days=wanted.days),
        signer=rules.key_id(signatures.spki(key.public_key())),
    )
    return signed.sign(payload, key, as_jws=wanted.as_jws)


def show(data: bytes, trust: ReferenceTrust, now: datetime) -> dict[str, Any]:
    """What a document says, and each rule with its outcome, as JSON."""
    found, findings = references.inspect(data, trust, now)
    believed = all(finding.ok for finding in findings)
    return {
        "believed": believed,
        "references": [_as_json(reference) for reference in found],
        "checks": [finding.as_json() for finding in findings],
    }


def findings(shown: dict[str, Any]) -> list[Finding]:
    """The checks of `show` for a page."""
    return [Finding(c["rule"], c["expected"], c["found"], c["hint"], c["result"] == "pass") for c in shown["checks"]]


def private_key(pem: bytes) -> signatures.PrivateKey:
    """A signer's key in PEM, not encrypted; `Unusable` for kinds that nobody would believe."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, None)
        if signatures.usable(key.public_key()):
            return key  # type: ignore[return-value]  # usable() has looked at its type
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Unusable("signing key: not a plain PEM private key") from error
    raise Unusable("signing key: EC P-256, P-384, P-521, RSA of 2048 bits or more, or Ed25519 is wanted")


def _measurement(data: bytes) -> tuple[str, dict[str, str]]:
    found = jcs.parse_object(data, "measurement", limit=LIMIT)
    tee, values = found.get("tee"), found.get("values")
    if not isinstance(tee, str) or not isinstance(values, dict) or not values:
        raise Malformed("measurement: no tee and values", hint="write one: casemate measure --tee snp --json")
    if not all(isinstance(value, str) for value in values.values()):
        raise Malformed("measurement: a value that is not hex")
    return tee, {name: value.lower() for name, value in values.items()}


def _merged(measured: list[tuple[str, dict[str, str]]]) -> tuple[str, dict[str, Any]]:
    """Alternatives are safe only where one register is all that is measured: else unrelated values would be mixed."""
    (tee, values), *rest = measured
    if not rest:
        return tee, dict(values)
    if any(other != tee for other, _ in rest):
        raise Unusable("measurements of several TEEs", hint="sign one document for each")
    if any(set(found) != set(values) or len(found) != 1 for _, found in measured):
        raise Unusable("several measurements of more than one register", hint="sign one document for each")
    register = next(iter(values))
    return tee, {register: list(dict.fromkeys(found[register] for _, found in measured))}


def _as_json(reference: Reference) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(reference)
    found["registers"] = {
        name: wanted["values"] if "values" in wanted else {"at_least": wanted["value"]}
        for name, wanted in found["registers"].items()
    }
    found["artefacts"] = {name: wanted["values"] for name, wanted in found["artefacts"].items()}
    return found
