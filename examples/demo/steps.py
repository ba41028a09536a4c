"""Steps 1 to 7 of the demo, each by the commands that a user would type."""

from __future__ import annotations

import hashlib
import http.client
import os
import secrets
import socket
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from examples.demo import service
from examples.demo.story import Failed, Output, Story, casemate


@dataclass
class Stage:
    """What the steps hand on to each other."""

    story: Story
    work: Path
    context: dict[str, Any] = field(default_factory=dict)
    app: str = ""
    image: str = ""
    signer: tuple[bytes, str] = (b"", "")
    certificate: bytes = b""
    manifest: Path = Path()
    port: int = 0
    workload: str = ""
    workloads: list[str] = field(default_factory=list)
    began_domain: bool = False
    layout: Path = Path()
    # A resource path belongs to one app for good, so that each run of the demo takes a repository of its own.
    repository: str = field(default_factory=lambda: f"web-{secrets.token_hex(4)}")

    def resource(self, path: str) -> str:
        """The kbs URI of one of this run's resources."""
        return f"kbs:///{self.repository}/{path}"

    def image_key_file(self) -> Path:
        """Where the image key lies until the broker has it."""
        return self.work / "image.key"


def guest_image(stage: Stage) -> None:
    """Step 1: the guest image, from cache or built, and what a launch of it must measure."""
    built = casemate("guest", "build").document
    measured = casemate("guest", "measure").document
    stage.story.say(f"guest image {built.get('name', '')}: kernel, initrd and one verity-protected disk")
    for register, value in sorted(measured["values"].items()):
        stage.story.measurements[register] = value
        stage.story.say(f"expected {register:<6} {value}")


def trust_domain(stage: Stage) -> None:
    """Step 2: broker and registry on loopback, on embedded defaults."""
    stage.began_domain = casemate("status", may_fail=True).code != 0
    stage.context = casemate("up").document
    broker, registry = stage.context["broker"], stage.context["registry"]
    stage.story.say(f"broker {broker['url']}  key {broker['pin'][:23]}…  (SQLite)")
    stage.story.say(f"registry {registry['host']}")


def image(stage: Stage) -> None:
    """Step 3: nginx from Debian packages: built, encrypted, signed, pushed."""
    stage.signer = service.signing_key()
    signing = write_private(stage.work / "signer.pem", stage.signer[0])
    write_private(stage.image_key_file(), os.urandom(32))
    plain, stage.layout = stage.work / "plain", stage.work / "sealed"
    repository = f"{stage.context['registry']['host']}/demo/web"
    with service.scratch() as folder:
        root = Path(folder) / "root"
        root.mkdir()
        service.build_root(root, stage.story.say)
        casemate("image", "build", "--root", root, "--expose", str(service.PORT), plain)
    casemate(
        "image",
        "encrypt",
        plain,
        stage.layout,
        "--key",
        stage.resource("image-key/1"),
        "--key-file",
        stage.image_key_file(),
    )
    pushed = casemate("image", "push", stage.layout, f"{repository}:demo", "--plain-http").document
    stage.image = f"{repository}@{pushed['digest']}"
    casemate("image", "sign", stage.image, "--key", signing, "--plain-http")
    stage.story.say(f"{stage.image}: encrypted layers, signed")


def found_and_release(stage: Stage) -> None:
    """Step 4: found the app, write its manifest, make it the active release, store its secrets."""
    stage.app = casemate("app", "found", "--tenant", "demo", "--name", "web", "--platform", "development").document[
        "app_id"
    ]
    document = service.manifest(
        app=stage.app,
        broker=stage.context["broker"],
        registry=stage.context["registry"],
        image=stage.image,
        signer=stage.signer[1],
        repository=stage.repository,
    )
    stage.manifest = service.write(document, stage.work / "web.yaml")
    checked = casemate("manifest", "check", stage.manifest).document
    set_secret(stage, stage.resource("image-key/1"), stage.image_key_file().read_bytes())
    new_tls_key(stage)
    set_secret(stage, stage.resource("page/line"), b"the first secret")
    casemate("release", "add", stage.app, stage.manifest)
    stage.story.say(f"app {stage.app[:23]}…, release {checked['digest'][:23]}… active, 3 secrets stored")


def new_tls_key(stage: Stage) -> None:
    """Make a TLS key for the service and give it to the broker."""
    stage.certificate, combined = service.tls_pair()
    set_secret(stage, stage.resource("tls/server"), combined)


def set_secret(stage: Stage, resource: str, value: bytes, app: str = "") -> None:
    """Store a secret through standard input."""
    casemate("secret", "set", resource, "--app", app or stage.app, secret=value)


