"""The manifest: what is accepted, what is refused and how it is said, and its identity."""

import copy
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed
from casemate.image import reference
from casemate.schema import manifest as manifests
from casemate.testing.manifests import APP, IMAGE, PIN, SIGNER, document


def problems(changed):
    """path → (message, hint) of everything that is wrong."""
    with pytest.raises(Malformed) as caught:
        manifests.from_builtins(changed)
    assert caught.value.problems
    return {p.path: (p.message, p.hint) for p in caught.value.problems}


def changed(path, value):
    """The full document with one place replaced (`None` as last step of the path removes it)."""
    made = document()
    *way, last = path
    place = made
    for step in way:
        place = place[step]
    place[last] = value
    return made


def places(value, way=()):
    """Every place in plain data: (path as steps, value)."""
    if way:
        yield way, value
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in children:
        yield from places(item, (*way, key))


def text(way):
    """Steps as the path in messages."""
    return "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in way).lstrip(".")


def steps(path):
    """The reverse of `text`."""
    words = re.findall(r"[a-z_A-Z]+|[0-9]+", path.replace("web", "containers[0]", 1))
    return tuple(int(word) if word.isdigit() else word for word in words)


def at(made, way):
    for step in way:
        made = made[step]
    return made


WRONG = {str: 7, int: "many", float: "much", bool: "maybe", list: "x", dict: "x"}
ALL = list(places(document()))


def test_the_full_document_is_good():
    read = manifests.from_builtins(document())
    assert read.containers[0].secrets[0].signal == "SIGHUP"
    assert len(ALL) > 80


@pytest.mark.parametrize(("way", "value"), ALL, ids=[text(way) for way, _ in ALL])
def test_a_wrong_type_at_every_path_is_named(way, value):
    found = problems(changed(way, WRONG[type(value)]))
    assert text(way) in found
    assert "found" in found[text(way)][0]


MAPPINGS = [(), *(way for way, value in ALL if isinstance(value, dict))]


@pytest.mark.parametrize("way", MAPPINGS, ids=[text(way) or "top" for way in MAPPINGS])
def test_an_unknown_field_in_every_mapping_is_named(way):
    made = document()
    at(made, way)["surprise"] = 1
    assert problems(made)[text((*way, "surprise"))][0] == "unknown field"


def schema_required():
    """(path to the mapping, required field) for every mapping of the document."""
    for way in MAPPINGS:
        for key in at(document(), way):
            made = document()
            del at(made, way)[key]
            yield pytest.param(way, key, id=text((*way, key)))


OPTIONAL_MEANING = {"file", "env"}  # a secret without its target is told at the secret itself


@pytest.mark.parametrize(("way", "key"), list(schema_required()))
def test_dropping_any_field_is_told_there_or_changes_the_identity(way, key):
    made = document()
    del at(made, way)[key]
    try:
        read = manifests.from_builtins(made)
    except Malformed as error:
        paths = [p.path for p in error.problems]
        here = text((*way, key))
        related = key in OPTIONAL_MEANING | {"volumes"}
        assert here in paths or (related and paths)
        return
    same = key in {"quorum", "protocol"}  # written out, but equal to the default
    assert (read.digest == manifests.from_builtins(document()).digest) is same


