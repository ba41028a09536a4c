"""CoRIM and CoMID of our own making: what is compared, what narrows, and what is refused because it cannot be."""

import dataclasses

import pytest

from casemate.errors import Malformed, Refused
from casemate.policy import references
from casemate.policy.references import ReferenceTrust
from casemate.schema.reference import AtLeast, OneOf
from casemate.testing import pki
from casemate.wire import cbor
from casemate.wire.cbor import Tagged

NOW = pki.NOW
TRUST = ReferenceTrust(allow_unsigned=True)
CLASS = {0: {1: "Fake vendor"}}
REALM = "tag:arm.com,2025:cca_realm#1.0.0"
PLATFORM = "tag:arm.com,2025:cca_platform#1.0.0"


def manifest(*triples, profile=None, others=None):
    comid = {1: {0: "tag"}, 4: {0: list(map(list, triples))} | (others or {})}
    found = {0: "id", 1: [Tagged(506, cbor.dumps(comid))]}
    return cbor.dumps(Tagged(501, found | ({3: Tagged(32, profile)} if profile else {})))


def read(*triples, trust=TRUST, **options):
    return references.read(manifest(*triples, **options), trust, NOW)


def failed(*triples, trust=TRUST, **options):
    with pytest.raises(Refused) as caught:
        read(*triples, trust=trust, **options)
    return {finding.rule for finding in caught.value.findings if not finding.ok}


def digest(size=32, byte=0xAA):
    return [{32: 1, 48: 7, 64: 8}[size], bytes([byte]) * size]


@pytest.mark.parametrize(
    ("measurement", "registers"),
    [
        ({0: "pcr4", 1: {2: [digest()]}}, {"pcr4": OneOf(("aa" * 32,))}),
        ({1: {2: [digest(48)]}}, {"measurement": OneOf(("aa" * 48,))}),
        ({0: 7, 1: {2: [["sha-384", bytes(48)]]}}, {"7": OneOf(("00" * 48,))}),
        ({0: "isv_svn", 1: {1: Tagged(553, 3)}}, {"isv_svn": AtLeast(3)}),
        ({0: "isv_svn", 1: {1: Tagged(552, 3)}}, {"isv_svn": OneOf(("3",))}),
        ({0: "isv_svn", 1: {1: 3}}, {"isv_svn": OneOf(("3",))}),
        ({0: "td", 1: {2: [digest()], 1: Tagged(553, 3)}}, {"td": OneOf(("aa" * 32,)), "td.svn": AtLeast(3)}),
        ({0: "id", 1: {4: Tagged(560, b"\x01\x02")}}, {"id": OneOf(("0102",))}),
        ({0: "rtmr", 1: {14: {1: [digest(48)], "x": [digest()]}}},
         {"rtmr1": OneOf(("aa" * 48,)), "x": OneOf(("aa" * 32,))}),
        ({0: Tagged(111, bytes.fromhex("2a0304")), 1: {2: [digest()]}}, {"1.2.3.4": OneOf(("aa" * 32,))}),
    ],
)  # fmt: skip
def test_what_is_compared(measurement, registers):
    (found,) = read((CLASS, [measurement]))
    assert found.registers == registers


def test_measurements_of_one_key_are_alternatives_and_keys_are_not():
    (found,) = read(
        (CLASS, [{0: "a", 1: {2: [digest()]}}, {0: "a", 1: {2: [digest(byte=1)]}}, {0: "b", 1: {2: [digest()]}}])
    )
    assert found.registers == {"a": OneOf(("aa" * 32, "01" * 32)), "b": OneOf(("aa" * 32,))}


def test_triples_are_references_of_their_own():
    one, two = read((CLASS, [{0: "a", 1: {2: [digest()]}}]), (CLASS, [{0: "a", 1: {2: [digest(byte=1)]}}]))
    assert (one.registers, two.registers) == ({"a": OneOf(("aa" * 32,))}, {"a": OneOf(("01" * 32,))})


def test_what_narrows_must_be_named():
    triples = [({1: Tagged(560, bytes([n]) * 4)}, [{0: "a", 1: {2: [digest(byte=n)]}}]) for n in (1, 2)]
    assert failed(*triples) == {"reference.scope.instance"}
    trust = dataclasses.replace(TRUST, scope={"instance": "02020202"})
    (found,) = read(*triples, trust=trust)  # only the triple of that instance, never the other's values
    assert found.registers == {"a": OneOf(("02" * 32,))}
    assert failed(*triples, trust=dataclasses.replace(TRUST, scope={"group": "02020202"})) == {
        "reference.scope.instance"
    }


