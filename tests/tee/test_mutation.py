"""Every byte that a signature or a pinned digest covers, when changed, is refused; no change makes a room crash.

`make test` changes some bytes of genuine samples, `make soak` all of them; the counts are printed. What may be changed
without a refusal is listed here with its reason, and nothing else may.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from casemate.crypto import pem
from casemate.errors import Malformed, Refused, Unusable
from casemate.policy import platform
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request
from casemate.tee import room
from casemate.tee.dcap import collateral
from casemate.tee.hcl import report as hcl
from casemate.wire.encoding import b64

WHITE_SPACE = "white space in PEM text, or the NUL behind it"
PADDING = "padding of the buffer behind the quote's own length"
UNUSED = "a document that is carried along and not needed: the chain is in the quote"
HEADER = "header of the HCL report: nobody signs it, and its sizes are not used"
BEHIND = "padding of the NV index behind the runtime data"
TD_REPORT = "the TD report inside: only its CPU can check it, and the quote is what counts"
ASVK = "AMD's chain for the other kind of key: only that it can be read counts"

Verify = Callable[[bytes], object]


def every(data: bytes, verify: Verify, stride: int) -> tuple[Counter[str], list[int]]:
    """What came of changing each byte (or each `stride`-th), and the offsets that were accepted."""
    counts: Counter[str] = Counter()
    accepted = []
    for offset in range(0, len(data), stride):
        changed = data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]
        try:
            verify(changed)
            counts["accepted"] += 1
            accepted.append(offset)
        except (Malformed, Refused, Unusable) as error:
            counts[type(error).__name__] += 1
    return counts, accepted


def parts(genuine) -> Iterable[tuple[str, bytes, Verify, Callable[[int], str]]]:
    """(name, bytes, verify with these bytes changed, why a change at an offset may be accepted) of a sample."""
    tee, now = genuine.id.split("/")[0], genuine.as_of
    if tee == "azure-vtpm":
        yield from azure_parts(genuine)
        return
    if tee == "hygon-csv":
        yield from csv_parts(genuine)
        return
    if tee == "cca":
        yield from cca_parts(genuine)
        return
    if tee == "nvidia":
        yield from nvidia_parts(genuine)
        return
    judge = room(tee).verify

    def with_evidence(primary, endorsements):
        return judge(Evidence(tee=tee, primary=primary), endorsements, Request(), now)

    if tee == "nitro":
        data = genuine.read("doc.cbor")
        yield "document", data, lambda c: with_evidence({"document": b64(c)}, Endorsements()), lambda _: ""
    elif tee == "snp":
        raw, vek = genuine.read("report.bin"), genuine.read("vek.der")
        pool = [vek, *pem.certificates(genuine.read("ask_ark_asvk.pem"))]

        def with_pool(certificates, report=raw):
            return with_evidence({"attestation_report": b64(report)}, Endorsements(certificates=tuple(certificates)))

        yield "report", raw, lambda c: with_pool(pool, c), lambda _: ""
        for i, name in enumerate(("vcek", "ask", "ark", "asvk")):
            reason = ASVK if name == "asvk" else ""
            yield name, pool[i], lambda c, i=i: with_pool([*pool[:i], c, *pool[i + 1 :]]), lambda _, r=reason: r
    else:
        quote, documents = genuine.read("quote.bin"), collateral.from_json(genuine.read("collateral.json"))
        used = len(quote) - genuine.facts["trailing"]

        def quote_reason(offset):
            around = offset >= quote.index(b"-----BEGIN") and quote[offset : offset + 1] in (b"\n", b"\0")
            return PADDING if offset >= used else WHITE_SPACE if around else ""

        yield (
            "quote",
            quote,
            lambda c: with_evidence({"quote": b64(c)}, Endorsements(collateral=documents)),
            quote_reason,
        )
        for name, document in documents.items():

            def text_reason(offset, name=name, document=document):
                if name == "pck_crl_issuer_chain":
                    return UNUSED
                stray = document[offset : offset + 1] in (b"\n", b"\0")
                return WHITE_SPACE if name.endswith("issuer_chain") and stray else ""

            def changed(c, name=name):
                return with_evidence({"quote": b64(quote)}, Endorsements(collateral=documents | {name: c}))

            yield name, document, changed, text_reason


def nvidia_parts(genuine) -> Iterable[tuple[str, bytes, Verify, Callable[[int], str]]]:
    """The device's report and chain; the manifests, which must still vouch for it; OCSP responses while current."""
    raw = {p.name: p.read_bytes() for p in genuine.folder.rglob("*") if p.is_file()}
    report, sent = raw["report.bin"], raw["cert_chain.pem"]
    rims = {"rim/driver": raw["driver_rim.xml"], "rim/vbios": raw["vbios_rim.xml"]}

    def verify(report=report, sent=sent, now=genuine.as_of, **collateral):
        entry = {"arch": "HOPPER", "evidence": b64(report), "certificate": b64(sent)}
        evidence = Evidence(tee="nvidia", primary={"device_evidence_list": [entry]})
        return room("nvidia").verify(evidence, Endorsements(collateral=collateral), Request(), now)

    def vouched(**changed):
        claims = verify(**(rims | changed))
        findings = [f for f in platform.judge(claims) if not f.ok]
        if findings:
            raise Refused(findings)
        return claims

    def counted(data, now, good):
        claims = verify(now=now, **{"ocsp/1": data})
        if f"{good} of" not in claims.values["revocation"]:
            raise Refused.because("nvidia.ocsp", expected="a response that counts", found="one that does not")
        return claims

    def space(offset):
        return WHITE_SPACE if sent[offset : offset + 1] == b"\n" else ""

    yield "report", report, lambda c: verify(report=c), lambda _: ""
    yield "chain", sent, lambda c: verify(sent=c), space
    for name, data in rims.items():
        yield name, data, lambda c, name=name: vouched(**{name: c}), lambda _: ""
    response = base64.b64decode(raw["gpu_certificate_l3.b64"])
    then = datetime(2025, 8, 21, 12, tzinfo=UTC)
    yield "ocsp", response, lambda c: counted(c, then, 1), lambda _: ""


