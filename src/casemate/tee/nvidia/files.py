"""Evidence of NVIDIA devices in files: JSON of NVIDIA's tools or CoCo's, or a raw report beside its chain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from casemate.errors import Malformed
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.tee.files import Case, File, Gathered, statements
from casemate.tee.nvidia import identity, manifests
from casemate.tee.nvidia import report as wire
from casemate.wire.encoding import b64

NAME = "nvidia"
VOUCHED = (manifests.ANCHORED,)  # what an anchor may vouch for beside the TEE
_SPDM_REQUEST = b"\x11\xe0\x01\xff"
_MANIFEST = b"<SoftwareIdentity"
_OCSP_BASIC = bytes.fromhex("06092b0601050507300101")  # id-pkix-ocsp-basic
_LISTED = "NVIDIA"


def gather(case: Case) -> Gathered | None:
    """The evidence of all devices in `case`, with manifests, responses and lists; None when there is no device."""
    entries = [(s.name, entry) for s in statements(case, NAME) for entry in _entries(s.primary)]
    entries += [(name, entry) for name, value in case.documents if isinstance(value, list) for entry in _entries(value)]
    reports = [blob for blob in case.blobs if blob.data.startswith(_SPDM_REQUEST)]
    if not entries and not reports:
        return _statement(case)
    used = [name for name, _ in entries] + [blob.name for blob in reports]
    devices = [dict(entry) for _, entry in entries]
    chains = list(_chains(case))
    missing = []
    for blob in reports:
        entry = _entry(blob.data, chains)
        if entry is None:
            missing.append(f"the certificate chain of the device whose report is {blob.name}")
        else:
            devices.append(entry)
    collateral, names = _collateral(case)
    return Gathered(
        evidence=Evidence(tee=NAME, primary={"device_evidence_list": devices}),
        endorsements=Endorsements(certificates=case.certificates, collateral=collateral),
        used=tuple(dict.fromkeys([*used, *names])),
        missing=tuple(missing),
        report_data=_nonce(devices, reports),
    )


def _statement(case: Case) -> Gathered | None:
    """What NVIDIA's own verifier wrote: taken up only so that the room can say why it proves nothing."""
    for name, value in case.documents:
        if isinstance(value, dict) and wire.is_statement(value):
            evidence = Evidence(tee=NAME, primary={"detached_eat": value["detached_eat"]})
            return Gathered(evidence=evidence, endorsements=Endorsements(), used=(name,))
    return None


def _entries(value: Any) -> Iterator[Mapping[str, Any]]:
    """Entries of CoCo's `device_evidence_list` (an object), or of the bare list that NVIDIA's SDK writes."""
    listed = value.get("device_evidence_list") if isinstance(value, dict) else value
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict) and {"arch", "evidence", "certificate"} <= entry.keys():
            yield {name: entry[name] for name in ("arch", "uuid", "evidence", "certificate") if name in entry}


def _chains(case: Case) -> Iterator[list[bytes]]:
    """Chains of devices among the certificates: from each leaf with a FWID up, by names."""
    from casemate.crypto import chain

    loaded = []
    for der in case.certificates:
        try:
            loaded.append(chain.load(der))
        except Malformed:
            continue
    for leaf in loaded:
        if not any(e.oid.dotted_string in (identity.RIOT, identity.TCB_INFO) for e in leaf.cert.extensions):
            continue
        links = [leaf]
        while len(links) < chain.MAX_LENGTH and links[-1].names[0] != links[-1].names[1]:
            above = next((c for c in loaded if c.names[0] == links[-1].names[1]), None)
            if above is None:
                break
            links.append(above)
        yield [link.der for link in links]


def _entry(data: bytes, chains: list[list[bytes]]) -> dict[str, Any] | None:
    """The entry of a raw report: the chain whose key signed it, or the first one, which the room then refuses."""
    from casemate.crypto import chain, ecdsa

    if not chains:
        return None
    signed, signature = data[: -wire.SIGNATURE_SIZE], data[-wire.SIGNATURE_SIZE :]
    mine = next(
        (c for c in chains if ecdsa.verify_p384(chain.load(c[0]).cert.public_key(), signature, signed)), chains[0]
    )
    try:
        chip = identity.read(chain.load(mine[0])).chip
    except Malformed:
        chip = ""
    arch = next((name for name, prefix in wire.ARCHITECTURES.items() if chip.startswith(prefix)), "HOPPER")
    return {"arch": arch, "uuid": "", "evidence": b64(data), "certificate": b64(_pem(mine))}


def _pem(chain: list[bytes]) -> bytes:
    head, foot = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    return "".join(f"{head}\n{b64(der)}\n{foot}\n" for der in chain).encode()


def _collateral(case: Case) -> tuple[dict[str, bytes], list[str]]:
    found: dict[str, bytes] = {}
    names = []
    for blob in case.blobs:
        kind = "rim/" if _MANIFEST in blob.data[:512] else "ocsp/" if _OCSP_BASIC in blob.data[:64] else ""
        if kind:
            found[kind + blob.name] = blob.data
            names.append(blob.name)
    for number, crl in enumerate(case.crls):
        if _LISTED.encode() in crl[:512]:
            found[f"crl/{number}"] = crl
    return found, names


def _nonce(devices: list[dict[str, Any]], reports: list[File]) -> bytes | None:
    try:
        parsed = [wire.parse(d.report) for d in wire.parse_evidence({"device_evidence_list": devices})]
    except Malformed:
        return None
    return parsed[0].nonce if parsed and len({p.nonce for p in parsed}) == 1 else None
