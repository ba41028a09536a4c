"""Verifier (RFC 9334): the relying party's side. Asks a running service for evidence and judges the answer, offline rules
and online facts apart. Starts nothing, holds no secret."""
