"""The guest's side of the main path, in order: steps 5, 11 and 12 of the design. Read this and broker/decide.py.

    before   the measured initrd hashed the initdata, bound its digest to the hardware and left it in the agent's memory
     5       collect: evidence for a broker's nonce; the broker appraises it and answers with a token
    11       open: keys for images and volumes; images are pulled, verified, decrypted; volumes are mapped
    12       run, serve: containers in the manifest's order, local API, secrets kept fresh

The manifest is the only authority here: what it does not list, the host can't ask for and a container does not get.
"""

from __future__ import annotations

from casemate.boot import initdata
from casemate.errors import CasemateError, Finding, Refused
from casemate.guest import attest, checks, firewall
from casemate.guest.asked import Asked
from casemate.guest.control import Control, find_port
from casemate.guest.resources import Brokers
from casemate.guest.settings import AGENT, Settings
from casemate.guest.workload import Interrupted, Workload


def start(settings: Settings) -> str:
    """The workload's whole life; returns how it ended: ``stopped``, ``refused`` or ``failed``. Never raises."""
    control = Control(settings.control or find_port())
    control.hello(AGENT)
    control.phase("agent")
    state, message = "stopped", ""
    findings: tuple[Finding, ...] = ()
    try:
        _live(settings, control)
    except Interrupted as error:
        message = str(error)
    except Refused as refusal:
        state, message, findings = "refused", str(refusal), refusal.findings
        checks.console("refused: " + ", ".join(finding.rule for finding in findings if not finding.ok))
    except CasemateError as error:
        state, message = "failed", f"{error} ({error.hint})" if error.hint else str(error)
        checks.console(f"failed: {message}")
    except OSError as error:
        state, message = "failed", f"the machine failed: {error.strerror} ({checks.where(error)}){checks.advice(error)}"
        checks.console(f"failed: {message}")
    except Exception as error:  # noqa: BLE001 - a defect ends the workload; its text could hold a secret
        state, message = "failed", f"the agent has a defect: {checks.where(error)}"
        checks.console(f"failed: {message}")
    control.state(state, message, findings)
    control.close()
    return state


def _live(settings: Settings, control: Control) -> None:
    # before: the document that the hardware binds, and the one manifest in it
    document = checks.read_initdata(settings.initdata)
    manifest = initdata.parse(document).manifest
    checks.demand_minimum(manifest)
    if settings.firewall:
        firewall.apply(firewall.ruleset(manifest))
    workload = Workload(manifest, settings, control)
    control.handler = Asked(manifest, workload.supervisor, control, workload.stop)

    # 5  collect: evidence over the broker's nonce and a fresh key; a token, or a refusal with every failed rule
    attester = settings.attester or attest.find_attester()
    brokers = Brokers(manifest, document, attester, attempts=settings.attempts, backoff=settings.backoff)
    brokers.login()
    control.phase("attest", tee=attester.tee)

    quiet = False
    try:
        # 11 open: each key is asked for by name and sealed to this guest; images are pulled while volumes are mapped
        workload.fetch_keys(brokers)
        images = workload.begin_pulling()
        workload.open_volumes(brokers)
        pulled = workload.demand(images)

        # 12 run, serve: containers in order, each with its own secrets, files and local API
        workload.run(pulled, brokers, document, attester)
        control.state("running")
        workload.wait()
        quiet = True
    finally:
        workload.close()
        brokers.close(give_back=quiet)
