"""Traps that other verifiers fell into, each as a test with its name (those that touch the rooms of hardware TEEs)."""

from __future__ import annotations

import ast
import socket
from pathlib import Path

import pytest

import casemate
from casemate.errors import Refused, Unusable
from casemate.policy import platform
from casemate.schema.endorsements import Anchor, Endorsements
from casemate.schema.request import Request
from casemate.tee import nitro, room, sgx, snp, tdx
from casemate.testing.dcap import FakePlatform
from casemate.testing.nitro import FakeEnclave
from casemate.testing.snp import FakeChip
from casemate.testing.tdx import FakeTd
from casemate.wire.encoding import b64

ASKED = Request(report_data=b"r" * 32, initdata_digest=b"i" * 32)
SHORT = Request(report_data=b"r" * 31, initdata_digest=b"i" * 31)


def cases():
    machine = FakePlatform("sgx")
    from casemate.schema.evidence import Evidence

    def enclave(request):
        body = machine.enclave(report_data=request.report_data, config_id=request.initdata_digest or b"")
        return Evidence(tee="sgx", primary={"quote": b64(machine.quote(body))})

    td, chip, parent = FakeTd(), FakeChip(), FakeEnclave()
    return {
        "snp": (snp, chip.collect, chip.endorsements, chip.now),
        "tdx": (tdx, td.collect, td.endorsements, td.now),
        "sgx": (sgx, enclave, machine.endorsements, machine.now),
        "nitro": (nitro, parent.collect, parent.endorsements, parent.now),
    }


CASES = cases()


def failed(tee, evidence, endorsements, request, now):
    with pytest.raises(Refused) as caught:
        tee.verify(evidence, endorsements, request, now)
    return {f.rule for f in caught.value.findings if not f.ok}


@pytest.mark.parametrize("name", sorted(CASES))
def test_trap_2_a_short_hash_is_not_padded_into_a_match(name):
    tee, collect, endorsements, now = CASES[name]
    data = b"r" * 31 + b"x"
    evidence = collect(Request(report_data=data, initdata_digest=b"i" * 31 + b"x"))
    rules = failed(tee, evidence, endorsements, SHORT, now)
    assert {f"{name}.report_data", f"{name}.initdata"} <= rules or "nitro.nonce" in rules


@pytest.mark.parametrize("name", sorted(CASES))
def test_trap_13_the_chain_goes_to_a_root_that_is_pinned(name):
    """A whole chain of somebody's own, with the vendor's names, is worth nothing without the vendor's key."""
    tee, collect, endorsements, now = CASES[name]
    request = Request(report_data=ASKED.report_data)
    without = Endorsements(
        certificates=tuple(a.certificate for a in endorsements.anchors), collateral=endorsements.collateral
    )
    rules = failed(tee, collect(request), without, request, now)
    assert any(rule.endswith(".chain") for rule in rules)
    foreign = Endorsements(
        anchors=tuple(Anchor(certificate=a.certificate, tees=("tpm",)) for a in endorsements.anchors),
        collateral=endorsements.collateral,
    )
    assert any(rule.endswith(".chain") for rule in failed(tee, collect(request), foreign, request, now))


@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
def test_trap_13_no_cpu_model_is_fixed(product):
    chip = FakeChip(product)
    assert snp.verify(chip.collect(ASKED), chip.endorsements, ASKED, chip.now).values["product"] == product


def test_trap_14_debug_privilege_and_migration_are_judged():
    for changes, rule in (
        ({"policy": 0xB0000}, "snp.policy.debug"),
        ({"policy": 0x70000}, "snp.policy.migration"),
        ({"report_id_ma": b"\1" * 32}, "snp.policy.migration"),
        ({"vmpl": 1}, "platform.privilege"),
    ):
        chip = FakeChip(fields=changes)
        claims = snp.verify(chip.collect(ASKED), chip.endorsements, ASKED, chip.now)
        findings = platform.judge(claims, platform.PlatformPolicy(max_privilege_level=0))
        assert [f.rule for f in findings if not f.ok] == [rule]
    td = FakeTd(fields={"td_attributes": b"\1\0\0\x10"})
    claims = tdx.verify(td.collect(ASKED), td.endorsements, ASKED, td.now)
    assert [f.rule for f in platform.judge(claims) if not f.ok] == ["tdx.attributes.debug"]


def test_trap_15_every_tcb_is_shown():
    low = FakeChip().tcb
    chip = FakeChip(fields={"launch_tcb": b"\1" + low.pack()[1:]})
    tcb = snp.verify(chip.collect(ASKED), chip.endorsements, ASKED, chip.now).values["tcb"]
    assert tcb["launch"]["bootloader"] == 1
    assert tcb["reported"] == tcb["current"] == tcb["committed"]


@pytest.mark.parametrize("name", sorted(CASES))
def test_trap_25_nothing_is_fetched_within_a_verification(name, monkeypatch):
    def no_socket(*_args, **_kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", no_socket)
    tee, collect, endorsements, now = CASES[name]
    request = Request(report_data=ASKED.report_data)
    assert tee.verify(collect(request), endorsements, request, now)


@pytest.mark.parametrize("name", ["sgx", "tdx"])
def test_trap_25_missing_collateral_is_not_an_outage(name):
    tee, collect, endorsements, now = CASES[name]
    with pytest.raises(Unusable, match="without"):
        tee.verify(collect(ASKED), Endorsements(anchors=endorsements.anchors), ASKED, now)


def test_trap_26_a_genuine_enclave_is_not_yet_the_wanted_workload():
    """Claims carry the measurement and what was bound; genuineness says nothing about either."""
    chip = FakeChip(fields={"measurement": b"\x99" * 48})
    claims = snp.verify(chip.collect(Request()), chip.endorsements, Request(), chip.now)
    assert claims.measurement == {"measurement": "99" * 48}
    assert not claims.fresh


def test_claims_are_made_by_rooms_alone():
    """No code outside a room's `verify` makes claims; the appraisal and the broker only read them."""
    source = Path(casemate.__file__).parent
    makers = set()
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Claims":
                makers.add(path.relative_to(source).as_posix())
    assert {m for m in makers if not (m.startswith("tee/") and m.endswith("/verify.py"))} == set()


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_room_keeps_the_contract(name):
    found = room(name)
    for verb in ("machine", "measure", "request", "collect", "endorse", "verify"):
        assert callable(getattr(found, verb))
