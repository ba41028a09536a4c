"""Step 8: what is refused. Every refusal comes from a real attempt; those that need a VM share one or run in pairs."""

from __future__ import annotations

import copy
import json
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from casemate.crypto import jwk, pins
from casemate.drivers import http
from casemate.errors import CasemateError
from casemate.wire.encoding import unb64
from examples.demo import service, steps
from examples.demo.steps import Stage
from examples.demo.story import Failed, casemate

SHARED = "an image signed by another key, a flipped byte in a layer, another app's secret"


def all_refusals(stage: Stage) -> None:
    """Every refusal of the issue, first those that need no new VM."""
    over_http(stage)
    revoked(stage)
    with_machines(stage)


def over_http(stage: Stage) -> None:
    """Replayed evidence and `sample` evidence, against the broker's own wire."""
    broker = stage.context["broker"]
    # nginx may still end an old worker with the old key: the certificate that we made says which key is the service's.
    pin = pins.certificate_pin(ssl.PEM_cert_to_DER_cert(stage.certificate.decode()))
    url = f"https://127.0.0.1:{stage.port}/.well-known/casemate/evidence?nonce={'A' * 43}"
    said = steps.wait_for(lambda: ask(url, pin), "evidence of the running workload")
    genuine, document = said["evidence"], unb64(said["initdata"]).decode()
    stage.story.refusal(
        "evidence of the running workload, replayed under a new nonce",
        "tpm.quote.nonce",
        attest(broker, genuine["tee"], genuine["primary"], document),
    )
    sample = {"svn": "1", "report_data": "AAAA"}
    stage.story.refusal("`sample` evidence", "tee.sample", attest(broker, "sample", sample))


def ask(url: str, pin: str) -> dict[str, Any] | None:
    """The service's evidence, or None while it does not answer with its own key."""
    try:
        return http.request("GET", url, pin=pin, timeout=60, limit=4 << 20).json()
    except CasemateError:
        return None


def attest(
    broker: dict[str, Any], tee: str, primary: dict[str, Any], document: str | None = None
) -> list[dict[str, Any]]:
    """One RCAR handshake with given evidence; the reasons that the broker gives."""
    asked = http.request(
        "POST",
        broker["url"] + "/kbs/v0/auth",
        headers={"Content-Type": "application/json"},
        body=json.dumps({"version": "0.4.0", "tee": tee, "extra-params": {}}).encode(),
        pin=broker["pin"],
    )
    if asked.status != 200:
        return list(json.loads(asked.body).get("reasons", []))
    cookie = asked.headers["set-cookie"].split(";")[0]
    key = jwk.from_public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
    body = {
        "init-data": {"format": "toml", "body": document} if document else None,
        "runtime-data": {"nonce": json.loads(asked.body)["nonce"], "tee-pubkey": key},
        "tee-evidence": {"primary_evidence": primary, "additional_evidence": ""},
    }
    done = http.request(
        "POST",
        broker["url"] + "/kbs/v0/attest",
        headers={"Content-Type": "application/json", "Cookie": cookie},
        body=json.dumps(body).encode(),
        pin=broker["pin"],
    )
    if done.status == 200:
        raise Failed("the broker accepted what it must refuse")
    return list(json.loads(done.body).get("reasons", []))


def revoked(stage: Stage) -> None:
    """Revoke the release of the running workload: its next renewal is refused and it stops."""
    digest = casemate("manifest", "digest", stage.manifest).document["digest"]
    casemate("release", "revoke", stage.app, digest)

    def refused() -> list[dict[str, Any]] | None:
        seen = casemate("inspect", stage.workload).document
        return seen["findings"] if seen["state"] in ("refused", "failed", "stopped") else None

    stage.story.refusal(
        "a revoked release", "release.active", steps.wait_for(refused, "the refusal of the revoked release")
    )
    casemate("rm", stage.workload, "--volumes")


