"""The broker from outside, over TLS: a client that shares no code with it, for every kind of evidence at hand."""

import ast
import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.interop import attesters, rcar_client
from tests.interop.rcar_client import Client, EcKey, RsaKey

from casemate.boot import initdata
from casemate.testing import broker as brokers

SAMPLE = {"refused_tees": [], "accepted_cautions": ["sample.proof"]}


def test_the_client_knows_nothing_of_the_project():
    tree = ast.parse(Path(rcar_client.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not [node for node in imports if "casemate" in ast.unparse(node)]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    made = brokers.start(tmp_path_factory.mktemp("interop"), **SAMPLE)
    yield made
    made.stop()


def client(service, attester, **options):
    settings = service.broker.settings
    return Client(settings.port, str(settings.folder / "tls.crt"), attester.tee, attester, **options)


@pytest.fixture(scope="module", params=["sample", "tpm", "snp", "tdx"])
def attester(request, service, tmp_path_factory):
    made = {"sample": attesters.Sample, "tpm": lambda: attesters.Tpm(service.vendor)}.get(
        request.param, lambda: attesters.Hardware(request.param)
    )()
    made.trust(service, tmp_path_factory.mktemp("vendor"))
    return made


def workload(service, attester, **options):
    """A client whose initdata is the manifest of an app that owns one key."""
    app = service.found(platforms=("production" if attester.production else "development",))
    service.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"the key")
    text = initdata.document(app.manifest).decode()
    attester.document = text.encode()
    digest = hashlib.sha256(text.encode()).digest()
    made = client(service, attester, initdata=text, **options)
    made.attester = lambda data, nonce: attester(data, nonce, digest)
    return app, made


@pytest.mark.parametrize("key", [EcKey, lambda: EcKey(ec.SECP521R1()), RsaKey], ids=["P-256", "P-521", "RSA"])
def test_a_key_is_released_for_every_tee_and_every_key(service, attester, key):
    app, guest = workload(service, attester, key=key())
    got = guest.handshake()
    assert got.status == 200, got.body
    for by in ("bearer", "cookie"):
        answer = guest.get(app.path, by=by)
        assert answer.status == 200, answer.body
        assert guest.opened(answer) == b"the key"
        assert answer.headers["casemate-receipt"]


def test_the_token_is_an_ear_that_peers_can_read(service, attester):
    _, guest = workload(service, attester)
    assert guest.handshake().status == 200
    claims = guest.claims()
    (name, submod), *rest = claims["submods"].items()
    assert (name, rest) == ("cpu0", [])
    evidence = submod["ear.veraison.annotated-evidence"]
    assert evidence["runtime_data_claims"] == {
        "additional-evidence": "",
        "nonce": guest.nonce,
        "tee-pubkey": guest.key.jwk,
    }
    assert guest.tee in evidence
    assert claims["eat_profile"].endswith("Trustee")
    assert set(submod["ear.trustworthiness-vector"]) == {
        *("instance-identity", "configuration", "executables", "file-system"),
        *("hardware", "runtime-opaque", "storage-opaque", "sourced-data"),
    }


def test_a_changed_nonce_key_or_initdata_is_not_believed(service, attester):
    _, guest = workload(service, attester)
    guest.auth()
    message = guest.message()
    message["runtime-data"]["nonce"] = "A" * 43 + "="
    assert guest.attest(message).status == 401
    guest.auth()
    message = guest.message()
    message["runtime-data"]["tee-pubkey"] = EcKey().jwk
    assert guest.attest(message).status == 401
    if attester.tee != "sample":  # which binds none
        guest.auth()
        message = guest.message()
        message["init-data"]["body"] += "\n"
        assert guest.attest(message).status == 401


def test_a_second_answer_to_one_question_is_a_replay(service, attester):
    _, guest = workload(service, attester)
    guest.auth()
    cookie, message = guest.cookie, guest.message()
    assert guest.attest(message).status == 200
    again = guest.attest(message, cookie)
    assert (again.status, again.variant) == (401, "AttestationError")
    assert [reason["rule"] for reason in again.json()["reasons"]] == ["session.replay"]


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_cocos_initdata_is_bound_under_its_own_hash(service, attester, algorithm):
    """A guest without our manifest: its document counts when the register shows its digest, cut or padded."""
    if attester.tee == "sample":
        pytest.skip("it binds none")
    text, digest = rcar_client.make_initdata({"aa.toml": '[token_configs.kbs]\nurl = "http://kbs"\n'}, algorithm)
    register = {"snp": digest[:32], "tdx": digest[:48]}.get(attester.tee, digest)
    guest = client(service, attester, initdata=text)
    if attester.tee == "tpm":
        attester.document = text.encode()
    guest.attester = lambda data, nonce: attester(data, nonce, register)
    got = guest.handshake()
    if attester.tee == "tpm" and algorithm != "sha256":  # PCR 8 takes SHA-256 alone
        assert got.status == 401
        return
    assert got.status == 200, got.body
    claims = guest.claims()["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["init_data_claims"]
    assert claims == {"aa.toml": {"token_configs": {"kbs": {"url": "http://kbs"}}}}
