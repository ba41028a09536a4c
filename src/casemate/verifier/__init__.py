"""Verifier (RFC 9334): the relying party's side. Asks a running service for evidence and judges the answer.

Starts nothing and holds no secret.
"""
