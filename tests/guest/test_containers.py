"""Bundles: what a container gets is what its manifest lists; everything else stays closed."""

import json
import os
import stat
from pathlib import Path

import pytest

from casemate.errors import Malformed, Unusable
from casemate.guest import containers, secrets
from casemate.guest.containers import Places
from casemate.guest.users import User
from casemate.image.manifest import Process
from casemate.schema import manifest as manifests

ME = User(os.getuid(), os.getgid())


def container(**parts):
    import msgspec

    image = "registry.example/web@sha256:" + "0" * 64
    return msgspec.convert({"name": "web", "image": image, **parts}, manifests.Container)


@pytest.fixture
def places(tmp_path):
    (tmp_path / "root").mkdir()
    return Places(
        bundle=tmp_path / "bundle",
        rootfs=tmp_path / "root",
        secrets=tmp_path / "secrets",
        files=tmp_path / "files",
        volumes={"data": tmp_path / "volume"},
    )


def config(places, spec, image=None, user=ME, environment=None):
    kept, mounts = containers.plan_secrets(spec, places, user)
    containers.build(
        spec, image or Process(Cmd=("run",)), places, user=user, environment=environment or {}, secret_mounts=mounts
    )
    return json.loads((places.bundle / "config.json").read_text()), kept


def mounted(document):
    return {mount["destination"]: mount for mount in document["mounts"]}


