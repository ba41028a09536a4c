import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed, Refused, Unusable
from casemate.image import keyprovider, ocicrypt, packets
from casemate.wire.encoding import b64

KID, KEY = "kbs:///default/key/1", bytes(range(32))
SECRET = ocicrypt.LayerSecret(bytes(32), bytes(16), "sha256:" + "a" * 64).encode()


def wrap(parameters=f"keyid={KID}::keypath=/k", secret=SECRET, name="attestation-agent"):
    ec = {"Parameters": {name: [b64(parameters.encode())]}, "DecryptConfig": {"Parameters": {}}}
    return {"op": "keywrap", "keywrapparams": {"ec": ec, "optsdata": b64(secret)}, "keyunwrapparams": {"dc": None}}


def unwrap(annotation, parameters="keypath=/k"):
    dc = {"Parameters": {"attestation-agent": [b64(parameters.encode())]}}
    return {"op": "keyunwrap", "keywrapparams": {"ec": None, "optsdata": None},
            "keyunwrapparams": {"dc": dc, "annotation": annotation}}  # fmt: skip


def ask(request, keys=lambda uri, given: KEY):
    return json.loads(keyprovider.answer(json.dumps(request).encode(), keys))


@pytest.mark.parametrize("packet", ["1", "2"])
def test_wrap_then_unwrap(packet):
    asked = []

    def keys(uri, given):
        asked.append((uri, given.get("keypath")))
        return KEY

    made = ask(wrap(f"keyid={KID}::keypath=/k::packet={packet}"), keys)
    annotation = bytes(made["keywrapresults"]["annotation"])
    assert packets.parse(annotation).kid == KID
    back = ask(unwrap(b64(annotation)), keys)
    assert bytes(back["keyunwrapresults"]["optsdata"]) == SECRET
    assert asked == [(KID, "/k")] * 2


def test_the_forms_of_other_clients():
    annotation = bytes(ask(wrap())["keywrapresults"]["annotation"])
    twice = b64(b64(annotation).encode())  # Rust clients leave the annotation's own base64 on
    assert bytes(ask(unwrap(twice))["keyunwrapresults"]["optsdata"]) == SECRET
    assert bytes(ask(unwrap(list(annotation)))["keyunwrapresults"]["optsdata"]) == SECRET


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"op": "other"},
        {"op": "keywrap", "keywrapparams": []},
        {**wrap(), "keywrapparams": {"ec": {"Parameters": {"x": ["%"]}}, "optsdata": b64(SECRET)}},
        wrap("keyid"),
        wrap(f"keyid={KID}::keyid={KID}"),
        wrap(f"keyid={KID}::shell=rm"),
        wrap(secret=b"{}"),
        unwrap("%"),
        unwrap(b64(b"{}")),
        unwrap([1, 2, 300]),
        unwrap(None),
    ],
)
def test_malformed(request_):
    with pytest.raises(Malformed):
        ask(request_)


@pytest.mark.parametrize(
    "parameters", ["", "keyid=kbs:///a/b", f"keyid={KID}::algorithm=A256CTR", f"keyid={KID}::packet=3"]
)
def test_unusable(parameters):
    with pytest.raises(Unusable):
        ask(wrap(parameters))


def test_wrong_key():
    annotation = bytes(ask(wrap())["keywrapresults"]["annotation"])
    with pytest.raises(Refused):
        ask(unwrap(b64(annotation)), lambda uri, given: bytes(32))


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["ec", "dc", "Parameters", "annotation", "optsdata", "attestation-agent"]), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(st.sampled_from(["keywrap", "keyunwrap"]), JSON, JSON)
def test_any_request(operation, wrapping, unwrapping):
    with contextlib.suppress(Malformed, Refused, Unusable):
        ask({"op": operation, "keywrapparams": wrapping, "keyunwrapparams": unwrapping})