CASES = [  # name, place (web is containers[0]), value, part of the hint, place of the problem if another
    ("tag instead of digest", "web.image", "registry.example/shop/web:1.2", "tags"),
    ("tag beside digest", "web.image", IMAGE.replace("@", ":1@"), "tags"),
    ("short name", "web.image", "web@sha256:" + "0" * 64, "digest"),
    ("newline behind a name", "name", "shop\n", "hyphens"),
    ("relative mount", "web.mounts[0].path", "data", "begin"),
    ("dotted path", "web.tmpfs[0]", "/a/../b", "without"),
    ("last slash", "web.files[0].path", "/etc/", "without"),
    ("root covered", "web.mounts[0].path", "/", "below"),
    ("kernel folder", "web.tmpfs[0]", "/proc/x", "another"),
    ("API folder", "web.tmpfs[0]", "/run/casemate", "another"),
    ("unknown volume", "web.mounts[0].volume", "other", "data"),
    ("two parts in resource", "volumes[0].key", "kbs:///a/b", "three parts"),
    ("dots in resource", "volumes[0].key", "kbs:///a/../b", "three parts"),
    ("api resource elsewhere", "web.api.resources[0]", "http://x/y/z", ""),
    ("signer not PEM", "signers[0].key", "ssh-rsa AAAA", "cosign"),
    ("signer private key", "signers[0].key", SIGNER.replace("PUBLIC", "PRIVATE"), "cosign"),
    ("signer cut short", "signers[0].key", SIGNER.replace("KaKQ==", ""), "cosign"),
    ("signer for nothing", "signers[0].images", [], ""),
    ("quorum", "quorum", 2, "demand fewer"),
    ("no quorum", "quorum", 0, ""),
    ("no broker", "brokers", [], ""),
    ("broker over http", "brokers[0].url", "http://broker.example", "TLS"),
    ("broker with user", "brokers[0].url", "https://a@b.example", "TLS"),
    ("broker with path", "brokers[0].url", "https://b.example/kbs", "TLS"),
    ("broker port", "brokers[0].url", "https://b.example:99999", "65535"),
    ("user by name", "web.user", "www-data", "number"),
    ("user too large", "web.user", "4294967295", "end at"),
    ("unknown capability", "web.capabilities[0]", "CAP_ALL", "capabilities(7)"),
    ("unknown signal", "host.signals[0]", "SIGFOO", "signal(7)"),
    ("mode as a number", "web.files[0].mode", 420, "text"),
    ("setuid mode", "web.files[0].mode", "4755", "text"),
    ("port 0", "web.ports[0].container", 0, ""),
    ("TLS over udp", "web.ports[0].protocol", "udp", "tcp", "web.ports[0].tls"),
    ("restart", "web.restart", "sometimes", ""),
    ("NUL in env", "web.env[0].value", "a\0b", "file"),
    ("NUL in args", "web.args[0]", "a\0b", "file"),
    ("other version", "apiVersion", "casemate/v2", ""),
    ("registry location", "registries[0].location", "http://mirror.example", ""),
    ("image key as secret", "web.secrets[1].resource", "kbs:///shop/image-key/1", "never"),
    ("login over plain HTTP", "registries[1].credentials", "kbs:///a/b/c", "https"),
    ("pin without TLS", "registries[1].key", PIN, "leave"),
    ("registry login as secret", "web.secrets[1].resource", "kbs:///shop/registry/login", "never"),
    ("registry login over API", "web.api.resources[0]", "kbs:///shop/registry/login", "never"),
    ("volume key over API", "web.api.resources[0]", "kbs:///shop/volume/data", "never"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_named_mistakes(case):
    _, place, value, hint, *elsewhere = case
    found = problems(changed(steps(place), value))
    (path,) = [p.replace("web", "containers[0]") for p in elsewhere or [place]]
    assert list(found) == [path]
    assert hint in found[path][1] + found[path][0]


def test_secrets_go_to_exactly_one_place():
    base = {"resource": "kbs:///a/b/c"}
    made = changed(
        ("containers", 0, "secrets"),
        [base, {**base, "env": "A", "file": "/a"}, {**base, "env": "B", "mode": "0444", "signal": "SIGHUP"}],
    )
    found = problems(made)
    assert set(found) == {
        f"containers[0].secrets{rest}" for rest in ("[0]", "[0].mode", "[1]", "[2].mode", "[2].signal")
    } - {"containers[0].secrets[0].mode"}
    assert "neither" in found["containers[0].secrets[0]"][0]
    assert "both" in found["containers[0].secrets[1]"][0]


DOUBLES = [
    (("containers",), "containers[1].name"),
    (("volumes",), "volumes[1].name"),
    (("brokers",), "brokers[1].url"),
    (("registries",), "registries[2].prefix"),
    (("containers", 0, "env"), "containers[0].env[1].name"),
    (("containers", 0, "mounts"), "containers[0].mounts[1].path"),
    (("containers", 0, "ports"), "containers[0].ports[1]"),
    (("containers", 0, "tmpfs"), "containers[0].tmpfs[1]"),
    (("containers", 0, "image_keys"), "containers[0].image_keys[1]"),
    (("containers", 0, "api", "resources"), "containers[0].api.resources[1]"),
]


@pytest.mark.parametrize(("way", "path"), DOUBLES, ids=[d[1] for d in DOUBLES])
def test_nothing_is_said_twice(way, path):
    made = document()
    entries = at(made, way)
    entries.append(copy.deepcopy(entries[0]))
    assert path in problems(made)


def test_a_secret_may_not_hide_a_variable_or_a_file():
    made = document()
    web = made["containers"][0]
    web["secrets"].append({"resource": "kbs:///a/b/c", "env": "MODE"})
    web["secrets"].append({"resource": "kbs:///a/b/c", "file": "/etc/motd"})
    assert set(problems(made)) == {"containers[0].secrets[2].env", "containers[0].secrets[3].file"}


def test_volumes_whose_disks_would_have_one_serial():
    made = document()
    made["volumes"] = [
        {"name": name, "app": APP, "key": f"kbs:///a/volume/{name}"}
        for name in ("data", "orders-of-this-year", "orders-of-this-day")
    ]
    assert manifests.from_builtins(made)  # 16 letters: `orders-of-this-y` and `orders-of-this-d`
    made["volumes"][2]["name"] = "orders-of-this-years"
    assert set(problems(made)) == {"volumes[2].name"}


def test_a_volume_has_one_broker():
    made = document()
    made["brokers"].append({"url": "https://second.example", "key": APP})
    found = problems(made)
    assert set(found) == {"volumes[0]"}
    assert "one broker" in found["volumes[0]"][1]
    made["volumes"], made["containers"][0]["mounts"] = [], []
    assert manifests.from_builtins({**made, "quorum": 2}).quorum == 2


def test_ports_are_shared_among_containers():
    made = document()
    made["containers"].append({"name": "side", "image": IMAGE, "ports": [{"container": 8443}]})
    assert "share one network" in problems(made)["containers[1].ports[0]"][1]


def test_all_problems_come_at_once_shape_and_rules_together():
    made = document(quorum=9, surprise=1)
    web = made["containers"][0]
    web["image"], web["user"] = "nginx:latest", 101
    web["mounts"].append({"volume": "nowhere", "path": "here"})
    del made["volumes"][0]["app"]
    assert set(problems(made)) == {
        "surprise",
        "quorum",
        "containers[0].image",
        "containers[0].user",
        "containers[0].mounts[1].volume",
        "containers[0].mounts[1].path",
        "volumes[0].app",
    }


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("enviroment", "env"), ("entrypoint", "command"), ("image_key", "image_keys"), ("prots", "ports")],
)
def test_an_unknown_field_comes_with_what_was_meant(wrong, meant):
    made = document()
    made["containers"][0][wrong] = []
    assert problems(made)[f"containers[0].{wrong}"][1] == f"did you mean {meant!r}?"


