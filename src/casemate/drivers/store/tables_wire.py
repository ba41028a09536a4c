"""Tables of the broker's store, continued: reference values as the key broker protocol registers them."""

from __future__ import annotations
