"""Tables of the broker's store, continued: leases of attested guests, and how many an app allows at a time."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table

from casemate.drivers.store.tables import metadata

# One row a guest: attesting again renews it. `holder` is the thumbprint of the key that it attested with last.
leases = Table(
    "leases",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("app_id", String(71), nullable=False),
    Column("manifest_digest", String(71), nullable=False),
    Column("tee", String(32), nullable=False),
    Column("holder", String(64), nullable=False),
    Column("begun", BigInteger, nullable=False),
    Column("renewed", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("ended", BigInteger),
    Column("why", String(64)),
    Index(None, "app_id", "expires"),
    Index(None, "expires"),
)

app_limits = Table(
    "app_limits",
    metadata,
    Column("app_id", String(71), primary_key=True),
    Column("max_holders", Integer, nullable=False),
)
