"""Tables of the broker's store, continued: reference values as the key broker protocol registers them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, String, Table, Text

from casemate.drivers.store.tables import metadata

# What `query_reference_value(id)` answers. `tenant` is empty for values that hold for the whole broker.
rvps_values = Table(
    "rvps_values",
    metadata,
    Column("tenant", String(128), primary_key=True),
    Column("id", String(512), primary_key=True),
    Column("value", Text, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("signer", String(512), nullable=False),  # empty for values that nobody signed
    Column("source", String(71), nullable=False),
    Column("created", BigInteger, nullable=False),
)
