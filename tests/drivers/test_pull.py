import json
import os
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from casemate.drivers import push
from casemate.drivers.pull import Limits, pull
from casemate.drivers.registry import Registry
from casemate.drivers.registryauth import Credentials
from casemate.errors import Malformed, Refused, Unavailable, Unusable
from casemate.image import build, cosign, layers
from casemate.image import manifest as oci
from casemate.image import reference as names
from casemate.image.layout import Layout
from casemate.schema import manifest as schema
from casemate.testing import registry as registries
from casemate.testing import tars
from casemate.testing.registry import digest

KID, KEY = "kbs:///default/image-key/1", bytes(range(32))
NAME = "registry.example/demo/app"


def new_key():
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


SIGNING, OTHER = new_key(), new_key()
SIGNER = schema.Signer(key=cosign.public_pem(SIGNING), images=("registry.example/demo/*",))


@pytest.fixture
def server():
    with registries.lying() as running:
        yield running


@pytest.fixture
def make(tmp_path, server):
    """Builds, encrypts, signs and pushes an image of two layers; gives the pinned reference."""

    def made(*, encrypted=True, key=SIGNING, identity=NAME, change=None, process=None):
        source = tmp_path / "source"
        for name, text in (
            ("one/etc/conf", "lower"),
            ("one/etc/gone", "x"),
            ("two/etc/conf", "upper"),
            ("two/etc/.wh.gone", ""),
        ):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_text(text)
        layout = Layout.create(tmp_path / f"layout{os.urandom(4).hex()}")
        parts = [build.add_layer(layout, build.folder_tar(source / part)) for part in ("one", "two")]
        if change:
            parts = change(layout, parts)
        image = build.add_image(layout, parts, process or oci.Process(Cmd=["/bin/app"]))
        if encrypted:
            image = build.encrypt(layout, image, [(KID, KEY)])
        if key:
            push.sign_layout(layout, image, cosign.sign(identity, image.digest, key))
        with Registry(server.host, insecure=True) as client:
            push.push(layout, image, client, names.parse(f"{server.host}/demo/app:1"))
        return f"{NAME}@{image.digest}"

    return made


@pytest.fixture
def fetch(server, tmp_path):
    table = [schema.Registry(prefix="registry.example", location=server.host, insecure=True)]

    def fetched(reference, *, signers=(SIGNER,), keys=lambda uri: KEY, limits=None, progress=None, target=None):
        return pull(
            reference,
            registry=table,
            signers=signers,
            keys=keys,
            target=target or tmp_path / "target",
            limits=limits,
            progress=progress,
        )

    return fetched


def rules(call):
    with pytest.raises(Refused) as caught:
        call()
    return [finding.rule for finding in caught.value.findings]


@pytest.mark.parametrize("encrypted", [True, False])
def test_pull(make, fetch, tmp_path, encrypted):
    asked, heard = [], []
    reference = make(encrypted=encrypted)

    def keys(uri):
        asked.append(uri)
        return KEY

    found = fetch(reference, keys=keys, progress=lambda phase, detail: heard.append(phase))
    assert found.rootfs == tmp_path / "target/rootfs"
    assert (found.rootfs / "etc/conf").read_text() == "upper"
    assert not (found.rootfs / "etc/gone").exists()
    assert found.config.process.Cmd == ["/bin/app"]
    assert found.digest == reference.partition("@")[2]
    assert found.findings[0].rule == "image.signature"
    assert asked == ([KID] if encrypted else [])
    assert heard == ["verify", "key", "pull", "unpack", "pull", "unpack"]
    assert set(found.seconds) == {"pull", "verify", "key", "unpack"}
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["rootfs"]
    with pytest.raises(Unusable, match="exists"):
        fetch(reference)


def nothing_left(tmp_path):
    target = tmp_path / "target"
    return not target.exists() or list(target.iterdir()) == []


# -- signature


def test_unsigned(make, fetch, tmp_path):
    assert rules(lambda: fetch(make(key=None))) == ["image.signature.missing"]
    assert nothing_left(tmp_path)


