"""Compose files, key by key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed
from casemate.host import author, compose
from casemate.schema import yaml_reader
from casemate.testing.manifests import APP, PIN, SIGNER

DIGEST = "sha256:" + "d4" * 32
TRUST = author.Trust(APP, [{"url": "https://broker.example", "key": PIN}], SIGNER, [])
FULL = """\
name: shop
version: "3.9"
services:
  web:
    image: registry.example/shop/web:1.27
    entrypoint: [/usr/sbin/nginx]
    command: -g "daemon off;"
    working_dir: /srv
    user: 101:101
    read_only: true
    restart: on-failure
    stop_signal: SIGQUIT
    environment:
      MODE: test
      COUNT: 3
      ON: true
      PRICE: $$5
    ports: ["443:8443", "127.0.0.1:53:53/udp", "9000"]
    volumes: ["data:/var/lib/shop:ro"]
    tmpfs: /tmp
    secrets:
      - token
      - {source: key, target: /etc/key.pem, mode: 0440}
    cap_add: [NET_BIND_SERVICE]
    cap_drop: [ALL]
    pids_limit: 32
    deploy: {resources: {limits: {memory: 64M, cpus: "0.5"}}}
  side:
    image: registry.example/shop/side@sha256:DIGEST
    environment: [A=1, B=]
    ports:
      - {target: 8080, published: 80}
    volumes:
      - {type: volume, source: data, target: /data}
    mem_limit: 1g
volumes:
  data:
secrets:
  token: {external: true}
  key: {file: ./key.pem}
