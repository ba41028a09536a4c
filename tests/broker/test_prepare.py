"""Making a broker, its settings, and the certificate that is renewed without a new pin."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from casemate.broker import prepare, settings
from casemate.broker.assemble import TLS_CERTIFICATE, assemble
from casemate.crypto import pins
from casemate.errors import Malformed, Unusable


def made(folder, **options):
    return prepare.prepare(folder, folder / "admin.key", **options)


def certificate(folder):
    return x509.load_pem_x509_certificate((folder / TLS_CERTIFICATE).read_bytes())


def test_preparing_again_changes_nothing(tmp_path):
    made(tmp_path, port=1234)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert made(tmp_path, port=4321).port == 1234
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert all(p.stat().st_mode & 0o077 == 0 for p in tmp_path.iterdir())


def test_the_certificate_is_renewed_and_the_pin_stays(tmp_path):
    now = [datetime.now(UTC)]
    one = assemble(made(tmp_path), clock=lambda: now[0])
    first = certificate(tmp_path)
    assert first.not_valid_after_utc - now[0] <= timedelta(days=366)
    one.close()
    assemble(made(tmp_path), clock=lambda: now[0]).close()
    assert certificate(tmp_path) == first
    now[0] += timedelta(days=320)
    two = assemble(made(tmp_path), clock=lambda: now[0])
    second = certificate(tmp_path)
    two.close()
    assert second != first
    der = [c.public_bytes(Encoding.DER) for c in (first, second)]
    assert pins.certificate_pin(der[0]) == pins.certificate_pin(der[1]) == one.pin == two.pin == prepare.pin(tmp_path)


def test_a_certificate_of_another_key_is_replaced(tmp_path):
    assemble(made(tmp_path)).close()
    (tmp_path / "tls.key").unlink()
    broker = assemble(made(tmp_path))
    broker.close()
    der = certificate(tmp_path).public_bytes(Encoding.DER)
    assert pins.certificate_pin(der) == broker.pin


def test_keys_of_the_wrong_kind(tmp_path):
    made(tmp_path)
    (tmp_path / "tls.key").write_bytes((tmp_path / "admin.key").read_bytes())
    with pytest.raises(Unusable, match="EC"):
        assemble(made(tmp_path))


@pytest.mark.parametrize(
    "text",
    ["port = 70000", "port = '1'", "surprise = 1", "threads = 0", "not toml", "token_seconds = 999999", "host = 1"],
)
def test_settings_are_strict(tmp_path, text):
    made(tmp_path)
    (tmp_path / settings.FILE).write_text(text)
    with pytest.raises(Malformed):
        settings.load(tmp_path)


def test_settings_survive_their_own_writing(tmp_path):
    odd = 'sqlite:///a "quoted" \\ name.db'
    assert made(tmp_path, store=odd, names=["a", "b"]).store == odd


@pytest.mark.parametrize(
    "store",
    [
        "postgresql+pg8000://u:secret@db.example/x",
        "postgresql+psycopg://db.example/x?user=u&password=secret",
        "postgresql+psycopg://db.example/x?password=secret&password=more&sslpassword=secret",
        "postgresql+psycopg://u:a@secret@db.example/x",
        "postgresql+psycopg://u:secret@db.example:port/x",
        "no URL at all: secret",
    ],
)
def test_a_password_is_not_shown(tmp_path, store):
    shown = settings.as_document(made(tmp_path, store=store))
    assert "secret" not in str(shown)


def test_importing_the_help_needs_no_server(tmp_path):
    """`casemate serve --help` loads neither uvicorn nor SQLAlchemy."""
    code = (
        "import sys\nfrom casemate.cli import serve, up, app, secret, release, decisions, down, status, init\n"
        "assert not {'uvicorn', 'sqlalchemy', 'starlette', 'cryptography'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
