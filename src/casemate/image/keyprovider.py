"""The key-provider protocol of ocicrypt: skopeo and its kin ask a program to wrap and unwrap layer keys.

Spec: containers/ocicrypt key-provider protocol (JSON on stdin, JSON on stdout). Parameters travel as base64 of
``key=value`` pairs joined by ``::`` (CoCo's form): ``keyid=kbs:///a/b/c::keypath=/file::packet=1``. Byte strings are
answered as integer lists, which Go and Rust both read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from casemate.errors import Malformed, Unusable
from casemate.image import ocicrypt, packets
from casemate.wire import jcs
from casemate.wire.encoding import unb64

MAX_REQUEST = 1 << 20
Keys = Callable[[str, dict[str, str]], bytes]
_KNOWN = frozenset({"keyid", "keypath", "algorithm", "packet"})


def answer(request: bytes, keys: Keys) -> bytes:
    """The answer to one request. `keys` gives the 32 bytes of a key id, with the caller's parameters at hand."""
    document = jcs.parse_object(request, "key-provider request", limit=MAX_REQUEST)
    operation = document.get("op")
    if operation == "keywrap":
        asked = _member(document, "keywrapparams")
        return _reply("keywrapresults", "annotation", _wrap(asked, keys))
    if operation == "keyunwrap":
        asked = _member(document, "keyunwrapparams")
        return _reply("keyunwrapresults", "optsdata", _unwrap(asked, keys))
    raise Malformed(f"key-provider request: operation {str(operation)[:32]!r} is not known")


def parameters(text: str) -> dict[str, str]:
    """The pairs of ``key=value::key=value``; an unknown or repeated name is `Malformed`."""
    found: dict[str, str] = {}
    for pair in filter(None, text.split("::")):
        name, equals, value = pair.partition("=")
        if not equals or name not in _KNOWN or name in found:
            raise Malformed(
                f"key-provider parameter {pair[:128]!r} is not understood", hint="keyid=kbs:///…::keypath=FILE"
            )
        found[name] = value
    return found


def _wrap(asked: dict[str, Any], keys: Keys) -> bytes:
    given = _given(_member(asked, "ec"))
    kid = given.get("keyid", "")
    if not packets.is_kid(kid):
        raise Unusable(
            f"key provider: keyid {kid[:128]!r} is not kbs:///repository/type/tag",
            hint="--encryption-key provider:attestation-agent:keyid=kbs:///repository/type/tag::keypath=FILE",
        )
    if given.get("algorithm", "A256GCM") != "A256GCM" or given.get("packet", "2") not in ("1", "2"):
        raise Unusable("key provider: only algorithm=A256GCM and packet=1 or 2 are written")
    secret = _bytes(asked.get("optsdata"), "optsdata")
    ocicrypt.LayerSecret.parse(secret)  # wrap nothing that could not be read back
    return packets.wrap(secret, kid, keys(kid, given), version=int(given.get("packet", "2")))


def _unwrap(asked: dict[str, Any], keys: Keys) -> bytes:
    given = _given(_member(asked, "dc"))
    annotation = _bytes(asked.get("annotation"), "annotation")
    if not annotation.lstrip().startswith(b"{"):  # CoCo's Rust clients encode the packet once more
        annotation = unb64(annotation.decode("latin-1"), "annotation")
    packet = packets.parse(annotation)
    return packets.unwrap(packet, keys(packet.kid, given))


def _given(config: dict[str, Any]) -> dict[str, str]:
    """The parameters for any provider name: the caller configured us under one, and we answer for all."""
    found: dict[str, str] = {}
    for values in _member(config, "Parameters").values():
        for value in values if isinstance(values, list) else []:
            text = _bytes(value, "parameter")
            try:
                found.update(parameters(text.decode("utf-8")))
            except UnicodeDecodeError as error:
                raise Malformed("key-provider parameter: not UTF-8") from error
    return found


def _member(document: dict[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Malformed(f"key-provider request: {name} is not an object")
    return value


def _bytes(value: object, name: str) -> bytes:
    """A byte string as Go (base64 text) or Rust (list of integers) writes it."""
    if isinstance(value, str):
        return unb64(value, f"key-provider request: {name}")
    if isinstance(value, list) and all(type(item) is int and 0 <= item <= 255 for item in value):
        return bytes(value)
    raise Malformed(f"key-provider request: {name} is not a byte string")


def _reply(result: str, name: str, data: bytes) -> bytes:
    return json.dumps({result: {name: list(data)}}, separators=(",", ":")).encode()