def azure_parts(genuine) -> Iterable[tuple[str, bytes, Verify, Callable[[int], str]]]:
    """The paravisor's report, the TPM's quote, and the paper of the hardware beside them."""
    document = json.loads(genuine.read("evidence.json"))
    snp = "td_quote" not in document
    sent = hcl.parse_evidence(document, "vcek" if snp else "td_quote")
    tee = "az-snp-vtpm" if snp else "az-tdx-vtpm"
    if snp:
        papers = Endorsements(certificates=tuple(pem.certificates(genuine.read("ask_ark_asvk.pem"))))
    else:
        papers = Endorsements(collateral=collateral.from_json(genuine.read("collateral.json")))

    def verify(**changed):
        found = replace(sent, **changed)
        primary = {
            "version": 1,
            "tpm_quote": {"message": list(found.message), "signature": list(found.signature),
                          "pcrs": [list(p) for p in found.pcrs]},
            "hcl_report": list(found.report), "vcek" if snp else "td_quote": list(found.hardware),
        }  # fmt: skip
        return room(tee).verify(Evidence(tee=tee, primary=primary), papers, Request(), genuine.as_of)

    end = sent.report.rindex(b"}") + 1

    def report_reason(offset):
        inside = offset - hcl.HEADER
        if 4 <= offset < hcl.HEADER or hcl.HARDWARE_SIZE <= inside < hcl.HARDWARE_SIZE + 8:
            return HEADER
        unread = inside < 128 or 192 <= inside < 512 or 912 <= inside < hcl.HARDWARE_SIZE
        return BEHIND if offset >= end else TD_REPORT if not snp and inside >= 0 and unread else ""

    def paper_reason(offset):
        stray = sent.hardware[offset : offset + 1] in (b"\n", b"\0")
        around = not snp and offset >= sent.hardware.index(b"-----BEGIN") and stray
        used = len(sent.hardware) - genuine.facts.get("trailing", 0)
        return PADDING if offset >= used else WHITE_SPACE if around else ""

    yield "HCL report", sent.report, lambda c: verify(report=c), report_reason
    yield "TPM quote", sent.message, lambda c: verify(message=c), lambda _: ""
    yield "its signature", sent.signature, lambda c: verify(signature=c), lambda _: ""
    yield (
        "PCRs",
        b"".join(sent.pcrs),
        lambda c: verify(pcrs=tuple(c[i : i + 32] for i in range(0, len(c), 32))),
        lambda _: "",
    )
    yield "VCEK" if snp else "TD quote", sent.hardware, lambda c: verify(hardware=c), paper_reason


def cca_parts(genuine) -> Iterable[tuple[str, bytes, Verify, Callable[[int], str]]]:
    """The token, and the platform's key that was given."""
    token, key = genuine.read("token.cbor"), genuine.read("cpak_pub.pem")

    def verify(token=token, key=key):
        evidence = Evidence(tee="cca", primary={"token": b64(token)})
        return room("cca").verify(evidence, Endorsements(collateral={"cca.key": key}), Request(), genuine.as_of)

    yield "token", token, lambda c: verify(token=c), lambda _: ""
    yield "platform key", key, lambda c: verify(key=c), lambda o: WHITE_SPACE if key[o : o + 1] == b"\n" else ""


def csv_parts(genuine) -> Iterable[tuple[str, bytes, Verify, Callable[[int], str]]]:
    """A Hygon report and the certificates above it: no byte may be changed."""
    files = {name: genuine.read(f"{name}.bin") for name in ("report", "hsk_cek", "hrk")}

    def changed(name: str) -> Verify:
        def verify(data: bytes) -> object:
            given = files | {name: data}
            evidence = Evidence(tee="csv", primary={"attestation_report": b64(given.pop("report"))})
            return room("csv").verify(evidence, Endorsements(collateral=given), Request(), genuine.as_of)

        return verify

    for name, data in files.items():
        yield name, data, changed(name), lambda _: ""


SAMPLES = ("nitro/prod-2024", "nvidia/hopper-550.90.07-full", "snp/milan-v2-coco", "sgx/v3-00a067-swhardening",
           "tdx/v4-b0c06f-uptodate", "tdx/v5-90c06f-uptodate", "azure-vtpm/snp-milan-v1", "azure-vtpm/snp-genoa-v0",
           "azure-vtpm/tdx-v1", "cca/draft-ffm-00-profile", "cca/legacy-profile-token",
           "hygon-csv/csv-full-chain")  # fmt: skip


def judge_mutations(genuine, stride: int) -> None:
    for name, data, verify, reason in parts(genuine):
        verify(data)  # the sample itself is accepted
        counts, accepted = every(data, verify, stride)
        print(f"{genuine.id} {name}: {len(data)} bytes, {dict(counts)}")
        assert [offset for offset in accepted if not reason(offset)] == [], name


@pytest.mark.parametrize("sample", SAMPLES)
def test_changed_bytes_are_refused_sampled(sample, genuine_by_id):
    judge_mutations(genuine_by_id(sample), 61)


@pytest.mark.soak
@pytest.mark.timeout(3600)  # the NVIDIA sample takes ten to twenty minutes
@pytest.mark.parametrize("sample", SAMPLES)
def test_changed_bytes_are_refused_in_full(sample, genuine_by_id):
    judge_mutations(genuine_by_id(sample), 1)
