"""`casemate verify PATH...`: the options of that form and what is made of them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from casemate.cli import output

if TYPE_CHECKING:
    from casemate.policy.document import Policy
    from casemate.verifier.anchors import Own
    from casemate.verifier.files import Judge, Question
    from casemate.verifier.result import Result

_FILE = click.Path(path_type=Path)
_MAX_REPORT_DATA = 1024
_MAX_SMALL = 1 << 20
_ISSUER = "casemate-verify"


def options() -> list[click.Parameter]:
    """The options of this form of the command."""
    option = click.Option
    return [
        option(["--tee"], metavar="TEE", help="The evidence to judge, where the files hold that of several TEEs."),
        option(["--at"], metavar="TIME", help="Judge as of this instant (ISO 8601, UTC unless it says); default: now."),
        option(["--report-data"], metavar="HEX", help="What the evidence must answer: the nonce or the bound data."),
        option(["--device-report-data"], metavar="HEX", help="What evidence of devices must answer, likewise."),
        option(["--initdata"], type=_FILE, help="The initdata document that the guest must have been launched with."),
        option(["--reference", "references"], type=_FILE, multiple=True, help="Reference values; repeatable."),
        option(
            ["--reference-key", "reference_keys"], type=_FILE, multiple=True,
            help="Whom to believe about them: a key, certificate, did or identity; repeatable.",
        ),
        option(["--policy"], type=_FILE, help="A policy file; --show-policy prints the default one."),
        option(["--accept-tcb"], multiple=True, metavar="STATUS", help="Also accept this TCB status; repeatable."),
        option(["--accept"], multiple=True, metavar="RULE", help="Accept a caution by its rule's name; repeatable."),
        option(["--anchor", "anchors"], type=_FILE, multiple=True, help="Also trust this root, or key; repeatable."),
        option(
            ["--anchor-class"], type=click.Choice(["development", "production"]), default="development",
            help="The class of platforms that --anchor may vouch for.",
        ),
        option(["--ear"], type=_FILE, metavar="KEYFILE", help="Also print the result as a token signed by this key."),
        option(["--show-policy"], is_flag=True, help="Print the policy in force and stop."),
    ]  # fmt: skip


def run(*, paths: tuple[Path, ...], as_json: bool, show_policy: bool, ear: Path | None, **given: Any) -> int:
    """Judge and print; the exit code. Every error of the input is a result too."""
    import warnings

    from casemate.cli import verifyview
    from casemate.errors import CasemateError
    from casemate.verifier import files
    from casemate.verifier.result import UNUSABLE, Result

    warnings.simplefilter("ignore")  # of libraries about odd certificates: what matters of them is a rule
    token = ""
    try:
        if show_policy:
            return _show(_policy(given), as_json=as_json)
        result = files.verify_paths(paths, _question(given))
        token = _token(result, ear) if ear else ""
    except CasemateError as error:
        result = Result(UNUSABLE, datetime.now(UTC), reason=str(error), hint=error.hint)
    found = verifyview.as_json(result, token)
    output.emit(found, as_json=as_json, text=lambda: verifyview.page(result, token))
    return result.exit_code


def _show(policy: Policy, *, as_json: bool) -> int:
    from casemate.policy import document

    text = document.write(policy)
    output.emit({"policy": text}, as_json=as_json, text=lambda: click.echo(text, nl=False))
    return 0


def _question(given: dict[str, Any]) -> Question:
    from casemate.drivers.collateral import Store
    from casemate.errors import Unusable
    from casemate.tee import ROOMS
    from casemate.verifier.files import Question
    from casemate.verifier.reading import read_file

    now, policy, tee = _moment(given["at"]), _policy(given), given["tee"] or ""
    if tee and tee not in ROOMS:
        raise Unusable(f"TEE {tee[:32]!r} is not known", hint="known: " + ", ".join(sorted(ROOMS)))
    return Question(
        now=now,
        tee=tee,
        report_data=_report_data(given["report_data"]),
        device_report_data=_report_data(given["device_report_data"], "--device-report-data"),
        initdata=read_file(given["initdata"], _MAX_SMALL) if given["initdata"] else None,
        policy=policy,
        own=_own(given["anchors"], given["anchor_class"]),
        judges=_judges(given, policy, now),
        fetch=Store(given["collateral"]).fetch if given["collateral"] else None,
    )


def _policy(given: dict[str, Any]) -> Policy:
    from casemate.policy import document
    from casemate.verifier.reading import read_file

    base = document.read(read_file(given["policy"], document.LIMIT)) if given["policy"] else document.DEFAULT
    return document.accepting(base, given["accept"], given["accept_tcb"])


def _judges(given: dict[str, Any], policy: Policy, now: datetime) -> tuple[Judge, ...]:
    from casemate.errors import Unusable

    if not given["references"]:
        if given["reference_keys"]:
            raise Unusable("--reference-key without --reference", hint="name the file of reference values")
        return ()
    from casemate.policy import references
    from casemate.policy.references import ReferenceTrust
    from casemate.tee.files import File
    from casemate.verifier.reading import read_file
    from casemate.verifier.references import judge

    keys = [read_file(path, _MAX_SMALL) for path in given["reference_keys"]]
    trust = references.load(keys, ReferenceTrust(allow_unsigned=policy.unsigned_references))
    documents = [File(path.name, read_file(path, references.LIMIT)) for path in given["references"]]
    return (judge(documents, trust, now),)


def _moment(text: str | None) -> datetime:
    from casemate.errors import Unusable

    if text is None:
        return datetime.now(UTC)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise Unusable(f"--at {text[:40]!r} is not a time", hint="as in 2026-06-01T00:00:00Z") from error
    aware = found if found.tzinfo else found.replace(tzinfo=UTC)
    if not 1970 < aware.year < 9999:
        raise Unusable(f"--at {text[:40]!r} is out of range", hint="as in 2026-06-01T00:00:00Z")
    return aware.astimezone(UTC)


def _report_data(text: str | None, option: str = "--report-data") -> bytes | None:
    from casemate.errors import Unusable

    if text is None:
        return None
    try:
        found = bytes.fromhex(text.removeprefix("0x"))
    except ValueError as error:
        raise Unusable(f"{option} is not hex") from error
    if not 1 <= len(found) <= _MAX_REPORT_DATA:
        raise Unusable(f"{option} has {len(found)} bytes, 1 to {_MAX_REPORT_DATA} are wanted")
    return found


def _own(paths: tuple[Path, ...], platform_class: str) -> Own:
    """What --anchor names: roots, keys and papers of the relying party's own."""
    from casemate.tee.files import File
    from casemate.verifier import anchors
    from casemate.verifier.reading import read_file

    return anchors.read([File(str(path), read_file(path, _MAX_SMALL)) for path in paths], platform_class)


def _token(result: Result, path: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from casemate import __version__
    from casemate.errors import Unusable
    from casemate.release import ear
    from casemate.verifier.reading import read_file

    try:
        key = load_pem_private_key(read_file(path, 16 << 10), None)
    except (ValueError, TypeError) as error:
        raise Unusable(f"{path}: not a private key in PEM without a password") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise Unusable(
            f"{path}: not a key on P-256", hint="openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"
        )
    if result.claims is None:
        return ""  # a token speaks of an attester, and none was found genuine
    document = ear.document(
        result.claims, result.checks, datetime.now(UTC), issuer=_ISSUER, version=__version__,
        at=result.at, until=result.valid_until, fresh=result.fresh,
    )  # fmt: skip
    return ear.sign(document, key)
