"""Every TEE's fake vendor as files: accepted with its root from the relying party, and with nothing from beside it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casemate.errors import Finding
from casemate.policy import document
from casemate.schema.endorsements import PRODUCTION
from casemate.tee import ROOMS
from casemate.tee.files import File
from casemate.testing import case, pki
from casemate.testing.cca import FakeRealm
from casemate.testing.nvidia import FakeGpu
from casemate.testing.snp import FakeChip
from casemate.verifier import anchors, files, reading
from casemate.verifier.files import Question, verify, verify_paths
from casemate.verifier.result import as_json

TEES = sorted(ROOMS)
SHARED = {"snp": "signature", "az-snp-vtpm": "signature"}  # this vendor's chips share their keys: a fault then
KEYLESS = ("cca", "se")
LENIENT = document.accepting(document.DEFAULT, ["platform.class", "sample.proof"])


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """(folder, the relying party's files, a time) of each TEE."""
    made = {}
    for tee in TEES:
        vendor, folder = case.vendor(tee), tmp_path_factory.mktemp("cases") / tee
        root = case.write(folder, vendor.collect(case.request(tee)), vendor.endorsements)
        own = [path for path in (root, folder.with_name(f"{tee}.key")) if path.exists() and path.stat().st_size]
        made[tee] = (folder, own, getattr(vendor, "now", None) or datetime.now(UTC))
    return made


def asked(cases, tee, **options):
    folder, own, now = cases[tee]
    given = anchors.read(reading.read(own), options.pop("kind", PRODUCTION))
    data = case.REPORT_DATA if options.pop("fresh", True) else None
    return [folder], Question(now=now, own=given, report_data=data, policy=LENIENT, **options)


@pytest.mark.parametrize("tee", TEES)
def test_every_vendor_is_accepted_with_its_root(cases, tee):
    paths, question = asked(cases, tee)
    found = verify_paths(paths, question)
    assert (found.verdict, found.failed, found.reason) == ("accepted", (), "")
    assert (found.tee, found.fresh, found.unused) == (tee, True, ())


@pytest.mark.parametrize("tee", sorted(set(TEES) - {"sample"}))
def test_no_vendor_is_accepted_with_what_lies_beside_its_evidence(cases, tee):
    paths, question = asked(cases, tee)
    _, own, now = cases[tee]
    found = verify_paths([*paths, *own], Question(now=now, policy=LENIENT))
    assert found.verdict == ("unusable" if tee in KEYLESS else "refused")
    if tee in KEYLESS:
        assert "--anchor" in found.reason
        mixed = verify_paths([*paths, *own], question)
        assert (mixed.verdict, len(mixed.unused) > 0) == ("accepted", True)


@pytest.mark.parametrize("tee", sorted(set(TEES) - {"sample"}))
def test_anchors_vouch_for_development_unless_they_say_otherwise(cases, tee):
    from dataclasses import replace

    paths, question = asked(cases, tee, kind="development")
    found = verify_paths(paths, replace(question, policy=document.DEFAULT))
    assert {f.rule for f in found.failed} == {"platform.class"}


def test_anchors_of_other_tees_do_no_harm(cases):
    everything = [path for _, own, _ in cases.values() for path in own]
    given = anchors.read(reading.read(everything), PRODUCTION)
    for tee in TEES:
        paths, question = asked(cases, tee)
        found = verify_paths(paths, Question(now=question.now, own=given, policy=LENIENT))
        assert found.verdict == "accepted", (tee, found.reason, found.failed)


@pytest.mark.parametrize("tee", TEES)
def test_a_defect_of_a_room_is_unusable_and_shows_no_values(cases, tee, monkeypatch):
    def defect(*_args, **_kwargs):
        raise ValueError("year 10889 of nonce 6e6f6e63")

    monkeypatch.setattr(files.composite, "verify_all", defect)
    paths, question = asked(cases, tee)
    found = as_json(verify_paths(paths, question))
    assert found["verdict"] == "unusable"
    assert "ValueError" in found["error"]
    assert "6e6f6e63" not in json.dumps(found)


def test_a_defect_while_files_are_read_is_unusable(monkeypatch, tmp_path):
    monkeypatch.setattr(files.reading, "read", lambda _paths: 1 // 0)
    assert verify_paths([tmp_path], Question(now=pki.NOW)).verdict == "unusable"


def test_reference_values_are_held_against_every_piece():
    first = FakeChip()
    other = FakeChip(fields={"measurement": b"\x66" * 48}, key=first.key)
    papers = [File(f"c{i}", der) for i, (_, der) in enumerate(first.chain)]

    def judge(claims):
        ok = claims.measurement["measurement"] == "44" * 48
        return [Finding("reference.measurement", "44...", claims.measurement["measurement"], ok=ok)]

    request = case.request("snp")
    both = [File("1", first.report(request)), File("2", other.report(request)), *papers]
    asked = Question(now=first.now, anchors=first.endorsements.anchors, judges=(judge,))
    assert verify([both[0], *papers], asked).verdict == "accepted"
    found = verify(both, asked)
    assert [f.rule for f in found.failed] == ["reference.measurement"]
    assert "(in 2)" in found.failed[0].found


@pytest.mark.parametrize("tee", sorted(set(TEES) - {"sample", "nvidia"}))
def test_a_second_piece_of_another_vendor_is_not_passed_over(cases, tee):
    paths, question = asked(cases, tee, fresh=False)
    stranger = case.vendor(tee, SHARED.get(tee, "")).collect(case.request(tee))
    more = File("zz", json.dumps({"tee": tee, "primary": stranger.primary}).encode())
    found = verify([*reading.read(paths), more], question)
    assert found.verdict != "accepted"
    assert "zz" in found.used or "name one with --tee" in found.hint


def test_a_composite_is_fresh_when_all_of_it_is_and_ends_when_the_first_part_does():
    from casemate.schema.request import Request

    chip, gpu = FakeChip(), FakeGpu()
    additional = json.dumps({"nvidia": gpu.collect(Request(report_data=b"q" * 48)).primary})
    evidence = {"tee": "snp", "primary": chip.collect(Request(report_data=b"r" * 48)).primary, "additional": additional}
    parts = [File("evidence", json.dumps(evidence).encode())]
    parts += [File(f"c{i}", der) for i, der in enumerate(chip.endorsements.certificates)]
    parts += [File(f"p{i}", data) for i, data in enumerate(gpu.endorsements.collateral.values())]
    roots = [a.certificate for a in (*chip.endorsements.anchors, *gpu.endorsements.anchors)]
    own = anchors.read([File(f"root{i}", pki.pem(root)) for i, root in enumerate(roots)], PRODUCTION)

    def result(**options):
        return as_json(verify(parts, Question(now=chip.now, own=own, **options)))

    whole = result(report_data=b"r" * 48, device_report_data=b"q" * 48)
    assert (whole["verdict"], whole["freshness"]) == ("accepted", "checked")
    ends = [whole["claims"]["valid_until"], whole["devices"][0]["valid_until"]]
    assert whole["valid_until"] == min(end for end in ends if end)
    assert result(device_report_data=b"q" * 48)["freshness"] == "not checked"
    assert result(report_data=b"r" * 48)["verdict"] == "unusable"
    stale = result(report_data=b"r" * 48, device_report_data=b"x" * 48)
    assert "nvidia.nonce" in {c["rule"] for c in stale["checks"] if c["result"] == "fail"}
    alone = Question(now=chip.now, own=own, device_report_data=b"q" * 48)
    assert verify([File("r", chip.report(Request())), *parts[1:]], alone).verdict == "unusable"


def test_a_key_of_the_relying_party_decides_and_not_the_one_in_the_folder():
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    mine, theirs = FakeRealm(), FakeRealm()

    def key(realm):
        return realm.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    folder = [File("token", theirs.token(b"n" * 64)), File("k.pem", key(theirs))]
    own = anchors.read([File("mine", key(mine))], PRODUCTION)
    found = verify(folder, Question(now=mine.now, own=own))
    assert {f.rule for f in found.failed} == {"cca.platform.signature"}
    assert found.unused == ("k.pem",)
    assert any("k.pem" in note for note in found.notes)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_nothing_makes_a_room_fail_by_itself(cases, data):
    """Any number, text or list in the place of any value of any evidence: a verdict, and never a defect."""
    tee = data.draw(st.sampled_from(TEES))
    (folder,), question = asked(cases, tee)
    paper = json.loads((folder / "evidence.json").read_bytes())
    holder, name = data.draw(st.sampled_from(list(_places(paper["primary"]))))
    holder[name] = data.draw(
        st.one_of(st.integers(), st.floats(), st.text(max_size=9), st.none(), st.just([]), st.just({}), st.booleans())
    )
    rest = [f for f in reading.read([folder]) if f.name != "evidence.json"]
    found = verify([File("evidence.json", json.dumps(paper).encode()), *rest], question)
    assert "defect" not in found.reason, found.reason


def _places(value):
    inner = value.items() if isinstance(value, dict) else list(enumerate(value[:3]))
    for name, member in inner:
        yield value, name
        if isinstance(member, dict | list):
            yield from _places(member)


def test_loose_pieces_of_two_azure_machines_are_both_judged():
    """A report and a quote each, under any names: what belongs together is found by the key that signed."""
    from casemate.schema.request import Request
    from casemate.tee.hcl import report as hcl
    from casemate.testing.azure import FakeCvm, rsa_key  # noqa: F401 - the key is shared by all machines of this vendor

    machine = FakeCvm(version=1)
    broken = FakeCvm(version=1, broken="signature")

    def pieces(name, one):
        primary = one.collect(Request()).primary
        sent = hcl.parse_evidence(primary, "vcek")
        return [File(f"{name}.hcl", sent.report), File(f"{name}.json", json.dumps(primary["tpm_quote"]).encode())]

    papers = [File(f"c{i}", der) for i, (_, der) in enumerate(machine.hardware.chain)]
    asked = Question(now=machine.now, anchors=machine.endorsements.anchors)
    good = verify([*pieces("a", machine), *papers], asked)
    assert (good.verdict, good.tee) == ("accepted", "az-snp-vtpm"), (good.reason, good.failed)
    both = verify([*pieces("a", machine), *pieces("b", broken), *papers], asked)
    assert both.verdict == "refused"
    assert any(name.startswith("b.") for name in both.used)


def test_loose_quotes_of_one_tpm_that_say_different_things_are_both_judged():
    from casemate.schema.request import Request
    from casemate.tee.tpm import report
    from casemate.testing.tpm import FakeTpm

    tpm = FakeTpm()

    def pieces(name, nonce):
        sent = report.parse_evidence(tpm.collect(Request(report_data=nonce)).primary)
        values = {str(i): value.hex() for i, value in enumerate(sent.pcrs)}
        return [File(f"{name}.msg", sent.message), File(f"{name}.sig", sent.signature),
                File(f"{name}.pcrs", json.dumps(values).encode()), File(f"{name}.log", sent.event_log),
                File(f"{name}.pem", pki.pem(*sent.ak_chain))]  # fmt: skip

    asked = Question(now=datetime.now(UTC), anchors=(tpm.anchor,), policy=LENIENT, report_data=b"a" * 32)
    alone = verify(pieces("a", b"a" * 32), asked)
    assert (alone.verdict, alone.fresh) == ("accepted", True), (alone.reason, alone.failed)
    both = verify([*pieces("a", b"a" * 32), *pieces("b", b"b" * 32)], asked)
    assert [f.rule for f in both.failed] == ["tpm.quote.nonce"]
    assert ".msg)" in both.failed[0].found
