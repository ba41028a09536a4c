"""Vendors made for tests: real formats, real signatures, throw-away roots. Never trusted unless a test anchors them."""
