"""Where the agent finds its things. The defaults are the guest's; tests give other folders and another collector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from typing import IO

    from casemate.drivers.crun import Output
    from casemate.guest.attest import Attester

AGENT = "casemate-guest/0.1"


class Runtime(Protocol):
    """What runs containers (`casemate.drivers.crun.Crun`)."""

    def run(self, name: str, bundle: Path, stdout: IO[bytes], stderr: IO[bytes]) -> int:
        """Start; the process id of the first process, which is our child."""
        ...

    def kill(self, name: str, signal: int) -> None:
        """Signal every process of the container."""
        ...

    def delete(self, name: str) -> None:
        """Forget an ended container."""
        ...

    def execute(self, name: str, command: tuple[str, ...], *, timeout: float, limit: int) -> Output:
        """Run a command in a running container."""
        ...


@dataclass(frozen=True)
class Settings:
    """`run` is the agent's folder on tmpfs.

    `control`: path of the control port, None to look for it. `attester`: where evidence comes from, None for the TEE
    that is found. `runtime`: None for crun. `pull`: None for the registry client. `overlay` and `firewall` are off only
    where tests run the agent as an ordinary process. `silence_seconds`: the workload ends when for so long no broker
    has said that its release is active.
    """

    run: Path = Path("/run/casemate")
    control: Path | None = None
    attester: Attester | None = None
    runtime: Runtime | None = None
    pull: Callable[..., Any] | None = None
    overlay: bool = True
    firewall: bool = True
    refresh_seconds: float = 5.0
    silence_seconds: float = 600.0
    attempts: int = 6
    backoff: float = 0.5

    @property
    def initdata(self) -> Path:
        """The document that the initrd hashed and bound."""
        return self.run / "initdata.toml"
