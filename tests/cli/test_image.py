"""`casemate image` and `casemate keyprovider` as a person types them."""

import io
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import casemate.cli as cli
from casemate.testing import registry as registries
from casemate.testing import tars

KID = "kbs:///default/image-key/1"
NAME = "registry.example/demo/app"


def run(*arguments, code=0, stdin=None):
    """stdout as JSON where asked for, else all text; the exit code must be `code`."""
    if stdin is not None:
        command = [sys.executable, "-m", "casemate", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, input=stdin, check=False)
        assert done.returncode == code, done.stderr.decode()
        return done.stdout.decode() + done.stderr.decode()
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    assert caught.value.code == code, err.getvalue() + out.getvalue()
    return json.loads(out.getvalue()) if "--json" in arguments else out.getvalue() + err.getvalue()


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A working folder with a root folder, a signing key and an image key."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/hello").write_text("hello\n" * 1000)
    key = ec.generate_private_key(ec.SECP256R1())
    encoding, none = serialization.Encoding.PEM, serialization.NoEncryption()
    (tmp_path / "sign.pem").write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, none))
    public = key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "sign.pub").write_bytes(public)
    (tmp_path / "key.bin").write_bytes(os.urandom(32))
    return tmp_path


def made(*more, out="app"):
    return run("image", "build", "--root", "root", "--entrypoint", "/bin/app", "--json", *more, out)["digest"]


def test_the_whole_way(desk):
    plain = made("--cmd", "-v", "--env", "A=b=c", "--user", "33:33", "--expose", "8443", "--label", "team=x")
    assert plain == made(
        "--cmd", "-v", "--env", "A=b=c", "--user", "33:33", "--expose", "8443", "--label", "team=x", out="b"
    )
    shown = run("image", "inspect", "app", "--json")
    assert shown["config"]["Env"] == ["A=b=c"]
    assert shown["config"]["ExposedPorts"] == {"8443/tcp": {}}
    assert shown["layers"][0]["encrypted"] is False
    sealed = run("image", "encrypt", "app", "--key", KID, "--key-file", "key.bin", "--json")["digest"]
    assert sealed != plain
    assert run("image", "inspect", "app", "--json")["layers"][0]["keys"] == [KID]
    run("image", "sign", "app", "--key", "sign.pem", "--identity", NAME)
    with registries.lying() as server:
        reference = f"docker://{server.host}/demo/app:1"
        pushed = run("image", "push", "app", reference, "--plain-http", "--json")
        assert pushed["reference"] == f"{server.host}/demo/app@{sealed}"
        assert "there already" in run("image", "push", "app", reference, "--plain-http")
        pull = [
            "image",
            "pull",
            f"{NAME}@{sealed}",
            "out",
            "--location",
            server.host,
            "--plain-http",
            "--signer",
            "sign.pub",
        ]
        refused = run(*pull, "--json", code=1)
        assert refused["reasons"][0]["rule"] == "image.key"
        assert KID in refused["reasons"][0]["hint"]
        found = run(*pull, "--key", f"{KID}=key.bin", "--json")
    assert found["digest"] == sealed
    assert (desk / "out/rootfs/etc/hello").read_bytes() == (desk / "root/etc/hello").read_bytes()


def test_build_upon_an_image_with_more_layers(desk):
    made("--env", "A=1", "--cmd", "x")
    (desk / "more.tar").write_bytes(tars.tar(tars.file(b"etc/more", b"1")))
    run(
        "image",
        "build",
        "--layout",
        "app",
        "--layer",
        "more.tar",
        "--env",
        "A=2",
        "--env",
        "B=3",
        "--layer",
        "root",
        "two",
    )
    shown = run("image", "inspect", "two", "--json")
    assert len(shown["layers"]) == 3
    assert shown["config"]["Env"] == ["A=2", "B=3"]
    assert shown["config"]["Cmd"] == ["x"]
    run("image", "build", "--layout", "app", "--entrypoint", "/other", "three")
    assert "Cmd" not in run("image", "inspect", "three", "--json")["config"]


def test_encrypt_into_another_layout(desk):
    plain = made()
    run("image", "encrypt", "app", "sealed", "--key", KID, "--key-file", "key.bin", "--packet", "1")
    assert run("image", "inspect", "app", "--json")["digest"] == plain
    assert run("image", "inspect", "sealed", "--json")["layers"][0]["encrypted"]


