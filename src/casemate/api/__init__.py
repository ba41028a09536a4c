"""The broker's HTTP API: routes parse, call the broker and answer; nothing is decided here."""

from casemate.api.application import app

__all__ = ["app"]
