"""The demo's service: nginx from Debian packages, a page over TLS whose key and last line are secrets."""

from __future__ import annotations

import datetime
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from examples.demo import packages

USER = "101:101"
PORT = 8443

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>A page from a casemate</title></head>
<body><h1>It works</h1>
<p>The host carried this image, and could not read it.</p>
<p>The secret line: <!--#include virtual="/secret" --></p></body></html>
"""

NGINX = f"""# The whole configuration; what is writable lies in tmpfs, secrets arrive under /run/secrets.
daemon off;
worker_processes 1;
pid /tmp/nginx.pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
  access_log off;
  server_tokens off;
  client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi; uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
  server {{
    listen {PORT} ssl;
    ssl_protocols TLSv1.3;
    ssl_certificate /run/secrets/tls.pem;
    ssl_certificate_key /run/secrets/tls.pem;
    location / {{ root /srv/www; index index.html; ssi on; ssi_silent_errors off; }}
    location = /secret {{ internal; alias /run/secrets/line; }}
    location /data/ {{ root /srv; dav_methods PUT; create_full_put_path off; client_max_body_size 64k; }}
    location /.well-known/casemate/ {{ proxy_pass http://unix:/run/casemate/api.sock; proxy_read_timeout 60s; }}
  }}
}}
"""


def build_root(target: Path, say: Callable[[str], None]) -> None:
    """Unpack nginx and what it needs into `target`, add page and configuration; only what the service uses."""
    packages.unpack(target, say)
    for name in (
        "usr/share/doc",
        "usr/share/man",
        "usr/share/locale",
        "usr/share/lintian",
        "usr/lib/x86_64-linux-gnu/gconv",
        "var/lib/dpkg",
    ):
        shutil.rmtree(target / name, ignore_errors=True)
    for folder in ("srv/www", "srv/data", "run/secrets", "run/casemate", "tmp", "proc", "sys", "dev"):
        (target / folder).mkdir(parents=True, exist_ok=True)
    (target / "srv/www/index.html").write_text(PAGE)
    shutil.rmtree(target / "etc/nginx", ignore_errors=True)
    (target / "etc/nginx").mkdir(parents=True)
    (target / "etc/nginx/nginx.conf").write_text(NGINX)
    (target / "etc/passwd").write_text("root:x:0:0::/:/usr/sbin/nologin\nweb:x:101:101::/:/usr/sbin/nologin\n")
    (target / "etc/group").write_text("root:x:0:\nweb:x:101:\n")


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A build folder, on a RAM disk where there is one: file creation on some root disks is slow."""
    ram = Path("/dev/shm")
    return tempfile.TemporaryDirectory(prefix="casemate-demo-", dir=ram if ram.is_dir() else None)


def tls_pair(name: str = "demo.example") -> tuple[bytes, bytes]:
    """(certificate PEM, certificate and key in one PEM) of a new self-signed key for the service."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem, pem + private


def signing_key() -> tuple[bytes, str]:
    """(private key PEM, public key PEM) for signing images."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public.decode()


def manifest(
    *, app: str, broker: dict[str, str], registry: dict[str, str], image: str, signer: str, repository: str
) -> dict[str, object]:
    """The web service's manifest as a document."""
    return {
        "apiVersion": "casemate/v1",
        "name": "web",
        "app": app,
        "brokers": [{"url": broker["guest_url"], "key": broker["pin"]}],
        "signers": [{"key": signer, "images": [f"{registry['host']}/demo/*"]}],
        "registries": [{"prefix": registry["host"], "location": registry["guest_host"], "insecure": True}],
        "containers": [
            {
                "name": "nginx",
                "image": image,
                "image_keys": [f"kbs:///{repository}/image-key/1"],
                "command": ["/usr/sbin/nginx", "-e", "stderr", "-c", "/etc/nginx/nginx.conf"],
                "user": USER,
                "tmpfs": ["/tmp"],
                "secrets": [
                    {"resource": f"kbs:///{repository}/tls/server", "file": "/run/secrets/tls.pem", "signal": "SIGHUP"},
                    {"resource": f"kbs:///{repository}/page/line", "file": "/run/secrets/line", "signal": "SIGHUP"},
                ],
                "mounts": [{"volume": "data", "path": "/srv/data"}],
                "ports": [{"container": PORT, "tls": True}],
                "restart": "on-failure",
                "api": {"evidence": True},
            }
        ],
        "volumes": [{"name": "data", "app": app, "key": f"kbs:///{repository}/volume-key/data", "minimum_mib": 32}],
    }


def write(document: dict[str, object], path: Path) -> Path:
    """Write a manifest as YAML."""
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path
