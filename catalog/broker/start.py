"""The first process of the broker's container: keys in the encrypted volume, once; then the broker in its place.

Who administers it is told by a secret, the public key in /run/secrets/admin.pub: no private key of an admin is made
here that could do anything. Settings of the operator's (TOML) may come as another secret, /run/secrets/broker.toml.
"""

import os
import sys
import tomllib
from pathlib import Path

sys.path.insert(0, "/opt/broker/site")

FOLDER = Path("/var/lib/casemate/broker")
SECRETS = Path("/run/secrets")
AGENT = Path("/run/casemate/api.sock")


def main() -> None:
    """Prepare and run."""
    from casemate.broker import prepare, settings
    from casemate.broker.assemble import ADMIN_PUBLIC
    from casemate.cli import casemate
    from casemate.drivers import keyfiles

    os.umask(0o077)
    FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
    keyfiles.write(FOLDER / ADMIN_PUBLIC, (SECRETS / "admin.pub").read_bytes())
    given = SECRETS / "broker.toml"
    chosen: dict[str, object] = {"host": "0.0.0.0", "port": 8443}  # noqa: S104 - a container of its own
    if AGENT.exists():
        chosen["agent_socket"] = str(AGENT)
    chosen.update(tomllib.loads(given.read_text()) if given.exists() else {})
    keyfiles.write(FOLDER / settings.FILE, settings.as_toml(chosen).encode())
    # The private key that `prepare` makes for a folder without one opens nothing: admin.pub is another's.
    prepare.prepare(FOLDER, Path("/tmp/unused.key"))  # noqa: S108 - a tmpfs of this container alone
    casemate(["serve", "--home", str(FOLDER)])


main()
