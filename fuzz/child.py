"""One target in a process of its own: libFuzzer ends the process that it runs in.

python -m fuzz.child NAME FOLDER SECONDS     fuzz; corpus and artefacts are below FOLDER
python -m fuzz.child NAME --once FILE        run one input and print its CPU seconds
"""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

from fuzz.target import Target, find, guarded

GROWTH_MIB = 200  # what parsing may add to the memory of a process that has everything imported
TIMEOUT = 1


def main(arguments: list[str]) -> None:
    """See the module's head."""
    target = find(arguments[0])
    if arguments[1] == "--once":
        print(once(target, Path(arguments[2])))
        return
    import atheris

    with atheris.instrument_imports(include=["casemate"]):
        run = guarded(target)
    folder = Path(arguments[1])
    corpus = seeded(target, folder / "corpus")
    options = [
        f"-max_total_time={int(arguments[2])}",
        f"-timeout={TIMEOUT}",
        f"-rss_limit_mb={rss_mib() + GROWTH_MIB}",
        f"-max_len={target.longest}",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
        "-reload=0",
    ]
    atheris.Setup([target.name, str(corpus), *options], run, enable_python_coverage=True)
    atheris.Fuzz()


def seeded(target: Target, corpus: Path) -> Path:
    """The corpus with the seeds in it, which must be good: a seed that is refused tests nothing."""
    corpus.mkdir(parents=True, exist_ok=True)
    run = target.make()
    for seed in target.seeds():
        run(seed)
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    return corpus


def rss_mib() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 >> 20


def once(target: Target, path: Path) -> float:
    """CPU seconds of one input."""
    run, data = guarded(target), path.read_bytes()
    begun = time.process_time()
    run(data)
    return time.process_time() - begun


if __name__ == "__main__":
    main(sys.argv[1:])
