"""An admin's client for secrets: versions, deletion, leases, the master key. Like `brokerclient`, to a pinned key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from casemate.drivers.brokerclient import Admin, resource_path


class Secrets(Admin):
    """The admin of a broker, for everything about secrets."""

    def put(self, app_id: str, resource: str, value: bytes, *, window: int | None = None) -> int:
        """Store the next version; the one before opens for `window` seconds. Returns the version."""
        later = "" if window is None else f"&window={window}"
        answer = self._call("POST", f"{resource_path(resource)}?app={quote(app_id, safe=':')}{later}", value)
        return int(answer["version"])

    def schedule(self, resource: str, seconds: int) -> str:
        """Close a secret now and purge it in `seconds`; returns when (RFC 3339)."""
        return str(self._call("DELETE", f"{resource_path(resource)}?in={seconds}")["purged"])

    def undelete(self, resource: str) -> None:
        """Take that back."""
        self._json("POST", f"{_admin(resource)}/undelete")

    def versions(self, resource: str) -> dict[str, Any]:
        """The versions of a secret and until when each opens."""
        return self._json("GET", f"{_admin(resource)}/versions")

    def leases(self, app_id: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """The newest leases."""
        chosen = f"&app={quote(app_id, safe=':')}" if app_id else ""
        return list(self._json("GET", f"/leases?limit={limit}{chosen}")["leases"])

    def end_leases(self, **chosen: str | None) -> int:
        """End live leases by `app`, `tee`, `lease`; how many."""
        return int(self._json("POST", "/leases/end", {k: v for k, v in chosen.items() if v is not None})["ended"])

    def set_holders(self, app_id: str, most: int | None) -> None:
        """How many guests of an app may hold a lease at a time; None for any number."""
        self._json("POST", f"/apps/{quote(app_id, safe=':')}/holders", {"max_holders": most})

    def masters(self) -> dict[str, Any]:
        """The master keys, the one that seals first, and how many values are sealed under each."""
        return self._json("GET", "/master")

    def rewrap(self, limit: int = 200) -> Iterator[dict[str, Any]]:
        """Wrap everything under the present master key, a step at a time; stop and begin anew whenever you like."""
        after = ""
        while True:
            step = self._json("POST", "/master/rewrap", {"after": after, "limit": limit})
            yield step
            after = str(step["after"])
            if not after:
                return


def _admin(resource: str) -> str:
    return "/resources" + resource_path(resource).removeprefix("/kbs/v0/resource")