def test_signed_by_another_key(make, fetch):
    assert rules(lambda: fetch(make(key=OTHER))) == ["image.signature.key"]


def test_signed_as_another_image(make, fetch):
    assert rules(lambda: fetch(make(identity="registry.example/demo/other"))) == ["image.signature.identity"]


def test_signature_of_another_image_in_its_place(make, fetch, server):
    first = make()
    signature = server.manifests[cosign.tag(first.partition("@")[2])]
    second = make(process=oci.Process(Cmd=["/bin/evil"]))
    server.manifests[cosign.tag(second.partition("@")[2])] = signature
    assert rules(lambda: fetch(second)) == ["image.signature.digest"]


def test_signer_of_other_repositories(make, fetch):
    signer = schema.Signer(key=SIGNER.key, images=("registry.example/other/*",))
    assert rules(lambda: fetch(make(), signers=[signer])) == ["image.signature.signer"]


def test_no_key_is_asked_for_before_the_signature_holds(make, fetch):
    asked = []
    rules(lambda: fetch(make(key=OTHER), keys=asked.append))
    assert asked == []


def test_many_signatures(make, fetch, server):
    reference = make(key=OTHER)
    at = reference.partition("@")[2]
    with Registry(server.host, insecure=True) as client:
        push.add_signature(client, "demo/app", at, cosign.sign(NAME, at, SIGNING))
    assert fetch(reference).digest == at


def test_signature_manifest_nonsense(make, fetch, server):
    reference = make()
    server.manifests[cosign.tag(reference.partition("@")[2])] = b'{"schemaVersion":2}'
    with pytest.raises(Malformed):
        fetch(reference)


# -- what a registry may try


def test_another_manifest(make, fetch, server):
    first, second = make(), make(process=oci.Process(Cmd=["/bin/evil"]))
    server.manifests[first.partition("@")[2]] = server.manifests[second.partition("@")[2]]
    assert rules(lambda: fetch(first)) == ["image.manifest.digest"]


def layer_blobs(server, reference):
    document = oci.parse_image(server.manifests[reference.partition("@")[2]])
    return [layer.digest for layer in document.layers]


@pytest.mark.parametrize("where", [0, -1])
def test_flipped_byte(make, fetch, server, tmp_path, where):
    reference = make()
    name = layer_blobs(server, reference)[1]
    data = bytearray(server.blobs[name])
    data[where] ^= 1
    server.blobs[name] = bytes(data)
    assert rules(lambda: fetch(reference)) == ["image.layer.digest", "image.layer.hmac"]
    assert nothing_left(tmp_path)


def test_flipped_byte_in_the_configuration(make, fetch, server):
    reference = make()
    name = oci.parse_image(server.manifests[reference.partition("@")[2]]).config.digest
    server.blobs[name] = server.blobs[name].replace(b"/bin/app", b"/bin/apq")
    assert rules(lambda: fetch(reference)) == ["registry.digest"]


@pytest.mark.parametrize("change", [lambda d: d + b"x", lambda d: d[:-1]])
def test_lies_about_sizes(make, fetch, server, change):
    reference = make()
    name = layer_blobs(server, reference)[0]
    server.blobs[name] = change(server.blobs[name])
    assert rules(lambda: fetch(reference)) == ["registry.size"]


def test_layers_swapped(make, fetch, server):
    reference = make()
    one, two = layer_blobs(server, reference)
    server.blobs[one], server.blobs[two] = server.blobs[two], server.blobs[one]
    with pytest.raises(Refused):
        fetch(reference)


def test_layer_missing(make, fetch, server, tmp_path):
    reference = make()
    del server.blobs[layer_blobs(server, reference)[1]]
    with pytest.raises(Unusable):
        fetch(reference)
    assert nothing_left(tmp_path)


