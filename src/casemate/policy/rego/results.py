"""What a policy answered: a trust vector (draft-ietf-rats-ar4si), extensions of EAR, or allow.

Everything that is not exactly what the format says is `Malformed`: a policy that answers nonsense lets nobody pass.
"""

from __future__ import annotations

from typing import Any

from casemate.errors import Malformed

CLAIMS = (
    "instance-identity",
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "runtime-opaque",
    "storage-opaque",
    "sourced-data",
)
MAX_EXTENSIONS = 16
STATUSES = ("none", "affirming", "warning", "contraindicated")


def vector(answer: Any) -> dict[str, int]:
    """The trust vector of `trust_claims`. An undefined rule (None) claims nothing; claims left out are 0."""
    if answer is None:
        return dict.fromkeys(CLAIMS, 0)
    if not isinstance(answer, dict) or not answer:
        raise Malformed("trust_claims: an object with at least one claim is wanted")
    unknown = sorted(set(answer) - set(CLAIMS))
    if unknown:
        raise Malformed(f"trust_claims: {unknown[0][:40]!r} is no claim of AR4SI", hint="known: " + ", ".join(CLAIMS))
    for name, value in answer.items():
        if type(value) is not int or not -128 <= value <= 127:
            raise Malformed(f"trust_claims: {name} must be an integer from -128 to 127")
    return {name: answer.get(name, 0) for name in CLAIMS}


def tier(value: int) -> str:
    """What one claim says."""
    if -1 <= value <= 1:
        return "none"
    if 2 <= value <= 31 or -32 <= value <= -2:
        return "affirming"
    return "warning" if 32 <= value <= 95 or -96 <= value <= -33 else "contraindicated"


def status(claims: dict[str, int]) -> str:
    """The worst claim's word."""
    return max((tier(value) for value in claims.values()), key=STATUSES.index, default="none")


def extensions(answer: Any) -> dict[str, Any]:
    """Name → value of `extensions`; {} when the rule is undefined."""
    if answer is None:
        return {}
    if not isinstance(answer, list) or len(answer) > MAX_EXTENSIONS:
        raise Malformed(f"extensions: an array of at most {MAX_EXTENSIONS} is wanted")
    found: dict[str, Any] = {}
    for item in answer:
        if not isinstance(item, dict) or set(item) != {"name", "key", "value"}:
            raise Malformed("extensions: each has name, key and value")
        name, key = item["name"], item["key"]
        if (
            not isinstance(name, str)
            or not 1 <= len(name) <= 128
            or type(key) is not int
            or not -(2**31) <= key < 2**31
        ):
            raise Malformed("extensions: a name and a 32-bit key are wanted")
        if name in found or name in RESERVED:
            raise Malformed(f"extensions: {name[:40]!r} stands there already")
        found[name] = item["value"]
    return found


RESERVED = frozenset(
    ("ear.status", "ear.appraisal-policy-id", "ear.trustworthiness-vector", "ear.veraison.annotated-evidence")
)


def allowed(answer: Any) -> bool:
    """Whether `allow` is true. Undefined denies; anything but a boolean is `Malformed`."""
    if answer is None:
        return False
    if not isinstance(answer, bool):
        raise Malformed("allow: true or false is wanted")
    return answer
