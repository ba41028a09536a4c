"""Tables of the broker's store, continued: policies and recorded attestations."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, String, Table, Text

from casemate.drivers.store.tables import metadata

# Every version of every policy that was set; the newest one counts. `tenant` is empty for the whole broker, `kind` is
# `attestation` or `resource`. A version without text takes the policy back.
policies = Table(
    "policies",
    metadata,
    Column("tenant", String(128), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("text", Text),
    Column("digest", String(71), nullable=False),
    Column("who", String(512), nullable=False),
    Column("created", BigInteger, nullable=False),
)

# What was found at an attestation, for resource policies and for replaying. `claims` are those of the token, `inputs`
# what attestation policies were given: JSON, deflated.
attestations = Table(
    "attestations",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("tee", String(32), nullable=False),
    Column("app_id", String(71)),
    Column("tenant", String(128), nullable=False),
    Column("allowed", Boolean, nullable=False),
    Column("evidence", String(71), nullable=False),
    Column("collateral", String(71), nullable=False),
    Column("claims", LargeBinary, nullable=False),
    Column("inputs", LargeBinary, nullable=False),
    Index(None, "time"),
)
