"""Whether the broker at HOST:PORT is the workload that it should be, and works.

    python catalog/broker/smoke.py HOST:PORT APP_ID

1. `casemate verify --service`: its evidence is genuine and over the TLS key that it shows (trust file as usual).
2. Under that key, and no other: it is ready, it says which key signs its tokens, and a challenge is asked and given.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from casemate.drivers import http


def main(endpoint: str, app_id: str) -> int:
    """Print what was found; 0 when everything is as it should be."""
    said = verified(endpoint, app_id)
    if said.get("verdict") != "accepted":
        print(json.dumps(said, indent=2))
        return 1
    found = asked(f"https://{endpoint}", said["tls_key"])
    print(json.dumps({"tls_key": said["tls_key"], "tee": said["tee"], **found}, indent=2))
    return 0


def verified(endpoint: str, app_id: str) -> dict[str, Any]:
    """What `casemate verify --service` says."""
    argv = [sys.executable, "-m", "casemate", "verify", "--service", endpoint, "--app", app_id, "--json"]
    document: dict[str, Any] = json.loads(subprocess.run(argv, stdout=subprocess.PIPE, check=False).stdout)
    return document


def asked(url: str, pin: str) -> dict[str, Any]:
    """Readiness, the signing key and a challenge, under the key that evidence vouched for."""
    ready = http.request("GET", f"{url}/readyz", pin=pin, timeout=60)
    info = http.request("GET", f"{url}/casemate/v0/info", pin=pin, timeout=60).json()
    body = json.dumps({"version": "0.4.0", "tee": "tpm", "extra-params": {}}).encode()
    challenge = http.request("POST", f"{url}/kbs/v0/auth", body=body, pin=pin, timeout=60)
    if ready.status != 200 or challenge.status != 200 or info["key_pin"] != pin:
        raise SystemExit(f"not as it should be: ready {ready.status}, challenge {challenge.status}, {info['key_pin']}")
    return {"ready": ready.json()["checks"], "signing_key": info["signing_key"]}


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    sys.exit(main(*sys.argv[1:]))
