"""Endorsements of NVIDIA devices: manifests, OCSP responses and revocation lists, each by its URL.

The RIM service gives a manifest by its id; which id follows from the report (NVIDIA attestation SDK). OCSP is asked by
GET (RFC 6960 appendix A.1), so that a response can be stored under its URL as everything else is. All hosts are fixed
here: an attester's certificates name no place that anybody would fetch from.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from casemate.crypto import chain
from casemate.errors import Malformed, Unavailable
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.tee.nvidia import report as wire
from casemate.wire import jcs
from casemate.wire.encoding import b64, unb64

RIM_SERVICE = "https://rim.attestation.nvidia.com/v1/rim"
OCSP_SERVICE = "https://ocsp.ndis.nvidia.com"
CRL_SERVICE = "http://crl.ndis.nvidia.com/"
SERVICES = {"https://rim.attestation.nvidia.com": 0.2, OCSP_SERVICE: 0.2, CRL_SERVICE.rstrip("/"): 0.2}
MAX_ANSWER = 1 << 20
_PART = re.compile(r"[A-Za-z0-9]{1,16}")
_VERSION = re.compile(r"[A-Za-z0-9.]{1,32}")
_LIST = re.compile(r"crl(-[a-z0-9]+)?/[A-Za-z0-9._-]{1,64}")
# A switch's report does not name its board; NVIDIA makes LS10 with one.
_SWITCH_BOARD = ("5612", "0002", "890")

Fetch = Callable[[str], bytes]


def rim_ids(report: wire.Report, arch: str) -> tuple[str, ...]:
    """The ids of the manifests for a device, driver's first; those that its report cannot name are left out."""
    board = tuple(report.word(field) for field in (wire.PROJECT, wire.PROJECT_SKU, wire.CHIP_SKU))
    ids = []
    if arch == wire.SWITCH:
        board = board if all(board) else _SWITCH_BOARD
    elif _VERSION.fullmatch(report.driver):
        chip = report.word(wire.CHIP_INFO) or "GB100"
        prefix = "NV_GPU_DRIVER_GH100" if arch == "HOPPER" else f"NV_GPU_CC_DRIVER_{chip}"
        ids.append(f"{prefix}_{report.driver}")
    if all(map(_PART.fullmatch, board)) and _VERSION.fullmatch(report.vbios):
        prefix = "NV_SWITCH_BIOS" if arch == wire.SWITCH else "NV_GPU_VBIOS"
        ids.append(f"{prefix}_{'_'.join(board)}_{report.vbios.replace('.', '').upper()}")
    return tuple(ids)


def endorse(evidence: Evidence, fetch: Fetch) -> Endorsements:
    """All that can be had. `Unavailable` when not one manifest can be; OCSP and lists may be absent, which is told."""
    from casemate.tee.nvidia.manifests import CRL, RIM
    from casemate.tee.nvidia.verify import OCSP

    collateral: dict[str, bytes] = {}
    chains: list[Sequence[bytes]] = []
    failed: Unavailable | None = None
    for device in wire.parse_evidence(evidence.primary):
        chains.append(device.certificates)
        for name in rim_ids(wire.parse(device.report), device.arch):
            key = f"{RIM}{name}.xml"
            try:
                collateral[key] = collateral.get(key) or _manifest(fetch(f"{RIM_SERVICE}/{name}"), name)
            except Unavailable as error:
                failed = error
    if failed and not collateral:
        raise failed
    chains += [_signers(data) for data in collateral.values()]
    for key, url in _statements(chains, OCSP, CRL):
        if key not in collateral and (found := _optional(fetch, url)):
            collateral[key] = found
    return Endorsements(collateral=collateral)


def _optional(fetch: Fetch, url: str) -> bytes:
    try:
        return fetch(url)
    except Unavailable:
        return b""


def _manifest(answer: bytes, name: str) -> bytes:
    """The manifest in the service's answer: {"id", "rim": base64, "sha256": of the text, ...}."""
    found = jcs.parse_object(answer, f"RIM {name}", limit=MAX_ANSWER)
    text = found.get("rim")
    if found.get("id") != name or not isinstance(text, str):
        raise Malformed(f"RIM {name}: the service answered something else")
    return unb64(text, f"RIM {name}")


def _signers(manifest: bytes) -> Sequence[bytes]:
    from casemate.tee.nvidia import rim

    return rim.parse(manifest).certificates


def _statements(chains: Sequence[Sequence[bytes]], ocsp_prefix: str, crl_prefix: str) -> Iterator[tuple[str, str]]:
    """(name, URL) of the OCSP responses and lists about certificates whose issuer stands behind them."""
    for sent in chains:
        for child, issuer in pairwise(chain.load(der) for der in sent):
            if child.names[1] != issuer.names[0] or child.cert.issuer == child.cert.subject:
                continue
            digest = hashlib.sha256(child.der).hexdigest()[:32]
            if _has_authority(child):
                yield f"{ocsp_prefix}{digest}.der", ocsp_url(child, issuer)
            for path in _lists(child):
                yield f"{crl_prefix}{path.rpartition('/')[2]}", CRL_SERVICE + path


def ocsp_url(child: chain.Certificate, issuer: chain.Certificate) -> str:
    """The URL that gives the response about `child`, a request in it (SHA-384, no nonce)."""
    builder = ocsp.OCSPRequestBuilder().add_certificate(child.cert, issuer.cert, hashes.SHA384())
    return f"{OCSP_SERVICE}/{quote(b64(builder.build().public_bytes(Encoding.DER)), safe='')}"


def _has_authority(child: chain.Certificate) -> bool:
    """Not for a certificate that the device's own ROM signed: nobody answers for it."""
    named = any(isinstance(e.value, x509.AuthorityInformationAccess) for e in child.cert.extensions)
    return named or (child.ca is not None and child.ca.ca)


def _lists(child: chain.Certificate) -> Iterator[str]:
    for extension in child.cert.extensions:
        if isinstance(extension.value, x509.CRLDistributionPoints):
            for point in extension.value:
                for name in point.full_name or []:
                    url = str(name.value)
                    if url.startswith(CRL_SERVICE) and _LIST.fullmatch(path := url.removeprefix(CRL_SERVICE)):
                        yield path
