"""YAML as Casemate reads it: plain data with line numbers, and nothing of YAML that surprises (host only).

Rules: one document of at most 1 MiB; no anchors, aliases, tags or merge keys (an alias bomb needs them); no key twice;
keys are strings; bounded depth and size. Plain scalars follow the YAML 1.2 core schema, so `no` is a string and `0400`
is the number 400, not 256. Works on PyYAML's events; nothing is ever constructed by name.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import yaml

from casemate.errors import Malformed, Problem

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 100_000
_CORE: tuple[tuple[re.Pattern[str], Any], ...] = (
    (re.compile(r"(|~|null|Null|NULL)"), lambda _: None),
    (re.compile(r"(true|True|TRUE)"), lambda _: True),
    (re.compile(r"(false|False|FALSE)"), lambda _: False),
    (re.compile(r"[-+]?[0-9]{1,18}"), int),
    (re.compile(r"0o[0-7]{1,20}"), lambda text: int(text[2:], 8)),
    (re.compile(r"0x[0-9a-fA-F]{1,15}"), lambda text: int(text[2:], 16)),
    (re.compile(r"[-+]?(\.[0-9]{1,30}|[0-9]{1,30}\.[0-9]{0,30})([eE][-+]?[0-9]{1,2})?"), float),
    (re.compile(r"[-+]?[0-9]{1,30}[eE][-+]?[0-9]{1,2}"), float),
)


_OUT_OF_RANGE = re.compile(r"[-+]?[0-9]{19,}|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class Loaded(NamedTuple):
    """Plain data, and the line of each path in it (`containers[0].image` → 12)."""

    document: Any
    lines: dict[str, int]


def load(text: str | bytes) -> Loaded:
    """The one document in `text`; the only error is `Malformed`, with line and column."""
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(raw) > MAX_BYTES:
        raise Malformed(f"YAML: {len(raw)} bytes, at most {MAX_BYTES} allowed")
    try:
        return _Reader(raw.decode("utf-8")).read()
    except UnicodeDecodeError as error:
        raise Malformed("YAML: not UTF-8") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise _wrong("", error.problem or "not YAML", line) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise Malformed(f"YAML: {str(error).splitlines()[0] if str(error) else 'nested too deeply'}") from error


def plain(text: str) -> Any:
    """What a scalar without quotes means by the core schema: a literal, or else the text itself (the same object)."""
    for pattern, make in _CORE:
        if pattern.fullmatch(text):
            return make(text)
    return text


def _wrong(path: str, message: str, line: int, hint: str = "") -> Malformed:
    return Malformed(f"YAML: line {line}: {message}", hint=hint, problems=[Problem(path, message, hint, line)])


class _Reader:
    def __init__(self, text: str) -> None:
        self.events = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        self.lines: dict[str, int] = {}
        self.nodes = 0

    def read(self) -> Loaded:
        """Stream start, one document, stream end."""
        next(self.events)
        event: Any = next(self.events)
        if not isinstance(event, yaml.DocumentStartEvent):
            raise Malformed("YAML: the document is empty")
        document = self.node(next(self.events), "", 1)
        next(self.events)
        event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise _wrong("", "a second document begins here", event.start_mark.line + 1, "keep one document per file")
        return Loaded(document, self.lines)

    def node(self, event: Any, path: str, depth: int) -> Any:
        """The value that begins with `event`."""
        line = event.start_mark.line + 1
        self.nodes += 1
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            raise _wrong(path, f"more than {MAX_DEPTH} levels or {MAX_NODES} values", line)
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _wrong(path, "anchors and aliases are not read", line, "write the value where it is used")
        if event.tag not in {None, "!"}:
            raise _wrong(path, "tags are not read", line, "leave the !tag out")
        self.lines.setdefault(path, line)
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event, path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(path, depth)
        return self.mapping(path, depth)

    def scalar(self, event: Any, path: str) -> Any:
        """A scalar by the core schema; quoted and block scalars are strings."""
        if not event.implicit[0]:
            return event.value
        value = plain(event.value)
        if value is event.value and _OUT_OF_RANGE.fullmatch(event.value):
            raise _wrong(path, "a number out of range", event.start_mark.line + 1, "put it in quotes if it is text")
        return value

    def sequence(self, path: str, depth: int) -> list[Any]:
        """The items up to the end of the sequence."""
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(event, f"{path}[{len(items)}]", depth + 1))
        return items

    def mapping(self, path: str, depth: int) -> dict[str, Any]:
        """The entries up to the end of the mapping; their lines are those of their keys."""
        found: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key, line = self.node(event, f"{path}<key>", depth + 1), self.lines.pop(f"{path}<key>")
            if not isinstance(key, str):
                raise _wrong(path, f"the key {str(key)[:40]!r} is not text", line, "put it in quotes")
            here = f"{path}.{key[:64]}" if path else key[:64]
            if key == "<<":
                raise _wrong(path, "merge keys are not read", line, "write the fields where they are used")
            if key in found:
                raise _wrong(here, "the key stands twice", line)
            self.lines[here] = line
            found[key] = self.node(next(self.events), here, depth + 1)
        return found
