"""Stands in for QEMU with a guest in it: the same sockets, the words of a scenario, no VM. Run as a program.

    python standin.py STEP...    hello · say:<json> · sleep:<s> · console:<text> · exit:<code> · poweroff · serve · deaf

`serve` answers the host: `stop` ends the program after a `stopped`, requests are echoed, SIGUSR1 and SIGUSR2 get
replies that the host can't pass on (too long; a number that is no JSON number for everybody). `deaf` ignores everything
but QMP's quit; `mule` ignores that too.
"""

from __future__ import annotations

import json
import selectors
import signal
import socket
import sys
import time
from pathlib import Path

from casemate.wire import frames


def listener(name: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.bind(name)
    made.listen(1)
    return made


def tell(control: socket.socket, **message: object) -> None:
    control.sendall(frames.pack(dict(message)))


def answer(control: socket.socket, message: dict) -> None:
    if message["type"] == "stop":
        tell(control, type="container", name="one", event="exited", code=0)
        tell(control, type="state", state="stopped", findings=[], message=f"grace {message['grace']:g}")
        sys.exit(0)
    wild = {"SIGUSR1": '"' + "x" * (frames.MAX_FRAME - 40) + '"', "SIGUSR2": str(2**60)}.get(message.get("signal"))
    if wild:
        text = f'{{"type":"reply","id":{message["id"]},"wild":{wild}}}'.encode()
        control.sendall(frames.MARKER + len(text).to_bytes(4, "big") + text)
        return
    tell(control, type="reply", id=message["id"], echo=message)


def serve(control: socket.socket, qmp: socket.socket, mode: str) -> None:
    reader, selector = frames.FrameReader(), selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(qmp, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is control:
                for message in reader.feed(control.recv(65536)):
                    if mode == "serve":
                        answer(control, message)
            elif mode != "mule":
                monitor(qmp)


def monitor(qmp: socket.socket) -> None:
    client, _ = qmp.accept()
    client.sendall(b'{"QMP": {"version": {}}}\n')
    stream = client.makefile("rwb")
    for line in stream:
        request = json.loads(line)
        stream.write(b'{"event": "STOP"}\n' + json.dumps({"return": {}, "id": request["id"]}).encode() + b"\n")
        stream.flush()
        if request["execute"] == "quit":
            sys.exit(0)


def main(steps: list[str]) -> None:
    if steps[-1] == "mule":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if steps[0].startswith("fail:"):
        sys.exit(steps[0][5:])
    qmp, door = listener("qmp.sock"), listener("control.sock")
    control, _ = door.accept()
    for step in steps:
        word, _, rest = step.partition(":")
        if word == "hello":
            tell(control, type="hello", version=1, agent="stand-in")
        elif word == "say":
            tell(control, **json.loads(rest))
        elif word == "raw":
            control.sendall(bytes.fromhex(rest))
        elif word == "sleep":
            time.sleep(float(rest))
        elif word == "console":
            with Path("console.log").open("a") as file:
                file.write(rest + "\n")
        elif word == "exit":
            sys.exit(int(rest))
        else:
            serve(control, qmp, word)


if __name__ == "__main__":
    main(sys.argv[1:])
