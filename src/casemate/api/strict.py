"""Trustee's ways, where they differ from ours: the names of its errors, and, with `strict_trustee`, its statuses.

Standard: trustee, kbs/src/error.rs at 0.20: every error is 401, but for a path that is none and a plugin that is not
there, which are 404. Its clients begin anew after a 401 and give up after anything else, so that our statuses by
meaning save them attempts; `strict_trustee` is for clients and tests that know no others.
"""

from __future__ import annotations

from starlette.requests import Request

PREFIX = "/kbs/v0/"
BUILTIN = ("auth", "attest", "resource", "reference-value", "attestation-policy", "resource-policy")
_NOT_FOUND = ("InvalidRequestPath", "PluginNotFound")
# Bounds of the server, which no handler of Trustee's speaks of.
_SERVER = (408, 413, 429, 431)
_NAMES = {
    "ResourceNotFound": "PluginInternalError",
    "Conflict": "PluginInternalError",
    "InvalidRequest": "SerdeError",
    "StorageBackendUnavailable": "PluginInternalError",
    "Internal": "PluginInternalError",
}
_ATTESTING = ("auth", "attest")
_ABOUT_VALUES = ("PolicyDeny", "ResourceNotFound", "InvalidRequest", "SerdeError")


def named(request: Request, status: int, name: str) -> tuple[int, str]:
    """Status and variant to answer an error of this request with."""
    path = request.url.path
    if not path.startswith(PREFIX):
        return status, name
    first = path.removeprefix(PREFIX).split("/")[0]
    if first == "reference-value" and name in _ABOUT_VALUES:
        name = "RvpsError"
    if not getattr(request.app.state, "strict", False) or status in _SERVER:
        return status, name
    if name in _NOT_FOUND:
        return 404, name
    name = "AttestationError" if first in _ATTESTING and name == "PolicyDeny" else _NAMES.get(name, name)
    return 401, name


def missing(path: str) -> str:
    """The variant for a path without a route: another plugin than ours, or a path that is none."""
    first = path.removeprefix(PREFIX).split("/")[0] if path.startswith(PREFIX) else ""
    return "PluginNotFound" if first and first not in BUILTIN else "InvalidRequestPath"
