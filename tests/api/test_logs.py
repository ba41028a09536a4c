"""Logs: lines of JSON, each with the id of its request, and never a secret: a full run is searched for every one."""

import base64
import json
import logging
import re

import pytest

from casemate.api import logs
from casemate.drivers import keyfiles
from casemate.testing import broker as brokers
from casemate.testing.broker import Guest
from casemate.wire.encoding import b64, b64u

SECRET = b"a secret value that nobody may log 0123456789"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run of everything that handles secrets: the log's lines, and what must not be in them."""
    folder = tmp_path_factory.mktemp("logged")
    root = logging.getLogger()
    kept, level = list(root.handlers), root.level
    logs.log_to(folder / "log")
    made = brokers.start(folder)
    try:
        secrets = walk(made)
    finally:
        made.stop()
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = kept
        root.setLevel(level)
    secrets |= {
        "master key": keyfiles.read(folder / "master.key"),
        "admin's key": pem(folder / "admin.key"),
        "TLS key": pem(folder / "tls.key"),
    }
    return (folder / "log").read_text(), secrets


def pem(path):
    return base64.b64decode("".join(line for line in path.read_text().splitlines() if "-----" not in line))


def walk(made):
    """Secrets set, read, refused, asked with bad tokens; volumes; an error that nobody foresaw."""
    made.trust()
    app = made.found()
    made.admin.put_resource(app.app_id, f"kbs:///{app.path}", SECRET)
    guest = Guest(made, app.manifest)
    challenge = guest.auth()
    asked = guest.cookie
    assert guest.attest().status == 200
    got = guest.get(app.path)
    assert guest.open(got) == SECRET
    guest.get("other/key/1")
    guest.call("POST", "/casemate/v0/volumes/data/open", {"size": 1 << 25})
    guest.attest(cookie=asked)
    token = made.admin.token()
    made.call("GET", "/casemate/v0/admin/apps", Authorization=f"Bearer {token}")
    made.call("GET", f"/casemate/v0/admin/apps?token={token}", Authorization=f"Bearer {token}x")
    made.call("POST", "/kbs/v0/auth", {"version": SECRET.decode(), "tee": "tpm"})
    made.call("POST", f"/kbs/v0/resource/{app.path}?app={app.app_id}", SECRET * 3, Authorization=f"Bearer {token}")
    made.call("POST", "/kbs/v0/attest", {"runtime-data": SECRET.decode()}, Cookie=asked)
    receipt = "0123456789abcdef" * 2
    made.call("GET", f"/casemate/v0/receipts/{receipt}")
    made.call("GET", f"/casemate/v0/receipts/{receipt}/x")
    made.call("GET", "/casemate/v0/info", **{"X-Request-Id": "mine-1"})
    return {
        "value": SECRET,
        "receipt": receipt.encode(),
        "admin's token": token.encode(),
        "guest's token": guest.token.encode(),
        "challenge": asked.encode(),
        "session": guest.cookie.encode(),
        "nonce": str(challenge.json()["nonce"]).encode(),
    }


def forms(value):
    """A value as it might turn up in a text."""
    found = {b64(value), b64u(value), value.hex(), repr(value)[2:-1]}
    text = value.decode("utf-8", "ignore")
    found.add(text if len(text) == len(value) else b64(value))
    if "." in text:
        found |= {part for part in text.split(".") if len(part) > 20}
    return {form for form in found if len(form) >= 16}


def test_no_secret_is_in_any_line(ran):
    text, secrets = ran
    assert text.count("\n") > 10
    for name, value in secrets.items():
        for form in forms(value):
            assert form not in text, name


def test_lines_are_json_with_the_requests_id(ran):
    lines = [json.loads(line) for line in ran[0].splitlines()]
    asked = [line for line in lines if line["message"] == "request"]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,64}", line["request_id"]) for line in asked)
    assert any(line["request_id"] == "mine-1" and line["path"] == "/casemate/v0/info" for line in asked)
    assert all({"time", "level", "logger", "message", "method", "path", "status", "ms"} <= set(line) for line in asked)
    assert not any("?" in line["path"] for line in asked)


def test_a_line_names_the_route_and_no_id_in_it(ran):
    text, secrets = ran
    assert secrets["receipt"].decode() not in text
    asked = [json.loads(line) for line in text.splitlines() if '"request"' in line]
    assert any(line["path"] == "/casemate/v0/receipts/{id}" for line in asked)
    assert any(line["path"] == "-" and line["status"] == 404 for line in asked)


def test_refusals_say_their_rules(ran):
    lines = [json.loads(line) for line in ran[0].splitlines()]
    refused = [line for line in lines if line.get("status") == 403]
    assert refused
    assert all(line["rules"] for line in refused)


def test_what_is_logged_inside_a_request_has_its_id(service, caplog):
    made = logs.Json()
    token = logs.REQUEST.set("abc")
    try:
        record = logging.makeLogRecord({"msg": "a line\nwith a break", "levelname": "INFO", "name": "x"})
        line = made.format(record)
    finally:
        logs.REQUEST.reset(token)
    assert json.loads(line)["request_id"] == "abc"
    assert "\n" not in line


def test_logs_turn_over(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "_MAX_LOG", 2000)
    root = logging.getLogger()
    kept, level = list(root.handlers), root.level
    try:
        logs.log_to(tmp_path / "log")
        for number in range(200):
            logging.getLogger("casemate.api").info("line %d", number)
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = kept
        root.setLevel(level)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2", "log.3"]
    assert all(path.stat().st_size <= 2000 for path in tmp_path.iterdir())
