"""CoCo's sealed secrets: one form is taken, everything else is said to be wrong."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed
from casemate.schema import manifest as manifests
from casemate.schema import sealed
from casemate.testing.manifests import document
from casemate.testing.sealing import Sealer, packed

KID, NAME = "kbs:///web/sealing/key", "kbs:///web/password/1"
SEALER = Sealer(KID)
GOOD = SEALER.vault(NAME)


def changed(header=None, payload=None):
    first, second = json.loads(SEALER.header()), json.loads(SEALER.payload(NAME))
    return f"sealed.{packed({**first, **(header or {})})}.{packed({**second, **(payload or {})})}.{'A' * 86}"


def test_the_parts():
    found = sealed.parse(GOOD)
    assert (found.kid, found.name) == (KID, NAME)
    assert found.signed.decode() == GOOD.removeprefix("sealed.").rpartition(".")[0]
    assert len(found.signature) == 64


@pytest.mark.parametrize(
    "text",
    [
        "sealed.",
        "sealed.a.b",
        "sealed.fakejwsheader.eyJ9.fakesignature",
        "sealed.a.b.c.d",
        GOOD[:-1],
        GOOD + "=",
        "Sealed" + GOOD[6:],
        "sealed." + "A" * 20000 + ".b.c",
        changed(header={"alg": "none"}),
        changed(header={"alg": "HS256"}),
        changed(header={"crit": ["x"]}),
        changed(header={"kid": "key-in-a-file"}),
        changed(header={"kid": "kbs:///a/b/../c"}),
        changed(header={"jwk": {}}),
        changed(payload={"type": "envelope"}),
        changed(payload={"provider": "aws"}),
        changed(payload={"version": "0.2.0"}),
        changed(payload={"name": "kbs://repo/type/tag"}),
        changed(payload={"name": 5}),
        changed(payload={"more": 1}),
    ],
)
def test_every_other_form_is_malformed(text):
    with pytest.raises(Malformed):
        sealed.parse(text)


@given(st.one_of(st.text(max_size=300), st.text(max_size=200).map("sealed.".__add__)))
def test_any_text(text):
    try:
        sealed.parse(text)
    except Malformed:
        pass


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=20), st.lists, max_leaves=5),
    st.sampled_from(["version", "type", "name", "provider", "kid", "alg"]),
)
def test_any_value_of_a_member(value, member):
    part = {member: value}
    try:
        found = sealed.parse(changed(header=part) if member in ("kid", "alg") else changed(payload=part))
    except Malformed:
        return
    assert found.kid.startswith("kbs:///")
    assert found.name.startswith("kbs:///")


def test_a_manifest_lists_what_its_sealed_secrets_name():
    made = document()
    made["containers"][0]["env"] = [{"name": "PASSWORD", "value": GOOD}]
    made["containers"][0]["files"] = [{"path": "/run/secrets/x", "content": GOOD + "\n"}]
    assert {KID, NAME} <= manifests.from_builtins(made).resources()


def test_a_manifest_with_a_value_that_only_looks_sealed():
    made = document()
    made["containers"][0]["env"] = [{"name": "PASSWORD", "value": "sealed.with.wax.only"}]
    with pytest.raises(Malformed) as error:
        manifests.from_builtins(made)
    assert [problem.path for problem in error.value.problems] == ["containers[0].env[0].value"]


def test_a_sealed_secret_does_not_reach_for_keys_of_images():
    made = document()
    made["containers"][0]["image_keys"] = [NAME]
    made["containers"][0]["env"] = [{"name": "PASSWORD", "value": GOOD}]
    with pytest.raises(Malformed, match="the key of an image"):
        manifests.from_builtins(made)
