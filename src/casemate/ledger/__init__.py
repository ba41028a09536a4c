"""Ledger: left empty for transparency logs and governance; releases stand in the broker's store until then."""
