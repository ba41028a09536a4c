"""The broker's store: SQLAlchemy Core on SQLite (default) or PostgreSQL, migrated when it is opened."""

from casemate.drivers.store.engine import AlreadySpent, Store

__all__ = ["AlreadySpent", "Store"]