@pytest.mark.parametrize("nothing", [None, [], "x", 3, {}, {"containers": {}}, {"containers": [None, 3]}])
def test_documents_that_are_no_manifest(nothing):
    assert problems(nothing)


def test_the_number_of_problems_is_bounded():
    assert len(problems({f"field{i}": i for i in range(500)})) == 50


def test_identity_does_not_depend_on_spelling():
    written = json.dumps(document(), indent=3)
    sparse = json.dumps(dict(reversed(document().items())), ensure_ascii=False)
    assert manifests.parse(written) == manifests.parse(sparse)
    assert manifests.parse(written).digest == manifests.parse(sparse).digest
    read = manifests.parse(written)
    assert manifests.parse(read.canonical()) == read
    assert b'"quorum"' not in read.canonical()  # defaults are left out


def test_resources_are_all_that_is_named():
    assert manifests.from_builtins(document()).resources() == {
        "kbs:///shop/registry/login",
        "kbs:///shop/image-key/1",
        "kbs:///shop/tls/key",
        "kbs:///shop/api/token",
        "kbs:///shop/page/line",
        "kbs:///shop/volume/data",
    }


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
KEYS = st.sampled_from(sorted(document())) | st.text(max_size=4)


@given(st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner), max_leaves=12))
def test_any_data_gives_a_manifest_or_malformed(value):
    with pytest.raises(Malformed):
        manifests.from_builtins(value)


@given(
    st.sampled_from(ALL), st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.just([{}]) | st.floats()
)
def test_one_arbitrary_value_anywhere_gives_a_manifest_or_malformed(place, value):
    try:
        read = manifests.from_builtins(changed(place[0], value))
    except Malformed:
        return
    assert manifests.parse(read.canonical()) == read


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_any_bytes_give_a_manifest_or_malformed(data):
    with pytest.raises(Malformed):
        manifests.parse(data)


@given(st.from_regex(r"\A[a-z0-9.:\[\]/_-]{1,40}@sha256:[0-9a-f]{64}\Z"))
def test_every_image_that_a_manifest_accepts_is_a_reference_by_digest(image):
    try:
        read = manifests.from_builtins(changed(("containers", 0, "image"), image))
    except Malformed:
        return
    assert reference.parse(read.containers[0].image, pinned=True).tag is None
