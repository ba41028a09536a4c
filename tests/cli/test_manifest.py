"""`casemate manifest`, typed as a user would."""

import hashlib
import json

import pytest
import yaml

import casemate.cli as cli
from casemate.boot import initdata
from casemate.errors import Unusable
from casemate.host import author
from casemate.schema import manifest as manifests
from casemate.testing.manifests import APP, PIN, SIGNER, document


@pytest.fixture
def casemate(capfd, monkeypatch, tmp_path):
    """Call the program; gives (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CASEMATE_HOME", str(tmp_path / "home"))

    def call(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        done = capfd.readouterr()
        return caught.value.code, done.out, done.err

    return call


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "shop.yaml"
    path.write_text(yaml.safe_dump(document(), sort_keys=False))
    return path


def test_check(casemate, good):
    code, out, _ = casemate("manifest", "check", good)
    assert code == 0
    digest = manifests.from_builtins(document()).digest
    assert out == f"shop: good, {digest}\n"
    told = json.loads(casemate("manifest", "check", "--json", good)[1])
    assert told["digest"] == digest
    assert told["containers"] == ["web"]


def test_check_names_the_lines(casemate, good):
    good.write_text(good.read_text().replace("registry.example/shop/web@", "registry.example/shop/web:1 #@"))
    code, out, err = casemate("manifest", "check", good)
    assert (code, out) == (2, "")
    line = next(i for i, text in enumerate(good.read_text().splitlines(), 1) if "web:1" in text)
    assert f"✗ line {line}, containers[0].image" in err
    told = json.loads(casemate("manifest", "check", "--json", good)[1])
    assert told["problems"][0]["line"] == line


def test_check_asks_whether_a_signer_may_sign_each_image(casemate, good):
    good.write_text(good.read_text().replace("registry.example/shop/*", "registry.example/other/*"))
    code, _, err = casemate("manifest", "check", good)
    assert code == 2
    assert "no signer may sign registry.example/shop/web" in err


def test_json_and_yaml_are_one_manifest(casemate, good, tmp_path):
    other = tmp_path / "shop.json"
    other.write_text(json.dumps(document(), indent=1))
    assert casemate("manifest", "digest", good)[1] == casemate("manifest", "digest", other)[1]


def test_show_prints_the_bytes_that_the_digest_is_over(casemate, good):
    shown = casemate("manifest", "show", good)[1].encode()
    facts = json.loads(casemate("manifest", "digest", "--json", good)[1])
    assert "sha256:" + hashlib.sha256(shown).hexdigest() == facts["digest"]
    bound = casemate("manifest", "show", "--initdata", good)[1].encode()
    assert "sha256:" + hashlib.sha256(bound).hexdigest() == facts["initdata"]
    assert initdata.parse(bound).manifest.canonical() == shown


def test_schema_is_json_schema(casemate):
    schema = json.loads(casemate("manifest", "schema")[1])
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["$defs"]["Manifest"]["additionalProperties"] is False
    assert "(?!" not in json.dumps(schema)


def test_a_file_that_is_not_there(casemate):
    code, _, err = casemate("manifest", "check", "nowhere.yaml")
    assert code == 2
    assert "nowhere.yaml" in err


@pytest.fixture
def registry(monkeypatch):
    """Stands in for a registry's answers; the client itself is tested against a real one elsewhere."""
    digest = "sha256:" + "d4" * 32

    def resolver(trust, plain_http):
        def resolve(reference):
            if reference.registry != "registry.example":
                raise Unusable(f"{reference} is not there")
            config = {"ExposedPorts": {"8443/tcp": {}}, "User": "101", "StopSignal": "SIGQUIT"}
            return author.Resolved(digest, config, ("kbs:///shop/image-key/1",))

        return resolve

    monkeypatch.setattr(author, "resolver", resolver)
    return digest


@pytest.fixture
def signer(tmp_path):
    path = tmp_path / "signer.pem"
    path.write_text(SIGNER)
    return path


def test_from_image(casemate, registry, signer, tmp_path):
    options = ("--app", APP, "--signer", signer, "--broker", f"https://broker.example={PIN}")
    code, out, _ = casemate("manifest", "from", "registry.example/shop/web:1.27", *options)
    assert code == 0
    made = author.read(out.encode())
    assert made.name == "web"
    assert made.containers[0].image == f"registry.example/shop/web@{registry}"
    assert [p.container for p in made.containers[0].ports] == [8443]
    assert made.containers[0].image_keys == ("kbs:///shop/image-key/1",)
    (tmp_path / "made.yaml").write_text(out)
    assert casemate("manifest", "check", "made.yaml")[0] == 0


def test_from_image_takes_broker_and_registry_of_the_local_trust_domain(casemate, registry, signer, tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    context = {
        "broker": {"guest_url": "https://10.0.2.2:8443", "pin": PIN},
        "registry": {"host": "registry.example", "guest_host": "10.0.2.2:5000"},
    }
    (home / "context.json").write_text(json.dumps(context))
    made = author.read(
        casemate("manifest", "from", "registry.example/web:1", "--app", APP, "--signer", signer)[1].encode()
    )
    assert made.brokers[0].url == "https://10.0.2.2:8443"
    assert made.registries[0].location == "10.0.2.2:5000"
    assert made.registries[0].insecure


def test_from_image_without_a_broker_says_what_to_do(casemate, registry, signer):
    code, _, err = casemate("manifest", "from", "registry.example/web:1", "--app", APP, "--signer", signer)
    assert code == 2
    assert "casemate up" in err


def test_from_image_that_is_not_there(casemate, registry, signer):
    options = ("--app", APP, "--signer", signer, "--broker", f"https://broker.example={PIN}")
    code, _, err = casemate("manifest", "from", "other.example/web:1", *options)
    assert code == 2
    assert "is not there" in err


def test_from_compose(casemate, registry, signer, tmp_path):
    (tmp_path / "compose.yaml").write_text(
        "services:\n  web:\n    image: registry.example/shop/web:1\n    ports: ['443:8443']\n"
    )
    options = ("--app", APP, "--signer", signer, "--broker", f"https://broker.example={PIN}")
    code, out, _ = casemate("manifest", "from", "compose.yaml", *options, "-o", "made.yaml")
    assert (code, out) == (0, "")
    text = (tmp_path / "made.yaml").read_text()
    assert "# publish at launch: casemate run --publish 443:8443" in text
    container = author.read(text.encode()).containers[0]
    assert container.ports[0].container == 8443
    assert container.image_keys == ("kbs:///shop/image-key/1",)


def test_from_compose_names_the_line_of_each_key_without_a_counterpart(casemate, registry, signer, tmp_path):
    (tmp_path / "compose.yaml").write_text(
        "services:\n  web:\n    image: registry.example/web:1\n    labels: {a: b}\nx-y: 1\n"
    )
    options = ("--app", APP, "--signer", signer, "--broker", f"https://broker.example={PIN}")
    code, out, err = casemate("manifest", "from", "compose.yaml", *options)
    assert (code, out) == (2, "")
    assert "✗ line 4, services.web.labels" in err
    assert "✗ line 5, x-y" in err
