"""Refusals by meaning, so that a door can answer with the right status without knowing a rule."""

from __future__ import annotations

from casemate.errors import CasemateError, Refused


class Unauthenticated(Refused):
    """The caller did not prove who it is: no session, an expired one, evidence that is not genuine (401)."""


class Conflicting(Refused):
    """The request fights with what is recorded already (409)."""


class Missing(CasemateError):
    """Allowed, but there is nothing (404). Asked only after policy, so that absence tells strangers nothing."""


class NoPath(CasemateError):
    """A path that names nothing and never could (404, InvalidRequestPath)."""
