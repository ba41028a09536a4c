"""What the first tutorial needs and cannot type: a root folder with nginx, keys, a client for a self-made certificate.

python -m examples.first make FOLDER     root/, signer.pem, signer.pub, image.key, tls.pem
python -m examples.first get URL         the page, without asking who serves it (`casemate verify` does that)
"""

from __future__ import annotations

import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from examples.demo import service


def make(folder: Path) -> None:
    """Fill a new folder."""
    (folder / "root").mkdir(parents=True)
    service.build_root(folder / "root", print)
    private, public = service.signing_key()
    _, pem = service.tls_pair()
    for name, content in (("signer.pem", private), ("image.key", os.urandom(32)), ("tls.pem", pem)):
        with os.fdopen(os.open(folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(content)
    (folder / "signer.pub").write_text(public)


def get(url: str) -> str:
    """The body behind a URL; waits up to half a minute for the service."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for attempt in range(60):
        try:
            with urllib.request.urlopen(url, context=context, timeout=10) as answer:
                return str(answer.read(1 << 20), "utf-8")
        except (urllib.error.URLError, OSError):
            if attempt == 59:
                raise
            time.sleep(0.5)
    return ""


def main() -> int:
    """`make` or `get`."""
    if len(sys.argv) != 3 or sys.argv[1] not in ("make", "get"):
        print(__doc__, file=sys.stderr)
        return 2
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]))
    else:
        print(get(sys.argv[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
