"""Evidence in files: a folder sorted by what the files hold, never by how they are called.

Certificates, revocation lists and keys are told by their DER shape (RFC 5280 sections 4.1 and 5.1), in DER, PEM or
rows of either; JSON by parsing; text that is hex or base64 alone is decoded and looked at again. Whatever is left is a
blob for the rooms, each of which knows its own formats (`gather` in its `files.py`). Nothing here is believed: sorting
only says where to look.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from casemate.crypto import der
from casemate.errors import Malformed
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence

MAX_FILES = 64
MAX_SIZE = 16 << 20
MAX_JSON = 4 << 20
MAX_DEPTH = 32
MAX_NODES = 200_000
MAX_PAPERS = 256  # certificates, lists and keys together
_WRAPPED = 2  # text within text: base64 of PEM, hex of DER
_LEAST = 32  # characters; shorter text is not taken for encoded bytes
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----([A-Za-z0-9+/=\s]*)-----END \1-----")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_\-\s]++={0,2}")
_MARK = b"\xef\xbb\xbf"  # some editors put it before text
_VERSION, _TIMES = 0xA0, (0x17, 0x18)
_BITS = 0x03


class File(msgspec.Struct, frozen=True):
    """One file. The name is for messages only."""

    name: str
    data: bytes


class Case(msgspec.Struct, frozen=True):
    """A folder, sorted by content: `files` are all, in the order of their names; the rest says what they hold.

    `certificates`, `crls` and `keys` (SubjectPublicKeyInfo) are DER; `documents` are JSON values under their file's
    name; `blobs` everything else, decoded where the file was only hex or base64 text.
    """

    files: tuple[File, ...]
    certificates: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()
    keys: tuple[bytes, ...] = ()
    documents: tuple[tuple[str, Any], ...] = ()
    blobs: tuple[File, ...] = ()

    def raw(self, name: str) -> bytes:
        """The bytes of the file called `name`."""
        return next(file.data for file in self.files if file.name == name)


class Gathered(msgspec.Struct, frozen=True, kw_only=True):
    """What a room found in a case.

    `used` names the files it took. `missing` says in words what is absent without which nobody can judge, `wanted` what
    the relying party itself must give, because nothing that lies beside evidence may vouch for it. `covers` are
    the TEEs whose evidence is a part of this one. `also` are further, different pieces of evidence of this TEE with
    their files' names: each must hold too. `report_data` is for hints and never taken as expected.
    """

    evidence: Evidence
    endorsements: Endorsements
    used: tuple[str, ...]
    missing: tuple[str, ...] = ()
    wanted: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    also: tuple[tuple[str, Evidence], ...] = ()
    report_data: bytes | None = None


def sort(files: Sequence[File]) -> Case:
    """The case that `files` make; `Malformed` when there are too many, or one is too large."""
    if len(files) > MAX_FILES:
        raise Malformed(f"{len(files)} files, at most {MAX_FILES} are read", hint="name the files of one case alone")
    ordered = tuple(sorted(files, key=lambda file: file.name))
    for file in ordered:
        if len(file.data) > MAX_SIZE:
            raise Malformed(f"{file.name}: {len(file.data)} bytes, at most {MAX_SIZE} are read")
    papers: dict[str, dict[bytes, None]] = {"certificate": {}, "crl": {}, "key": {}}
    documents: list[tuple[str, Any]] = []
    blobs: list[File] = []
    for file in ordered:
        _place(file, papers, documents, blobs, _WRAPPED)
    if sum(map(len, papers.values())) > MAX_PAPERS:
        raise Malformed(f"more than {MAX_PAPERS} certificates, revocation lists and keys")
    certificates, crls, keys = (tuple(papers[kind]) for kind in ("certificate", "crl", "key"))
    return Case(ordered, certificates, crls, keys, tuple(documents), tuple(blobs))


def _place(
    file: File,
    papers: dict[str, dict[bytes, None]],
    documents: list[tuple[str, Any]],
    blobs: list[File],
    wrapped: int,
) -> None:
    content = file.data.removeprefix(_MARK)
    found = _rows(content) or _pem(content)
    if found:
        for what, data in found:
            papers[what][data] = None
        return
    document = read_json(content)
    if document is not None:
        documents.append((file.name, document))
        return
    armoured = content.lstrip().startswith(b"-----BEGIN ")  # its dashes and letters may pass for base64
    inner = decoded(content) if wrapped and not armoured else None
    if inner:
        _place(File(file.name, inner), papers, documents, blobs, wrapped - 1)
    else:
        blobs.append(file)


def kind(data: bytes) -> str | None:
    """`certificate`, `crl` or `key` by the shape of one DER element, or None."""
    try:
        outer = der.loads(data).children()
        inner = outer[0].children() if outer and outer[0].tag == der.SEQUENCE else []
    except Malformed:
        return None
    tags, parts = [e.tag for e in outer], [e.tag for e in inner]
    if tags == [der.SEQUENCE, _BITS] and parts[:1] == [der.OID]:
        return "key"
    if tags != [der.SEQUENCE, der.SEQUENCE, _BITS]:
        return None
    if parts[:1] == [_VERSION] or (len(parts) >= 6 and parts[4] == der.SEQUENCE and parts[0] == der.INTEGER):
        return "certificate"
    body = parts[1:] if parts[:1] == [der.INTEGER] else parts
    return "crl" if len(body) >= 3 and body[:2] == [der.SEQUENCE, der.SEQUENCE] and body[2] in _TIMES else None


def _rows(data: bytes) -> list[tuple[str, bytes]]:
    """The file as one DER paper behind another and nothing else, or nothing."""
    found: list[tuple[str, bytes]] = []
    rest = data
    while rest:
        size = _extent(rest)
        what = kind(rest[:size]) if size else None
        if what is None or len(found) >= MAX_PAPERS:
            return []
        found.append((what, rest[:size]))
        rest = rest[size:]
    return found


def _extent(data: bytes) -> int:
    """The size of the DER sequence at the start, 0 where there is none."""
    if len(data) < 2 or data[0] != der.SEQUENCE:
        return 0
    if not data[1] & 0x80:
        size = 2 + data[1]
    else:
        width = data[1] & 0x7F
        if not 1 <= width <= 3:
            return 0
        size = 2 + width + int.from_bytes(data[2 : 2 + width], "big")
    return size if size <= len(data) else 0


def _pem(data: bytes) -> list[tuple[str, bytes]]:
    """The PEM blocks of a text (RFC 7468; text around them is explanation), where each holds a known paper."""
    if b"-----BEGIN " not in data or not _is_text(data) or data.lstrip()[:1] in (b"{", b"["):
        return []
    return list(pem_blocks(data))


def pem_blocks(data: bytes) -> Iterator[tuple[str, bytes]]:
    """(kind, DER) of each PEM block that is a certificate, a revocation list or a public key."""
    for number, match in enumerate(_PEM.finditer(data)):
        if number >= MAX_PAPERS:
            raise Malformed(f"more than {MAX_PAPERS} PEM blocks in one text")
        try:
            paper = base64.b64decode(b"".join(match[2].split()), validate=True)
        except binascii.Error:
            continue
        what = kind(paper)
        if what is not None:
            yield what, paper


def read_json(data: bytes) -> Any | None:
    """The JSON object or array in `data`, bounded in size, depth and number of values; None when it is none."""
    if len(data) > MAX_JSON or data.lstrip()[:1] not in (b"{", b"["):
        return None
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    nodes, level, here = 0, 0, [value]
    while here:
        nodes, level = nodes + len(here), level + 1
        if nodes > MAX_NODES or level > MAX_DEPTH:
            return None
        here = [child for parent in here for child in _children(parent)]
    return value


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def decoded(data: bytes) -> bytes | None:
    """The bytes that a text of hex or base64 alone stands for, or None."""
    text = data.strip()
    if len(text) < _LEAST or not text.isascii():
        return None
    try:
        return bytes.fromhex(text.removeprefix(b"0x").decode("ascii"))
    except ValueError:
        pass
    if not _BASE64.fullmatch(text):
        return None
    plain = b"".join(text.split()).rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except binascii.Error:
        return None


def _is_text(data: bytes) -> bool:
    try:
        return b"\0" not in data.rstrip(b"\0") and bool(data.decode("utf-8"))
    except UnicodeDecodeError:
        return False


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON object that may be a TEE's primary evidence, out of whatever envelope it came in."""

    name: str
    primary: dict[str, Any]
    additional: str = ""
    initdata: bytes | None = None

    def evidence(self, tee: str) -> Evidence:
        """The evidence of that TEE."""
        return Evidence(tee=tee, primary=self.primary, additional=self.additional, initdata=self.initdata)


