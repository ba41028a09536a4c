"""Rego's functions on strings, encodings, hashes, times and versions."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
import re
import time
import urllib.parse
from datetime import UTC, datetime
from typing import Any

from casemate.errors import Malformed
from casemate.policy.rego.builtins import items, named, numeric, whole
from casemate.policy.rego.inputs import bounded
from casemate.policy.rego.values import Exhausted, Undefined, text

MAX_TEXT = 1 << 20
MAX_PATTERN = 1024
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)")
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?")
_VERB = re.compile(r"%([-+# 0]*)(\d{0,3})(?:\.(\d{1,3}))?([a-zA-Z%])")


def a_string(value: Any) -> str:
    """A string and nothing else."""
    if not isinstance(value, str):
        raise TypeError
    return value


def _short(value: str) -> str:
    if len(value) > MAX_TEXT:
        raise Exhausted
    return value


def _some(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [a_string(item) for item in items(value)]


named("contains")(lambda a, b: a_string(b) in a_string(a))
named("startswith")(lambda a, b: a_string(a).startswith(a_string(b)))
named("endswith")(lambda a, b: a_string(a).endswith(a_string(b)))
named("lower")(lambda a: a_string(a).lower())
named("upper")(lambda a: a_string(a).upper())
named("indexof")(lambda a, b: a_string(a).find(a_string(b)))
named("split")(lambda a, b: a_string(a).split(b) if b else list(a_string(a)))
named("trim")(lambda a, b: a_string(a).strip(a_string(b)))
named("trim_left")(lambda a, b: a_string(a).lstrip(a_string(b)))
named("trim_right")(lambda a, b: a_string(a).rstrip(a_string(b)))
named("trim_prefix")(lambda a, b: a_string(a).removeprefix(a_string(b)))
named("trim_suffix")(lambda a, b: a_string(a).removesuffix(a_string(b)))
named("trim_space")(lambda a: a_string(a).strip())
named("strings.reverse")(lambda a: a_string(a)[::-1])
named("strings.count")(lambda a, b: a_string(a).count(a_string(b)))
named("strings.any_prefix_match")(lambda a, b: any(x.startswith(y) for x in _some(a) for y in _some(b)))
named("strings.any_suffix_match")(lambda a, b: any(x.endswith(y) for x in _some(a) for y in _some(b)))
named("concat")(lambda a, b: _short(a_string(a).join(a_string(item) for item in items(b))))


@named("replace")
def _replace(value: Any, old: Any, new: Any) -> str:
    if (a_string(value).count(a_string(old)) + 1) * (len(a_string(new)) + 1) > MAX_TEXT:
        raise Exhausted
    return a_string(value).replace(old, new)


@named("substring")
def _substring(value: Any, offset: Any, length: Any) -> str:
    start, count = whole(offset), whole(length)
    if start < 0:
        raise ValueError
    return a_string(value)[start:] if count < 0 else a_string(value)[start : start + count]


@named("format_int")
def _format(value: Any, base: Any) -> str:
    form = {2: "b", 8: "o", 10: "d", 16: "x"}[whole(base)]
    return format(int(numeric(value)), form)


@named("to_number")
def _to_number(value: Any) -> int | float:
    if value is None or isinstance(value, bool):
        return int(value or 0)
    if isinstance(value, str):
        if not re.fullmatch(r"[+-]?(\d{1,300}(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", value):
            raise ValueError
        return int(value) if re.fullmatch(r"[+-]?\d+", value) else float(value)
    return numeric(value)


@named("sprintf")
def _sprintf(form: Any, arguments: Any) -> str:
    """Go's verbs: v d s q x X t f e g and %%; one without its argument prints as itself."""
    left = list(items(arguments))

    def put(found: re.Match[str]) -> str:
        flags, width, precision, verb = found.groups()
        if verb == "%":
            return "%"
        if not left:
            return found[0]
        shown = _verb(left.pop(0), verb, precision)
        size = min(int(width or 0), 200)
        if "-" in flags:
            return shown.ljust(size)
        return shown.zfill(size) if "0" in flags else shown.rjust(size)

    return _short(_VERB.sub(put, a_string(form)))


def _verb(value: Any, verb: str, precision: str | None) -> str:
    if verb in "dxXob" and isinstance(value, int | float) and not isinstance(value, bool):
        return format(int(value), verb)
    if verb in "xX" and isinstance(value, str):
        return format(value.encode().hex(), "") if verb == "x" else value.encode().hex().upper()
    if verb in "feg" and isinstance(value, int | float):
        return format(float(value), f".{precision or 6}{verb}")
    if verb == "q":
        return json.dumps(value if isinstance(value, str) else text(value), ensure_ascii=False)
    return value if isinstance(value, str) else text(value)


def _pattern(value: Any) -> re.Pattern[str]:
    if len(a_string(value)) > MAX_PATTERN:
        raise ValueError
    try:
        return re.compile(value)
    except (re.error, RecursionError, OverflowError):
        raise ValueError from None


named("regex.match", "re_match")(lambda p, v: _pattern(p).search(a_string(v)) is not None)
named("regex.split")(lambda p, v: [part or "" for part in _pattern(p).split(a_string(v))])
named("regex.replace")(lambda v, p, r: _short(_pattern(p).sub(lambda _: a_string(r), a_string(v))))
named("regex.find_n")(
    lambda p, v, n: [m[0] for m in _pattern(p).finditer(a_string(v))][: whole(n) if whole(n) >= 0 else None]
)


