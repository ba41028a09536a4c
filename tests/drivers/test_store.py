"""The store on SQLite and, where a server is installed, on PostgreSQL: the same code, the same promises."""

import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import exc, inspect, text

from casemate.drivers.store import AlreadySpent, Store, record, registry, vaulted
from casemate.drivers.store.tables import metadata
from casemate.errors import Finding, Refused, Unavailable, Unusable
from casemate.schema.app import Founding
from casemate.schema.endorsements import Anchor
from casemate.schema.reference import ReferenceValues

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
FOUNDING = Founding(tenant="demo", name="web", founded="2026-11-21T12:00:00Z", salt="00" * 16)
APP = FOUNDING.app_id
BAD = Finding("a.b", "one", "two", "do this")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def store(url):
    made = Store(url)
    made.migrate()
    with made.write() as tx:
        for table in reversed(metadata.sorted_tables):
            tx.execute(table.delete())
    yield made
    made.close()


@pytest.fixture
def app(store):
    with store.write() as tx:
        registry.found(tx, FOUNDING, ("development",), NOW)
    return APP


def test_the_migrations_make_exactly_the_tables(store):
    with store.read() as tx:
        found = inspect(tx)
        assert set(found.get_table_names()) == {*metadata.tables, "alembic_version"}
        for table in metadata.tables.values():
            columns = {c["name"]: bool(c["nullable"]) for c in found.get_columns(table.name)}
            assert columns == {c.name: bool(c.nullable) for c in table.columns}, table.name
            assert {i["name"] for i in found.get_indexes(table.name)} >= {i.name for i in table.indexes}


def test_alembic_finds_no_difference(store):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with store.read() as tx:
        assert compare_metadata(MigrationContext.configure(tx), metadata) == []


def test_migrating_again_changes_nothing(store, app):
    store.migrate()
    with store.read() as tx:
        assert registry.app_ids(tx) == [app]


