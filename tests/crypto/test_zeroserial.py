"""Certificates with serial number 0, as every VCEK has: read and judged also where the library refuses them."""

import warnings

import pytest
from cryptography import x509

from casemate.crypto import chain, zeroserial
from casemate.drivers import statements
from casemate.errors import Refused
from casemate.schema.request import Request
from casemate.tee import files, gatherer, room
from casemate.tee.snp import vek
from casemate.testing import pki
from casemate.testing.azure import FakeCvm
from casemate.testing.snp import FakeChip

ASKED = Request(report_data=b"r" * 32)


@pytest.fixture(autouse=True)
def refusing():
    """What a later version of the library does: its warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def chip(refusing):
    return FakeChip()


def test_the_library_itself_does_not_take_them(chip):
    vcek = chip.chain[0][1]
    assert zeroserial.has(vcek)
    with pytest.raises((UserWarning, ValueError), match=r"[Ss]erial"):
        x509.load_der_x509_certificate(vcek)


def test_rooms_judge_them(chip):
    assert room("snp").verify(chip.collect(ASKED), chip.endorsements, ASKED, chip.now).tee == "snp"
    machine = FakeCvm()
    judged = room("az-snp-vtpm").verify(machine.collect(ASKED), machine.endorsements, ASKED, machine.now)
    assert judged.tee == "az-snp-vtpm"


@pytest.mark.parametrize("broken", ["other-root", "vek-expired", "wrong-authority"])
def test_rooms_refuse_them_for_the_right_reason(broken):
    chip = FakeChip(broken=broken)
    with pytest.raises(Refused, match=r"snp\.vek\."):
        room("snp").verify(chip.collect(ASKED), chip.endorsements, ASKED, chip.now)


def test_everything_that_reads_certificates_reads_them(chip):
    vcek = chip.chain[0][1]
    assert chain.load(vcek).subject == "CN=SEV-VCEK"
    assert vek.read(vcek).product == "Milan"
    assert statements.read(vcek).kind == statements.CERTIFICATE
    case = files.sort([files.File("report", chip.report(ASKED)), files.File("vcek", vcek)])
    assert gatherer("snp")(case).endorsements.certificates == (vcek,)


def test_a_signature_over_the_copy_does_not_count(chip):
    """The copy with serial number 1 is for reading; as a certificate it is one that nobody signed."""
    vcek = chip.chain[0][1]
    copy = zeroserial.readable(vcek)
    assert (copy != vcek, len(copy)) == (True, len(vcek))
    path = chain.walk([copy, chip.ask.certificate, chip.ark.certificate], [chip.ark.certificate], pki.NOW,
                      rule="x", leaf_usages=None)  # fmt: skip
    assert [f.rule for f in path.findings] == ["x.chain"]
