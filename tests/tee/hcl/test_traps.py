"""Traps that other verifiers fell into, where Azure's rooms could: each test is named after the trap's number."""

from __future__ import annotations

import hashlib
import socket

import pytest

from casemate.errors import Malformed, Refused, Unusable
from casemate.policy import platform
from casemate.policy.appraise import measurement
from casemate.schema.endorsements import Anchor, Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.reference import ReferenceValues
from casemate.schema.request import Request
from casemate.tee import room
from casemate.testing.azure import FakeCvm, trust_domain
from casemate.testing.dcap import FakePlatform
from casemate.testing.snp import FakeChip

DATA = Request(report_data=b"r" * 48)


def cvm(kind, **options) -> FakeCvm:
    return FakeCvm(FakeChip() if kind == "snp" else trust_domain(), **options)


def verify(machine, evidence=None, request=DATA, endorsements=None):
    found = machine.collect(request) if evidence is None else evidence
    return room(machine.tee).verify(found, endorsements or machine.endorsements, request, machine.now)


def failed(*args, **options):
    with pytest.raises(Refused) as caught:
        verify(*args, **options)
    return {f.rule for f in caught.value.findings if not f.ok}


KINDS = pytest.mark.parametrize("kind", ["snp", "tdx"])


@KINDS
def test_trap_2_a_short_hash_is_not_padded_into_a_match(kind):
    """Neither the nonce, nor the digest in the hardware's report, nor initdata."""
    machine = cvm(kind)
    evidence = machine.collect(Request(report_data=b"r" * 32 + bytes(16)))
    rules = failed(machine, evidence, Request(report_data=b"r" * 32))
    assert rules == {f"{machine.tee}.quote.nonce"}  # user data are a register of 64 bytes: there, zeros follow
    broken = cvm(kind, broken="bound-short")
    assert f"{machine.tee}.runtime_data.binding" in failed(broken)
    digest = Request(report_data=DATA.report_data, initdata_digest=hashlib.sha256(b"").digest()[:31])
    assert failed(machine, machine.collect(DATA), digest) == {f"{machine.tee}.initdata"}


@KINDS
def test_trap_8_old_evidence_is_not_taken_for_new(kind):
    """A genuine hardware report of another request beside a fresh quote, and the reverse."""
    machine = cvm(kind)
    old, new = machine.collect(Request(report_data=b"o" * 48)), machine.collect(DATA)
    report = {name: old.primary[name] for name in old.primary if name not in ("version", "tpm_quote")}
    mixed = Evidence(tee=machine.tee, primary=new.primary | report)
    assert failed(machine, mixed) == {f"{machine.tee}.runtime_data.user_data"}
    stale = Evidence(tee=machine.tee, primary=new.primary | {"tpm_quote": old.primary["tpm_quote"]})
    assert failed(machine, stale) == {f"{machine.tee}.quote.nonce"}


@KINDS
def test_trap_13_the_chain_goes_to_a_root_that_is_pinned(kind):
    machine = cvm(kind)
    own = machine.endorsements
    roots = tuple(a.certificate for a in own.anchors)
    for anchors in ((), tuple(Anchor(certificate=root, tees=("tpm", machine.tee)) for root in roots)):
        pool = Endorsements(anchors=anchors, certificates=(*own.certificates, *roots), collateral=own.collateral)
        assert any(rule.endswith(".chain") for rule in failed(machine, endorsements=pool))


@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
def test_trap_13_no_cpu_model_is_fixed(product):
    """The peer's verifier began with Milan's certificates alone."""
    assert verify(FakeCvm(FakeChip(product))).values["product"] == product


def test_trap_13_td_quotes_of_both_versions():
    for version in (4, 5):
        assert verify(FakeCvm(trust_domain(FakePlatform("tdx", version=version)))).memory_encrypted


def test_trap_14_privilege_debug_and_migration_are_judged():
    for level in (1, 2, 3):
        assert failed(FakeCvm(FakeChip(fields={"vmpl": level}))) == {"az-snp-vtpm.hcl.vmpl"}
    for fault in ("debug", "migration", "migration-agent"):
        claims = verify(FakeCvm(FakeChip(broken=fault)))
        refused = [f.rule for f in platform.judge(claims) if not f.ok]
        assert refused == ["snp.policy.debug" if fault == "debug" else "snp.policy.migration"]
    domain = trust_domain()
    domain.fields["td_attributes"] = b"\1\0\0\x10"
    claims = verify(FakeCvm(domain))
    assert [f.rule for f in platform.judge(claims) if not f.ok] == ["tdx.attributes.debug"]
    assert claims.debug


def test_trap_15_every_tcb_is_shown():
    low = FakeChip().tcb
    chip = FakeChip(fields={"launch_tcb": b"\1" + low.pack()[1:]})
    assert verify(FakeCvm(chip)).values["tcb"]["launch"]["bootloader"] == 1


@KINDS
def test_trap_25_nothing_is_fetched_within_a_verification(kind, monkeypatch):
    def no_socket(*_args, **_kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", no_socket)
    assert verify(cvm(kind))


def test_trap_25_missing_collateral_is_not_an_outage():
    machine = cvm("tdx")
    with pytest.raises(Unusable, match="without"):
        verify(machine, endorsements=Endorsements(anchors=machine.endorsements.anchors))


@KINDS
def test_trap_26_a_genuine_machine_is_not_yet_the_wanted_workload(kind):
    """Anybody's paravisor on such a CPU can say what it likes of its PCRs."""
    claims = verify(cvm(kind))
    stored = ReferenceValues(name="app", tee=claims.tee, values={"pcr7": claims.measurement["pcr7"]})
    assert not all(f.ok for f in measurement(claims, [stored], cvm(kind).now))


@KINDS
def test_trap_of_the_peer_a_quote_of_other_registers(kind):
    """The peer hashes what is sent and never looks at which registers were quoted."""
    machine = cvm(kind, broken="selection")
    assert f"{machine.tee}.quote.selection" in failed(machine)


@pytest.mark.parametrize("hash_type", [0, 4, 255])
def test_trap_of_the_peer_an_unknown_hash_is_malformed(hash_type):
    """The peer's library breaks down on it."""
    machine = cvm("snp", version=0)
    evidence = machine.collect(DATA)
    evidence.primary["report"][1228] = hash_type
    with pytest.raises(Malformed, match="hash type"):
        verify(machine, evidence)
