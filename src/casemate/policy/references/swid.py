"""Measurements in a SWID tag that is a TCG reference integrity manifest: CoCo's `swid` messages.

Standard: ISO/IEC 19770-2:2015; TCG Reference Integrity Manifest information model. Ids and values are those of CoCo's
reference value provider: `<PlatformManufacturerStr>.<edition>.measurement_<index>`, blanks and dashes as `_`, and the
list of SHA-384 digests that are not all zeros. Its XML signature is not looked at here: whoever takes these values
takes them unsigned. (`casemate.tee.nvidia.rim` judges signed ones.)
"""

from __future__ import annotations

import re
from xml.etree import ElementTree
from xml.parsers import expat

from casemate.errors import Malformed

LIMIT = 2 << 20
MAX_MEASUREMENTS = 256
MAX_ALTERNATIVES = 64
_SWID = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_RIM = "{https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/}"
_HASH = "{http://www.w3.org/2001/04/xmlenc#sha384}Hash"
_INDEX = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_DIGEST = re.compile(r"[0-9a-fA-F]{96}")


def read(data: bytes) -> dict[str, list[str]]:
    """Id to digests (lower-case hex); the only error is `Malformed`."""
    root = _parsed(data)
    meta, payload = root.find(f".//{_SWID}Meta"), root.find(f".//{_SWID}Payload")
    if meta is None or payload is None:
        raise Malformed("SWID: Meta and Payload are wanted")
    maker, edition = meta.get(f"{_RIM}PlatformManufacturerStr"), meta.get("edition")
    if not maker or not edition or len(maker) + len(edition) > 256:
        raise Malformed("SWID: Meta names a platform's manufacturer and an edition")
    found: dict[str, list[str]] = {}
    for resource in payload.iter(f"{_SWID}Resource"):
        if resource.get("type") != "Measurement":
            continue
        index = resource.get("index", "")
        if not _INDEX.fullmatch(index) or len(found) >= MAX_MEASUREMENTS:
            raise Malformed(f"SWID: at most {MAX_MEASUREMENTS} measurements, each with an index")
        digests = _digests(resource)
        if digests:
            found[f"{maker.replace(' ', '_')}.{edition}.measurement_{index}".replace("-", "_")] = digests
    if not found:
        raise Malformed("SWID: no measurement with a value")
    return found


def _digests(resource: ElementTree.Element) -> list[str]:
    """Hash0, Hash1, ... without those that are all zeros, which mean that nothing is measured there."""
    found: list[str] = []
    for number in range(MAX_ALTERNATIVES):
        value = resource.get(f"{_HASH}{number}")
        if value is None:
            return found
        if not _DIGEST.fullmatch(value):
            raise Malformed("SWID: a digest that is not SHA-384 in hex")
        if value.strip("0"):
            found.append(value.lower())
    raise Malformed(f"SWID: more than {MAX_ALTERNATIVES} digests of a measurement")


def _parsed(data: bytes) -> ElementTree.Element:
    """The tree; a document type, and with it every entity, is refused before it is expanded."""
    if len(data) > LIMIT:
        raise Malformed(f"SWID: {len(data)} bytes, at most {LIMIT} allowed")
    check = expat.ParserCreate()
    check.StartDoctypeDeclHandler = _refuse
    try:
        check.Parse(data, True)
        return ElementTree.fromstring(data)  # noqa: S314 - no document type got here, so no entity either
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        raise Malformed("SWID: not XML") from error


def _refuse(*_: object) -> None:
    raise Malformed("SWID: a document type is not accepted")
