"""CoCo's sealed secrets in a manifest: opened when their signature is good, refused when not, kept up to date."""

import time

import pytest

from casemate.errors import Refused
from casemate.guest import sealed
from casemate.schema.manifest import Container, EnvVar, File
from casemate.testing.sealing import Sealer

IMAGE = "registry.example/web@sha256:" + "0" * 64
KID, NAME = "kbs:///web/sealing/key", "kbs:///web/password/1"
SEALER = Sealer(KID)


def container(value, **more):
    return Container(name="web", image=IMAGE, env=(EnvVar(name="PASSWORD", value=value),), **more)


def opened(one, key=None):
    return sealed.opened(one, {KID: key or SEALER.jwk}.__getitem__)


def test_values_become_secrets():
    files = (File(path="/run/secrets/x", content=SEALER.vault(NAME), mode="0440"), File(path="/etc/motd", content="hi"))
    found = opened(container(SEALER.vault(NAME), files=files))
    assert found.env == ()
    assert [f.path for f in found.files] == ["/etc/motd"]
    assert [(s.resource, s.env, s.file, s.mode) for s in found.secrets] == [
        (NAME, "PASSWORD", None, "0400"),
        (NAME, None, "/run/secrets/x", "0440"),
    ]


def test_a_container_without_any_stays_as_it_is():
    one = container("plain")
    assert sealed.opened(one, lambda uri: pytest.fail("nothing to fetch")) is one


def flipped(text, place):
    other = "A" if text[place] != "A" else "B"
    return text[:place] + other + text[place + 1 :]


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (Sealer(KID).vault(NAME), None),  # another key signed it
        (flipped(SEALER.vault(NAME), -20), None),
        (SEALER.vault(NAME), b"{}"),
        (SEALER.vault(NAME), b"no json"),
        (SEALER.vault(NAME), b'{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}'),
        (SEALER.vault(NAME), b'{"kty":"EC","crv":"P-256","x":"' + b"A" * 43 + b'","y":"' + b"A" * 43 + b'"}'),
        (SEALER.vault(NAME), SEALER.jwk.replace(b"P-256", b"P-384")),
    ],
)
def test_what_is_not_signed_by_that_key_is_refused(value, key):
    with pytest.raises(Refused) as refusal:
        opened(container(value), key)
    assert [f.rule for f in refusal.value.findings] == ["secret.sealed"]
    assert "PASSWORD" not in str(refusal.value)


def test_a_running_guest_opens_them_and_hears_of_new_versions(machine, running):
    folder = str(time.monotonic_ns())
    key = Sealer(f"kbs:///web/sealing/{folder}")
    machine.secret(f"web/sealing/{folder}", key.jwk)
    uri = machine.secret(f"web/password/{folder}", b"hunter2")
    settings = machine.settings(
        machine.container(
            'echo "$PASSWORD" > /dev/null; exec sleep 60',
            env=[{"name": "PASSWORD", "value": key.vault(uri)}],
            files=[{"path": "/run/secrets/password", "content": key.vault(uri)}],
        )
    )
    running(settings)
    machine.host.wait_state("running")
    environment = machine.runtime.bundles["web"]["process"]["env"]
    assert "PASSWORD=hunter2" in environment
    assert not [line for line in environment if "sealed." in line]
    path = next(p for p in (settings.run / "secrets").rglob("password") if p.is_file())
    assert path.read_bytes() == b"hunter2"
    machine.service.admin.put_resource(machine.app, uri, b"hunter3")
    deadline = time.monotonic() + 10
    while path.read_bytes() != b"hunter3" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.read_bytes() == b"hunter3"


def test_a_guest_does_not_start_with_one_that_is_not_good(machine, running):
    folder = str(time.monotonic_ns())
    machine.secret(f"web/sealing/{folder}", Sealer("x").jwk)
    uri = machine.secret(f"web/password/{folder}", b"hunter2")
    value = Sealer(f"kbs:///web/sealing/{folder}").vault(uri)
    results = running(machine.settings(machine.container(env=[{"name": "PASSWORD", "value": value}])))
    told = machine.host.wait_state("refused")
    assert [f["rule"] for f in told["findings"]] == ["secret.sealed"]
    running.threads[0].join(10)
    assert results == ["refused"]