@pytest.mark.parametrize("values", [{3: {}}, {5: b"\xff"}, {6: b"\0" * 6}, {15: [1, 2]}, {-1: 1}, {99: 1}])
def test_what_cannot_be_compared_is_refused(values):
    assert failed((CLASS, [{0: "a", 1: {2: [digest()]} | values}])) == {"reference.corim.values"}


@pytest.mark.parametrize(
    "measurement",
    [{}, {1: {}}, {0: "a"}, {0: "a", 1: {0: {0: "1"}}}, {0: "a", 1: {2: []}}, {0: "a", 1: {2: [[1]]}},
     {0: "a", 1: {4: b"raw"}}, {0: "a", 1: {1: -1}}, {0: "a", 1: {1: True}}, {0: None, 1: {2: [digest()]}},
     {0: "a", 1: {2: [digest()]}, 7: 1}, {0: "a", 1: {14: {}}}],
)  # fmt: skip
def test_what_is_no_measurement_is_malformed(measurement):
    with pytest.raises(Malformed):
        read((CLASS, [measurement]))


@pytest.mark.parametrize("environment", [{}, {3: 1}, {0: 1}, {0: {9: "x"}}, {1: None}])
def test_what_is_no_environment_is_malformed(environment):
    with pytest.raises(Malformed):
        read((environment, [{0: "a", 1: {2: [digest()]}}]))


def test_a_least_version_and_a_value_contradict_each_other():
    with pytest.raises(Malformed):
        read((CLASS, [{0: "a", 1: {1: Tagged(553, 1)}}, {0: "a", 1: {1: 3}}]))


def test_a_manifest_without_reference_values_is_malformed():
    with pytest.raises(Malformed):
        read()


REALM_CLASS = {0: {0: Tagged(560, bytes(32))}}
RIM = {0: "cca.rim", 1: {2: [digest()]}}


def test_the_profile_of_a_realm():
    (found,) = read((REALM_CLASS, [RIM, {0: "cca.rem0", 1: {2: [digest(byte=1)]}}]), profile=REALM)
    assert found.tee == "cca"
    assert found.registers == {"rim": OneOf(("aa" * 32,)), "rem0": OneOf(("01" * 32,))}


@pytest.mark.parametrize(
    ("triple", "rules"),
    [
        ((CLASS, [RIM]), {"class"}),
        (({0: {0: Tagged(560, bytes(31))}}, [RIM]), {"class"}),
        ((REALM_CLASS, [{0: "cca.rem0", 1: {2: [digest()]}}]), {"rim"}),
        ((REALM_CLASS, [RIM, {0: "cca.rem4", 1: {2: [digest()]}}]), {"key"}),
        ((REALM_CLASS, [{0: "cca.rim", 1: {2: [digest(), digest(48)]}}]), {"digests"}),
        ((CLASS, [{0: "cca.rem9", 1: {2: [digest()]}}]), {"class", "rim", "key"}),
    ],
)
def test_every_broken_rule_of_a_realm_is_told(triple, rules):
    assert failed(triple, profile=REALM) == {f"reference.profile.{rule}" for rule in rules}


PLATFORM_CLASS = {0: {0: Tagged(560, bytes(32))}}
SIGNER = {13: [Tagged(560, bytes(32))]}
COMPONENT = {0: "cca.software-component", 1: {2: [digest()], 11: "BL2"} | SIGNER}


@pytest.mark.parametrize(
    ("triple", "rules"),
    [
        ((PLATFORM_CLASS, [{0: "cca.software-component", 1: {2: [digest()]}}]), {"signer-id"}),
        ((PLATFORM_CLASS, [{0: "other", 1: {2: [digest()]}}]), {"component", "key"}),
        (
            (PLATFORM_CLASS, [{0: "cca.software-component", 1: {2: [digest()], 0: {0: "1", 1: 1}} | SIGNER}]),
            {"version"},
        ),
        ((CLASS, [COMPONENT]), {"implementation-id"}),
    ],
)
def test_every_broken_rule_of_a_platform_is_told(triple, rules):
    assert failed(triple, profile=PLATFORM) == {f"reference.profile.{rule}" for rule in rules}


def test_keys_of_a_platform_are_judged_by_its_profile():
    assert read((PLATFORM_CLASS, [COMPONENT]), profile=PLATFORM)
    keys = {3: [[PLATFORM_CLASS | {1: Tagged(550, b"\x02" + bytes(32))}, [b"key", b"key"]]]}
    found = failed((PLATFORM_CLASS, [COMPONENT]), profile=PLATFORM, others=keys)
    assert found == {"reference.profile.instance", "reference.profile.attestation-key"}
