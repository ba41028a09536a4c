"""What `casemate policy` reads and prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from casemate.cli import output
from casemate.errors import Malformed, Unusable

NAMES = {"attestation": "default_cpu", "resource": "resource-policy"}
_MOST = 8 << 20
_WIDE = 300


def ask(method: str, path: str, tenant: str | None, body: Any = None) -> dict[str, Any]:
    """An admin's request to the local broker."""
    from casemate.drivers import brokerclient, paths

    query = f"?tenant={quote(tenant)}" if tenant is not None else ""
    return brokerclient.Admin.local(paths.home()).call(method, path + query, body)


def text_of(file: Path) -> str:
    """A policy's text; `Malformed` when it is none."""
    try:
        with file.open("rb") as source:
            return source.read(_MOST).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"{file}: text in UTF-8 is wanted") from error


def beside(file: Path, name: str) -> Path:
    """The policy that a file of cases names."""
    found = file.parent / name
    if not name or not found.is_file():
        raise Unusable(f"{file} names no policy beside it", hint="casemate policy test FILE --policy POLICY.rego")
    return found


def document(file: Path) -> Any:
    """JSON or YAML from a file."""
    raw = file.read_bytes()[:_MOST]
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        from casemate.schema import yaml_reader

        return yaml_reader.load(raw).document


def explained(given: Any, policy_file: Path | None, kind: str, path: str, references: Any) -> dict[str, Any]:
    """`replay.explain` on this machine, for an input from a file."""
    from casemate.broker import replay
    from casemate.drivers.rego import Pool
    from casemate.policy.rego import inputs, shipped

    name = NAMES[kind]
    own = shipped.text(name if kind == "attestation" else shipped.RESOURCE)
    data = inputs.resource("resource", path, {}) if kind == "resource" else {}
    pool = Pool()
    try:
        compiled = pool.compiled(text_of(policy_file) if policy_file else str(own))
        asked = {"given": inputs.bounded(given), "data": data, "references": references}
        told = replay.explained(pool, compiled, kind, **asked)
    finally:
        pool.close()
    return {"answers": [{"policy": policy_file.name if policy_file else name, "about": path or name, **told}]}


def other(kind: str) -> str:
    """How to speak of the other kind's policies."""
    rest = next(name for name in NAMES if name != kind)
    return f"this is about {kind} policies; for {rest} policies: --kind {rest}"


def taken(kind: str, name: str, tenant: str | None) -> dict[str, Any]:
    """Take a policy back; what was not found may be of the other kind."""
    try:
        return ask("DELETE", f"/policies/{kind}/{name}", tenant)
    except Unusable as error:
        raise Unusable(str(error), hint=f"casemate policy list; {other(kind)}") from error


def remarks(found: dict[str, Any]) -> None:
    """What `check` found."""
    for remark in found["remarks"]:
        place = f"line {remark['line']}: " if remark["line"] else ""
        click.echo(f"{remark['level']}: {place}{remark['message']}")
    click.echo(f"{found['digest']}  rules: {', '.join(found['rules'])}")


def cases(found: list[dict[str, Any]]) -> None:
    """What `test` found."""
    for case in found:
        click.echo(f"{'wrong' if case['wrong'] else 'ok':<6}{output.clean(case['name'])}")
        for line in case["wrong"]:
            click.echo(f"      {output.clean(line)}")
    click.echo(f"{sum(not case['wrong'] for case in found)} of {len(found)} cases are right")


def answers(found: dict[str, Any]) -> None:
    """What `explain` found: the result, each rule with its line, and what was missing."""
    for answer in found["answers"]:
        about = answer["about"] if isinstance(answer["about"], str) else "/".join(answer["about"])
        click.echo(f"{answer['policy']} on {output.clean(about)}: {result(answer.get('result', answer))}")
        for rule in answer["rules"]:
            value = json.dumps(rule["value"])[:_WIDE] if rule["defined"] else "undefined"
            place = f"  (decided at line {rule['line']})" if rule["defined"] and rule["line"] else ""
            click.echo(f"  {rule['rule']} = {output.clean(value)}{place}")
        for name in answer["missing"]:
            click.echo(f"  missing reference value: {output.clean(name)}")


def simulated(found: dict[str, Any]) -> None:
    """What `simulate` found."""
    for change in found["changed"]:
        verdict = "refused" if change["refused"] else "changed"
        before, after = result(change["before"]), result(change["after"])
        click.echo(f"{verdict}  {change['time']}  {change['id']}  {change['about']}: {before} -> {after}")
    rest = "" if found["complete"] else f" (of {found['recorded']} or more; the rest was not looked at)"
    click.echo(f"{found['seen']} attestations replayed{rest}: {len(found['changed'])} answered otherwise, "
               f"{found['refused']} refused")  # fmt: skip


def result(told: dict[str, Any]) -> str:
    """An outcome in few words."""
    if "error" in told:
        return f"no answer ({output.clean(told['error'])})"
    if "allow" in told:
        return "allowed" if told["allow"] else "not allowed"
    vector = ", ".join(f"{name} {value}" for name, value in told["vector"].items() if value)
    return f"{told['status']} ({vector or 'nothing claimed'})"


def waiting(found: dict[str, Any]) -> bool:
    """Tell that a change waits for a second owner, if it does."""
    if "version" in found:
        return False
    click.echo(f"waits for a second owner: casemate approval show {found.get('id', '')}")
    return True


def was_set(found: dict[str, Any]) -> None:
    """What `set` did."""
    if waiting(found):
        return
    for remark in found["remarks"]:
        click.echo(f"{remark['level']}: {remark['message']}")
    click.echo(f"{found['kind']} policy {found['name']}, version {found['version']}, {found['digest']}")


def taken_back(found: dict[str, Any]) -> None:
    """What `rm` did."""
    if not waiting(found):
        click.echo(f"{found.get('kind', '')} policy {found['name']}: taken back".lstrip())


def page(found: dict[str, Any]) -> None:
    """A policy with its history as comments before it."""
    click.echo(f"# {found['kind']} policy {found['name']} ({found['from']}), version {found['version']}")
    for entry in found["history"]:
        click.echo(
            f"# {entry['version']}  {entry['created']}  {output.clean(entry['who'])}  {entry['digest'] or 'taken back'}"
        )
    click.echo(found["text"], nl=False)


def statuses(found: dict[str, Any]) -> str:
    """The status of each submodule."""
    return " ".join(f"{name}={value}" for name, value in sorted(found.items()))
