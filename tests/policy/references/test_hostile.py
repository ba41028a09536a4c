"""Hostile documents: every parser raises only its own error, and every changed byte of a signed document is refused."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.errors import Malformed, Refused, Unusable
from casemate.policy import references
from casemate.policy.references import ReferenceTrust, corim, dsse, intoto, rules, signed
from casemate.testing.references import Publisher
from casemate.wire import cbor, jcs

PUBLISHER = Publisher()
TRUST = PUBLISHER.trust
NOW = PUBLISHER.now
DOCUMENTS = {
    "corim": PUBLISHER.corim(),
    "in-toto": PUBLISHER.provenance(),
    "uvm": PUBLISHER.uvm(),
    "plain": PUBLISHER.plain(),
    "jws": PUBLISHER.plain(as_jws=True),
}
HINT = "the key id, a hint that nobody signed and nothing is chosen by"


def judge(data, trust=TRUST):
    try:
        references.read(data, trust, NOW)
    except (Malformed, Refused, Unusable) as error:
        return type(error).__name__
    return "accepted"


def reason(kind, data, offset):
    if kind in ("in-toto", "plain"):
        start = data.index(b'"keyid":"') + 9
        return HINT if start <= offset < data.index(b'"', start) else ""
    return ""


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("kind", DOCUMENTS)
def test_changed_bytes_are_refused(kind, stride):
    data = DOCUMENTS[kind]
    assert judge(data) == "accepted"
    counts, accepted = Counter(), []
    for offset in range(0, len(data), stride):
        came = judge(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
        counts[came] += 1
        accepted += [offset] if came == "accepted" else []
    print(f"{kind}: {len(data)} bytes, {dict(counts)}")
    assert [offset for offset in accepted if not reason(kind, data, offset)] == []


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_cut_and_lengthened_documents_are_refused(kind):
    data = DOCUMENTS[kind]
    for size in range(0, len(data), 7):
        assert judge(data[:size]) != "accepted"
    assert judge(data + b"\0") != "accepted"
    assert judge(data + data) != "accepted"


@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_bytes(data):
    for prefix in (b"", b"\xd9\x01\xf5", b"\xd2\x84", b"{"):
        judge(prefix + data, ReferenceTrust(allow_unsigned=True))


@given(st.sampled_from(sorted(DOCUMENTS)), st.data())
@settings(max_examples=200, deadline=None)
def test_documents_with_several_changes(kind, data):
    changed = bytearray(DOCUMENTS[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    judge(bytes(changed))


KEYS = st.integers(-3, 15) | st.sampled_from([32, 37])
LEAVES = (
    st.none() | st.booleans() | st.integers(-(1 << 64), (1 << 64) - 1) | st.text(max_size=6) | st.binary(max_size=40)
)
ITEMS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=5)
        | st.builds(cbor.Tagged, st.sampled_from([1, 32, 37, 111, 550, 552, 553, 560]), inner)
    ),
    max_leaves=24,
)


@given(ITEMS, st.dictionaries(KEYS, ITEMS, max_size=5), ITEMS, ITEMS)
@settings(max_examples=120, deadline=None)
def test_manifests_of_any_shape(environment, values, rest, profile):
    """Only `Malformed` and `Refused`, with and without a known profile."""
    comid = {1: {0: "tag"}, 2: rest, 4: {0: [[environment, [{0: "pcr4", 1: values}]], rest], 3: rest}}
    for chosen in (profile, cbor.Tagged(32, "tag:arm.com,2025:cca_platform#1.0.0"), None):
        manifest = {0: "id", 1: [cbor.Tagged(506, cbor.dumps(comid))]} | ({3: chosen} if chosen is not None else {})
        judge(cbor.dumps(cbor.Tagged(501, manifest)), ReferenceTrust(allow_unsigned=True))
    judge(cbor.dumps(cbor.Tagged(501, {0: rest, 1: rest, 4: values, 5: environment})))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 1 << 65) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=16,
)
MEMBERS = st.sampled_from(
    ["type", "name", "signer", "issued", "expires", "scope", "values", "_type", "subject", "predicateType", "predicate",
     "payloadType", "payload", "signatures", "mediaType", "dsseEnvelope", "verificationMaterial"]
)  # fmt: skip


@given(st.dictionaries(MEMBERS, JSON, max_size=8), st.sampled_from(["plain", "statement", "bundle", "none"]))
@settings(max_examples=150, deadline=None)
def test_json_of_any_shape(document, kind):
    extra = {
        "plain": {"type": signed.TYPE},
        "statement": {"_type": intoto.STATEMENTS[0]},
        "bundle": {"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"},
        "none": {},
    }[kind]
    judge(json.dumps(document | extra).encode(), ReferenceTrust(allow_unsigned=True))


@given(st.sampled_from(["name", "signer", "issued", "expires", "scope", "values"]), JSON)
@settings(max_examples=200, deadline=None)
def test_plain_documents_with_any_member(member, value):
    document = jcs.parse_object(dsse.parse(jcs.parse_object(DOCUMENTS["plain"])).payload)
    judge(json.dumps(document | {member: value}).encode(), ReferenceTrust(allow_unsigned=True))


@given(st.sampled_from(["_type", "subject", "predicateType", "predicate"]), JSON)
@settings(max_examples=200, deadline=None)
def test_statements_with_any_member(member, value):
    document = jcs.parse_object(dsse.parse(jcs.parse_object(DOCUMENTS["in-toto"])).payload)
    judge(json.dumps(document | {member: value}).encode(), ReferenceTrust(allow_unsigned=True))


@given(st.binary(max_size=200) | st.text(max_size=80).map(str.encode))
@settings(max_examples=300, deadline=None)
def test_trust_files_of_any_bytes(data):
    for prefix in (b"", b"did:x509:", b'{"identity":', b"-----BEGIN PUBLIC KEY-----\n"):
        try:
            references.load([prefix + data])
        except (Malformed, Unusable):
            pass


def test_deep_and_wide_documents_are_bounded():
    deep = b"\xd9\x01\xf5" + b"\x81" * 5000
    wide = cbor.dumps(cbor.Tagged(501, {0: "id", 1: [cbor.Tagged(506, b"\xa0")] * (corim.MAX_TAGS + 1)}))
    many = json.dumps({"payloadType": "x", "payload": "", "signatures": [{"sig": ""}] * 17}).encode()
    values = {f"r{i}": "aa" for i in range(rules.MAX_REGISTERS + 1)}
    for data in (deep, wide, many, b'{"type":' + b"[" * 5000, b'{"a":' * 40 + b"1" + b"}" * 40):
        assert judge(data) == "Malformed"
    with pytest.raises(Malformed):
        signed.compose(name="x", scope={"tee": "snp"}, values=values, issued=NOW, expires=NOW.replace(2027), signer="")
