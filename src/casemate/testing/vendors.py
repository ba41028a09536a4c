"""Vendors' services on loopback, over HTTPS, with a fake vendor's material: AMD's KDS and Intel's PCS.

with VendorServer(answers=amd(chip) | intel(platform)) as server:
    settings = server.settings(folder)                   # a collateral.toml with this server as every mirror
    server.answers[url] = Answer(status=429, headers={"Retry-After": "1"})
"""

from __future__ import annotations

import json
import ssl
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from casemate.crypto import pins, selfsigned
from casemate.tee.snp.report import Tcb
from casemate.testing import pki
from casemate.testing.dcap import FMSPC, FakePlatform
from casemate.testing.snp import FakeChip

AMD, INTEL = "https://kdsintf.amd.com", "https://api.trustedservices.intel.com"
INTEL_CERTIFICATES = "https://certificates.trustedservices.intel.com"


@dataclass
class Answer:
    """One answer. `cut` bytes of the body are missing; `delay` are seconds before it; `times` after which it is over.

    `then` is what is answered afterwards.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    delay: float = 0.0
    times: int = 1 << 30
    then: Answer | None = None


def amd(chip: FakeChip) -> dict[str, Answer]:
    """What AMD's service answers about a chip."""
    kind = "vlek" if chip.vlek else "vcek"
    base = f"{AMD}/{kind}/v1/{chip.product}"
    leaf, *authorities = (der for _, der in chip.chain)
    found = {
        f"{base}/cert_chain": Answer(pki.pem(*authorities)),
        f"{base}/crl": Answer(chip.ark.crl(start=datetime(2026, 1, 1, tzinfo=UTC), end=pki.END)),
    }
    if not chip.vlek:
        identity = chip.chip_id[: 8 if chip.product == "Turin" else 64].hex()
        found[f"{base}/{identity}?{_levels(chip.tcb)}"] = Answer(leaf)
    return found


def intel(platform: FakePlatform) -> dict[str, Answer]:
    """What Intel's service answers about a platform: documents in their envelopes, issuer chains in headers."""
    base, documents = f"{INTEL}/{platform.tee}/certification/v4", platform.collateral
    crl = f"{INTEL}/sgx/certification/v4/pckcrl?ca=platform&encoding=der"
    return {
        f"{base}/tcb?fmspc={FMSPC.hex()}": _signed(documents, "tcb_info", "tcbInfo", "TCB-Info-Issuer-Chain"),
        f"{base}/qe/identity": _signed(
            documents, "qe_identity", "enclaveIdentity", "SGX-Enclave-Identity-Issuer-Chain"
        ),
        crl: Answer(
            documents["pck_crl"], headers={"SGX-PCK-CRL-Issuer-Chain": quote(documents["pck_crl_issuer_chain"])}
        ),
        f"{INTEL_CERTIFICATES}/IntelSGXRootCA.der": Answer(documents["root_ca_crl"]),
    }


class VendorServer:
    """A server that plays every vendor: the path begins with the host that is meant. `asked` are (time, URL)."""

    def __init__(self, answers: dict[str, Answer] | None = None) -> None:
        self.answers = dict(answers or {})
        self.asked: list[tuple[float, str]] = []
        self._key = ec.generate_private_key(ec.SECP256R1())
        made = selfsigned.certificate(self._key, ("localhost", "127.0.0.1"), datetime.now(UTC))
        self.ca = made.public_bytes(serialization.Encoding.PEM)
        self.pin = pins.certificate_pin(made.public_bytes(serialization.Encoding.DER))
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.socket = self._tls().wrap_socket(self._http.socket, server_side=True)
        self.url = f"https://localhost:{self._http.server_address[1]}"

    def __enter__(self) -> VendorServer:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def settings(self, folder: Path, *, gap: float = 0.0, pinned: bool = False, **options: float) -> Path:
        """A settings file in `folder` that has this server in place of each vendor's service."""
        (folder / "ca.pem").write_bytes(self.ca)
        trust = f'pin = "{self.pin}"' if pinned else 'ca = "ca.pem"'
        lines = [f"{name} = {value}" for name, value in options.items()]
        for base in sorted({f"https://{urlsplit(url).netloc}" for url in (AMD, INTEL, INTEL_CERTIFICATES)}):
            mirror = f"{self.url}/{urlsplit(base).netloc}"
            lines += ["[[service]]", f'base = "{base}"', f'mirror = "{mirror}"', trust, f"gap_seconds = {gap}"]
        path = folder / "collateral.toml"
        path.write_text("\n".join(lines) + "\n", encoding="ascii")
        return path

    def _tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        private = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with tempfile.NamedTemporaryFile() as file:
            file.write(private + self.ca)
            file.flush()
            context.load_cert_chain(file.name)
        return context

    def _answer(self, path: str) -> Answer:
        url = "https:/" + path
        self.asked.append((time.monotonic(), url))
        found = self.answers.get(url, Answer(b"no such thing", status=404))
        if found.times <= 0 and found.then is not None:
            self.answers[url] = found = found.then
        found.times -= 1
        return found

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - the handler's own self is below
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = server._answer(self.path)
                time.sleep(answer.delay)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body[: len(answer.body) - answer.cut])

            def log_message(self, *_: object) -> None:
                """Nothing: tests read `asked`."""

        return Handler


def _signed(documents: dict[str, bytes], name: str, member: str, header: str) -> Answer:
    signature = json.dumps(documents[f"{name}_signature"].hex()).encode()
    body = b'{"' + member.encode() + b'":' + documents[name] + b',"signature":' + signature + b"}"
    return Answer(body, headers={header: quote(documents[f"{name}_issuer_chain"])})


def _levels(tcb: Tcb) -> str:
    first = "" if tcb.fmc is None else f"fmcSPL={tcb.fmc:02}&"
    return f"{first}blSPL={tcb.bootloader:02}&teeSPL={tcb.tee:02}&snpSPL={tcb.snp:02}&ucodeSPL={tcb.microcode:02}"


def main(arguments: list[str]) -> None:
    """`python -m casemate.testing.vendors FOLDER`: evidence, its root, settings; serves until it is stopped."""
    from casemate.schema.request import Request

    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    chip = FakeChip()
    (folder / "report.bin").write_bytes(chip.report(Request(report_data=bytes(64))))
    (folder / "root.pem").write_bytes(pki.pem(chip.ark.certificate))
    with VendorServer(amd(chip)) as server:
        server.settings(folder)
        threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