def run(stage: Stage) -> None:
    """Step 5: boot, attest, get keys, pull, open, start; then the page with the secret in it."""
    begun = time.monotonic()
    start(stage)
    page = wait_for(lambda: get(stage, "/"), "the page")
    seconds = time.monotonic() - begun
    stage.story.figures["run_to_first_answer_seconds"] = round(seconds, 2)
    seen = casemate("inspect", stage.workload).document
    figures = {"qemu_peak_mib": seen["qemu_peak_mib"], "memory_mib": seen["memory_mib"]}
    resident = next(p["detail"]["agent_kib"] for p in seen["phases"] if p["name"] == "run")
    stage.story.figures |= figures | {"agent_resident_mib": round(resident / 1024, 1)}
    if b"the first secret" not in page:
        raise Failed(f"the page carries no secret: {page[:300]!r}")
    stage.story.say(f"https://127.0.0.1:{stage.port}/ says: The secret line: the first secret")
    stage.story.say(f"from `casemate run` to the first answer: {seconds:.1f} s")
    stage.story.say(
        f"memory: QEMU at most {figures['qemu_peak_mib']} MiB for a VM of {figures['memory_mib']} MiB, "
        f"agent {resident >> 10} MiB"
    )


def start(stage: Stage) -> Output:
    """Start the web workload on a free port."""
    stage.port = stage.port or free_port()
    stage.workloads = [stage.repository]
    done = casemate("run", stage.manifest, "--publish", f"{stage.port}:{service.PORT}", "--name", stage.repository)
    stage.workload = done.document["id"]
    for phase in done.document.get("phases", []):
        stage.story.say(f"{phase['name']:<10} at {phase['t']:>6.2f} s of the guest's clock")
    return done


def check(stage: Stage) -> None:
    """Step 6: a stranger asks the running service who it is."""
    verdict = casemate("verify", "--service", f"127.0.0.1:{stage.port}", "--app", stage.app).document
    app, manifest = verdict["app"], verdict["manifest"]
    stage.story.say(f"who    tenant {app['tenant']}, app {app['name']} ({app['id'][:23]}…)")
    stage.story.say(
        f"what   manifest {manifest['digest'][:23]}…, image {manifest['document']['containers'][0]['image']}"
    )
    stage.story.say(
        f"where  {verdict['tee']} ({verdict['platform_class']}), memory encrypted: {verdict['memory_encrypted']}"
    )
    stage.story.say(f"by     {verdict['vouched_by']}")
    stage.story.say(f"TLS    {verdict['tls_key'][:23]}… is held inside; {len(verdict['checks'])} rules hold")
    if verdict["verdict"] != "accepted":
        raise Failed(f"the check refused: {verdict}")


def restart_and_update(stage: Stage) -> None:
    """Step 7: the volume survives a restart; a new secret reaches the file and the process."""
    put(stage, "/data/note", b"written before the restart")
    casemate("stop", stage.workload)
    casemate("rm", stage.workload)
    start(stage)
    note = wait_for(lambda: get(stage, "/data/note"), "the volume")
    if note != b"written before the restart":
        raise Failed(f"the volume lost its content: {note[:100]!r}")
    stage.story.say("after a restart the volume still says: written before the restart")
    set_secret(stage, stage.resource("page/line"), b"the second secret")
    old = stage.certificate
    new_tls_key(stage)
    wait_for(lambda: b"the second secret" in get(stage, "/", check=False) or None, "the new secret in the page")
    stage.story.say("a new secret version: the container's file changed")
    wait_for(lambda: get(stage, "/") or None, "the new TLS key")
    if old == stage.certificate:
        raise Failed("no new certificate was made")
    stage.story.say("nginx got SIGHUP, as its manifest says, and serves the new TLS key")


def free_port() -> int:
    """A TCP port that is free on loopback now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_private(path: Path, data: bytes) -> Path:
    """Write a file that only its owner reads."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(data)
    return path


def get(stage: Stage, path: str, *, check: bool = True) -> bytes:
    """GET over TLS; with `check` the server must hold the key whose certificate we made."""
    return _ask(stage, "GET", path, None, check)


def put(stage: Stage, path: str, body: bytes) -> bytes:
    """PUT over TLS, checked like `get`."""
    return _ask(stage, "PUT", path, body, True)


def _ask(stage: Stage, method: str, path: str, body: bytes | None, check: bool) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", stage.port, timeout=20, context=context)
    try:
        connection.connect()
        served = connection.sock.getpeercert(binary_form=True)
        wanted = ssl.PEM_cert_to_DER_cert(stage.certificate.decode())
        if check and hashlib.sha256(served or b"").digest() != hashlib.sha256(wanted).digest():
            raise Failed("the service shows another certificate")
        connection.request(method, path, body)
        response = connection.getresponse()
        data = response.read(1 << 20)
        if response.status >= 300:
            raise Failed(f"{method} {path}: HTTP {response.status} {data[:200]!r}")
        return data
    finally:
        connection.close()


def wait_for(attempt: Any, what: str, seconds: float = 60) -> Any:
    """Try until it gives something; `Failed` with the last reason after `seconds`."""
    end = time.monotonic() + seconds
    reason: object = "nothing came"
    while time.monotonic() < end:
        try:
            found = attempt()
            if found is not None:
                return found
        except (OSError, http.client.HTTPException, Failed) as error:
            reason = error
        time.sleep(0.25)
    raise Failed(f"{what} did not come within {seconds:.0f} s: {reason}")
