"""Claims against references: all registers of one must hold, and absence is a refusal."""

from datetime import UTC, datetime, timedelta

import pytest

from casemate.policy import references
from casemate.schema.claims import Claims
from casemate.schema.reference import AtLeast, OneOf, Reference

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def claims(measurement=None, **values):
    return Claims(
        tee="snp", platform_class="production", memory_encrypted=True, debug=False, report_data="", init_data="",
        fresh=True, vouched_by="", values=values, measurement={"measurement": "ab" * 48} | (measurement or {}),
    )  # fmt: skip


def reference(tee="snp", expires=None, **registers):
    return Reference(name="image", format="test", tee=tee, registers=registers, signer="somebody", expires=expires)


GOOD = reference(measurement=OneOf(("ab" * 48, "cd" * 48)))


def failed(*found, of=None, now=None):
    return [f.rule for f in references.compare(of or claims(), found, now) if not f.ok]


def test_one_holds():
    (found,) = references.compare(claims(), [reference(measurement=OneOf(("00",))), GOOD])
    assert (found.rule, found.ok) == ("reference.match", True)
    assert "somebody" in found.found
    assert failed(reference(measurement=OneOf(("AB" * 48,)))) == []
    assert failed(reference(tee="", measurement=OneOf(("ab" * 48,)))) == []


def test_each_departing_register_of_the_nearest_is_told():
    far = reference(measurement=OneOf(("00",)), a=OneOf(("00",)), b=OneOf(("00",)))
    near = reference(measurement=OneOf(("ab" * 48,)), a=OneOf(("00",)))
    assert failed(far, near) == ["reference.a"]
    assert failed(far) == ["reference.a", "reference.b", "reference.measurement"]


@pytest.mark.parametrize("found", [[], [reference(tee="tdx", mrtd=OneOf(("00",)))], [reference()]])
def test_no_fitting_reference_is_a_refusal(found):
    assert failed(*found) == ["reference.tee"]


def test_what_expired_since_it_was_read_is_left_out():
    old = reference(expires=NOW - timedelta(seconds=1), measurement=OneOf(("ab" * 48,)))
    assert failed(old) == []
    assert failed(old, now=NOW) == ["reference.tee"]


@pytest.mark.parametrize(
    ("svn", "good"), [(3, True), (4, True), (2, False), ("3", False), (True, False), (None, False)]
)
def test_versions(svn, good):
    wanted = reference(isv_svn=AtLeast(3))
    assert (failed(wanted, of=claims(isv_svn=svn)) == []) is good


def test_numbers_may_be_named_exactly():
    assert failed(reference(product=OneOf(("7",))), of=claims(product=7)) == []
    assert failed(reference(product=OneOf(("7",))), of=claims(product=8)) == ["reference.product"]


def test_artefacts():
    image = Reference(name="image", format="test", artefacts={"registry.example/a": OneOf(("sha256:aa",))})
    assert references.artefact("sha256:AA", [GOOD, image]).ok
    assert not references.artefact("sha256:ab", [GOOD, image]).ok
    assert not references.artefact("sha256:ab", []).ok


def test_values_of_hostile_text_do_not_break():
    assert failed(reference(measurement=OneOf(("é",)))) == ["reference.measurement"]
