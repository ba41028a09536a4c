"""`casemate image`: make images and look at them, from a folder to a registry and back."""

from __future__ import annotations

import click

from casemate.cli import LazyGroup

COMMANDS = {
    "build": ("casemate.cli.image_make:build", "Make an image from folders, tars or another image."),
    "encrypt": ("casemate.cli.image_make:encrypt", "Encrypt an image's layers for the holders of a key."),
    "inspect": ("casemate.cli.image_move:inspect", "Show an image of a layout or registry."),
    "pull": ("casemate.cli.image_move:pull", "Verify, decrypt and unpack an image, as a guest does."),
    "push": ("casemate.cli.image_move:push", "Push an image and its signatures to a registry."),
    "sign": ("casemate.cli.image_move:sign", "Sign an image in cosign's form."),
}


@click.group(cls=LazyGroup, table=COMMANDS, no_args_is_help=True)
def image() -> None:
    """Build, encrypt, sign, push, inspect and pull images.

    Images are folders in the OCI layout until they are pushed: FOLDER, or FOLDER:NAME where it holds several.
    """