def test_nothing_is_open_by_default(places):
    document, _ = config(places, container())
    process = document["process"]
    assert process["noNewPrivileges"] is True
    assert all(granted == [] for granted in process["capabilities"].values())
    assert document["root"]["readonly"] is True
    linux = document["linux"]
    assert {n["type"] for n in linux["namespaces"]} == {"pid", "ipc", "uts", "mount", "cgroup"}
    assert linux["resources"] == {"devices": [{"allow": False, "access": "rwm"}]}
    assert "devices" not in linux
    assert linux["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert {"/sys/kernel/security", "/sys/kernel/config", "/sys/firmware", "/proc/kcore"} <= set(linux["maskedPaths"])
    assert "/proc/sys" in linux["readonlyPaths"]
    binds = [m for m in document["mounts"] if m["type"] == "bind"]
    assert {m["destination"] for m in binds} == {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
    assert all("ro" in m["options"] and "nosuid" in m["options"] and "nodev" in m["options"] for m in binds)
    assert not any("tpm" in json.dumps(m) or "/dev/vport" in json.dumps(m) for m in document["mounts"])
    assert "ro" in mounted(document)["/sys"]["options"]


def test_the_bundle_is_for_the_agents_eyes(places):
    config(places, container(), environment={"TOKEN": "secret"})
    assert stat.S_IMODE((places.bundle / "config.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("parts", "image", "expected"),
    [
        ({}, {"Entrypoint": ("e",), "Cmd": ("c",)}, ["e", "c"]),
        ({"args": ["a"]}, {"Entrypoint": ("e",), "Cmd": ("c",)}, ["e", "a"]),
        ({"command": ["m"]}, {"Entrypoint": ("e",), "Cmd": ("c",)}, ["m"]),
        ({"command": ["m"], "args": ["a"]}, {"Entrypoint": ("e",), "Cmd": ("c",)}, ["m", "a"]),
        ({"args": []}, {"Entrypoint": ("e",), "Cmd": ("c",)}, ["e"]),
        ({}, {"Cmd": ("c",)}, ["c"]),
    ],
)
def test_command_and_args(places, parts, image, expected):
    document, _ = config(places, container(**parts), Process(**image))
    assert document["process"]["args"] == expected


def test_no_command_at_all_is_unusable(places):
    with pytest.raises(Unusable):
        config(places, container(), Process())


def test_the_environment_goes_image_manifest_secret(places):
    spec = container(env=[{"name": "A", "value": "manifest"}, {"name": "B", "value": "manifest"}])
    image = Process(Cmd=("c",), Env=("A=image", "B=image", "C=image", "PATH=/bin"))
    document, _ = config(places, spec, image, environment={"B": "secret"})
    found = dict(line.split("=", 1) for line in document["process"]["env"])
    assert found == {"PATH": "/bin", "HOME": "/", "A": "manifest", "B": "secret", "C": "image"}


def test_limits_and_capabilities(places):
    spec = container(
        limits={"memory_mib": 64, "pids": 10, "cpus": 0.5}, capabilities=["CAP_NET_BIND_SERVICE", "CAP_CHOWN"]
    )
    document, _ = config(places, spec)
    resources = document["linux"]["resources"]
    assert resources["memory"] == {"limit": 64 << 20, "swap": 64 << 20}
    assert resources["pids"] == {"limit": 10}
    assert resources["cpu"] == {"quota": 50000, "period": 100000}
    assert document["process"]["capabilities"]["bounding"] == ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"]


def test_volumes_tmpfs_files_and_the_socket(places, tmp_path):
    spec = container(
        mounts=[{"volume": "data", "path": "/srv/data", "read_only": True}],
        tmpfs=["/tmp", "/cache"],
        files=[{"path": "/etc/app.conf", "content": "x=1\n", "mode": "0440"}, {"path": "/etc/hosts", "content": "own"}],
    )
    document, _ = config(places._replace(api=tmp_path / "api.sock"), spec)
    found = mounted(document)
    assert found["/srv/data"]["source"] == str(tmp_path / "volume")
    assert {"ro", "nosuid", "nodev"} <= set(found["/srv/data"]["options"])
    assert "mode=1777" in found["/tmp"]["options"]
    assert f"uid={ME.uid}" in found["/cache"]["options"]
    assert found["/run/casemate/api.sock"]["source"] == str(tmp_path / "api.sock")
    source = Path(found["/etc/app.conf"]["source"])
    assert source.read_text() == "x=1\n"
    assert stat.S_IMODE(source.stat().st_mode) == 0o440
    assert Path(found["/etc/hosts"]["source"]).read_text() == "own"
    assert [m["destination"] for m in document["mounts"]].count("/etc/hosts") == 1


def secret(path, **more):
    return {"resource": "kbs:///a/b/c", "file": path, **more}


def test_secrets_in_a_free_folder_are_mounted_as_that_folder(places):
    document, kept = config(places, container(secrets=[secret("/run/secrets/a"), secret("/run/secrets/b")]))
    mount = mounted(document)["/run/secrets"]
    assert "ro" in mount["options"]
    assert [str(entry.path) for entry in kept] == [f"{mount['source']}/a", f"{mount['source']}/b"]


def test_secrets_beside_the_images_files_are_links(places):
    (places.rootfs / "etc/app").mkdir(parents=True)
    (places.rootfs / "etc/app/conf").write_text("the image's")
    (places.rootfs / "etc/app/key").write_text("the image's")
    document, kept = config(places, container(secrets=[secret("/etc/app/key")]))
    assert str((places.rootfs / "etc/app/key").readlink()) == "/run/casemate/secrets/0/key"
    assert mounted(document)["/run/casemate/secrets/0"]["source"] == str(kept[0].path.parent)
    assert (places.rootfs / "etc/app/conf").read_text() == "the image's"


def test_secrets_below_a_mount_come_after_it(places):
    spec = container(tmpfs=["/run"], secrets=[secret("/run/keys/a")], mounts=[{"volume": "data", "path": "/srv"}])
    document, _ = config(places, spec)
    order = [mount["destination"] for mount in document["mounts"]]
    assert order.index("/run") < order.index("/run/keys")


def test_secrets_directly_in_a_mount_are_unusable(places):
    with pytest.raises(Unusable):
        config(places, container(tmpfs=["/run"], secrets=[secret("/run/key")]))


def test_a_folder_where_a_secret_should_go_is_malformed(places):
    (places.rootfs / "etc/key/more").mkdir(parents=True)
    with pytest.raises(Malformed):
        config(places, container(secrets=[secret("/etc/key")]))


def test_an_images_symlinks_lead_nowhere_else(places, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "key").write_text("untouched")
    (places.rootfs / "etc").symlink_to(outside)
    config(places, container(secrets=[secret("/etc/key")]))
    assert (outside / "key").read_text() == "untouched"
    assert [entry.name for entry in outside.iterdir()] == ["key"]


def test_a_secret_variable_must_be_text():
    class Source:
        def versioned(self, uri):
            from casemate.guest.attest import Resource

            return Resource(b"a\0b" if uri.endswith("nul") else b"\xff\xfe" if uri.endswith("bin") else b"fine", "1")

    def wanted(tag):
        return container(secrets=[{"resource": f"kbs:///a/b/{tag}", "env": "X"}])

    assert secrets.environment(wanted("text"), Source()) == {"X": "fine"}
    for tag in ("nul", "bin"):
        with pytest.raises(Malformed) as error:
            secrets.environment(wanted(tag), Source())
        assert "kbs:///a/b/" in str(error.value)
