"""Tables of the broker's store, continued: tenants, admins and approvals."""

from __future__ import annotations
