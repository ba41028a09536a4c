"""Azure's evidence recognised by content: one document, its pieces, and what lies beside it."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.errors import Refused
from casemate.schema.endorsements import Endorsements
from casemate.schema.request import Request
from casemate.tee import gatherer, room
from casemate.tee.files import File, sort
from casemate.testing.azure import FakeCvm, pem, trust_domain
from casemate.testing.snp import FakeChip

TEE = "azure-vtpm"
ASKED = Request(report_data=b"r" * 48)
REPORT = FakeCvm().hcl_report(b"")


def cvm(kind, **options):
    return FakeCvm(FakeChip() if kind == "snp" else trust_domain(), **options)


def text(primary) -> bytes:
    return json.dumps(primary).encode()


def verify(machine, gathered):
    pool = Endorsements(
        anchors=machine.endorsements.anchors,
        certificates=gathered.endorsements.certificates,
        collateral=gathered.endorsements.collateral,
    )
    return room(machine.tee).verify(gathered.evidence, pool, ASKED, machine.now)


def papers(machine):
    """The hardware vendor's papers as files under meaningless names."""
    if machine.tee == "az-snp-vtpm":
        return [File("b", "".join(pem(der) for _, der in machine.hardware.chain[1:]).encode())]
    documents = {
        name: data.hex() if name.endswith("crl") or name.endswith("signature") else data.decode()
        for name, data in machine.endorsements.collateral.items()
    }
    return [File("b", text(documents))]


def test_genuine_folders(genuine):
    files = [File(f"{i}", path.read_bytes()) for i, path in enumerate(sorted(genuine.folder.iterdir()))]
    case = sort(files)
    found = {tee: gatherer(tee)(case) for tee in ("az-snp-vtpm", "az-tdx-vtpm")}
    tee = "az-tdx-vtpm" if "mrtd" in genuine.facts else "az-snp-vtpm"
    assert [name for name, gathered in found.items() if gathered] == [tee]
    gathered = found[tee]
    assert gathered.covers == (("tdx", "tpm") if tee == "az-tdx-vtpm" else ("snp", "tpm"))
    assert gathered.missing == ()
    assert gathered.report_data.hex() == genuine.facts["tpm_nonce_hex"]
    assert room(tee).verify(gathered.evidence, gathered.endorsements, Request(), genuine.as_of)


@pytest.mark.parametrize("kind", ["snp", "tdx"])
@pytest.mark.parametrize("version", [0, 1, 2])
@pytest.mark.parametrize("wrap", ["bare", "ours", "coco", "beside"])
def test_one_document_in_any_envelope(kind, version, wrap):
    machine = cvm(kind, version=version)
    primary = machine.collect(ASKED).primary
    document = {
        "bare": primary,
        "ours": {"tee": machine.tee, "primary": primary},
        "coco": {"primary_evidence": primary, "additional_evidence": ""},
        "beside": {"platform": "somebody's", "evidence": primary},
    }[wrap]
    case = sort([File("a", text(document)), *papers(machine)])
    gathered = gatherer(machine.tee)(case)
    assert set(gathered.used) >= {"a"}
    assert verify(machine, gathered).fresh
    other = {"az-snp-vtpm": "az-tdx-vtpm", "az-tdx-vtpm": "az-snp-vtpm"}[machine.tee]
    assert gatherer(other)(case) is None


def binary_quote(quote) -> bytes:
    parts = [bytes.fromhex(quote[name]) for name in ("signature", "message")]
    out = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    return out + (24).to_bytes(8, "little") + b"".join(map(bytes.fromhex, quote["pcrs"]))


@pytest.mark.parametrize("kind", ["snp", "tdx"])
@pytest.mark.parametrize("form", ["json", "binary"])
def test_pieces_side_by_side(kind, form):
    machine = cvm(kind)
    primary = machine.collect(ASKED).primary
    quote = primary["tpm_quote"]
    loose = [File("q", text(quote) if form == "json" else binary_quote(quote)),
             File("h", base64.urlsafe_b64decode(primary["hcl_report"]))]  # fmt: skip
    paper = base64.urlsafe_b64decode(primary["vcek" if kind == "snp" else "td_quote"])
    gathered = gatherer(machine.tee)(sort([*loose, File("p", paper), *papers(machine)]))
    assert set(gathered.used) >= {"q", "h"}
    assert verify(machine, gathered).fresh
    assert gatherer(machine.tee)(sort([loose[1], File("p", paper)])) is None


def test_another_hardware_report_beside_it_is_not_covered():
    machine = cvm("snp")
    primary = machine.collect(ASKED).primary
    mine = base64.urlsafe_b64decode(primary["hcl_report"])[32 : 32 + 1184]
    for raw, covers in ((mine, ("snp", "tpm")), (FakeChip().report(ASKED), ("tpm",))):
        case = sort([File("a", text(primary)), File("r", raw), *papers(machine)])
        assert gatherer(machine.tee)(case).covers == covers


def test_further_evidence_is_told():
    machine = cvm("snp")
    one, two = (machine.collect(Request(report_data=data)).primary for data in (ASKED.report_data, b"other"))
    gathered = gatherer(machine.tee)(sort([File("a", text(one)), File("c", text(two)), *papers(machine)]))
    assert [name for name, _ in gathered.also] == ["c"]
    with pytest.raises(Refused):
        room(machine.tee).verify(gathered.also[0][1], machine.endorsements, ASKED, machine.now)


@pytest.mark.parametrize(
    "data",
    [b"{}", b'{"hcl_report": "x", "tpm_quote": {}, "vcek": ""}', b"HCLA", b"HCLA" + bytes(3000), b"[1]", b'"text"'],
)
def test_other_files_are_nobodys(data):
    for tee in ("az-snp-vtpm", "az-tdx-vtpm"):
        assert gatherer(tee)(sort([File("a", data)])) is None


@settings(deadline=None, max_examples=100)
@given(
    st.recursive(
        st.none() | st.integers(0, 300) | st.text(max_size=5),
        lambda x: (
            st.lists(x, max_size=4)
            | st.dictionaries(
                st.sampled_from(["tpm_quote", "hcl_report", "vcek", "pcrs", "message", "signature", "evidence", "tee"]),
                x,
            )
        ),
    ),
    st.binary(max_size=80),
)
def test_fuzz_strange_files_are_nobodys(value, data):
    case = sort([File("a", json.dumps(value).encode()), File("b", data), File("c", REPORT + data)])
    for tee in ("az-snp-vtpm", "az-tdx-vtpm"):
        assert gatherer(tee)(case) is None
