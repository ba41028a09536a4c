"""Tables of the broker's store, continued: the transparency log."""

from __future__ import annotations
