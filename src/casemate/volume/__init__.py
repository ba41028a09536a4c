"""Volumes: the tables, keys and record of an encrypted, authenticated volume. Pure; the guest's drivers act."""
