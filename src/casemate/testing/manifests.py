"""A manifest with every field in use, for tests: change one thing and see what is said."""

from __future__ import annotations

import copy
from typing import Any

APP = "sha256:" + "a1" * 32
PIN = "sha256:" + "b2" * 32
IMAGE = "registry.example/shop/web@sha256:" + "c3" * 32
# The public key of RFC 6979 A.2.5, as PEM
SIGNER = """-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYP7UuhVanTHJYet0XjVtaMBJuJI7
Yfps5mliLmDyn7Z5A/4QCLi8xQa6eldWKLxk8vGyFC199n3F0iI/Z1KaKQ==
-----END PUBLIC KEY-----
"""
_DOCUMENT: dict[str, Any] = {
    "apiVersion": "casemate/v1",
    "name": "shop",
    "app": APP,
    "brokers": [{"url": "https://broker.example:8443", "key": PIN}],
    "quorum": 1,
    "signers": [{"key": SIGNER, "images": ["registry.example/shop/*"]}],
    "registries": [
        {
            "prefix": "registry.example",
            "location": "mirror.example:5000/cache",
            "credentials": "kbs:///shop/registry/login",
            "key": "sha256:" + "d4" * 32,
        },
        {"prefix": "plain.example", "location": "mirror.example:5001/cache", "insecure": True},
    ],
    "containers": [
        {
            "name": "web",
            "image": IMAGE,
            "image_keys": ["kbs:///shop/image-key/1"],
            "command": ["/usr/sbin/nginx"],
            "args": ["-g", "daemon off;"],
            "working_dir": "/srv",
            "env": [{"name": "MODE", "value": "test"}],
            "files": [{"path": "/etc/motd", "content": "hello\n", "mode": "0644"}],
            "secrets": [
                {"resource": "kbs:///shop/tls/key", "file": "/run/secrets/tls", "mode": "0440", "signal": "SIGHUP"},
                {"resource": "kbs:///shop/api/token", "env": "TOKEN"},
            ],
            "user": "101:101",
            "capabilities": ["CAP_NET_BIND_SERVICE"],
            "read_only_root": False,
            "mounts": [{"volume": "data", "path": "/var/lib/shop", "read_only": True}],
            "tmpfs": ["/tmp"],  # noqa: S108 - a path inside the container
            "ports": [{"container": 8443, "protocol": "tcp", "tls": True}],
            "restart": "on-failure",
            "limits": {"memory_mib": 64, "pids": 32, "cpus": 0.5},
            "api": {"resources": ["kbs:///shop/page/line"], "token": True, "evidence": True},
            "stop_signal": "SIGQUIT",
        }
    ],
    "volumes": [{"name": "data", "app": APP, "key": "kbs:///shop/volume/data", "minimum_mib": 64}],
    "host": {"logs": True, "exec": True, "signals": ["SIGUSR1"]},
    "minimum": {"cpus": 2, "memory_mib": 512},
}


def document(**changes: Any) -> dict[str, Any]:
    """A fresh copy of the document; `changes` replace top-level fields."""
    return {**copy.deepcopy(_DOCUMENT), **changes}