""".replace("DIGEST", "e5" * 32)


def from_compose(text):
    def resolve(reference):
        return author.Resolved(reference.digest or DIGEST, {})

    return author.from_compose(text.encode(), "", TRUST, resolve)


def test_every_key_with_a_counterpart():
    manifest, notes = from_compose(FULL)
    web, side = manifest.containers
    assert manifest.name == "shop"
    assert web.image == f"registry.example/shop/web@{DIGEST}"
    assert side.image == "registry.example/shop/side@sha256:" + "e5" * 32
    assert (web.command, web.args) == (("/usr/sbin/nginx",), ("-g", "daemon off;"))
    assert (web.user, web.working_dir, web.read_only_root, side.read_only_root) == ("101:101", "/srv", True, False)
    assert (web.restart, web.stop_signal, web.tmpfs) == ("on-failure", "SIGQUIT", ("/tmp",))
    env = {e.name: e.value for e in web.env}
    assert env == {"MODE": "test", "COUNT": "3", "ON": "true", "PRICE": "$5"}
    assert {e.name: e.value for e in side.env} == {"A": "1", "B": ""}
    assert [(p.container, p.protocol) for p in web.ports] == [(8443, "tcp"), (53, "udp"), (9000, "tcp")]
    assert (web.mounts[0].volume, web.mounts[0].path, web.mounts[0].read_only) == ("data", "/var/lib/shop", True)
    assert [(s.resource, s.file, s.mode) for s in web.secrets] == [
        ("kbs:///shop/secret/token", "/run/secrets/token", "0444"),
        ("kbs:///shop/secret/key", "/etc/key.pem", "0440"),
    ]
    assert web.capabilities == ("CAP_NET_BIND_SERVICE",)
    assert (web.limits.memory_mib, web.limits.pids, web.limits.cpus) == (64, 32, 0.5)
    assert side.limits.memory_mib == 1024
    assert [(v.name, v.app, v.key) for v in manifest.volumes] == [("data", APP, "kbs:///shop/volume/data")]
    assert notes == [
        "store a secret: casemate secret set kbs:///shop/secret/token --app ID < its content",
        "store a secret: casemate secret set kbs:///shop/secret/key --app ID < ./key.pem",
        "publish at launch: casemate run --publish 443:8443",
        "publish at launch: casemate run --publish 53:53",
        "publish at launch: casemate run --publish 80:8080",
    ]


def test_what_is_written_is_read_back():
    manifest, notes = from_compose(FULL)
    text = author.to_yaml(manifest, notes)
    assert author.read(text.encode()) == manifest
    assert text.startswith("# store a secret")


WITHOUT = {
    "build": "build: .",
    "container_name": "container_name: x",
    "depends_on": "depends_on: [db]",
    "devices": "devices: [/dev/kvm]",
    "env_file": "env_file: .env",
    "expose": "expose: ['80']",
    "healthcheck": "healthcheck: {test: x}",
    "labels": "labels: {a: b}",
    "logging": "logging: {driver: none}",
    "network_mode": "network_mode: host",
    "networks": "networks: [front]",
    "privileged": "privileged: true",
    "unknown": "x-custom: 1",
    "odd name": '"a b": 1',
    "internal name": "key_image: x",
    "restart": "restart: unless-stopped",
    "user": "user: www-data",
    "variable": "working_dir: ${HOME}",
    "bare variable": "working_dir: $HOME",
    "env from the shell": "environment: [HOME]",
    "env null": "environment: {HOME: }",
    "port range": "ports: ['8000-8010:8000-8010']",
    "port option": "ports: [{target: 80, app_protocol: http}]",
    "bind mount": "volumes: ['./a:/b']",
    "bind mount, long": "volumes: [{type: bind, source: /a, target: /b}]",
    "anonymous volume": "volumes: ['/data']",
    "volume option": "volumes: ['data:/data:z']",
    "tmpfs option": "tmpfs: ['/tmp:size=1m']",
    "secret option": "secrets: [{source: a, uid: '5'}]",
    "all capabilities": "cap_add: [ALL]",
    "some dropped": "cap_drop: [CHOWN]",
    "replicas": "deploy: {replicas: 2}",
    "reservations": "deploy: {resources: {reservations: {memory: 1m}}}",
    "size": "mem_limit: lots",
    "cpus": "cpus: many",
    "command": 'command: a "b',
}


@pytest.mark.parametrize("line", WITHOUT.values(), ids=WITHOUT)
def test_keys_without_a_counterpart_name_their_line(line):
    with pytest.raises(Malformed) as caught:
        from_compose(f"services:\n  web:\n    image: registry.example/web:1\n    {line}\nvolumes: {{data: }}\n")
    assert {p.line for p in caught.value.problems} == {4}


@pytest.mark.parametrize(
    "top", ["networks: {}", "configs: {}", "x-a: 1", "volumes: {data: {driver: nfs}}", "include: []"]
)
def test_top_level_keys_too(top):
    with pytest.raises(Malformed) as caught:
        from_compose(f"services:\n  web:\n    image: registry.example/web:1\n{top}\n")
    assert [p.line for p in caught.value.problems] == [4]


def test_all_problems_come_at_once_in_the_order_of_lines():
    with pytest.raises(Malformed) as caught:
        from_compose("x: 1\nservices:\n  web:\n    labels: {}\n    image: registry.example/web:1\n    build: .\n")
    assert [p.line for p in caught.value.problems] == [1, 4, 6]


def test_an_image_without_a_registry_is_named_with_its_line():
    with pytest.raises(Malformed) as caught:
        from_compose("services:\n  web:\n    image: nginx\n")
    assert caught.value.problems[0].line == 3


@pytest.mark.parametrize("text", ["a: 1", "services: []", "services: {web: }", "services: {web: {}}", "[]"])
def test_no_services(text):
    with pytest.raises(Malformed):
        from_compose(text)


KEYS = sorted(name.removeprefix("key_") for name in dir(compose._Conversion) if name.startswith("key_"))
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(KEYS), ANY, max_size=3))
def test_any_value_of_any_key_gives_a_manifest_or_malformed(body):
    document = {"services": {"web": {"image": "registry.example/web:1", **body}}}
    try:
        compose.convert(document, {}, lambda image: image)
    except Malformed:
        return


@given(st.text(max_size=60))
def test_any_text_is_malformed(text):
    with pytest.raises(Malformed):
        compose.convert(yaml_reader.load(text), {}, str)
