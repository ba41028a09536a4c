"""`casemate serve` as a process: what it prints, how it ends, several workers, what it says in its log."""

import errno
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from msgspec import structs

from casemate.api import server
from casemate.broker import checking, prepare
from casemate.broker import settings as sets
from casemate.broker.assemble import assemble
from casemate.drivers import brokerclient, http
from casemate.errors import Malformed, Unusable
from casemate.testing.broker import _free_port

SERVE = [sys.executable, "-m", "casemate", "serve", "--home"]


def check(folder, *more):
    return subprocess.run([*SERVE, str(folder), "--check", *more], capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path):
    prepare.prepare(tmp_path, tmp_path / "admin.key", port=_free_port(), drain_seconds=5)
    return tmp_path


class Running:
    """A broker that is a process of its own."""

    def __init__(self, folder, *more):
        self.folder = folder
        self.pin = prepare.pin(folder)
        self.url = f"https://127.0.0.1:{sets.load(folder).port}"
        self.process = subprocess.Popen([*SERVE, str(folder), *more], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)

    def call(self, method, path, body=None, **headers):
        return http.request(method, self.url + path, headers=headers, body=body, pin=self.pin, timeout=10)

    def ready(self):
        for _ in range(400):
            try:
                if self.call("GET", "/readyz").status == 200:
                    return self
            except Exception:
                pass
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)
        raise AssertionError("not ready")

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=30)
        return [json.loads(line) if line.startswith(b"{") else line for line in errors.splitlines()]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


def opened(folder):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    port = sets.load(folder).port
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10))


def until_nobody_listens(folder):
    for _ in range(200):
        socket.create_connection(("127.0.0.1", sets.load(folder).port), timeout=5).close()
        time.sleep(0.02)


def test_check_prints_every_setting_as_toml(folder):
    done = check(folder)
    assert done.returncode == 0, done.stderr
    printed = tomllib.loads(done.stdout)
    left_out = {name for name in sets.Settings.__struct_fields__ if getattr(sets.load(folder), name) is None}
    assert set(printed) == set(sets.Settings.__struct_fields__) - left_out
    assert printed["refused_tees"] == ["sample"]
    (folder / sets.FILE).write_text(done.stdout)
    assert tomllib.loads(check(folder).stdout) == printed  # what is printed can be loaded
    assert json.loads(check(folder, "--json").stdout)["tls_minimum"] == "1.3"


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('host = "no such host"', "host"),
        ('rate_exempt = ["everybody"]', "rate_exempt"),
        ('refused_tees = ["smaple"]', "refused_tees"),
        ('store = "nosuchdb://x:hunter2@y/z"', "store"),
        ('store = "mysql://x:hunter2@y/z"', "mysql"),
        ('store = "postgresql+nosuch://x:hunter2@y/z"', "store"),
        ('store = "postgresql+pg8000://x:hunter2@y/z"', "pg8000"),
        ('store = ""', "store is empty"),
        ('store = "sqlite:////no/such/folder/store.db"', "no folder"),
        ('store = "sqlite:////dev/null"', "not a regular file"),
        ('tls_minimum = "1.1"', "tls_minimum"),
        ("rate = -1", "rate"),
        ("threads = 0", "threads"),
        ("surprise = 1", "surprise"),
        ("port = ", "broker.toml"),
        ("workers = 2\nport = 0", "port"),
    ],
)
def test_check_says_what_is_wrong(folder, line, named):
    text = (folder / sets.FILE).read_text()
    kept = [
        old
        for old in text.splitlines()
        if not any(old.startswith(new.split(" ")[0] + " ") for new in line.splitlines())
    ]
    (folder / sets.FILE).write_text("\n".join([*kept, line]) + "\n")
    with pytest.raises((Malformed, Unusable)) as told:
        checking.check(sets.load(folder))
    assert named in str(told.value)
    assert "hunter2" not in str(told.value)


