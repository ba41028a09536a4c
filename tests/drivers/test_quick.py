"""Statements as text: the same rows and the same errors as SQLAlchemy's, on both databases."""

from contextlib import suppress

import pytest
from sqlalchemy import exc, select, text

from casemate.drivers.store import Store, tables
from casemate.drivers.store.quick import ROWS, Quick
from casemate.errors import Malformed, Unavailable
from casemate.testing import postgres, programs

KEYS, DECISIONS = tables.keys, tables.decisions
COLUMNS = ("name", "sealed", "created")


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
def migrated(request, tmp_path_factory):
    if request.param == "sqlite":
        made = Store(f"sqlite:///{tmp_path_factory.mktemp('quick') / 's.db'}")
        made.migrate()
        yield made
        made.close()
        return
    try:
        with postgres.server() as url:
            made = Store(url)
            made.migrate()
            yield made
            made.close()
    except programs.Missing as reason:
        pytest.skip(str(reason))


@pytest.fixture
def store(migrated):
    with migrated.write() as tx:
        tx.execute(KEYS.delete())
        tx.execute(DECISIONS.delete())
    return migrated


def rows(store):
    with store.read() as tx:
        return [tuple(row) for row in tx.execute(select(KEYS).order_by(KEYS.c.created))]


@pytest.mark.parametrize("count", [0, 1, ROWS, 2 * ROWS + 3])
def test_any_number_of_rows(store, count):
    wanted = [(f"k{i}%s?", bytes([i]), i) for i in range(count)]
    with store.write() as tx:
        Quick(tx).insert(KEYS, COLUMNS, wanted)
        assert sorted(Quick(tx).rows("SELECT created FROM keys WHERE created < ?", 2)) == [(0,), (1,)][:count]
    assert rows(store) == wanted


def test_truth_and_absence(store):
    values = (1, "attest", True, False, None, None, None, None, "[]")
    names = ("time", "act", "genuine", "allowed", "app_id", "manifest_digest", "tee", "resource", "findings")
    with store.write() as tx:
        Quick(tx).insert(DECISIONS, names, [values, values])
        found = tx.execute(select(*(DECISIONS.c[name] for name in names))).all()
    assert [tuple(row) for row in found] == [values, values]


def test_what_is_there_already_is_an_integrity_error_and_nothing_stays(store):
    some = [("a", b"", 1), ("b", b"", 2), ("a", b"", 3)]
    with pytest.raises(exc.IntegrityError) as caught:
        with store.write() as tx:
            Quick(tx).insert(KEYS, COLUMNS, some)
    assert "'b'" not in str(caught.value)  # no values of a row
    assert rows(store) == []


def test_other_errors_are_the_stores(store):
    with pytest.raises(Unavailable):
        with store.write() as tx:
            Quick(tx).run("SELECT * FROM nothing")
    with pytest.raises((Malformed, Unavailable)):
        with store.write() as tx:
            Quick(tx).rows("SELECT name FROM keys WHERE created = ?", "x" * 20, 2)


def test_a_value_that_the_database_cannot_hold(store):
    if store.sqlite:
        pytest.skip("SQLite holds text with a NUL")
    with pytest.raises(Malformed):
        with store.write() as tx:
            Quick(tx).insert(KEYS, COLUMNS, [("a\0b", b"", 1)])


def test_a_savepoint_takes_back_what_was_written_as_text(store):
    with store.write() as tx:
        with suppress(KeyError), tx.begin_nested():
            Quick(tx).insert(KEYS, COLUMNS, [("gone", b"", 1)])
            raise KeyError
        Quick(tx).insert(KEYS, COLUMNS, [("stays", b"", 1)])
        assert tx.execute(text("SELECT count(*) FROM keys")).scalar_one() == 1
    assert [row[0] for row in rows(store)] == ["stays"]
