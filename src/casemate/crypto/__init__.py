"""Crypto: keys, JWK, JWE and pins, on `cryptography` alone. Decides nothing; guest and broker stand on it."""
