"""Alembic migrations, run by `Store.open`; one file a step, never edited after a release."""
