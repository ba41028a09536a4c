"""The guest image: built from locked packages, the same bytes everywhere, with its expected measurements beside it."""

from __future__ import annotations

from casemate.host.guestimage.builder import build, build_into, ensure, relock_all
from casemate.host.guestimage.image import GuestImage, load

__all__ = ["GuestImage", "build", "build_into", "ensure", "load", "relock_all"]
