"""Profiles of CoRIM whose rules are known: Arm's CCA platform and realm (draft-ydb-rats-cca-endorsements).

A profile says which TEE its values are of, and what each triple must look like. All failed rules are told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from casemate.errors import Finding
from casemate.wire import cbor

_BYTES, _UEID, _KEY_TEXT = 560, 550, 554
_DIGEST_SIZES = (32, 48, 64)
_COMPONENT, _CONFIG = "cca.software-component", "cca.platform-config"
_REALM = ("cca.rim", "cca.rem0", "cca.rem1", "cca.rem2", "cca.rem3", "cca.rpv")
_DIGESTS, _RAW, _MASK, _NAME, _CRYPTOKEYS, _VERSION = 2, 4, 5, 11, 13, 0
_HINT = "ask the signer for a manifest that keeps to its profile"

_Faults = Iterator[tuple[str, str, str]]


@dataclass(frozen=True)
class Profile:
    """The TEE of a profile's values and its rules: each takes the triples and yields (rule, expected, found)."""

    tee: str
    faults: Callable[[dict[Any, Any]], _Faults]

    def judge(self, triples: dict[Any, Any]) -> list[Finding]:
        """Every broken rule, or one finding that all hold."""
        failed = [
            Finding(f"reference.profile.{rule}", expected, found[:256], _HINT)
            for rule, expected, found in self.faults(triples)
        ]
        return failed or [Finding("reference.profile.rules", "the profile's rules", "hold", ok=True)]


def register(key: str, values: dict[Any, Any]) -> str:
    """The register that a measurement's key names; software components are told apart by their names."""
    name = values.get(_NAME)
    if key == _COMPONENT and isinstance(name, str) and 1 <= len(name) <= 64:
        return f"{key}.{name}"
    return key.removeprefix("cca.") if key in _REALM else key


def _platform(triples: dict[Any, Any]) -> _Faults:
    for environment, measurements in _pairs(triples.get(0)):
        yield from _implementation(environment)
        keys = [_key(m) for m in measurements]
        if _COMPONENT not in keys:
            yield "component", "at least one software component", "none"
        if keys.count(_CONFIG) > 1:
            yield "config", "at most one platform configuration", str(keys.count(_CONFIG))
        for key, measurement in zip(keys, measurements, strict=True):
            if key == _COMPONENT:
                yield from _component(_values(measurement))
            elif key == _CONFIG:
                if not {_RAW, _MASK} <= set(_values(measurement)):
                    yield "config", "a raw value and its mask", "not both"
            else:
                yield "key", f"{_COMPONENT} or {_CONFIG}", str(key)
    for environment, keys in _pairs(triples.get(3)):
        yield from _implementation(environment)
        instance = environment.get(1)
        if len(_bytes(instance, _UEID)) != 33 or _bytes(instance, _UEID)[0] != 1:
            yield "instance", "a UEID of 33 bytes, of random type", _kind(instance)
        if len(keys) != 1 or not (isinstance(keys[0], cbor.Tagged) and keys[0].tag == _KEY_TEXT):
            yield "attestation-key", "one key in PEM", f"{len(keys)} keys"


def _realm(triples: dict[Any, Any]) -> _Faults:
    for environment, measurements in _pairs(triples.get(0)):
        identity = _class_id(environment)
        if len(_bytes(identity, _BYTES)) not in _DIGEST_SIZES:
            yield "class", "the initial measurement as class id, of 32, 48 or 64 bytes", _kind(identity)
        keys = [_key(m) for m in measurements]
        if _REALM[0] not in keys:
            yield "rim", "an initial measurement", "none"
        for key, measurement in zip(keys, measurements, strict=True):
            if key not in _REALM:
                yield "key", ", ".join(_REALM), str(key)
            elif key == _REALM[-1]:
                if not _bytes(_values(measurement).get(_RAW), _BYTES):
                    yield "rpv", "a raw value", "none"
            else:
                yield from _digests(_values(measurement), most=1)


def _component(values: dict[Any, Any]) -> _Faults:
    yield from _digests(values, most=16)
    keys = values.get(_CRYPTOKEYS)
    signer = keys[0] if isinstance(keys, list) and len(keys) == 1 else None
    if len(_bytes(signer, _BYTES)) not in _DIGEST_SIZES:
        yield "signer-id", "one signer id of 32, 48 or 64 bytes", _kind(signer)
    version = values.get(_VERSION)
    if isinstance(version, dict) and 1 in version:
        yield "version", "a version without a scheme", "a scheme"


def _digests(values: dict[Any, Any], *, most: int) -> _Faults:
    found = values.get(_DIGESTS)
    found = found if isinstance(found, list) else []
    if not 1 <= len(found) <= most:
        yield "digests", f"1 to {most} digests", str(len(found))
    for digest in found:
        value = digest[1] if isinstance(digest, list) and len(digest) == 2 else None
        if not isinstance(value, bytes) or len(value) not in _DIGEST_SIZES:
            yield "digests", "digests of 32, 48 or 64 bytes", _kind(value)


def _implementation(environment: dict[Any, Any]) -> _Faults:
    identity = _class_id(environment)
    if len(_bytes(identity, _BYTES)) != 32:
        yield "implementation-id", "an implementation id of 32 bytes", _kind(identity)


def _class_id(environment: dict[Any, Any]) -> Any:
    found = environment.get(0)
    return found.get(0) if isinstance(found, dict) else None


def _pairs(found: Any) -> Iterator[tuple[dict[Any, Any], list[Any]]]:
    """The well-formed (environment, list) records; the reader of triples refuses others."""
    for record in found if isinstance(found, list) else []:
        if (
            isinstance(record, list)
            and len(record) >= 2
            and isinstance(record[0], dict)
            and isinstance(record[1], list)
        ):
            yield record[0], record[1]


def _key(measurement: Any) -> str | None:
    found = measurement.get(0) if isinstance(measurement, dict) else None
    return found if isinstance(found, str) else None


def _values(measurement: Any) -> dict[Any, Any]:
    found = measurement.get(1) if isinstance(measurement, dict) else None
    return found if isinstance(found, dict) else {}


def _bytes(value: Any, tag: int) -> bytes:
    """The byte string behind a tag; empty for anything else."""
    right = isinstance(value, cbor.Tagged) and value.tag == tag and isinstance(value.value, bytes)
    return value.value if right else b""


def _kind(value: Any) -> str:
    inner = value.value if isinstance(value, cbor.Tagged) else value
    return f"{len(inner)} bytes" if isinstance(inner, bytes) else "none" if inner is None else "another type"


KNOWN = {
    "tag:arm.com,2025:cca_platform#1.0.0": Profile("cca", _platform),
    "tag:arm.com,2025:cca_realm#1.0.0": Profile("cca", _realm),
}
