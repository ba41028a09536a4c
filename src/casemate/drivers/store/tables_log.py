"""Tables of the broker's store, continued: the transparency log."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Table, Text

from casemate.drivers.store.tables import metadata

# One row. Whoever adds to the log locks it first, so that one sequencer works at a time.
log_state = Table(
    "log_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("origin", String(200), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("peaks", LargeBinary, nullable=False),  # roots of the complete subtrees, 32 bytes each, largest first
    Column("key", String(64), nullable=False),  # name of the shared key that signs
    Column("checkpoint", Text, nullable=False),
    Column("time", BigInteger, nullable=False),
)

log_entries = Table(
    "log_entries",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("entry", LargeBinary, nullable=False),
)

log_tiles = Table(
    "log_tiles",
    metadata,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
)

# What opens an entry, sealed; found by the receipt's id, or by app, tenant and time for an audit.
log_openings = Table(
    "log_openings",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("app_id", String(71)),
    Column("tenant", String(128)),
    Column("sealed", LargeBinary, nullable=False),
    Index(None, "number"),
    Index(None, "time"),
)

# One a minute, for who compares over time; every other one can be computed from the tiles.
log_checkpoints = Table(
    "log_checkpoints",
    metadata,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("time", BigInteger, nullable=False),
    Column("note", Text, nullable=False),
)

log_keys = Table(
    "log_keys",
    metadata,
    Column("name", String(64), primary_key=True),  # of the shared key
    Column("vkey", String(300), nullable=False),
    Column("begun", BigInteger, nullable=False),
    Column("ended", BigInteger),
)

# Refusals before evidence was genuine: counted here until their minute is over, then one entry holds them all.
log_refusals = Table(
    "log_refusals",
    metadata,
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    Column("act", String(32), primary_key=True),
    Column("rule", String(64), primary_key=True),
    Column("total", BigInteger, nullable=False),
)
