"""Broker: the key service. Judges evidence, keeps apps, releases, secrets and volume records."""
