"""`casemate reference`: values are signed and read; what is wrong is a sentence."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from casemate import cli
from casemate.testing import pki
from casemate.testing.references import Publisher


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as done:
        cli.main([*map(str, arguments)])
    out, err = capsys.readouterr()
    return done.value.code, out, err


def measurement(path, tee="snp", **values):
    path.write_text(json.dumps({"tee": tee, "values": values or {"measurement": "AB" * 48}}))
    return path


@pytest.fixture(params=[pki.p256, pki.p384, pki.rsa2048, ed25519.Ed25519PrivateKey.generate])
def keys(request, tmp_path):
    key = request.param()
    private, public = tmp_path / "signer.pem", tmp_path / "signer.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    private.chmod(0o600)
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.mark.parametrize("form", [[], ["--jws"]])
def test_made_and_shown(keys, tmp_path, capsys, form):
    private, public = keys
    target = tmp_path / "values.json"
    made = ["reference", "make", measurement(tmp_path / "m.json"), "--key", private, "--name", "guest", "-o", target]
    assert call(capsys, *made, "--for", "app=one", *form)[0] == 0
    code, out, _ = call(capsys, "reference", "show", target, "--key", public, "--for", "app=one", "--json")
    found = json.loads(out)
    assert (code, found["believed"]) == (0, True)
    assert found["references"][0]["registers"] == {"measurement": ["ab" * 48]}
    assert call(capsys, "reference", "show", target, "--key", public)[0] == 1
    code, out, _ = call(capsys, "reference", "show", target, "--for", "app=one")
    assert code == 1
    assert out.startswith("REFUSED")
    assert "reference.signature" in out


def signer(tmp_path):
    path = tmp_path / "signer.pem"
    path.write_bytes(pki.p256().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return path


def test_several_measurements_are_alternatives_of_one_register(tmp_path, capsys):
    one, two = measurement(tmp_path / "1.json"), measurement(tmp_path / "2.json", measurement="cd" * 48)
    make = ["reference", "make", "--key", signer(tmp_path), "--name", "guest"]
    code, out, _ = call(capsys, *make, one, two)
    assert code == 0
    (tmp_path / "values.json").write_text(out)
    _, out, _ = call(capsys, "reference", "show", tmp_path / "values.json", "--json")
    assert json.loads(out)["references"][0]["registers"] == {"measurement": ["ab" * 48, "cd" * 48]}
    pair = measurement(tmp_path / "3.json", mrtd="aa", rtmr1="bb")
    assert call(capsys, *make, pair, pair)[0] == 2
    assert call(capsys, *make, one, measurement(tmp_path / "4.json", "tdx", measurement="aa"))[0] == 2


@pytest.mark.parametrize(
    ("text", "code"),
    [("", 2), ("{}", 2), ('{"tee":"snp","values":{}}', 2), ('{"tee":"snp","values":{"a":1}}', 2),
     ('{"tee":"snp","values":{"a":"zz"}}', 2), ('{"tee":"","values":{"a":"00"}}', 2)],
)  # fmt: skip
def test_what_is_no_measurement(tmp_path, capsys, text, code):
    path = tmp_path / "m.json"
    path.write_text(text)
    found, _, err = call(capsys, "reference", "make", path, "--key", signer(tmp_path), "--name", "guest")
    assert found == code
    assert "Traceback" not in err


def test_keys_open_to_others_and_no_keys(tmp_path, capsys):
    key, values = signer(tmp_path), measurement(tmp_path / "m.json")
    key.chmod(0o644)
    assert "chmod 600" in call(capsys, "reference", "make", values, "--key", key, "--name", "x")[2]
    key.write_text("no key")
    key.chmod(0o600)
    assert call(capsys, "reference", "make", values, "--key", key, "--name", "x")[0] == 2
    assert call(capsys, "reference", "make", values, "--key", signer(tmp_path), "--name", "x", "--for", "app")[0] == 2


def test_a_private_key_is_nobody_to_believe(tmp_path, capsys):
    document = tmp_path / "values.json"
    document.write_bytes(Publisher().plain())
    code, _, err = call(capsys, "reference", "show", document, "--key", signer(tmp_path))
    assert code == 2
    assert "openssl pkey" in err


def test_any_format_is_shown(tmp_path, capsys):
    publisher = Publisher()
    for data in (publisher.corim(), publisher.provenance(), publisher.uvm()):
        document = tmp_path / "document"
        document.write_bytes(data)
        code, out, _ = call(capsys, "reference", "show", document, "--at", "2026-06-01T12:00:00Z")
        assert code == 1
        assert "5a" * 48 in out
