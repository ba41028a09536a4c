"""A relying party's policy on evidence as a TOML file; `casemate verify --show-policy` prints the default one.

    version = 1
    accept_tcb = ["UpToDate", "SWHardeningNeeded"]
    accept = []                     # rules of cautions by name, `platform.class` for development platforms
    max_privilege_level = 3         # optional; SNP's VMPL
    init_data = ["hex", ...]        # optional: one of them
    [measurement]                   # optional: register = "hex" or ["hex", ...]
    mrtd = "..."

A key that is not known is an error: a policy that says less than its author meant would accept too much.
"""

from __future__ import annotations

import hmac
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from casemate.errors import Finding, Malformed
from casemate.policy import platform
from casemate.policy.platform import PlatformPolicy
from casemate.schema.claims import Claims

VERSION = 1
LIMIT = 256 << 10
CLASS = "platform.class"  # accepted by name: platforms of the class `development`
UNSIGNED = "reference.unsigned"  # accepted by name: reference values that nobody signed

_KEYS = frozenset({"version", "accept_tcb", "accept", "max_privilege_level", "init_data", "measurement"})
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}){1,128}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MOST = 256


@dataclass(frozen=True)
class Policy:
    """What is accepted: `platform` as there; `measurement` and `init_data` are demanded values, lower-case hex."""

    platform: PlatformPolicy = platform.DEFAULT
    measurement: dict[str, tuple[str, ...]] = field(default_factory=dict)
    init_data: tuple[str, ...] = ()
    unsigned_references: bool = False


DEFAULT = Policy()


def read(data: bytes) -> Policy:
    """The policy in a TOML file's bytes; `Malformed` says what is wrong and where."""
    if len(data) > LIMIT:
        raise Malformed(f"policy: {len(data)} bytes, at most {LIMIT} allowed")
    try:
        found = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise _malformed(str(error)) from error
    unknown = sorted(set(found) - _KEYS)
    if unknown:
        raise _malformed(f"keys that are not known: {', '.join(unknown)[:200]}")
    if found.get("version") != VERSION or isinstance(found["version"], bool):
        raise _malformed(f"version {str(found.get('version'))[:20]}, {VERSION} is known")
    level, registers = found.get("max_privilege_level"), found.get("measurement", {})
    if level is not None and (isinstance(level, bool) or not isinstance(level, int) or not 0 <= level <= 255):
        raise _malformed("max_privilege_level is not a number from 0 to 255")
    if not isinstance(registers, dict) or len(registers) > _MOST or not all(map(_NAME.fullmatch, registers)):
        raise _malformed("measurement is not a table of registers")
    tcb = _strings(found.get("accept_tcb", sorted(platform.ACCEPTED_TCB)), "accept_tcb", _NAME)
    base = Policy(
        platform=replace(platform.DEFAULT, tcb=frozenset(tcb), max_privilege_level=level),
        measurement={name: _values(values, f"measurement.{name}") for name, values in registers.items()},
        init_data=_values(found["init_data"], "init_data") if found.get("init_data") else (),
    )
    return accepting(base, _strings(found.get("accept", []), "accept", _NAME))


def accepting(policy: Policy, rules: Iterable[str] = (), tcb: Iterable[str] = ()) -> Policy:
    """`policy` that also accepts these rules and TCB statuses by name."""
    names = frozenset(rules)
    own = {CLASS, UNSIGNED}
    return replace(
        policy,
        platform=replace(
            policy.platform,
            tcb=policy.platform.tcb | frozenset(tcb),
            cautions=policy.platform.cautions | (names - own),
            development=policy.platform.development or CLASS in names,
        ),
        unsigned_references=policy.unsigned_references or UNSIGNED in names,
    )


def write(policy: Policy = DEFAULT) -> str:
    """The policy as a TOML file that `read` takes back, with what each key means."""
    accepted = sorted(policy.platform.cautions)
    accepted += [CLASS] * policy.platform.development + [UNSIGNED] * policy.unsigned_references
    level = policy.platform.max_privilege_level
    lines = [
        "# What `casemate verify` accepts. Genuine evidence under a pinned root, in its time and not revoked, is not",
        "# in here: no policy can do without it.",
        f"version = {VERSION}",
        "",
        "# TCB statuses, where the vendor states one (Intel's terms).",
        f"accept_tcb = {_list(sorted(policy.platform.tcb))}",
        "",
        "# Rules accepted by name. By default none: no debugging, no migration agent, no service TD, no development",
        f"# platform ({CLASS}), no sample evidence (sample.proof), no unsigned reference values ({UNSIGNED}).",
        f"accept = {_list(accepted)}",
        "",
        "# The least privileged layer of the guest that may answer (SNP's VMPL); without it the level is only shown.",
        f"{'# ' if level is None else ''}max_privilege_level = {0 if level is None else level}",
        "",
        "# What must have been measured: one value, or one of a list.",
        f"init_data = {_list(policy.init_data)}",
        "",
        "[measurement]",
    ]
    lines += [f'"{name}" = {_list(values)}' for name, values in sorted(policy.measurement.items())]
    return "\n".join(lines) + "\n"


def judge(claims: Claims, policy: Policy = DEFAULT) -> tuple[Finding, ...]:
    """Every rule with its outcome: the platform's (`policy.platform`), then the demanded values."""
    findings = list(platform.judge(claims, policy.platform))
    if policy.init_data:
        findings.append(_demand("policy.init_data", policy.init_data, claims.init_data))
    for register, values in sorted(policy.measurement.items()):
        findings.append(_demand(f"policy.measurement.{register}", values, claims.measurement.get(register, "")))
    if policy.measurement and claims.rests_on and not set(claims.rests_on) & set(policy.measurement):
        findings.append(_base(claims))
    return tuple(findings)


def _base(claims: Claims) -> Finding:
    """The policy names registers that are worth nothing without one that it does not name (`Claims.rests_on`)."""
    first = claims.rests_on[0]
    wanted = f"a value for {' or '.join(claims.rests_on)} in the policy"
    hint = "the registers that it names are the word of a layer that only this one identifies"
    return Finding(f"policy.measurement.{first}", wanted, claims.measurement.get(first, "absent"), hint)


def _demand(rule: str, values: tuple[str, ...], found: str) -> Finding:
    ok = any(hmac.compare_digest(value.encode(), found.lower().encode()) for value in values)
    hint = "" if ok else "what runs there is not what the policy names"
    return Finding(rule, " or ".join(values), found or "absent", hint, ok)


def _values(given: Any, key: str) -> tuple[str, ...]:
    """One value or some, as lower-case hex; an empty list, which nothing could satisfy, is an error."""
    found = _strings([given] if isinstance(given, str) else given, key, _HEX)
    if not found:
        raise _malformed(f"{key} is empty: nothing could satisfy it")
    return tuple(value.lower() for value in found)


def _strings(given: Any, key: str, form: re.Pattern[str]) -> list[str]:
    if not isinstance(given, list) or len(given) > _MOST:
        raise _malformed(f"{key} is not a list of at most {_MOST}")
    for item in given:
        if not isinstance(item, str) or not form.fullmatch(item):
            raise _malformed(f"{key}: {str(item)[:100]!r} is not {'hex' if form is _HEX else 'a name'}")
    return given


def _malformed(text: str) -> Malformed:
    return Malformed(f"policy: {text}", hint="casemate verify --show-policy prints one to start from")


def _list(items: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{item}"' for item in items) + "]"