def statements(case: Case, tee: str) -> list[Statement]:
    """Every JSON object of the case that may be primary evidence of `tee`.

    Envelopes: ours `{tee, primary, additional?, initdata?}`, alone or under `evidence`, and CoCo's
    `{primary_evidence, additional_evidence?}`. An envelope that names another TEE is left out.
    """
    found = []
    for name, outer in case.documents:
        if not isinstance(outer, dict):
            continue
        inner = outer.get("evidence")
        document = inner if isinstance(inner, dict) else outer
        primary = document.get("primary", document.get("primary_evidence", document))
        if isinstance(primary, str):
            primary = read_json(primary.encode())
        named = document.get("tee", tee)
        if not isinstance(primary, dict) or (named != tee and ("primary" in document or "evidence" in outer)):
            continue
        additional = document.get("additional", document.get("additional_evidence"))
        initdata = document.get("initdata", outer.get("initdata"))
        found.append(
            Statement(
                name=name,
                primary=primary,
                additional=additional if isinstance(additional, str) else "",
                initdata=_initdata(initdata) if primary is not document else None,
            )
        )
    return found


def _initdata(value: Any) -> bytes | None:
    if not isinstance(value, str):
        return None
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:  # not base64, or not ASCII
        return None


def strings(value: Any, least: int = _LEAST) -> Iterator[str]:
    """Every string of a parsed JSON value with at least that many characters."""
    here = [value]
    while here:
        for item in here:
            if isinstance(item, str) and len(item) >= least:
                yield item
        here = [child for parent in here for child in _children(parent)]