def test_registry_down(fetch, server, monkeypatch):
    monkeypatch.setitem(Registry.__init__.__kwdefaults__, "sleep", lambda _: None)
    server.server_close()
    with pytest.raises(Unavailable):
        fetch(f"{NAME}@{digest(b'')}")


# -- what a signer may have signed


def test_wrong_key(make, fetch, tmp_path):
    assert rules(lambda: fetch(make(), keys=lambda uri: bytes(32))) == ["image.key"]
    assert nothing_left(tmp_path)


def test_key_refused_by_the_broker(make, fetch):
    def keys(uri):
        raise Refused.because("policy.resource", expected="listed", found=uri)

    assert rules(lambda: fetch(make(), keys=keys)) == ["policy.resource", ]  # fmt: skip


@pytest.mark.parametrize("encrypted", [True, False])
def test_diff_id(make, fetch, tmp_path, encrypted):
    def swapped(_, parts):
        (one, first), (two, second) = parts
        return [(one, second), (two, first)]

    assert rules(lambda: fetch(make(change=swapped, encrypted=encrypted))) == ["image.layer.diff-id"]
    assert nothing_left(tmp_path)


def test_layers_and_diff_ids_of_different_number(make, fetch, server):
    reference = make(encrypted=False)
    document = json.loads(server.manifests[reference.partition("@")[2]])
    document["layers"].pop()
    body = json.dumps(document).encode()
    with Registry(server.host, insecure=True) as client:
        at = client.put_manifest("demo/app", "x", body, oci.OCI_MANIFEST)
        push.add_signature(client, "demo/app", at, cosign.sign(NAME, at, SIGNING))
    with pytest.raises(Malformed, match="1 layers, 2 diff-ids"):
        fetch(f"{NAME}@{at}")


def test_hostile_layer(make, fetch, tmp_path):
    def hostile(layout, parts):
        return [*parts, build.add_layer(layout, [tars.tar(tars.file(b"../../escaped", b"x"))])]

    assert rules(lambda: fetch(make(change=hostile))) == ["image.layer.path"]
    assert nothing_left(tmp_path)
    assert not (tmp_path / "escaped").exists()


def test_bomb(make, fetch, tmp_path):
    def bomb(layout, parts):
        return [*parts, build.add_layer(layout, [tars.tar(tars.file(b"zeros", bytes(4 << 20)))])]

    limits = Limits(layer=layers.Limits(ratio=50, slack=1 << 20))
    assert rules(lambda: fetch(make(change=bomb), limits=limits)) == ["image.layer.ratio"]
    assert nothing_left(tmp_path)


def test_unknown_layer_type(make, fetch):
    def odd(layout, parts):
        (one, diff_id), rest = parts
        return [(oci.Descriptor("text/plain", one.digest, one.size), diff_id), rest]

    with pytest.raises(Malformed):
        fetch(make(change=odd, encrypted=False))


def test_index(make, fetch, server):
    reference = make()
    inner = reference.partition("@")[2]
    place = oci.Platform(oci.go_architecture(), "linux")
    entry = oci.Descriptor(oci.OCI_MANIFEST, inner, len(server.manifests[inner]), None, place)
    with Registry(server.host, insecure=True) as client:
        at = client.put_manifest("demo/app", "i", oci.encode(oci.Index(2, (entry,), oci.OCI_INDEX)), oci.OCI_INDEX)
        assert rules(lambda: fetch(f"{NAME}@{at}")) == ["image.signature.missing"]
        push.add_signature(client, "demo/app", at, cosign.sign(NAME, at, SIGNING))
    assert fetch(f"{NAME}@{at}").digest == at


def test_tag_without_digest(fetch):
    with pytest.raises(Malformed, match="digest"):
        fetch(f"{NAME}:1")


