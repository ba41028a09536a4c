"""Tables of the broker's store, continued: tenants, admins, approvals, token keys, audiences."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, LargeBinary, String, Table, Text

from casemate.drivers.store.tables import metadata

# `*` is the broker itself. `settings` is JSON: `casemate.schema.tenant`.
tenants = Table(
    "tenants",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("settings", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("changed", BigInteger, nullable=False),
)

# Who an admin is (`who`, `issuer#subject`) and by what it is found: `key:` and a thumbprint, `certificate:` and a
# fingerprint, `subject:` and digests of a CA and a name, `token:` and `who`. `credential` is what a person may read:
# the key in PEM, the certificate's subject.
admins = Table(
    "admins",
    metadata,
    Column("who", String(512), primary_key=True),
    Column("known_by", String(600), nullable=False),
    Column("credential", Text, nullable=False),
    Column("role", String(16), nullable=False),
    Column("tenant", String(128)),
    Column("created", BigInteger, nullable=False),
    Index(None, "known_by", unique=True),
)

# A change that waits for a second owner; `sealed` holds it whole, `digest` is what both of them agree on.
approvals = Table(
    "approvals",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(128)),
    Column("act", String(64), nullable=False),
    Column("digest", String(71), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("who", String(512), nullable=False),
    Column("state", String(16), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("decider", String(512)),
    Column("decided", BigInteger),
    Column("outcome", Text),
    Index(None, "state", "expires"),
)

# Keys that sign tokens, by the name of the shared key. Each signs from `begun` until the next one begins.
signing_keys = Table(
    "signing_keys",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("begun", BigInteger, nullable=False),
    Column("created", BigInteger, nullable=False),
)

# For whom an app's guests may get tokens.
audiences = Table(
    "audiences",
    metadata,
    Column("app_id", String(71), ForeignKey("apps.app_id"), primary_key=True),
    Column("audience", String(256), primary_key=True),
)
