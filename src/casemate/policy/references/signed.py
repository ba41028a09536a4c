"""Our own plain form: a JSON document `casemate/reference-values/v1` in a DSSE envelope or a compact JWS.

The document names its signer (the pin of the key), when it was issued, when it expires and what it is limited to; all
are checked. What is checked in RFC terms: JWS (RFC 7515) compact, algorithm tied to the key, `typ` demanded, no `crit`.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from casemate.crypto import signatures
from casemate.errors import Malformed
from casemate.policy.references import dsse, rules
from casemate.policy.references.trust import ReferenceTrust
from casemate.schema.reference import AtLeast, OneOf, Reference
from casemate.wire import jcs
from casemate.wire.encoding import b64, b64u, unb64u

TYPE = "casemate/reference-values/v1"
PAYLOAD_TYPE = "application/vnd.casemate.reference-values.v1+json"
JWS_TYPE = "casemate-reference-values+jws"
MAX_ALTERNATIVES = 64
_REQUIRED = {"type", "name", "signer", "issued", "expires", "scope", "values"}
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_LOWER_HEX = re.compile(r"(?:[0-9a-f]{2}){1,64}")


def envelope(found: dsse.Envelope, reading: rules.Reading) -> None:
    """The document in a DSSE envelope."""
    signers = dsse.verify(found, reading)
    names = [rules.key_id(spki) for spki in signers]
    document(jcs.parse_object(found.payload, "reference values"), names, reading)


def jws(data: bytes, reading: rules.Reading) -> None:
    """The document in a compact JWS."""
    head, body, signature = (part.decode("ascii") for part in data.strip().split(b"."))
    header = jcs.parse_object(_one_form(head, "JWS header"), "JWS header", limit=4096)
    if header.get("typ") != JWS_TYPE or "crit" in header or "b64" in header:
        raise Malformed(f"JWS: typ {JWS_TYPE} without critical members is wanted")
    algorithm = str(header.get("alg"))
    message, raw = f"{head}.{body}".encode("ascii"), _one_form(signature, "JWS signature")
    names = [
        rules.key_id(spki) for spki, key in reading.candidates() if signatures.verify_jose(key, algorithm, raw, message)
    ][:1]
    reading.signer("".join(names), threshold=max(1, reading.trust.threshold), count=len(names))
    document(jcs.parse_object(_one_form(body, "JWS payload"), "reference values"), names, reading)


def unsigned(found: dict[str, Any], reading: rules.Reading) -> None:
    """The bare document."""
    reading.unsigned()
    document(found, [], reading)


def document(found: dict[str, Any], signers: list[str], reading: rules.Reading) -> None:
    """The reference of a document, and its rules."""
    if found.get("type") != TYPE or set(found) != _REQUIRED:
        raise Malformed(f"reference values: {TYPE} has the members " + ", ".join(sorted(_REQUIRED)))
    name, signer, scope = found["name"], found["signer"], found["scope"]
    if not isinstance(name, str) or not 1 <= len(name) <= 128 or not isinstance(signer, str):
        raise Malformed("reference values: name and signer are texts")
    if not isinstance(scope, dict) or len(scope) > 16 or not all(map(_is_limit, scope.items())):
        raise Malformed("reference values: scope is an object of short texts")
    tee = scope.get("tee", "")
    if not tee:
        raise Malformed("reference values: scope.tee is not said")
    issued, expires = (rules.parse_time(found[part], f"reference values: {part}") for part in ("issued", "expires"))
    if expires <= issued:
        raise Malformed("reference values: they expire before they were issued")
    if signers:
        hint = "the document says that another key signs it"
        reading.add("reference.signer", signer, ", ".join(signers), hint, ok=signer in signers)
    reading.times(issued=issued, expires=expires)
    reading.scope(scope)
    reading.references.append(
        Reference(name=name, format=TYPE, tee=tee, registers=_values(found["values"]), scope=dict(scope),
                  signer=", ".join(signers), issued=issued, expires=expires)
    )  # fmt: skip


def compose(
    *, name: str, scope: dict[str, str], values: dict[str, Any], issued: datetime, expires: datetime, signer: str
) -> bytes:
    """The canonical document to sign; `Malformed` where `document` would say so. `values` as the format has them."""
    made = {
        "type": TYPE, "name": name, "signer": signer, "scope": scope, "values": values,
        "issued": f"{rules.time(issued):%Y-%m-%dT%H:%M:%SZ}", "expires": f"{rules.time(expires):%Y-%m-%dT%H:%M:%SZ}",
    }  # fmt: skip
    document(made, [], rules.Reading(ReferenceTrust(), issued))
    return jcs.canonical(made)


def sign(payload: bytes, key: signatures.PrivateKey, *, as_jws: bool = False) -> bytes:
    """A composed document in a DSSE envelope, or in a compact JWS."""
    if as_jws:
        head = b64u(jcs.canonical({"alg": signatures.algorithm(key), "typ": JWS_TYPE}))
        message = f"{head}.{b64u(payload)}".encode("ascii")
        return message + b"." + b64u(signatures.sign_jose(key, message)).encode("ascii")
    signature = signatures.sign_dsse(key, dsse.pae(PAYLOAD_TYPE, payload))
    key_id = rules.key_id(signatures.spki(key.public_key()))
    return jcs.canonical(
        {"payloadType": PAYLOAD_TYPE, "payload": b64(payload), "signatures": [{"keyid": key_id, "sig": b64(signature)}]}
    )


def _values(values: Any) -> dict[str, OneOf | AtLeast]:
    if not isinstance(values, dict) or not 1 <= len(values) <= rules.MAX_REGISTERS:
        raise Malformed(f"reference values: 1 to {rules.MAX_REGISTERS} values are wanted")
    found: dict[str, OneOf | AtLeast] = {}
    for register, value in values.items():
        if not _NAME.fullmatch(register):
            raise Malformed("reference values: a register's name is of small letters, digits, dots and dashes")
        found[register] = _value(value, register)
    return found


def _value(value: Any, register: str) -> OneOf | AtLeast:
    if isinstance(value, dict):
        least = value.get("at_least")
        if (
            set(value) != {"at_least"}
            or isinstance(least, bool)
            or not isinstance(least, int)
            or not 0 <= least < 1 << 64
        ):
            raise Malformed(f'reference values: {register}: {{"at_least": number}} is wanted')
        return AtLeast(least)
    allowed = value if isinstance(value, list) else [value]
    if not 1 <= len(allowed) <= MAX_ALTERNATIVES:
        raise Malformed(f"reference values: {register}: 1 to {MAX_ALTERNATIVES} values are wanted")
    if not all(isinstance(item, str) and _LOWER_HEX.fullmatch(item) for item in allowed):
        raise Malformed(f"reference values: {register}: not lower-case hex of 1 to 64 bytes")
    return OneOf(tuple(allowed))


def _is_limit(item: tuple[str, Any]) -> bool:
    name, value = item
    return bool(_NAME.fullmatch(name)) and isinstance(value, str) and 1 <= len(value) <= 256


def _one_form(text: str, name: str) -> bytes:
    data = unb64u(text, name)
    if b64u(data) != text:
        raise Malformed(f"{name}: base64url that is not in its one form")
    return data
