"""Stores of the first schema, with rows in every table, brought to the newest one: on both databases nothing is lost.

`schema-0001.json` is what the first broker wrote, read out of its database: an app with two releases (one revoked), a
secret in two versions and one that was deleted, a volume, an anchor, reference values, decisions, nonces and keys.
"""

import json
from base64 import b64decode
from pathlib import Path

import pytest
from sqlalchemy import exc, insert, inspect, select, text

from casemate.broker import prepare
from casemate.broker.assemble import assemble
from casemate.drivers import keyfiles
from casemate.drivers.store import Store, dump, record, registry, vaulted
from casemate.drivers.store.tables import metadata
from casemate.errors import Unavailable, Unusable

STORED = json.loads((Path(__file__).parents[1] / "vectors" / "store" / "schema-0001.json").read_text("utf-8"))
BOOLEANS = {"deleted", "initialised", "genuine", "allowed"}


def value(stored, column):
    if isinstance(stored, dict):
        return b64decode(stored["base64"])
    return bool(stored) if column in BOOLEANS else stored


def stored():
    return {
        one["table"]: [
            {column: value(cell, column) for column, cell in zip(one["columns"], row, strict=True)}
            for row in one["rows"]
        ]
        for one in STORED["tables"]
    }


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    found = request.getfixturevalue("postgres_url")
    store = Store(found)
    with store.write() as tx:
        tx.exec_driver_sql("DROP SCHEMA public CASCADE")
        tx.exec_driver_sql("CREATE SCHEMA public")
    store.close()
    return found


@pytest.fixture
def old(url):
    """A store as the first broker left it."""
    made = Store(url)
    with made.write() as tx:
        made.upgrade(tx, "0001")
        tables = {table.name: table for table in dump._tables(tx)}
        assert set(tables) == set(stored())
        for name, table in tables.items():  # those that others refer to come first
            tx.execute(insert(table), stored()[name])
        dump._sequences(tx, list(tables.values()))
    yield made
    made.close()


def test_every_row_is_there_afterwards(old):
    old.migrate()
    with old.read() as tx:
        assert set(inspect(tx).get_table_names()) == {*metadata.tables, "alembic_version"}
        for name, rows in stored().items():
            table = metadata.tables[name]
            found = [row._asdict() for row in tx.execute(select(table))]
            assert len(found) == len(rows), name
            for row in rows:
                key = {column.name: row[column.name] for column in table.primary_key.columns if column.name in row}
                (one,) = [f for f in found if all(f[n] == v for n, v in key.items())]
                assert {n: one[n] for n in row} == row, name


def test_step_by_step_is_the_same_as_at_once(old, tmp_path):
    steps = sorted(path.name[1:5] for path in Path(dump.__file__).parent.glob("migrations/versions/m*.py"))
    assert steps == [f"{number:04}" for number in range(1, len(steps) + 1)]
    for step in steps[1:]:
        with old.write() as tx:
            old.upgrade(tx, step)
        with old.read() as tx:
            assert dump.revision(tx) == step
            for name, rows in stored().items():
                assert tx.execute(text(f"SELECT count(*) FROM {name}")).scalar() == len(rows)
    old.migrate()
    assert old.is_current()


def test_a_broker_works_on_it(old, tmp_path, url):
    old.close()
    keyfiles.write(tmp_path / "b" / "master.key", bytes(range(32)))
    broker = assemble(prepare.prepare(tmp_path / "b", tmp_path / "b" / "admin.key", store=url))
    app = stored()["apps"][0]["app_id"]
    with broker.store.read() as tx:
        newest = vaulted.newest(tx, "web/key/1")
        assert newest.version == 2
        assert broker.vault.open("resource:web/key/1:2", newest.sealed) == b"second"
        assert vaulted.newest(tx, "web/key/gone") is None
        assert vaulted.volume(tx, app, "data").initialised
        assert sorted(r.state for r in registry.statement(tx, app).releases) == ["active", "revoked"]
        assert [anchor.tees for anchor in registry.anchors(tx)] == [("tpm",)]
        assert {v.tee for v in registry.references(tx)} == {"tpm"}
        assert len(record.decisions(tx, 100)) == len(stored()["decisions"])
        assert record.is_spent(tx, stored()["spent_nonces"][0]["nonce"])
    with broker.store.write() as tx:
        top = max(row["id"] for row in stored()["decisions"])
        assert record.decide(tx, broker.clock(), "attest", [], genuine=True) == top + 1
    broker.close()


def test_a_newer_schema_is_refused_and_left_alone(old, tmp_path):
    old.migrate()
    with old.write() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Unusable, match="newer than this Casemate"):
        old.migrate()
    assert not old.is_current()
    with old.read() as tx:
        assert dump.revision(tx) == "9999"


def test_a_migration_that_fails_leaves_the_old_schema(old):
    with old.write() as tx:
        tx.execute(text("CREATE TABLE log_tiles (x INTEGER)"))  # in the way of 0003
    with pytest.raises((Unavailable, exc.SQLAlchemyError)):
        old.migrate()
    with old.read() as tx:
        assert dump.revision(tx) == "0001"
        assert "log_entries" not in inspect(tx).get_table_names()
        assert len(tx.execute(text("SELECT * FROM apps")).all()) == 1
    with old.write() as tx:
        tx.execute(text("DROP TABLE log_tiles"))
    old.migrate()
    assert old.is_current()