def test_an_anchor_of_an_older_store_vouches_for_tpms_alone(tmp_path):
    from alembic import command
    from alembic.config import Config

    import casemate.drivers.store as package

    old = Store(f"sqlite:///{tmp_path / 'old.db'}")
    config = Config()
    config.set_main_option("script_location", str(Path(package.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    with old.write() as tx:
        config.attributes["connection"] = tx
        command.upgrade(config, "0001")
        tx.execute(text("INSERT INTO anchors VALUES ('sha256:00', x'30', 'development', 'old', 1)"))
    old.migrate()
    with old.read() as tx:
        (found,) = registry.anchors(tx)
    assert (found.name, found.tees) == ("old", ("tpm",))
    old.close()


def test_many_migrate_an_empty_store_at_once(tmp_path):
    stores = [Store(f"sqlite:///{tmp_path / 'many.db'}") for _ in range(4)]
    failed = []

    def migrate(one):
        try:
            one.migrate()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=migrate, args=(one,)) for one in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    for one in stores:
        one.close()


def test_apps_and_releases(store, app):
    with store.write() as tx:
        registry.add_release(tx, app, "sha256:" + "1" * 64, b"{}", NOW)
        registry.add_release(tx, app, "sha256:" + "1" * 64, b"{}", NOW)
        assert registry.revoke_release(tx, app, "sha256:" + "1" * 64, NOW)
        assert not registry.revoke_release(tx, app, "sha256:" + "2" * 64, NOW)
    with store.read() as tx:
        known = registry.statement(tx, app)
        assert (known.founding, known.platforms) == (FOUNDING, ("development",))
        assert [(r.state, r.registered) for r in known.releases] == [("revoked", "2026-11-21T12:00:00.000Z")]
        assert registry.manifest(tx, app, "sha256:" + "1" * 64) == b"{}"
        assert registry.statement(tx, "sha256:" + "9" * 64) is None
    with pytest.raises(Refused), store.write() as tx:
        registry.add_release(tx, app, "sha256:" + "1" * 64, b"{}", NOW)


def test_anchors_and_references(store):
    later = NOW + timedelta(days=1)
    with store.write() as tx:
        registry.add_anchor(tx, Anchor(certificate=b"\x00der", name="old"), NOW)
        registry.add_anchor(tx, Anchor(certificate=b"\x00der", name="new"), NOW)
        registry.add_reference(tx, ReferenceValues(name="g", tee="tpm", values={"pcr4": "00"}), NOW)
        registry.add_reference(tx, ReferenceValues(name="g", tee="tpm", values={"pcr4": "01"}, expires=later), NOW)
        registry.add_reference(tx, ReferenceValues(name="g", tee="snp", values={"measurement": "02"}), NOW)
    with store.read() as tx:
        assert registry.anchors(tx) == (Anchor(certificate=b"\x00der", name="new"),)
        assert registry.references(tx, "tpm") == (
            ReferenceValues(name="g", tee="tpm", values={"pcr4": "01"}, expires=later),
        )
        assert len(registry.references(tx)) == 2


def test_versions_of_a_resource(store, app):
    with store.write() as tx:
        assert vaulted.claim(tx, app, "a/b/c") == vaulted.Owned(app, 0, True)
        vaulted.add_version(tx, "a/b/c", vaulted.Version(1, b"\x00one"), NOW)
        vaulted.add_version(tx, "a/b/c", vaulted.Version(2, b"\xfftwo"), NOW)
    with store.read() as tx:
        assert vaulted.newest(tx, "a/b/c") == vaulted.Version(2, b"\xfftwo")
        assert list(vaulted.listing(tx, app)) == [("a/b/c", 2, None)]
    with store.write() as tx:
        assert vaulted.remove(tx, "a/b/c")
        assert not vaulted.remove(tx, "a/b/c")
        assert vaulted.newest(tx, "a/b/c") is None
        assert vaulted.owner(tx, "a/b/c") == vaulted.Owned(app, 2, True)
        assert list(vaulted.listing(tx, app)) == []


def test_two_writers_of_one_path_get_two_versions(store, app):
    def act(tx):
        version = vaulted.claim(tx, app, "a/b/c").newest + 1
        vaulted.add_version(tx, "a/b/c", vaulted.Version(version, b"x"), NOW)
        return version

    got, lock = [], threading.Lock()

    def write():
        for _ in range(5):
            version = store.written(act)
            with lock:
                got.append(version)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(1, 21))


def test_volumes(store, app):
    one = vaulted.Volume(1 << 40, "ab" * 32, False, None)
    with store.write() as tx:
        assert vaulted.volume(tx, app, "data") is None
        vaulted.put_volume(tx, app, "data", one, NOW)
        assert vaulted.volume(tx, app, "data") == one
        vaulted.put_volume(tx, app, "data", one._replace(initialised=True, record={"a": [1]}), NOW)
    with store.read() as tx:
        assert vaulted.volume(tx, app, "data").record == {"a": [1]}


def test_a_nonce_is_spent_once_and_its_decision_goes_with_it(store):
    ends = NOW + timedelta(minutes=10)
    ticket = record.Ticket("n1", registry.millis(ends))
    with store.write() as tx:
        record.decide(tx, NOW, "attest", [BAD], genuine=True)
        record.spend(tx, ticket, NOW)

    def again():
        with store.write() as tx:
            record.decide(tx, NOW, "attest", [BAD], genuine=True)
            record.spend(tx, ticket, NOW)

    with pytest.raises(AlreadySpent):
        again()
    with store.read() as tx:
        assert len(record.decisions(tx, 10)) == 1
        assert record.is_spent(tx, "n1")
        assert not record.is_spent(tx, "n2")
    with store.write() as tx:
        record.spend(tx, ticket._replace(nonce="n2"), ends + record.MARGIN)
        assert record.is_spent(tx, "n1")  # by another replica's clock its challenge may not be over yet
        record.spend(tx, ticket._replace(nonce="n3"), ends + record.MARGIN + timedelta(seconds=1))
        assert not record.is_spent(tx, "n1")


def test_one_of_many_spends_a_nonce(store):
    outcomes, gate = [], threading.Barrier(8)

    def attempt():
        gate.wait()
        try:
            with store.write() as tx:
                record.spend(tx, record.Ticket("same", registry.millis(NOW)), NOW)
            outcomes.append("spent")
        except AlreadySpent:
            outcomes.append("refused")

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 7 + ["spent"]


def test_decisions_newest_first_and_of_one_app(store, app):
    good = Finding("a.b", "one", "one", ok=True)
    with store.write() as tx:
        record.decide(tx, NOW, "attest", [good], genuine=True, app_id=app, tee="tpm")
        record.decide(tx, NOW, "release", [good, BAD], genuine=True, app_id=app, resource="a/b/c")
        record.decide(tx, NOW, "attest", [], genuine=True)
    with store.read() as tx:
        everything = record.decisions(tx, 10)
        assert [d["allowed"] for d in everything] == [False, False, True]
        assert everything[1]["findings"][1] == BAD.as_json()
        assert [d["act"] for d in record.decisions(tx, 10, app)] == ["release", "attest"]
        assert len(record.decisions(tx, 1)) == 1


def test_strangers_cannot_grow_the_log(store, monkeypatch):
    monkeypatch.setattr(record, "MAX_UNGENUINE", 50)
    with store.write() as tx:
        record.decide(tx, NOW, "attest", [BAD], genuine=True, tee="kept")
        for _ in range(400):
            record.decide(tx, NOW, "attest", [BAD], genuine=False)
    with store.read() as tx:
        left = record.decisions(tx, 1000)
        assert 50 <= len(left) <= 152
        assert left[-1]["tee"] == "kept"


def test_a_failed_write_leaves_nothing(store):
    def fail():
        with store.write() as tx:
            registry.found(tx, FOUNDING, ("development",), NOW)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with store.read() as tx:
        assert registry.app_ids(tx) == []


def test_a_release_needs_its_app(store):
    with pytest.raises((exc.IntegrityError, Unavailable)), store.write() as tx:  # drivers name it differently
        registry.add_release(tx, "sha256:" + "0" * 64, "sha256:" + "1" * 64, b"{}", NOW)


def test_sqlite_is_durable(tmp_path):
    path = tmp_path / "store.db"
    one = Store(f"sqlite:///{path}")
    one.migrate()
    with one.read() as tx:
        assert tx.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert tx.execute(text("PRAGMA synchronous")).scalar() == 2  # FULL
        assert tx.execute(text("PRAGMA foreign_keys")).scalar() == 1
    one.close()
    with sqlite3.connect(path) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_damaged_or_unreachable_store_is_unavailable(tmp_path):
    (tmp_path / "store.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(Unavailable, match="store"):
        Store(f"sqlite:///{tmp_path / 'store.db'}").migrate()
    with pytest.raises(Unavailable):
        Store(f"sqlite:///{tmp_path / 'no' / 'such' / 'store.db'}").migrate()


@pytest.mark.parametrize("url", ["nonsense", "nosuchdb://x", "postgresql+nosuchdriver://u:secret@h/db"])
def test_unusable_urls_without_their_password(url):
    with pytest.raises(Unusable) as error:
        Store(url)
    assert "secret" not in str(error.value)


def test_a_failed_reader_is_not_used_again_and_others_are(tmp_path):
    store = Store(f"sqlite:///{tmp_path}/store.db")
    store.migrate()
    with store.read() as first:
        assert vaulted.owner(first, "a/b/c") is None
        with store.read() as second:
            assert second is not first
    with pytest.raises(RuntimeError), store.read():
        raise RuntimeError
    with pytest.raises(Unavailable), store.read() as broken:
        broken.exec_driver_sql("SELECT * FROM nowhere")
    with store.read() as later:
        assert later is not broken
        assert registry.app_ids(later) == []  # by SQLAlchemy's own way, in the same transaction
        assert vaulted.newest(later, "a/b/c") is None
    store.close()


def test_a_reader_sees_one_moment_and_the_next_one_the_newest(tmp_path):
    store = Store(f"sqlite:///{tmp_path}/store.db")
    store.migrate()
    with store.write() as writing:
        registry.found(writing, FOUNDING, ("development",), NOW)
    with store.read() as tx:
        assert vaulted.owner(tx, "a/b/c") is None
        with store.write() as writing:
            vaulted.claim(writing, APP, "a/b/c")
        assert vaulted.owner(tx, "a/b/c") is None
    with store.read() as tx:
        assert vaulted.owner(tx, "a/b/c") == vaulted.Owned(APP, 0, deleted=True)
    store.close()