def test_check_tries_the_master_key_and_changes_nothing(folder):
    def content():
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    before = content()
    checking.check(sets.load(folder))
    assert content() == before  # no store was made
    assemble(sets.load(folder)).close()
    before = content()
    checking.check(sets.load(folder))
    assert content() == before
    running = assemble(sets.load(folder))
    checking.check(sets.load(folder))  # beside a broker that writes
    running.close()
    (folder / "master.key").write_bytes(bytes(32))
    with pytest.raises(Unusable, match="another master key"):
        checking.check(sets.load(folder))
    (folder / "store.db").write_bytes(b"no database" * 400)
    with pytest.raises(Unusable, match="as SQLite"):
        checking.check(sets.load(folder))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_check_looks_whether_the_store_can_be_written(folder):
    assemble(sets.load(folder)).close()
    (folder / "store.db").chmod(0o400)
    with pytest.raises(Unusable, match="cannot be written by this user"):
        checking.check(sets.load(folder))


def test_check_looks_at_keys_and_shows_none(folder):
    secret = (folder / "tls.key").read_text().splitlines()[1]
    assert secret not in check(folder).stdout
    (folder / "tls.key").chmod(0o644)
    done = check(folder)
    assert done.returncode == 2
    assert "open to other users" in done.stderr
    (folder / "tls.key").chmod(0o600)
    (folder / "admin.pub").unlink()
    assert check(folder).returncode == 2


def test_a_password_of_the_store_is_not_printed(folder):
    with (folder / sets.FILE).open("a") as file:
        file.write('store = "postgresql+psycopg://casemate:hunter2@db/casemate"\n')
    done = check(folder)
    assert done.returncode == 0, done.stderr
    assert "hunter2" not in done.stdout
    assert "***" in done.stdout


def test_defaults_are_safe():
    made = sets.Settings(folder=Path("/nowhere"))
    assert made.host == "127.0.0.1"
    assert made.tls_minimum == "1.3"
    assert "sample" in made.refused_tees
    assert made.accepted_cautions == ()
    assert made.strict_trustee is False
    assert made.rate > 0
    assert made.metrics_paths == "none"
    assert made.store_url.startswith("sqlite:///")


def test_sigterm_finishes_what_is_under_way(folder):
    """A body that is half sent when the signal comes is read to its end and answered; whoever comes later is not."""
    body = json.dumps({"version": "0.4.0", "tee": "tpm", "extra-params": {}}).encode()
    head = f"POST /kbs/v0/auth HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with Running(folder) as made:
        made.ready()
        with opened(folder) as busy, opened(folder) as idle:
            busy.sendall(head + body[:10])
            idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert idle.recv(65536).startswith(b"HTTP/1.1 200")
            made.process.send_signal(signal.SIGTERM)
            with pytest.raises(OSError):
                until_nobody_listens(folder)
            busy.sendall(body[10:])
            answer = b""
            while piece := busy.recv(65536):
                answer += piece
            assert answer.startswith(b"HTTP/1.1 200")
            assert b'"nonce"' in answer
        lines = made.end()
        assert made.process.returncode == 0
        assert lines[-1]["message"] == "stopped"
        asked = next(line for line in lines if line.get("path") == "/kbs/v0/auth")
        assert asked["status"] == 200
        assert asked["request_id"]


