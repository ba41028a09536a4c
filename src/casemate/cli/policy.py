"""`casemate policy`: policies in Rego, from a first look to what holds at the broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from casemate.cli import output

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_KIND = click.Choice(["attestation", "resource"])
_kind_option = click.option("--kind", type=_KIND, default="attestation", show_default=True, help="What it decides.")
_tenant_option = click.option("--tenant", help="Whose policy; default: your own tenant's, or the whole broker's.")


@click.group()
def policy() -> None:
    """Check, test, explain, simulate and set policies in Rego."""


@policy.command()
@click.argument("file", type=_FILE)
@_kind_option
@output.json_option
def check(file: Path, kind: str, as_json: bool) -> None:
    """Compile a policy on this machine, and say what is to be said of it."""
    from casemate.broker import policybook
    from casemate.cli import policyview
    from casemate.drivers.rego import Pool
    from casemate.errors import Refused
    from casemate.policy.rego import lint

    compiled, remarks = policybook.check(Pool(), kind, policyview.text_of(file))
    found = {"digest": compiled.digest, "rules": list(compiled.rules), "remarks": [r._asdict() for r in remarks]}
    output.emit(found, as_json=as_json, text=lambda: policyview.remarks(found))
    if lint.errors(remarks):
        raise Refused.because("policy.entry", expected=f"one of --kind {kind}", found="none", hint="see the remarks")


@policy.command()
@click.argument("file", type=_FILE)
@click.option("--policy", "policy_file", type=_FILE, help="The policy, when it is not the one that the file names.")
@output.json_option
def test(file: Path, policy_file: Path | None, as_json: bool) -> None:
    """Run the cases in a YAML or JSON file against a policy on this machine; exit code 1 when one is wrong."""
    from casemate.broker import policycases
    from casemate.cli import policyview
    from casemate.drivers.rego import Pool

    cases = policycases.read(policyview.document(file), file.name)
    pool = Pool()
    try:
        compiled = pool.compiled(policyview.text_of(policy_file or policyview.beside(file, cases.policy)))
        found = policycases.run(pool, compiled, cases)
    finally:
        pool.close()
    output.emit({"cases": found}, as_json=as_json, text=lambda: policyview.cases(found))
    if any(case["wrong"] for case in found):
        click.get_current_context().exit(1)


@policy.command()
@click.argument("subject", metavar="ATTESTATION|FILE")
@click.option("--policy", "policy_file", type=_FILE, help="This policy instead of the one that holds.")
@click.option("--path", default="", metavar="REPO/TYPE/TAG", help="The resource that is wanted (resource policies).")
@click.option("--references", type=_FILE, help="Reference values (JSON: id → value), for a FILE.")
@_kind_option
@_tenant_option
@output.json_option
def explain(subject: str, policy_file: Path | None, path: str, references: Path | None, kind: str,
            tenant: str | None, as_json: bool) -> None:  # fmt: skip
    """Tell what every rule says of a recorded attestation (its id), or of an input in a JSON file."""
    from casemate.cli import policyview

    if Path(subject).is_file():
        known = policyview.document(references) if references else {}
        found = policyview.explained(policyview.document(Path(subject)), policy_file, kind, path, known)
    else:
        body: dict[str, Any] = {"kind": kind, "attestation": subject, "path": path}
        if policy_file is not None:
            body["text"] = policyview.text_of(policy_file)
        found = policyview.ask("POST", "/policies/explain", tenant, body)
    output.emit(found, as_json=as_json, text=lambda: policyview.answers(found))


@policy.command()
@click.argument("file", type=_FILE)
@click.option("--name", help="The policy that it would replace; default: default_cpu, resource-policy.")
@click.option("--since", metavar="TIME", help="RFC 3339; default: a week ago.")
@click.option("--until", metavar="TIME", help="RFC 3339; default: now.")
@click.option("--path", "paths", multiple=True, metavar="REPO/TYPE/TAG", help="A resource to try; repeatable.")
@_kind_option
@_tenant_option
@output.json_option
def simulate(file: Path, name: str | None, since: str | None, until: str | None, paths: tuple[str, ...], kind: str,
             tenant: str | None, as_json: bool) -> None:  # fmt: skip
    """Replay recorded attestations against a policy before it is set: who would be refused, who answered otherwise."""
    from casemate.cli import policyview

    body: dict[str, Any] = {"kind": kind, "name": name or policyview.NAMES[kind], "text": policyview.text_of(file)}
    body |= {key: value for key, value in (("since", since), ("until", until)) if value}
    found = policyview.ask("POST", "/policies/simulate", tenant, {**body, "paths": list(paths)})
    output.emit(found, as_json=as_json, text=lambda: policyview.simulated(found))


@policy.command("set")
@click.argument("file", type=_FILE)
@click.option("--name", help="Its name; default: default_cpu, resource-policy.")
@_kind_option
@_tenant_option
@output.json_option
def set_(file: Path, name: str | None, kind: str, tenant: str | None, as_json: bool) -> None:
    """Set a policy at the broker; it holds from the next request on."""
    from casemate.cli import policyview

    where = f"/policies/{kind}/{name or policyview.NAMES[kind]}"
    found = policyview.ask("PUT", where, tenant, {"text": policyview.text_of(file)})
    output.emit(found, as_json=as_json, text=lambda: policyview.was_set(found))


@policy.command()
@click.argument("name", default="")
@_kind_option
@_tenant_option
@output.json_option
def show(name: str, kind: str, tenant: str | None, as_json: bool) -> None:
    """Show a policy's text and history."""
    from casemate.cli import policyview

    found = policyview.ask("GET", f"/policies/{kind}/{name or policyview.NAMES[kind]}", tenant)
    output.emit(found, as_json=as_json, text=lambda: policyview.page(found))
    if not as_json:
        output.note(policyview.other(kind))


@policy.command("list")
@_tenant_option
@output.json_option
def list_(tenant: str | None, as_json: bool) -> None:
    """List the policies that hold, and whose each one is."""
    from casemate.cli import policyview

    found = policyview.ask("GET", "/policies", tenant)
    rows = [(p["kind"], p["name"], p["from"], p["version"], p["digest"] or "") for p in found["policies"]]
    columns = ("KIND", "NAME", "FROM", "VERSION", "DIGEST")
    output.emit(found, as_json=as_json, text=lambda: output.table(columns, rows))


@policy.command()
@click.argument("name")
@_kind_option
@_tenant_option
@output.json_option
def rm(name: str, kind: str, tenant: str | None, as_json: bool) -> None:
    """Take a policy back: what held before any was set holds again. Its history stays."""
    from casemate.cli import policyview

    found = policyview.taken(kind, name, tenant)
    output.emit(found, as_json=as_json, text=lambda: policyview.taken_back(found))


@policy.command()
@_tenant_option
@output.json_option
def attestations(tenant: str | None, as_json: bool) -> None:
    """List the attestations of the last week, for explain."""
    from casemate.cli import policyview

    found = policyview.ask("GET", "/attestations", tenant)
    rows = [
        (a["id"], a["time"], a["tee"], "allowed" if a["allowed"] else "refused", policyview.statuses(a["status"]))
        for a in found["attestations"]
    ]
    columns = ("ATTESTATION", "TIME", "TEE", "DECISION", "STATUS")
    output.emit(found, as_json=as_json, text=lambda: output.table(columns, rows))