@named("regex.is_valid")
def _valid(value: Any) -> bool:
    try:
        _pattern(value)
    except (ValueError, TypeError):
        return False
    return True


@named("glob.match")
def _glob(pattern: Any, delimiters: Any, value: Any) -> bool:
    apart = "".join(re.escape(a_string(d)) for d in ((["."] if delimiters == [] else delimiters) or []))
    one = f"[^{apart}]" if apart else "."
    made = ""
    for part in re.split(r"(\*\*|\*|\?)", a_string(pattern)):
        made += {"**": ".*", "*": one + "*", "?": one}.get(part, re.escape(part))
    return re.fullmatch(made, a_string(value), re.DOTALL) is not None


def _b64(value: Any, *, url: bool, strict: bool = True) -> str:
    raw = a_string(value)
    raw += "=" * (-len(raw) % 4) if not strict else ""
    return base64.b64decode(raw, altchars=b"-_" if url else None, validate=True).decode()


named("base64.encode")(lambda a: base64.b64encode(a_string(a).encode()).decode())
named("base64.decode")(lambda a: _b64(a, url=False))
named("base64url.encode")(lambda a: base64.urlsafe_b64encode(a_string(a).encode()).decode())
named("base64url.encode_no_pad")(lambda a: base64.urlsafe_b64encode(a_string(a).encode()).decode().rstrip("="))
named("base64url.decode")(lambda a: _b64(a, url=True, strict=False))
named("hex.encode")(lambda a: a_string(a).encode().hex())
named("hex.decode")(lambda a: bytes.fromhex(a_string(a)).decode())
named("urlquery.encode")(lambda a: urllib.parse.quote_plus(a_string(a)))
named("urlquery.decode")(lambda a: urllib.parse.unquote_plus(a_string(a)))
named("json.marshal")(text)
named("crypto.sha256")(lambda a: hashlib.sha256(a_string(a).encode()).hexdigest())
named("crypto.sha1")(lambda a: hashlib.sha1(a_string(a).encode(), usedforsecurity=False).hexdigest())
named("crypto.md5")(lambda a: hashlib.md5(a_string(a).encode(), usedforsecurity=False).hexdigest())
named("crypto.hmac.equal")(lambda a, b: hmac.compare_digest(a_string(a).encode(), a_string(b).encode()))
named("crypto.hmac.sha256")(lambda a, k: hmac.new(a_string(k).encode(), a_string(a).encode(), "sha256").hexdigest())
named("crypto.hmac.sha512")(lambda a, k: hmac.new(a_string(k).encode(), a_string(a).encode(), "sha512").hexdigest())
named("time.now_ns")(time.time_ns)


@named("base64.is_valid")
def _b64_valid(value: Any) -> bool:
    try:
        base64.b64decode(a_string(value), validate=True)
    except binascii.Error:
        return False
    return True


@named("json.unmarshal")
def _unmarshal(value: Any) -> Any:
    try:
        return bounded(json.loads(a_string(value)))
    except (RecursionError, Malformed):
        raise Undefined from None


@named("json.is_valid")
def _json_valid(value: Any) -> bool:
    try:
        json.loads(a_string(value))
    except (ValueError, RecursionError):
        return False
    return True


@named("time.parse_rfc3339_ns")
def _moment(value: Any) -> int:
    found = _RFC3339.fullmatch(a_string(value))
    if found is None:
        raise ValueError
    whole_seconds = datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00")).timestamp()
    return int(whole_seconds) * 10**9 + int((found[2] or "0").ljust(9, "0"))


@named("time.parse_duration_ns")
def _duration(value: Any) -> int:
    raw = a_string(value).lstrip("+-")
    parts = _DURATION.findall(raw)
    if not parts or "".join(n + u for n, u in parts) != raw:
        raise ValueError
    total = sum(int(float(n) * _UNITS[u]) for n, u in parts)
    return -total if value.startswith("-") else total


named("time.date")(lambda ns: list(datetime.fromtimestamp(whole(ns) // 10**9, UTC).timetuple()[:3]))
named("time.clock")(lambda ns: list(datetime.fromtimestamp(whole(ns) // 10**9, UTC).timetuple()[3:6]))
named("time.weekday")(lambda ns: datetime.fromtimestamp(whole(ns) // 10**9, UTC).strftime("%A"))


def _semver(value: Any) -> tuple[Any, ...]:
    found = _VERSION.fullmatch(a_string(value))
    if found is None:
        raise ValueError
    tail = [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in (found[4] or "").split(".") if p]
    return (int(found[1]), int(found[2]), int(found[3]), not tail, tail)


named("semver.is_valid")(lambda a: isinstance(a, str) and _VERSION.fullmatch(a) is not None)
named("semver.compare")(lambda a, b: (_semver(a) > _semver(b)) - (_semver(a) < _semver(b)))
named("net.cidr_contains")(
    lambda a, b: ipaddress.ip_network(b, strict=False).subnet_of(ipaddress.ip_network(a, strict=False))  # type: ignore[arg-type] # mixed versions raise TypeError, which is undefined
)
named("net.cidr_is_valid")(lambda a: bool(ipaddress.ip_network(a_string(a), strict=False)))
named("units.parse_bytes")(lambda a: _bytes(a_string(a)))


def _bytes(value: str) -> int:
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)([kmgtpeKMGTPE]?i?)[bB]?", value.strip('"'))
    if found is None:
        raise Undefined
    unit = found[2].lower()
    scale = 1024 if unit.endswith("i") else 1000
    return int(float(found[1]) * scale ** (" kmgtpe".index(unit[0]) if unit else 0))
