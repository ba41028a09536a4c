"""A real Chromium without a window, driven over two pipes by the DevTools protocol. No driver program is needed.

Messages are JSON, each ended by a zero byte: the browser reads them from its descriptor 3 and writes to 4.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

from casemate.testing import programs

_SECONDS = 60.0
_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # tests may run as root, where Chromium's own sandbox refuses to work
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--ignore-certificate-errors",  # the broker's certificate is its own
)


class Browser:
    """One page in one browser. `requests` are the URLs that it asked for, `errors` what its console complained of."""

    def __init__(self, folder: Path) -> None:
        told, listen = os.pipe(), os.pipe()
        starter = programs.find("chromium")
        argv = [str(starter), *_FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
        script = f'exec "$@" 3<&{told[0]} 4>&{listen[1]}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", *argv],
            pass_fds=(told[0], listen[1]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(folder)},
        )
        os.close(told[0])
        os.close(listen[1])
        self._out, self._in, self._rest, self._number, self._session = told[1], listen[0], b"", 0, ""
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._loaded = False
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = str(self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **given: Any) -> dict[str, Any]:
        """A command of the protocol and its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": given}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        ends = time.monotonic() + _SECONDS
        while True:
            got = self._next(ends)
            if got.get("id") == self._number:
                if "error" in got:
                    raise RuntimeError(f"{method}: {got['error']}")
                result: dict[str, Any] = got["result"]
                return result

    def go(self, url: str) -> None:
        """Load a page."""
        self._wait(lambda: self.ask("Page.navigate", url=url))

    def submit(self, script: str) -> None:
        """Run a script that leaves the page, and wait for the next one."""
        self._wait(lambda: self.run(script))

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        got = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in got:
            raise RuntimeError(str(got["exceptionDetails"]))
        return got["result"].get("value")

    def type(self, text: str) -> None:
        """Text into what has the focus."""
        self.ask("Input.insertText", text=text)

    def press(self, key: str, code: int) -> None:
        """A key, by its name and number."""
        for kind in ("keyDown", "keyUp"):
            given = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
            if key == "Enter" and kind == "keyDown":
                given["text"] = "\r"
            self.ask("Input.dispatchKeyEvent", **given)

    @property
    def text(self) -> str:
        """The page's text as people see it."""
        return str(self.run("document.body.innerText"))

    def close(self) -> None:
        """End the browser."""
        self._process.kill()
        self._process.wait(20)
        os.close(self._out)
        os.close(self._in)

    def _wait(self, act: Any) -> None:
        self._loaded = False
        act()
        ends = time.monotonic() + _SECONDS
        while not self._loaded:
            self._next(ends)

    def _next(self, ends: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._in], [], [], max(0.0, ends - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            more = os.read(self._in, 1 << 16)
            if not more:
                raise RuntimeError("the browser ended")
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        got: dict[str, Any] = json.loads(message)
        self._note(got.get("method", ""), got.get("params", {}))
        return got

    def _note(self, event: str, given: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Network.requestWillBeSent":
            self.requests.append(str(given["request"]["url"]))
        elif event == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.errors.append(str(given["entry"]["text"]))
        elif event == "Runtime.exceptionThrown":
            self.errors.append(str(given["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning"):
            self.errors.append(str(given["args"]))
