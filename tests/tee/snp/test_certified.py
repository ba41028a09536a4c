"""A good path of certificates is remembered, and stands for nothing but itself and its time."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from cryptography import x509

from casemate.errors import Refused, Unusable
from casemate.schema.endorsements import Endorsements
from casemate.schema.request import Request
from casemate.tee import snp
from casemate.tee.snp import certified
from casemate.testing import pki
from casemate.testing.snp import FakeChip

ASKED = Request(report_data=b"r" * 48)
DAY = timedelta(days=1)


@pytest.fixture
def chip():
    """A chip whose path was found good a moment ago."""
    made = FakeChip()
    certified._GOOD.clear()
    for _ in range(2):
        assert snp.verify(made.collect(ASKED), made.endorsements, ASKED, made.now).fresh
    assert len(certified._GOOD) == 1
    return made


def failed(chip, endorsements=None, now=None, evidence=None):
    try:
        snp.verify(evidence or chip.collect(ASKED), endorsements or chip.endorsements, ASKED, now or chip.now)
    except (Refused, Unusable) as error:
        return {f.rule for f in getattr(error, "findings", ()) if not f.ok} or {"unusable"}
    return set()


def test_the_same_is_said_when_it_is_remembered(chip):
    again = snp.verify(chip.collect(ASKED), chip.endorsements, ASKED, chip.now)
    certified._GOOD.clear()
    assert snp.verify(chip.collect(ASKED), chip.endorsements, ASKED, chip.now) == again


def test_a_time_when_it_is_not_valid(chip):
    assert failed(chip, now=pki.END + DAY) == {"snp.vek.validity"}
    assert failed(chip, now=pki.START - DAY) == {"snp.vek.validity"}
    assert not failed(chip)


def test_a_good_path_without_a_list_is_none_with_it(chip):
    told = msgspec.structs.replace(chip.endorsements, collateral={"ark.crl": chip.ark.crl([chip.ask.certificate])})
    assert "snp.vek.revoked" in failed(chip, told)
    assert not failed(chip)


def test_the_end_of_a_list_is_the_end_of_what_rests_on_it():
    chip = FakeChip()
    collateral = {"ark-milan.crl": chip.ark.crl()}
    told = msgspec.structs.replace(chip.endorsements, collateral=collateral)
    assert not failed(chip, told)
    (known,) = (good for given, good in certified._GOOD.items() if given.crls == tuple(collateral.values()))
    listed = x509.load_der_x509_crl(next(iter(collateral.values())))
    assert known.until <= listed.next_update_utc
    assert known.since >= listed.last_update_utc
    assert failed(chip, told, now=listed.next_update_utc + timedelta(seconds=1)) & {"snp.vek.revoked"}


def test_an_anchor_that_is_taken_away(chip):
    assert "snp.vek.chain" in failed(chip, Endorsements())
    assert not failed(chip)


def test_another_class_of_the_anchor_is_another_class_of_the_platform(chip):
    (anchor,) = chip.endorsements.anchors
    other = msgspec.structs.replace(anchor, platform_class="development")
    claims = snp.verify(chip.collect(ASKED), Endorsements(anchors=(other,)), ASKED, chip.now)
    assert claims.platform_class == "development"


def test_what_failed_is_not_remembered():
    certified._GOOD.clear()
    for fault in ("not-anchored", "vek-expired", "other-root", "no-ask", "vek-as-authority"):
        assert failed(FakeChip(broken=fault)), fault
    assert not certified._GOOD


def test_no_more_than_so_many(monkeypatch):
    monkeypatch.setattr(certified, "_REMEMBERED", 2)
    certified._GOOD.clear()
    for _ in range(4):
        assert not failed(FakeChip())
    assert len(certified._GOOD) == 2