def test_credentials_come_from_the_broker(make, server, tmp_path):
    from casemate.testing.registry import basic

    reference = make()

    def guard(h):
        if h.headers.get("Authorization") == basic("me", "secret"):
            return False
        h.answer(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
        return True

    server.lies["/v2/"] = guard
    table = [
        schema.Registry(prefix="registry.example", location=server.host, insecure=True, credentials="kbs:///a/b/c")
    ]
    store = {"kbs:///a/b/c": b"me:secret", KID: KEY}
    found = pull(reference, registry=table, signers=[SIGNER], keys=store.__getitem__, target=tmp_path / "target")
    assert found.rootfs.is_dir()


BCRYPT = "me:$2y$05$Tf/PlEAId6gG9vVpnyhcGujj.unDq1M1TUw6ju1Fs3alpqGywu92W\n"  # of "secret"


@pytest.mark.tools
def test_a_pinned_registry_with_a_password(tmp_path):
    pin = registries.tls_key(tmp_path / "tls.pem")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "conf").write_text("x")
    layout = Layout.create(tmp_path / "layout")
    parts = [build.add_layer(layout, build.folder_tar(tmp_path / "source"))]
    image = build.add_image(layout, parts, oci.Process(Cmd=["/bin/app"]))
    push.sign_layout(layout, image, cosign.sign(NAME, image.digest, SIGNING))
    given = []

    def keys(uri):
        given.append(uri)
        return b"me:secret"

    with registries.real(tmp_path, htpasswd=BCRYPT, tls=tmp_path / "tls.pem") as host:
        with Registry(host, credentials=Credentials("me", "secret"), pin=pin) as client:
            push.push(layout, image, client, names.parse(f"{host}/demo/app:1"))

        def fetched(key):
            entry = schema.Registry(prefix="registry.example", location=host, credentials="kbs:///a/b/c", key=key)
            reference = f"{NAME}@{image.digest}"
            return pull(reference, registry=[entry], signers=[SIGNER], keys=keys, target=tmp_path / "target")

        with pytest.raises(Refused) as refusal:
            fetched("sha256:" + "0" * 64)
        assert [f.rule for f in refusal.value.findings] == ["tls.pin"]
        with pytest.raises(Unavailable, match="certificate"):  # no public authority knows it
            fetched(None)
        assert (fetched(pin).rootfs / "conf").read_text() == "x"
    assert set(given) == {"kbs:///a/b/c"}


def test_no_room(make, fetch, tmp_path, monkeypatch):
    reference = make()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with pytest.raises(Unusable, match="No space left"):
        fetch(reference)
    monkeypatch.undo()
    assert nothing_left(tmp_path)


PROBE = """
import sys
from pathlib import Path
from casemate.drivers.pull import pull
from casemate.schema import manifest as schema
reference, host, key, target = sys.argv[1:]
table = [schema.Registry(prefix="registry.example", location=host, insecure=True)]
signer = schema.Signer(key=key, images=("registry.example/*/*",))
found = pull(reference, registry=table, signers=[signer], keys=lambda uri: bytes(range(32)), target=Path(target))
peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
print(found.entries, peak)
"""


def test_memory_is_bounded(make, server, tmp_path):
    """A process that pulls 40 MB in large and small files stays as small as the guest's agent must."""

    def big(layout, parts):
        content = os.urandom(20 << 20)
        tar = (tars.header(b"f%d" % n, size=len(content)) + content for n in range(2))
        small = (tars.file(b"d/%d" % n, os.urandom(512)) for n in range(3000))
        more = [
            build.add_layer(layout, [*tar, bytes(1024)], compression="none"),
            build.add_layer(layout, [*small, bytes(1024)]),
        ]
        return [*parts, *more]

    reference = make(change=big)
    command = [sys.executable, "-c", PROBE, reference, server.host, SIGNER.key, str(tmp_path / "target")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    entries, kilobytes = map(int, done.stdout.split())
    assert entries > 3000
    assert kilobytes < 60 * 1024, done.stdout


def test_guest_reachable_imports_are_few():
    """Start-up counts in the guest: no asyncio, no X.509, no archive modules on the way to a pull."""
    code = "import sys, casemate.drivers.pull; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"asyncio", "tarfile", "cryptography.x509", "click", "yaml", "sqlite3", "subprocess"}
