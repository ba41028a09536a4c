"""Tables of the broker's store, continued: policies and recorded attestations."""

from __future__ import annotations