def with_machines(stage: Stage) -> None:
    """The refusals that boot a VM each, two at a time."""
    document = yaml.safe_load(stage.manifest.read_text())
    document["volumes"], document["containers"][0]["mounts"] = [], []
    probe = service.write(document, stage.work / "probe.yaml")
    casemate("release", "add", stage.app, probe)
    changed = copy.deepcopy(document)
    changed["containers"][0]["env"] = [{"name": "DEBUG", "value": "1"}]
    changed_path = service.write(changed, stage.work / "changed.yaml")
    shared = shared_manifest(stage, document)
    initrd = other_initrd(stage)
    attempts: list[tuple[str, list[str], list[Any]]] = [
        ("another kernel command line", ["measurement.pcr9"], [probe, "--command-line", "casemate.debug=1"]),
        ("another initrd", ["measurement.pcr9"], [probe, "--initrd", initrd]),
        ("a changed manifest", ["release.active"], [changed_path]),
        (SHARED, ["image.signature", "image.layer", "resource.owner"], [shared]),
    ]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda a: boot(a[1], a[2]), named(stage, attempts)))
    for (what, rules, _), findings in zip(attempts, results, strict=True):
        parts = what.split(", ") if len(rules) > 1 else [what]
        for part, rule in zip(parts, rules, strict=True):
            mine = [f for f in findings if f["rule"].startswith(rule)] if len(rules) > 1 else findings
            stage.story.refusal(part, rule, mine)


def named(stage: Stage, attempts: list[tuple[str, list[str], list[Any]]]) -> list[tuple[str, str, list[Any]]]:
    """Give each attempt a workload name of its own, and remember it for the tidying up."""
    names = [f"{stage.repository}-refused-{number}" for number in range(len(attempts))]
    stage.workloads += names
    return [(what, name, words) for (what, _, words), name in zip(attempts, names, strict=True)]


def boot(name: str, words: list[Any]) -> list[dict[str, Any]]:
    """Run a workload that must be refused; its findings."""
    done = casemate("run", *words, "--name", name, may_fail=True)
    findings = done.document.get("findings", [])
    if done.code == 0 or not findings:
        raise Failed(f"{name} was not refused: exit {done.code}, {done.document or done.errors}")
    casemate("rm", name, may_fail=True)
    return list(findings)


def other_initrd(stage: Stage) -> Path:
    """The guest's initrd with an empty cpio archive behind it: it works as before, and it is another one."""
    guest = Path(stage.context["guest_image"])
    path = stage.work / "initrd.other"
    path.write_bytes((guest / "initrd").read_bytes() + bytes(512))
    return path


def shared_manifest(stage: Stage, document: dict[str, Any]) -> Path:
    """A registered release whose parts must each be refused inside the guest, with the reasons side by side."""
    registry = stage.context["registry"]["host"]
    stranger, _ = service.signing_key()
    key = steps.write_private(stage.work / "stranger.pem", stranger)
    copied = casemate("image", "push", stage.layout, f"{registry}/demo/stranger:demo", "--plain-http").document
    by_stranger = f"{registry}/demo/stranger@{copied['digest']}"
    casemate("image", "sign", by_stranger, "--key", key, "--plain-http")
    flipped = flipped_image(stage)
    others = f"kbs:///other-{stage.repository}/secret/1"
    other = casemate("app", "found", "--tenant", "other", "--name", "web", "--platform", "development").document[
        "app_id"
    ]
    steps.set_secret(stage, others, b"not yours", app=other)
    shared = copy.deepcopy(document)
    first = shared["containers"][0]
    first["secrets"].append({"resource": others, "file": "/run/secrets/other"})
    for name, image in (("stranger", by_stranger), ("flipped", flipped)):
        shared["containers"].append({"name": name, "image": image, "image_keys": [stage.resource("image-key/1")]})
    path = service.write(shared, stage.work / "shared.yaml")
    casemate("release", "add", stage.app, path)
    return path


def flipped_image(stage: Stage) -> str:
    """The image, encrypted anew and properly signed; then one byte of its layer changes in the registry's store."""
    registry = stage.context["registry"]
    sealed = stage.work / "flipped"
    casemate(
        "image",
        "encrypt",
        stage.work / "plain",
        sealed,
        "--key",
        stage.resource("image-key/1"),
        "--key-file",
        stage.image_key_file(),
    )
    pushed = casemate("image", "push", sealed, f"{registry['host']}/demo/flipped:demo", "--plain-http").document
    reference = f"{registry['host']}/demo/flipped@{pushed['digest']}"
    casemate("image", "sign", reference, "--key", stage.work / "signer.pem", "--plain-http")
    manifest = json.loads((sealed / "blobs/sha256" / pushed["digest"].removeprefix("sha256:")).read_bytes())
    layer = manifest["layers"][0]["digest"].removeprefix("sha256:")
    blob = Path(registry["storage"]) / "docker/registry/v2/blobs/sha256" / layer[:2] / layer / "data"
    with blob.open("r+b") as file:
        file.seek(blob.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    return reference
