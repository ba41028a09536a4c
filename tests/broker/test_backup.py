"""Backups of a running broker, on either database and from one to the other; a store that is behind is not served."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from casemate.broker import backup, prepare, recovery, rollback
from casemate.broker import settings as broker_settings
from casemate.broker.assemble import assemble
from casemate.drivers import keyfiles
from casemate.drivers.store import Store, dump, vaulted
from casemate.drivers.store import log as entries
from casemate.drivers.store.tables import metadata
from casemate.errors import Malformed, Refused, Unusable
from casemate.testing import broker as brokers
from casemate.testing import postgres, programs
from casemate.testing.broker import Guest

WORDS = b"a long enough passphrase"
SECRET = b"correct horse battery staple"


@pytest.fixture(scope="module")
def postgres_url():
    try:
        with postgres.server() as url:
            yield url
    except programs.Missing as reason:
        pytest.skip(str(reason))


@pytest.fixture
def fresh(postgres_url):
    """The database, empty."""
    store = Store(postgres_url)
    with store.write() as tx:
        tx.exec_driver_sql("DROP SCHEMA public CASCADE")
        tx.exec_driver_sql("CREATE SCHEMA public")
    store.close()
    return postgres_url


@pytest.fixture
def used(tmp_path):
    """A broker that has an app, a secret, attestations and a log."""
    service = brokers.start(tmp_path / "one", refused_tees=[], accepted_cautions=["sample.proof"])
    service.trust()
    app = service.found()
    service.admin.put_resource(app.app_id, f"kbs:///{app.path}", SECRET)
    guest = Guest(service, app.manifest)
    assert guest.handshake().status == 200
    assert guest.open(guest.get(app.path)) == SECRET
    yield service, app
    service.stop()


def rows(store):
    with store.snapshot() as tx:
        return {
            table.name: [tuple(row) for row in tx.execute(select(table).order_by(*table.primary_key.columns))]
            for table in metadata.sorted_tables
        }


def keys_to(folder, source):
    for name in ("master.key", "tls.key", "admin.pub"):
        keyfiles.write(folder / name, (source / name).read_bytes())
    return prepare.prepare(folder, folder / "admin.key", port=1)


def size(settings):
    store = Store(settings.store_url)
    with store.read() as tx:
        found = entries.state(tx).size
    store.close()
    return found


def test_of_a_running_broker_under_its_master_key(used, tmp_path):
    service, app = used
    made = recovery.save(service.broker.settings, tmp_path / "b", passphrase=None, keys=False)
    assert made["bytes"] == (tmp_path / "b").stat().st_size
    assert (tmp_path / "b").stat().st_mode & 0o077 == 0
    data = (tmp_path / "b").read_bytes()
    assert SECRET not in data
    assert app.path.encode() not in data
    assert b"demo" not in data
    settings = keys_to(tmp_path / "two", tmp_path / "one")
    told = recovery.restore(tmp_path / "two", tmp_path / "b", passphrase=None, store=None)
    assert (told["entries"], told["behind"], told["keys"]) == (made["entries"], "", False)
    assert size(settings) == made["entries"] + 1  # the restoration is an entry
    broker = assemble(settings)
    with broker.store.read() as tx:
        found = vaulted.newest(tx, app.path)
        assert broker.vault.open(f"resource:{app.path}:{found.version}", found.sealed) == SECRET
    broker.close()


def test_from_sqlite_to_postgresql_and_back(used, tmp_path, fresh):
    service, _app = used
    recovery.save(service.broker.settings, tmp_path / "b", passphrase=WORDS, keys=True)
    told = recovery.restore(tmp_path / "two", tmp_path / "b", passphrase=WORDS, store=fresh)
    assert told["keys"]
    moved = broker_settings.load(tmp_path / "two")
    assert moved.store == fresh
    assert prepare.pin(tmp_path / "two") == service.pin
    recovery.save(moved, tmp_path / "c", passphrase=WORDS, keys=True)
    recovery.restore(
        tmp_path / "three", tmp_path / "c", passphrase=WORDS, store=f"sqlite:///{tmp_path / 'three' / 's.db'}"
    )
    one, three = service.broker.store, Store(broker_settings.load(tmp_path / "three").store_url)
    before, after = rows(one), rows(three)
    three.close()
    logged = {"log_state", "log_entries", "log_openings", "log_tiles", "log_checkpoints"}  # two acts more
    assert {n: r for n, r in before.items() if n not in logged} == {n: r for n, r in after.items() if n not in logged}
    assert after["log_entries"][: len(before["log_entries"])] == before["log_entries"]
    assert before["decisions"]
    assert before["spent_nonces"]
    assert before["resource_versions"]


def test_what_comes_after_a_restoration_is_numbered_behind_it(used, tmp_path, fresh):
    service, _ = used
    recovery.save(service.broker.settings, tmp_path / "b", passphrase=WORDS, keys=True)
    recovery.restore(tmp_path / "two", tmp_path / "b", passphrase=WORDS, store=fresh)
    broker = assemble(broker_settings.load(tmp_path / "two"))
    from casemate.drivers.store import record

    with broker.store.write() as tx:
        top = max(row["id"] for row in record.decisions(tx, 1000))
        assert record.decide(tx, broker.clock(), "attest", [], genuine=True) > top
    broker.close()


def test_one_moment_though_others_write(used, tmp_path):
    service, app = used
    store = service.broker.store
    with store.snapshot() as tx:
        messages = dump.messages(tx)
        first = next(messages)
        service.admin.put_resource(app.app_id, "kbs:///late/k/1", b"too late")
        told = [first, *messages]
    assert not any("late/k/1" in str(message) for message in told)
    assert len(rows(store)["resources"]) == 2


def test_a_store_that_holds_something_is_left_alone(used, tmp_path):
    service, _ = used
    recovery.save(service.broker.settings, tmp_path / "b", passphrase=None, keys=False)
    before = rows(service.broker.store)
    with pytest.raises(Refused, match=r"restore\.empty"):
        recovery.restore(service.broker.settings.folder, tmp_path / "b", passphrase=None, store=None)
    assert rows(service.broker.store) == before


def test_who_lacks_the_key(used, tmp_path):
    service, _ = used
    recovery.save(service.broker.settings, tmp_path / "vault", passphrase=None, keys=False)
    recovery.save(service.broker.settings, tmp_path / "words", passphrase=WORDS, keys=False)
    prepare.prepare(tmp_path / "two", tmp_path / "two" / "admin.key", port=1)
    for file, words, told in (
        ("vault", None, "another master key"),
        ("words", None, "passphrase"),
        ("words", b"another passphrase", "another one"),
    ):
        with pytest.raises(Unusable, match=told):
            recovery.restore(tmp_path / "two", tmp_path / file, passphrase=words, store=None)
    with pytest.raises(Unusable, match="no keys"):
        recovery.restore(tmp_path / "three", tmp_path / "words", passphrase=WORDS, store=None)
    with pytest.raises(Unusable, match="passphrase"):
        recovery.save(service.broker.settings, tmp_path / "x", passphrase=None, keys=True)
    with pytest.raises(Unusable, match="12 are the least"):
        recovery.save(service.broker.settings, tmp_path / "x", passphrase=b"short", keys=False)
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "two" / "store.db").exists()


def sealed(messages, key=bytes(32)):
    file = io.BytesIO()
    backup.write(file, {"id": "1", "created": "now", "schema": "0001", "sealing": {"kind": "vault"}}, key, messages)
    return file.getvalue()


def opened(data, key=bytes(32)):
    file = io.BytesIO(data)
    _, context = backup.head(file)
    return list(backup.messages(file, key, context))


MESSAGES = [["table", "a", ["x"]], ["rows", [[1], [b"2"]]], ["table", "b", []], ["rows", [[None]]]]
WHOLE = sealed(iter(MESSAGES))


def test_a_file_that_was_changed_cut_or_put_together_anew():
    assert opened(WHOLE) == MESSAGES
    for end in range(len(WHOLE)):
        with pytest.raises(Malformed):
            opened(WHOLE[:end])
    for place in range(len(WHOLE)):
        with pytest.raises(Malformed):
            opened(WHOLE[:place] + bytes([WHOLE[place] ^ 1]) + WHOLE[place + 1 :])
    for more in (b"\0", WHOLE):
        with pytest.raises(Malformed):
            opened(WHOLE + more)
    with pytest.raises(Malformed):
        opened(WHOLE, key=bytes([1] * 32))


@given(st.binary(max_size=400))
@settings(max_examples=200, suppress_health_check=list(HealthCheck), deadline=None)
def test_only_malformed(data):
    for front in (b"", backup.MAGIC, WHOLE[: WHOLE.index(b"}}") + 2]):
        with pytest.raises(Malformed):
            opened(front + data)


@given(st.lists(st.lists(st.one_of(st.integers(), st.text(max_size=5), st.lists(st.integers()))), max_size=4))
@settings(max_examples=10, suppress_health_check=list(HealthCheck), deadline=None)
def test_messages_that_are_none_of_ours_fill_no_store(tmp_path_factory, messages):
    folder = tmp_path_factory.mktemp("none")
    store = Store(f"sqlite:///{folder / 's.db'}")
    try:
        dump.load(store, "0001", iter(messages))
    except Malformed:
        assert messages
    else:
        assert not messages
    finally:
        store.close()


def test_a_passphrase_that_costs_too_much_is_not_tried():
    head = {"id": "1", "sealing": {"kind": "scrypt", "n": 1 << 30, "r": 8, "p": 1, "salt": "", "key": ""}}
    with pytest.raises(Malformed, match="cost"):
        backup.unlock(head, passphrase=WORDS)
    with pytest.raises(Malformed, match="cost"):
        backup.unlock({"id": "1", "sealing": {**head["sealing"], "n": 1000}}, passphrase=WORDS)


# --- behind what was seen --------------------------------------------------------------------------------------------


@pytest.fixture
def older(tmp_path):
    """A broker's settings, whose store was put back to an older state."""
    service = brokers.start(tmp_path / "one")
    service.found(register=False)
    kept = tmp_path / "kept"
    recovery.save(service.broker.settings, kept, passphrase=None, keys=False)
    service.found(register=False)
    service.stop()
    for file in (tmp_path / "one").glob("store.db*"):
        file.unlink()
    told = recovery.restore(tmp_path / "one", kept, passphrase=None, store=None)
    assert "--accept-rollback" in told["behind"]
    return service.broker.settings