def test_a_request_that_never_ends_does_not_hold_up_the_end(tmp_path):
    prepare.prepare(tmp_path, tmp_path / "admin.key", port=_free_port(), drain_seconds=1)
    with Running(tmp_path) as made:
        made.ready()
        with opened(tmp_path) as busy:
            busy.sendall(b"POST /kbs/v0/auth HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
            time.sleep(0.2)
            made.end()
            assert made.process.returncode == 0


def test_what_was_acknowledged_before_the_end_is_there_after_it(folder):
    with Running(folder) as made:
        made.ready()
        admin = brokerclient.Admin(made.url, made.pin, folder / "admin.key")
        app = admin.found("demo", "web", ("development",))["app_id"]
    with Running(folder) as made:
        made.ready()
        admin = brokerclient.Admin(made.url, made.pin, folder / "admin.key")
        assert [one.app_id for one in admin.apps()] == [app]


def test_workers_share_the_port_and_the_counters(tmp_path):
    prepare.prepare(tmp_path, tmp_path / "admin.key", port=_free_port(), drain_seconds=2, workers=2)
    body = json.dumps({"version": "0.4.0", "tee": "tpm", "extra-params": {}}).encode()
    with Running(tmp_path, "--log", str(tmp_path / "broker.log")) as made:
        made.ready()
        logs = [tmp_path / f"broker.{number}.log" for number in (0, 1)]

        def served():
            return [
                sum("/kbs/v0/auth" in line for line in log.read_text().splitlines()) if log.exists() else 0
                for log in logs
            ]

        for _ in range(200):
            assert made.call("POST", "/kbs/v0/auth", body).status == 200
            if all(served()):
                break
        assert all(served()), "one worker got everything"
        text = made.call("GET", "/metrics").body.decode()
        assert f"kbs_auth_successes_total {float(sum(served()))}" in text
        children = _children(made.process.pid)
        assert len(children) == 2
        os.kill(children[0], signal.SIGKILL)
        for _ in range(400):
            if len(_children(made.process.pid)) == 2 and children[0] not in _children(made.process.pid):
                break
            time.sleep(0.05)
        assert len(_children(made.process.pid)) == 2
        for _ in range(20):
            assert made.call("POST", "/kbs/v0/auth", body).status == 200
        assert made.end() == []
        assert made.process.returncode == 0
        assert not any(_alive(child) for child in children)


def test_workers_end_when_nobody_watches_them(tmp_path):
    prepare.prepare(tmp_path, tmp_path / "admin.key", port=_free_port(), drain_seconds=1, workers=2)
    with Running(tmp_path, "--log", str(tmp_path / "broker.log")) as made:
        made.ready()
        children = _children(made.process.pid)
        made.process.kill()
        made.process.wait()
        for _ in range(400):
            if not any(_alive(child) for child in children):
                break
            time.sleep(0.05)
        assert not any(_alive(child) for child in children)


def test_workers_refuse_a_port_that_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        prepare.prepare(tmp_path, tmp_path / "admin.key", port=port, workers=2)
        done = subprocess.run([*SERVE, str(tmp_path)], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert "can't listen" in done.stderr


def _children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_tls_1_2_only_when_the_operator_says_so(tmp_path):
    prepare.prepare(tmp_path, tmp_path / "admin.key", port=_free_port(), tls_minimum="1.2")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with Running(tmp_path) as made:
        made.ready()
        port = sets.load(tmp_path).port
        with context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=5)) as peer:
            assert peer.version() == "TLSv1.2"
            assert peer.cipher()[0].startswith("ECDHE-ECDSA-")
        context.set_ciphers("ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=5))
        with opened(tmp_path) as peer:
            assert peer.version() == "TLSv1.3"


@pytest.mark.parametrize(
    ("host", "told", "hint"),
    [
        ("not a host", "no such host", "`host` in broker.toml"),
        ("192.0.2.1", "Cannot assign requested address", "no interface"),
        ("127.0.0.1", "Address already in use", "another program has that port"),
    ],
)
def test_why_it_cannot_listen(tmp_path, host, told, hint):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = prepare.prepare(tmp_path, tmp_path / "admin.key", port=taken.getsockname()[1])
        broker = assemble(structs.replace(settings, host=host))
        with pytest.raises(Unusable) as raised:
            server.serve(broker)
        assert told in str(raised.value)
        assert hint in raised.value.hint


def test_what_is_no_error_of_a_socket_names_no_port(tmp_path):
    settings = prepare.prepare(tmp_path, tmp_path / "admin.key", port=1)
    assert "another" not in server.cannot_listen(settings, SystemExit(3)).hint
    told = server.cannot_listen(settings, PermissionError(errno.EACCES, "no"))
    assert "Permission denied" in str(told)
    assert "1024" in told.hint
