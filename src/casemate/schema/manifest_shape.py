"""Explaining a document that is not shaped like a manifest: every wrong place, not only the first.

msgspec stops at the first error. When it has found one, `draft` walks the document once more along the types and
gathers all of them, with a draft of the manifest that the semantic rules can still read. Only the slow path runs this.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, get_args, get_origin

import msgspec
from msgspec import Meta

from casemate.errors import Problem
from casemate.schema.manifest import Manifest

MAX_PROBLEMS = 50
_UNKNOWN = {  # words of neighbouring formats that stand for a field under another name
    "environment": "env",
    "entrypoint": "command",
    "cmd": "args",
    "working_directory": "working_dir",
    "workingDir": "working_dir",
    "volumeMounts": "mounts",
    "restartPolicy": "restart",
    "cap_add": "capabilities",
    "api_version": "apiVersion",
    "readOnlyRootFilesystem": "read_only_root",
    "encryption_keys": "image_keys",
    "public_key": "key",
}
_HINTS = {
    "image by digest": "tags can be moved; `casemate manifest from IMAGE` resolves one to its digest",
    "absolute path": "begin the path with /",
    "octal permission": "write it as text: mode: '0400'",
    "kbs:///": "a resource has exactly three parts: kbs:///repository/type/tag",
    "sha256:": "write sha256: and 64 lower-case hex digits",
    "DNS label": "use lower-case letters, digits and hyphens, at most 63",
    "https://": "brokers are reached over TLS only; leave out path and user name",
    "numeric uid": "names are not resolved; write the number: user: '101:101'",
}
_MISSING = {
    "app": "say which app owns it: the app id that `casemate app found` prints",
    "signers": "say who may sign the images: a public key and repository patterns",
    "brokers": "say which broker holds the keys: its URL and the pin that `casemate up` prints",
    "image": "name the image by digest: registry/repository@sha256:…",
    "key": "a volume needs a key resource, a broker its pin, a signer its public key",
}


def draft(document: object) -> tuple[Manifest, tuple[Problem, ...]]:
    """A draft of the manifest (wrong values left out or left as they are) and every problem of its shape."""
    walk = _Walk()
    manifest = walk.struct(document, Manifest, "")
    return manifest, tuple(walk.problems[:MAX_PROBLEMS])


class _Walk:
    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def say(self, path: str, message: str, hint: str = "") -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(path, message, hint))

    def struct(self, value: object, kind: Any, path: str) -> Any:
        """An instance of the struct `kind`, however much of `value` fits it."""
        if not isinstance(value, dict):
            self.say(path, f"expected a mapping, found {_name(value)}")
            return kind(**{f.name: _blank(kind, f.name) for f in msgspec.structs.fields(kind) if f.required})
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        for key in value:
            if key not in fields:
                self.say(_join(path, key), "unknown field", _meant(str(key), fields))
        made: dict[str, Any] = {}
        for name, field in fields.items():
            if name in value:
                made[field.name] = self.value(value[name], field.type, _join(path, name), field)
            elif field.required:
                self.say(_join(path, name), "missing", _MISSING.get(name, ""))
                made[field.name] = _blank(kind, field.name)
        return kind(**made)

    def value(self, value: object, kind: Any, path: str, field: Any) -> Any:
        """The value as `kind`, or the field's default (or a blank) where it does not fit."""
        inner = _strip(kind)
        arguments = get_args(inner)
        if type(None) in arguments:
            if value is None:
                return None
            inner = next(a for a in arguments if a is not type(None))
            return self.value(value, inner, path, field)
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            return self.struct(value, inner, path)
        if get_origin(inner) is tuple and isinstance(value, list | tuple):
            self.leaf([None] * len(value), Annotated[tuple[Any, ...], Meta(), *_metas(kind)], path)
            return tuple(self.value(v, arguments[0], f"{path}[{i}]", None) for i, v in enumerate(value))
        if self.leaf(value, kind, path) or type(value) is inner:
            return value
        return _default(field, inner)

    def leaf(self, value: object, kind: Any, path: str) -> bool:
        """Whether `value` fits `kind`; says why not."""
        try:
            msgspec.convert(value, kind)
        except (msgspec.ValidationError, RecursionError) as error:
            self.say(path, *_reason(str(error), value, kind))
            return False
        return True


def _reason(message: str, value: object, kind: Any) -> tuple[str, str]:
    """(message, hint) in the manifest's words rather than in regular expressions."""
    words = next((m.description for m in _metas(kind) if m.description), "")
    hint = next((text for start, text in _HINTS.items() if start in words), "")
    if words and "regex" in message:
        return f"expected {words}, found {_shown(value)}", hint
    if "Invalid enum value" in message:
        choices = ", ".join(map(str, get_args(_strip(kind))))
        return f"expected one of {choices}, found {_shown(value)}", ""
    message = re.sub(r" - at `\$.*`$", "", message).replace("`", "")
    for theirs, ours in (("array", "a list"), ("object", "a mapping"), ("null", "nothing"), ("got", "found")):
        message = re.sub(rf"\b{theirs}\b", ours, message)
    if "Expected str, found" in message:
        hint = hint or "put the value in quotes"
    return message[:1].lower() + message[1:], hint


def _meant(key: str, fields: dict[str, Any]) -> str:
    from difflib import get_close_matches

    words = {name: name for name in fields} | {word: name for word, name in _UNKNOWN.items() if name in fields}
    near = get_close_matches(key, words, n=1)
    return f"did you mean {words[near[0]]!r}?" if near else "known fields: " + ", ".join(fields)


def _join(path: str, key: object) -> str:
    text = str(key)[:64]
    return f"{path}.{text}" if path else text


def _strip(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _metas(kind: Any) -> list[Meta]:
    return [m for m in get_args(kind)[1:] if isinstance(m, Meta)] if get_origin(kind) is Annotated else []


def _blank(kind: Any, name: str) -> Any:
    field = next(f for f in msgspec.structs.fields(kind) if f.name == name)
    return _default(field, _strip(field.type))


def _default(field: Any, inner: Any) -> Any:
    """What stands in for a value that does not fit: the default, else an empty value of the same kind."""
    if field is not None and not field.required:
        return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if get_origin(inner) is tuple:
        return ()
    return inner() if inner in {int, float, bool} else ""


def _name(value: object) -> str:
    if isinstance(value, list | tuple):
        return "a list"
    return "nothing" if value is None else type(value).__name__


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