def test_a_store_that_is_behind_is_refused_until_it_is_named(older):
    found = size(older)
    with pytest.raises(Refused, match=r"log\.rollback") as refused:
        assemble(older)
    assert f"--accept-rollback {found}" in refused.value.hint
    with pytest.raises(Refused, match=f"{found} entries"):
        assemble(older, accept_rollback=found + 1)
    assert size(older) == found
    broker = assemble(older, accept_rollback=found)
    with broker.store.read() as tx:
        (one,) = [one for one in entries.period(tx, since=0, until=1 << 60, after=-1, limit=99) if one.number == found]
        assert broker.log.opened(one.id, one.sealed)[1]["who"] == "local"
        assert broker.log.opened(one.id, one.sealed)[1]["seen"] == found + 1
    broker.close()
    broker = assemble(older)
    broker.close()
    assemble(older, accept_rollback=0).close()  # nothing to accept: nothing happens
    assert size(older) == found + 1


def test_the_same_size_and_other_entries(older):
    """A log that went on differently is no better than a shorter one."""
    seen = older.checkpoint_file.read_bytes()
    assemble(older, accept_rollback=size(older)).close()
    older.checkpoint_file.with_name("checkpoint.accepted").unlink()
    older.checkpoint_file.write_bytes(seen)
    with pytest.raises(Refused, match="other entries"):
        assemble(older)


