"""The broker's store: SQLAlchemy Core on SQLite (default) or PostgreSQL, migrated when it is opened."""

from casemate.drivers.store import tables_access, tables_log, tables_policy, tables_secrets, tables_wire
from casemate.drivers.store.engine import AlreadySpent, Store

TABLES = (tables_log, tables_secrets, tables_access, tables_policy, tables_wire)  # beside `tables`, on its metadata

__all__ = ["AlreadySpent", "Store", "TABLES"]