def test_sign_what_is_pushed(desk):
    digest = made()
    with registries.lying() as server:
        where = f"{server.host}/demo/app"
        run("image", "push", "app", f"{where}:1", "--plain-http")
        run("image", "inspect", f"{where}:1", "--plain-http", "--signer", "sign.pub", code=1)
        run("image", "sign", f"{where}@{digest}", "--key", "sign.pem", "--plain-http")
        shown = run("image", "inspect", f"{where}:1", "--plain-http", "--signer", "sign.pub", "--json")
    assert shown["signature"]["result"] == "pass"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["build", "out"], "needs a layer"),
        (["build", "--root", "root", "root"], "exists already"),
        (["build", "--root", "root", "--env", "x", "out"], "NAME=VALUE"),
        (["build", "--root", "root", "--owner", "me", "out"], "UID:GID"),
        (["encrypt", "nothing", "--key", KID, "--key-file", "key.bin"], "not an OCI layout"),
        (["encrypt", "app", "--key", KID, "--key-file", "sign.pem"], "exactly 32 bytes"),
        (["encrypt", "app", "--key", "kbs:///x", "--key-file", "key.bin"], "kbs:///repository/type/tag"),
        (["sign", "app", "--key", "sign.pem"], "--identity"),
        (["sign", "app", "--key", "key.bin", "--identity", NAME], "PEM"),
        (["sign", f"{NAME}:1", "--key", "sign.pem"], "digest"),
        (["push", "app", "nohost"], "registry host"),
        (["push", "app", "127.0.0.1:9/a", "--plain-http"], "refused the connection"),
        (["pull", f"{NAME}:1", "out", "--signer", "sign.pub"], "digest"),
    ],
)
def test_errors_are_sentences(desk, arguments, says):
    made()
    assert says in run("image", *arguments, code=1 if says.startswith("refused") else 2)
    assert not (desk / "out").exists(), "a failed build leaves a folder that blocks the next one"


def key_provider_config(desk):
    """A configuration for skopeo: a starter for this checkout's own program."""
    starter = desk / "provider"
    starter.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'from casemate.cli import main; main()' keyprovider \"$@\"\n"
    )
    starter.chmod(0o755)
    config = {"key-providers": {"attestation-agent": {"cmd": {"path": str(starter)}}}}
    (desk / "provider.json").write_text(json.dumps(config))
    return {
        **os.environ,
        "OCICRYPT_KEYPROVIDER_CONFIG": str(desk / "provider.json"),
        "HOME": str(desk),
        "COSIGN_PASSWORD": "p",
    }


def test_keyprovider(desk):
    from casemate.image import ocicrypt
    from casemate.wire.encoding import b64

    secret = ocicrypt.LayerSecret(bytes(32), bytes(16), "sha256:" + "a" * 64).encode()
    given = b64(f"keyid={KID}::keypath=key.bin".encode())
    ask = {"op": "keywrap", "keywrapparams": {"ec": {"Parameters": {"x": [given]}}, "optsdata": b64(secret)}}
    answer = json.loads(run("keyprovider", stdin=json.dumps(ask).encode()))
    back = {
        "op": "keyunwrap",
        "keyunwrapparams": {"dc": {"Parameters": {}}, "annotation": answer["keywrapresults"]["annotation"]},
    }
    opened = run("keyprovider", "--key", f"{KID}=key.bin", stdin=json.dumps(back).encode())
    assert bytes(json.loads(opened)["keyunwrapresults"]["optsdata"]) == secret
    assert "no key file" in run("keyprovider", stdin=json.dumps(back).encode(), code=2)
    assert "not JSON" in run("keyprovider", stdin=b"{", code=2)


# -- the real tools


@pytest.fixture
def tools(desk):
    from casemate.drivers import tools as root

    env = key_provider_config(desk)
    (desk / "any.json").write_text('{"default":[{"type":"insecureAcceptAnything"}]}')

    def tool(name, *arguments, code=0):
        done = subprocess.run(root.argv(name, *map(str, arguments)), capture_output=True, env=env, check=False)
        text = done.stdout.decode() + done.stderr.decode()
        assert (done.returncode == 0) == (code == 0), text
        return text

    return tool


@contextmanager
def registry(desk):
    (desk / "registry").mkdir()
    with registries.real(desk / "registry") as host:
        yield host


@pytest.mark.tools
@pytest.mark.parametrize("packet", ["1", "2"])
def test_skopeo_decrypts_ours(desk, tools, packet):
    plain = run("image", "inspect", "app", "--json")["layers"] if made() else None
    run("image", "encrypt", "app", "sealed", "--key", KID, "--key-file", "key.bin", "--packet", packet)
    with registry(desk) as host:
        run("image", "push", "sealed", f"{host}/demo/app:1", "--plain-http")
        key = f"provider:attestation-agent:keypath={desk}/key.bin"
        tools("skopeo", "--policy", "any.json", "copy", "-q", "--src-tls-verify=false", "--decryption-key", key,
              f"docker://{host}/demo/app:1", "oci:opened:latest")  # fmt: skip
        (desk / "wrong.bin").write_bytes(bytes(32))
        tools("skopeo", "--policy", "any.json", "copy", "-q", "--src-tls-verify=false", "--decryption-key",
              f"provider:attestation-agent:keypath={desk}/wrong.bin", f"docker://{host}/demo/app:1", "oci:not:latest",
              code=1)  # fmt: skip
    opened = run("image", "inspect", "opened", "--json")["layers"]
    assert [layer["digest"] for layer in opened] == [layer["digest"] for layer in plain]