def test_witnesses(tmp_path):
    folder = tmp_path / "one"
    settings = prepare.prepare(folder, folder / "admin.key", port=1, witnesses=["../witness"])
    with pytest.raises(Unusable, match="witness"):
        assemble(settings)
    other = assemble(prepare.prepare(tmp_path / "two", tmp_path / "two" / "admin.key", port=1))
    other.close()
    (tmp_path / "witness").write_bytes(other.settings.checkpoint_file.read_bytes())
    with pytest.raises(Refused, match="none of this log"):
        assemble(settings)
    (tmp_path / "witness").write_bytes(b"\xff")
    with pytest.raises(Unusable, match="cannot be read"):
        assemble(settings)
    (tmp_path / "witness").write_text("no note")
    with pytest.raises(Refused, match="none of this log"):
        assemble(settings)
    store = Store(settings.store_url)
    with store.read() as tx:
        (tmp_path / "witness").write_text(entries.state(tx).checkpoint)
    store.close()
    assemble(settings).close()


def test_the_file_never_goes_back(tmp_path):
    settings = prepare.prepare(tmp_path / "one", tmp_path / "one" / "admin.key", port=1)
    broker = assemble(settings)
    broker.memory.keep()
    ahead = settings.checkpoint_file.read_text().replace("\n0\n", "\n7\n")
    settings.checkpoint_file.write_text(ahead)  # another worker has seen more
    rollback.Memory(settings, broker.store).keep()
    assert settings.checkpoint_file.read_text() == ahead
    settings.checkpoint_file.unlink()
    broker.close()


