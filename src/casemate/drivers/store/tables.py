"""The tables of the broker's store. Times are milliseconds since 1970 (UTC); JSON is text; secrets are sealed bytes.

A change here needs a new file in `migrations/versions`; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)

_DIGEST = String(71)
_PATH = String(512)

# Keys that every replica shares (cookie key, token key), sealed under the master key.
keys = Table(
    "keys",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("created", BigInteger, nullable=False),
)

apps = Table(
    "apps",
    metadata,
    Column("app_id", _DIGEST, primary_key=True),
    Column("founding", Text, nullable=False),
    Column("tenant", String(128), nullable=False),
    Column("name", String(64), nullable=False),
    Column("platforms", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
)

releases = Table(
    "releases",
    metadata,
    Column("app_id", _DIGEST, ForeignKey("apps.app_id"), primary_key=True),
    Column("manifest_digest", _DIGEST, primary_key=True),
    Column("manifest", LargeBinary, nullable=False),
    Column("state", String(16), nullable=False),
    Column("registered", BigInteger, nullable=False),
    Column("changed", BigInteger, nullable=False),
)

# Who owns a path. A path stays with its app for ever, also when its last version was deleted.
resources = Table(
    "resources",
    metadata,
    Column("path", _PATH, primary_key=True),
    Column("app_id", _DIGEST, ForeignKey("apps.app_id"), nullable=False),
    Column("newest", Integer, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("doomed", BigInteger),  # closed, and purged from this time on
)

resource_versions = Table(
    "resource_versions",
    metadata,
    Column("path", _PATH, ForeignKey("resources.path"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("ends", BigInteger),  # a version that was replaced opens until then
)

volumes = Table(
    "volumes",
    metadata,
    Column("app_id", _DIGEST, ForeignKey("apps.app_id"), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("grant_digest", String(64)),
    Column("initialised", Boolean, nullable=False),
    Column("record", Text),
    Column("changed", BigInteger, nullable=False),
    Column("key_path", _PATH),
    Column("key_version", Integer),  # the version that the volume was made with; 0 for a derived key
)

anchors = Table(
    "anchors",
    metadata,
    Column("fingerprint", _DIGEST, primary_key=True),
    Column("certificate", LargeBinary, nullable=False),
    Column("platform_class", String(16), nullable=False),
    Column("name", String(256), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("tees", Text, nullable=False),  # wire names, comma-separated
)

# Accepted guest images: of a tenant for its own apps, or (`tenant` is empty) of the broker for all.
reference_values = Table(
    "reference_values",
    metadata,
    Column("tenant", String(128), primary_key=True),
    Column("name", String(256), primary_key=True),
    Column("tee", String(32), primary_key=True),
    Column("registers", Text, nullable=False),
    Column("expires", BigInteger),
    Column("created", BigInteger, nullable=False),
)

# A nonce is spent in the transaction of the decision that it led to; the primary key makes it spendable once.
spent_nonces = Table(
    "spent_nonces",
    metadata,
    Column("nonce", String(64), primary_key=True),
    Column("spent", BigInteger, nullable=False),
    Index(None, "spent"),
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("time", BigInteger, nullable=False),
    Column("act", String(32), nullable=False),
    Column("genuine", Boolean, nullable=False),
    Column("allowed", Boolean, nullable=False),
    Column("app_id", _DIGEST),
    Column("manifest_digest", _DIGEST),
    Column("tee", String(32)),
    Column("resource", _PATH),
    Column("findings", Text, nullable=False),
    Index(None, "genuine", "id"),
)

# Another value whenever something changed that processes remember (`known.py`); no row as long as nothing did.
generation = Table(
    "generation",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("value", String(32), nullable=False),
)