@pytest.mark.tools
def test_skopeo_encrypts_cosign_signs_we_pull(desk, tools):
    made()
    tools("cosign", "generate-key-pair")
    with registry(desk) as host:
        where = f"{host}/demo/app"
        key = f"provider:attestation-agent:keyid={KID}::keypath={desk}/key.bin"
        tools("skopeo", "--policy", "any.json", "copy", "-q", "--dest-tls-verify=false", "--encryption-key", key,
              "oci:app:latest", f"docker://{where}:1")  # fmt: skip
        shown = run("image", "inspect", f"{where}:1", "--plain-http", "--json")
        assert shown["layers"][0]["keys"] == [KID]
        pull = ["image", "pull", f"{NAME}@{shown['digest']}", "out", "--location", host, "--plain-http", "--signer",
                "cosign.pub", "--key", f"{KID}=key.bin", "--json"]  # fmt: skip
        assert run(*pull, code=1)["reasons"][0]["rule"] == "image.signature.missing"
        tools("cosign", "sign", "--key", "cosign.key", "--tlog-upload=false", "--allow-http-registry", "-y",
              "--sign-container-identity", NAME, f"{where}@{shown['digest']}")  # fmt: skip
        run(*pull)
    assert (desk / "out/rootfs/etc/hello").read_bytes() == (desk / "root/etc/hello").read_bytes()


@pytest.mark.tools
def test_cosign_and_skopeo_accept_our_signature(desk, tools):
    digest = made()
    with registry(desk) as host:
        where = f"{host}/demo/app"
        run("image", "sign", "app", "--key", "sign.pem", "--identity", where)
        run("image", "push", "app", f"{where}:1", "--plain-http")
        check = ["verify", "--insecure-ignore-tlog=true", "--allow-http-registry", "--key"]
        assert digest in tools("cosign", *check, "sign.pub", f"{where}@{digest}")
        tools("cosign", "generate-key-pair")
        tools("cosign", *check, "cosign.pub", f"{where}@{digest}", code=1)
        (desk / "lookaside").mkdir()
        (desk / "lookaside/here.yaml").write_text(f"docker:\n  {host}:\n    use-sigstore-attachments: true\n")
        for key, code in (("sign.pub", 0), ("cosign.pub", 1)):
            rule = {"type": "sigstoreSigned", "keyPath": key, "signedIdentity": {"type": "matchRepository"}}
            policy = {"default": [{"type": "reject"}], "transports": {"docker": {host: [rule]}}}
            (desk / "policy.json").write_text(json.dumps(policy))
            tools("skopeo", "--policy", "policy.json", "--registries.d", "lookaside", "copy", "--remove-signatures",
                  "--src-tls-verify=false", f"docker://{where}:1", f"oci:copy{code}:x", code=code)  # fmt: skip


@pytest.mark.tools
def test_sign_beside_cosign(desk, tools):
    """Our signature joins cosign's at the same tag, and both verify."""
    digest = made()
    tools("cosign", "generate-key-pair")
    with registry(desk) as host:
        where = f"{host}/demo/app"
        run("image", "push", "app", f"{where}:1", "--plain-http")
        tools("cosign", "sign", "--key", "cosign.key", "--tlog-upload=false", "--allow-http-registry", "-y",
              f"{where}@{digest}")  # fmt: skip
        run("image", "sign", f"{where}@{digest}", "--key", "sign.pem", "--plain-http")
        for key in ("cosign.pub", "sign.pub"):
            tools("cosign", "verify", "--insecure-ignore-tlog=true", "--allow-http-registry", "--key", key,
                  f"{where}@{digest}")  # fmt: skip
            run("image", "pull", f"{where}@{digest}", f"out-{key}", "--plain-http", "--signer", key)


def test_interrupted_build_leaves_nothing(desk):
    """Ctrl-C in the middle of a layer: exit code 130, one word, no folder."""
    os.mkfifo(desk / "endless.tar")
    command = [sys.executable, "-m", "casemate", "image", "build", "--tar", "endless.tar", "out"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
        with (desk / "endless.tar").open("wb"):  # opened once the build reads it
            process.send_signal(signal.SIGINT)
            process.wait(20)
        assert process.stderr.read().endswith(b"interrupted\n")
    assert process.returncode == 130
    assert not (desk / "out").exists()
