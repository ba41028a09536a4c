"""`init_data_claims`: what a bound initdata document says, as CoCo's attestation service tells it to policies.

The `[data]` map; `aa.toml` and `cdh.toml` as JSON; `policy.rego` replaced by `agent_policy_claims`, the JSON behind
`policy_data := ` at the end of the policy. The claims are true only of a document whose digest was found in evidence.
"""

from __future__ import annotations

import tomllib
from typing import Any

import msgspec

from casemate.errors import Malformed
from casemate.wire import jcs

_TOML = ("aa.toml", "cdh.toml")
_POLICY, _MARK = "policy.rego", "policy_data := {"


def claims(document: bytes | None) -> dict[str, Any] | None:
    """The claims, or None where there is no document with a `[data]` map; `Malformed` when it is not TOML.

    An entry that cannot be read stays the text that it is.
    """
    if document is None:
        return None
    try:
        text = document.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("initdata: not UTF-8") from error
    data = _toml(text, "initdata").get("data")
    if not isinstance(data, dict):
        return None
    found: dict[str, Any] = {}
    for name, value in data.items():
        try:
            if name in _TOML and isinstance(value, str):
                found[name] = _toml(value, f"initdata: {name}")
            elif name == _POLICY and isinstance(value, str):
                found["agent_policy_claims"] = _policy(value)
            else:
                found[name] = value
        except Malformed:
            found[name] = value
    return found


def _toml(text: str, name: str) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = msgspec.to_builtins(tomllib.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise Malformed(f"{name}: not TOML") from error
    return plain


def _policy(text: str) -> dict[str, Any]:
    _, mark, rest = text.partition(_MARK)
    return jcs.parse_object("{" + rest.strip(), "policy_data", limit=len(rest) * 4 + 1) if mark else {}
