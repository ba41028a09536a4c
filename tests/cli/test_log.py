"""`casemate receipt`, `casemate log` and `casemate audit` against a real broker."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from casemate.cli import casemate
from casemate.drivers import brokerclient
from casemate.drivers.store import tables_log
from casemate.errors import Refused
from casemate.ledger import history
from casemate.testing import broker as brokers
from casemate.testing.broker import Guest


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    made = brokers.start(tmp_path_factory.mktemp("broker"))
    made.trust()
    yield made
    made.stop()


@pytest.fixture
def home(service, tmp_path, monkeypatch):
    """A home as `casemate up` leaves it."""
    from casemate.verifier.trust import Trust

    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    known = history.parse(brokerclient.info(service.url, service.pin)["log"])
    trust = Trust(service.url, service.pin, (service.vendor.anchor,), tuple(service.admin.references()), known)
    (folder / "trust.json").write_text(json.dumps(trust.as_document()))
    context = {"broker": {"url": service.url, "pin": service.pin}, "admin_key": str(service.admin_key)}
    (folder / "context.json").write_text(json.dumps(context))
    monkeypatch.setenv("CASEMATE_HOME", str(folder))
    return folder


@pytest.fixture
def grant(service):
    """(app, id of the receipt) of a released secret."""
    app = service.found()
    service.admin.put_resource(app.app_id, f"kbs:///{app.path}", b"value")
    guest = Guest(service, app.manifest)
    assert guest.handshake().status == 200
    got = guest.get(app.path)
    assert got.status == 200, got.body
    return app, got.headers["casemate-receipt"]


def run(*words, code=0, stdin=None):
    done = CliRunner().invoke(casemate, [str(word) for word in words], input=stdin)
    assert done.exit_code == code, done.output + repr(done.exception)
    return done.stdout


def test_a_receipt_is_fetched_and_verified_offline(service, home, grant, tmp_path, monkeypatch):
    app, number = grant
    file = tmp_path / "r.json"
    run("receipt", "get", number, "--out", file)
    monkeypatch.setattr("casemate.drivers.http.Connection", None)  # nothing may be fetched now
    page = run("receipt", "verify", file)
    assert page.startswith("ACCEPTED  entry ")
    assert app.app_id in page
    assert app.path in page
    found = json.loads(run("receipt", "verify", "-", "--json", stdin=file.read_text()))
    assert (found["verdict"], found["kind"], found["allowed"], found["closed"]) == ("accepted", "release", True, [])
    assert found["fields"]["version"] == 1


def test_a_receipt_with_closed_fields_still_verifies(home, grant):
    document = json.loads(run("receipt", "get", grant[1]))
    del document["openings"]["resource"]
    page = run("receipt", "verify", "-", stdin=json.dumps(document))
    assert "not opened:  resource" in page


def test_a_changed_receipt_is_refused(home, grant):
    document = json.loads(run("receipt", "get", grant[1]))
    document["openings"]["version"]["value"] = 2
    run("receipt", "verify", "-", stdin=json.dumps(document), code=1)
    run("receipt", "verify", "-", stdin="{}", code=2)
    run("receipt", "get", "0" * 32, code=2)
    run("receipt", "get", "x", code=2)


def test_a_trust_file_without_a_log_says_so(home, grant):
    trust = json.loads((home / "trust.json").read_text())
    del trust["log"]
    (home / "old.json").write_text(json.dumps(trust))
    run("log", "tail", "--trust", home / "old.json", code=2)


def test_the_log_is_looked_at(home, grant):
    page = run("log", "tail", "-n", "3")
    assert re.search(r"\d+ +\S+Z +release +allowed", page)
    found = json.loads(run("log", "tail", "--json", "-n", "2"))
    assert len(found["entries"]) == 2
    last = found["entries"][-1]["number"]
    assert f"entry {last} is one of" in run("log", "prove", last)
    assert json.loads(run("log", "prove", last, "--json"))["number"] == last
    run("log", "prove", last + 1000, code=2)


def test_a_check_remembers_and_the_next_one_compares(service, home, grant):
    first = json.loads(run("log", "check", "--json"))
    assert first["before"] is None
    Guest(service, service.found().manifest).handshake()
    second = json.loads(run("log", "check", "--json", "--entries"))
    assert second["before"] == first["size"] < second["size"]
    assert [check["rule"] for check in second["checks"]] == ["log.signature", "log.consistency", "log.entries"]
    assert "log.tiles" in run("log", "check")


def test_a_log_that_was_changed_is_found(service, home, grant, tmp_path):
    kept = tmp_path / "seen.note"
    run("log", "check", "--remember", kept)
    seen = kept.read_text()
    c = tables_log.log_tiles.c
    with service.broker.store.write() as tx:
        good = bytes(tx.execute(tables_log.log_tiles.select().where(c.level == 0, c.number == 0)).one().hashes)
        bad = bytes(32) + good[32:]
        tx.execute(tables_log.log_tiles.update().where(c.level == 0, c.number == 0).values(hashes=bad))
    try:
        run("log", "check", "--remember", kept, code=1)
        run("log", "tail", code=1)
    finally:
        with service.broker.store.write() as tx:
            tx.execute(tables_log.log_tiles.update().where(c.level == 0, c.number == 0).values(hashes=good))
    assert kept.read_text() == seen  # what was seen last is still what counts
    run("log", "check", "--remember", kept)


def test_a_report_tells_who_got_which_key_on_what_proof(home, grant):
    app, number = grant
    page = run("audit", "report")
    assert "Complete: no number is missing" in page
    row = next(line for line in page.splitlines() if number in line)
    assert app.app_id in row
    assert app.path.split("/")[0] in row
    assert "sha256:" in row
    found = json.loads(run("audit", "report", "--json", "--app", app.app_id))
    assert {one["app"] for one in found["grants"]} == {app.app_id}
    assert {one["kind"] for one in found["grants"]} == {"attest", "release"}
    assert found["missing"] is None
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert json.loads(run("audit", "report", "--json", "--since", later, "--until", later))["entries"] == 0


def test_a_report_of_files(home, grant, tmp_path):
    folder = tmp_path / "receipts"
    folder.mkdir()
    document = json.loads(run("receipt", "get", grant[1]))
    (folder / "one.json").write_text(json.dumps(document))
    assert "not asked; the report is of chosen receipts" in run("audit", "report", folder)
    document["openings"]["app"]["value"] = "sha256:" + "0" * 64
    (folder / "two.json").write_text(json.dumps({**document, "index": document["index"] + 1}))
    run("audit", "report", folder, code=1)
    (folder / "two.json").write_text("no")
    run("audit", "report", folder, code=2)


def test_what_a_broker_holds_back_is_named(service, home, grant, monkeypatch):
    whole = brokerclient.Admin.receipts

    def some(self, since, until, *, after=-1, **chosen):
        return [row for row in whole(self, since, until, after=after, **chosen) if row["index"] != 1]

    monkeypatch.setattr(brokerclient.Admin, "receipts", some)
    assert "Complete: MISSING 1 to 1" in run("audit", "report")


def test_the_key_changes_and_a_new_trust_file_knows_both(service, home, grant, tmp_path):
    run("receipt", "get", grant[1], "--out", tmp_path / "old.json")
    run("log", "check")
    made = json.loads(run("log", "rotate", "--json"))["vkey"]
    run("receipt", "verify", tmp_path / "old.json")
    run("log", "check", code=1)  # this trust file does not know the new key
    trust = json.loads((home / "trust.json").read_text())
    trust["log"] = brokerclient.info(service.url, service.pin)["log"]
    assert trust["log"]["keys"][-1]["vkey"] == made
    (home / "trust.json").write_text(json.dumps(trust))
    assert "log.consistency" in run("log", "check")
    run("receipt", "verify", tmp_path / "old.json")
    run("receipt", "get", grant[1], "--out", tmp_path / "new.json")
    run("receipt", "verify", tmp_path / "new.json")


def test_an_entry_with_markup_stays_text(home):
    from casemate.ledger import report

    assert report._cell("a|b <script> `x` *y*\n") == "a&#124;b &#60;script&#62; \\`x\\` \\*y\\*?"


def test_the_error_names_the_receipt(home, grant):
    from casemate.ledger import receipt
    from casemate.verifier import audit, trust

    known = trust.read(home / "trust.json").demand_log()
    one = receipt.parse(run("receipt", "get", grant[1]).encode())
    with pytest.raises(Refused, match=one.id):
        audit.verified([receipt.Receipt(**{**vars(one), "index": one.index + 1})], known)