def test_the_commands(tmp_path):
    def run(*words, code=0):
        argv = [sys.executable, "-m", "casemate", *map(str, words), "--json"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout or done.stderr)

    run("init", tmp_path / "one", "--port", "1")
    assemble(broker_settings.load(tmp_path / "one")).close()
    words = tmp_path / "words"
    words.write_bytes(WORDS + b"\n")
    words.chmod(0o600)
    run("backup", tmp_path / "b", "--home", tmp_path / "one", "--passphrase-file", words, "--with-keys")
    made = (tmp_path / "b").read_bytes()
    told = run("backup", tmp_path / "b", "--home", tmp_path / "one", "--passphrase-file", words, code=2)
    assert "is there already" in str(told)
    assert "--force" in str(told)
    assert (tmp_path / "b").read_bytes() == made
    run("backup", tmp_path / "b", "--home", tmp_path / "one", "--passphrase-file", words, "--with-keys", "--force")
    told = run("restore", tmp_path / "b", "--home", tmp_path / "two", "--passphrase-file", words)
    assert told["keys"]
    assert told["entries"] == 2
    assert Path(told["folder"]) == tmp_path / "two"
    words.chmod(0o644)
    run("backup", tmp_path / "c", "--home", tmp_path / "one", "--passphrase-file", words, code=2)


@pytest.mark.parametrize("words", [b"", b"short"])
def test_a_passphrase_that_is_too_short_makes_no_backup(used, tmp_path, words):
    service, _ = used
    before = size(service.broker.settings)
    with pytest.raises(Unusable, match=f"{len(words)} bytes, 12 are the least"):
        recovery.save(service.broker.settings, tmp_path / "b", passphrase=words, keys=True)
    assert not (tmp_path / "b").exists()
    assert size(service.broker.settings) == before


@pytest.mark.parametrize("place", ["nowhere/b", "."])
def test_a_backup_that_cannot_be_written_is_no_entry(used, tmp_path, place):
    service, _ = used
    before = size(service.broker.settings)
    with pytest.raises(Unusable, match="cannot be written"):
        recovery.save(service.broker.settings, tmp_path / place, passphrase=WORDS, keys=True)
    assert size(service.broker.settings) == before
