"""`casemate keyprovider`: the program that skopeo, buildah and podman ask to wrap and unwrap layer keys (ocicrypt)."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from casemate.cli import image_arguments as shared
from casemate.errors import Unusable


@click.command()
@click.option("--key", "keys", multiple=True, metavar="URI=FILE", help="A key to use where no keypath is given.")
def keyprovider(keys: tuple[str, ...]) -> None:
    """Answer one ocicrypt key-provider request: JSON on stdin, JSON on stdout.

    Name it in the file that OCICRYPT_KEYPROVIDER_CONFIG points to:

    \b
      {"key-providers": {"attestation-agent": {"cmd": {"path": "casemate", "args": ["keyprovider"]}}}}
      skopeo copy --encryption-key \\
        provider:attestation-agent:keyid=kbs:///a/b/c::keypath=key.bin oci:app oci:sealed
      skopeo copy --decryption-key provider:attestation-agent:keypath=key.bin oci:sealed oci:app
    """  # noqa: D301 - click's mark for text that keeps its lines is a backspace
    from casemate.image import keyprovider as protocol

    files = {uri: Path(file) for uri, _, file in (text.rpartition("=") for text in keys)}

    def key(uri: str, given: dict[str, str]) -> bytes:
        if given.get("keyid", uri) != uri:
            raise Unusable(f"the layer's key is {uri}, the caller offers {given['keyid']}")
        path = Path(given["keypath"]) if "keypath" in given else files.get(uri)
        if path is None:
            raise Unusable(f"no key file for {uri}", hint=f"keypath=FILE, or casemate keyprovider --key {uri}=FILE")
        return shared.key_file(path)

    request = sys.stdin.buffer.read(protocol.MAX_REQUEST + 1)
    sys.stdout.buffer.write(protocol.answer(request, key))
    sys.stdout.buffer.flush()
