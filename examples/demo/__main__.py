"""`make demo`: the whole path on this machine, real at every step; exit 0 only if all of it was as it should be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from casemate.drivers import paths
from casemate.errors import CasemateError
from examples.demo import refusals, steps
from examples.demo.story import Failed, Story, casemate

STEPS = [
    ("guest image and its expected measurements", steps.guest_image),
    ("trust service and registry on loopback", steps.trust_domain),
    ("nginx from Debian packages: build, encrypt, sign, push", steps.image),
    ("found an app, release its manifest, store its secrets", steps.found_and_release),
    ("run: measured boot, attestation, keys, pull, volume, page", steps.run),
    ("a stranger's check of the running service", steps.check),
    ("restart keeps the volume; a new secret arrives", steps.restart_and_update),
    ("what is refused, and why", refusals.all_refusals),
]


def main() -> int:
    """Run the steps in order; the first that fails ends the story, and everything it started is stopped."""
    home = paths.home()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    forget_killed(home)
    work = Path(tempfile.mkdtemp(prefix=f"demo-{os.getpid()}-", dir=home))
    story = Story(home)
    stage = steps.Stage(story, work)
    interrupted = False
    try:
        for title, step in STEPS:
            with story.step(title):
                step(stage)
    except (Failed, CasemateError, OSError, subprocess.SubprocessError) as error:
        print(f"\n    {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\n    interrupted; stopping what was started", file=sys.stderr)
        interrupted = True
    finally:
        tidy(stage)
    code = story.finish()
    return 130 if interrupted else code


def forget_killed(home: Path) -> None:
    """Remove the folders of demos that were killed: they hold keys."""
    for folder in home.glob("demo-*-*"):
        owner = folder.name.split("-")[1]
        if folder.is_dir() and not (owner.isdigit() and Path("/proc", owner).exists()):
            shutil.rmtree(folder, ignore_errors=True)


def tidy(stage: steps.Stage) -> None:
    """Remove what this run made and nothing else: its workloads with their volumes, its folder, the domain it began."""
    for name in stage.workloads:
        casemate("rm", name, "--force", "--volumes", may_fail=True)
    if stage.began_domain and not os.environ.get("CASEMATE_DEMO_KEEP"):
        casemate("down", may_fail=True)
    shutil.rmtree(stage.work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
