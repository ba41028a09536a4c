"""Volumes: the broker is the memory that the host's disk is not believed to be.

Rules
1. A volume belongs to the app in the attested manifest; its key is a resource of that app, made here when absent or
   derived, but never in a repository that the settings give to another tenant.
2. Until a volume is initialised, each opening gives a new grant to format it, and only the newest one counts.
3. `initialised` needs that grant and stores the guest's record; afterwards no grant is ever given again, so a blank,
   foreign or swapped disk is told from a new one.
4. The resource policy of the app's tenant is asked about the key's path: who may not read a key may not open its volume
   either.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
from typing import TYPE_CHECKING, Any

from casemate.broker import access, derived, journal, leases, policies, resources
from casemate.broker.refusals import Conflicting
from casemate.broker.sessions import Session, demand_key
from casemate.crypto import recipient
from casemate.drivers.store import vaulted
from casemate.errors import Finding, Malformed
from casemate.schema.manifest import Manifest, Volume
from casemate.wire.encoding import b64, b64u

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from casemate.broker.assemble import Broker

KEY_SIZE = 32
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
MAX_RECORD = 64 << 10
MAX_SIZE = 1 << 50


def open_(broker: Broker, session: Session, name: str, size: int) -> tuple[dict[str, str], str]:
    """The key of a volume with `size` bytes of disk, its record, and a grant to format it if it is new; as a JWE.

    Beside it the id of the decision's receipt.
    """
    _demand_name(name)
    if not 0 < size <= MAX_SIZE:
        raise Malformed("volume: `size` is the disk's size in bytes")

    narrowed = _narrowed(broker, session, name)
    facts: dict[str, Any] = {"lease": session.lease or None}

    def act(tx: Connection) -> dict[str, Any] | tuple[Finding, ...]:
        findings, volume = _judge(tx, broker, session, name)
        if volume is None or not all(f.ok for f in (*findings, *narrowed)):
            return (*findings, *narrowed)
        return _opened(tx, broker, session, volume, size, facts)

    answer = broker.store.written(act)
    findings = answer if isinstance(answer, tuple) else (Finding("volume.open", name, name, ok=True), *narrowed)
    receipt = journal.decided(
        broker,
        "volume",
        broker.clock(),
        session,
        findings,
        resource=f"volume {name}",
        facts=facts,
    )
    if isinstance(answer, tuple):
        resources.refuse(answer)
    return recipient.seal(json.dumps(answer).encode(), session.tee_pubkey), receipt


def initialised(broker: Broker, session: Session, name: str, grant: str, record: dict[str, Any]) -> str:
    """The guest formatted the volume: keep its record for ever. The same words again are answered the same way.

    Returns the id of the decision's receipt.
    """
    _demand_name(name)
    if len(json.dumps(record)) > MAX_RECORD:
        raise Malformed(f"volume record: at most {MAX_RECORD} bytes are allowed")

    def act(tx: Connection) -> tuple[Finding, ...]:
        findings, _ = _judge(tx, broker, session, name)
        if not all(f.ok for f in findings):
            return findings
        known = vaulted.volume(tx, session.app_id or "", name)
        if known is None or not hmac.compare_digest(known.grant_digest or "", _digest(grant)):
            return (*findings, _granted(ok=False))
        if known.initialised and known.record != record:
            raise Conflicting.because(
                "volume.initialised",
                expected="a volume that is not initialised",
                found=f"{name} has a record",
                hint="a volume is initialised once",
            )
        vaulted.put_volume(
            tx, session.app_id or "", name, known._replace(initialised=True, record=record), broker.clock()
        )
        return (*findings, _granted(ok=True))

    findings = broker.store.written(act)
    receipt = journal.decided(broker, "volume", broker.clock(), session, findings, resource=f"volume {name}")
    if not all(f.ok for f in findings):
        resources.refuse(findings)
    return receipt


def _narrowed(broker: Broker, session: Session, name: str) -> tuple[Finding, ...]:
    """What the tenant's resource policy says of the key; nothing where the built-in rules refuse, it opens none."""
    with broker.store.read() as tx:
        statement, _ = resources.running(tx, session)
        findings, volume = _judge(tx, broker, session, name)
    if statement is None or volume is None or not all(f.ok for f in findings):
        return ()
    path = volume.key.removeprefix("kbs:///")
    return policies.narrow(broker, session, statement.founding.tenant, path, plugin="resource", query={})


def _opened(  # noqa: PLR0917 - what was judged, and where the receipt's facts go
    tx: Connection, broker: Broker, session: Session, volume: Volume, size: int, facts: dict[str, Any]
) -> dict[str, Any]:
    app_id = session.app_id or ""
    known = vaulted.volume(tx, app_id, volume.name)
    made = known if known is not None and known.initialised else None
    path = volume.key.removeprefix("kbs:///")
    key, version, new = _key(tx, broker, app_id, volume, made)
    facts.update(path=path, version=version)
    if made is not None:
        if made.key_version is None:  # of an older store, where the newest version was the one
            vaulted.put_volume(
                tx, app_id, volume.name, made._replace(key_path=path, key_version=version), broker.clock()
            )
        return {"key": b64(key), "initialised": True, "format_grant": None, "record": made.record}
    grant = b64u(os.urandom(32))
    fresh = vaulted.Volume(size, _digest(grant), initialised=False, record=None, key_path=path, key_version=version)
    vaulted.put_volume(tx, app_id, volume.name, fresh, broker.clock())
    if new:  # the last thing of the transaction: it takes the log's lock
        told = {"app": app_id, "resource": path, "version": version, "volume": volume.name}
        journal.admin(broker, tx, who=journal.guest(session), act="resource.put", facts=told)
    return {"key": b64(key), "initialised": False, "format_grant": grant, "record": None}


def _key(
    tx: Connection, broker: Broker, app_id: str, volume: Volume, made: vaulted.Volume | None
) -> tuple[bytes, int, bool]:
    """The key, its version (0: derived) and whether it is new: what the volume was made with, else the newest."""
    path = volume.key.removeprefix("kbs:///")
    if derived.is_derived(path):
        return _sized(broker.deriver.key(app_id, path, derived.VOLUME)), 0, False
    found = vaulted.newest(tx, path)
    if found is not None and made is not None and made.key_version and made.key_path == path:
        found = vaulted.kept(tx, path, made.key_version)
    if found is None:
        if made is not None:  # a new key would make the data look damaged; say what happened instead
            raise Conflicting.because(
                "volume.key",
                expected=f"the key {volume.key} that the volume was made with",
                found="it was deleted, or is to be",
                hint="without that key the volume cannot be opened; undelete it, or use another volume name",
            )
        key = os.urandom(KEY_SIZE)
        return key, resources.put_in(tx, broker, app_id, path, key), True
    return _sized(broker.vault.open(resources.label(path, found.version), found.sealed)), found.version, False


def _sized(key: bytes) -> bytes:
    if len(key) != KEY_SIZE:
        raise Conflicting.because(
            "volume.key",
            expected=f"{KEY_SIZE} bytes",
            found=f"{len(key)} bytes",
            hint="store no other value at a volume's key; the broker makes one",
        )
    return key


def _judge(tx: Connection, broker: Broker, session: Session, name: str) -> tuple[tuple[Finding, ...], Volume | None]:
    demand_key(broker, broker.store.known.at(tx), tx, session.key)
    statement, manifest = resources.running(tx, session)
    volume = _listed(manifest, name)
    findings = [
        *resources.still(session, statement, manifest),
        *leases.judge(tx, session, broker.clock()),
        Finding(
            "volume.listed",
            f"volume {name} in the manifest",
            "listed" if volume else "not listed",
            "" if volume else "only the volumes of the attested manifest can be opened",
            ok=volume is not None,
        ),
    ]
    if volume is not None:
        path = volume.key.removeprefix("kbs:///")
        owned = vaulted.owner(tx, path)
        theirs = owned is not None and owned.app_id != session.app_id
        hint = "" if volume.app == session.app_id else "another app's volume is not opened by this one"
        findings.append(
            Finding("volume.app", session.app_id or "an app", volume.app, hint, ok=volume.app == session.app_id)
        )
        findings.append(resources.owner(owned.app_id if theirs and owned else session.app_id, session.app_id))
        if owned is None and statement is not None:  # a key is about to be made there, or derived
            findings.append(access.in_repo(broker, path, statement.founding.tenant))
    return tuple(findings), volume


def _listed(manifest: Manifest | None, name: str) -> Volume | None:
    return next((v for v in manifest.volumes if v.name == name), None) if manifest else None


def _demand_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise Malformed("volume: its name is a DNS label")


def _granted(*, ok: bool) -> Finding:
    hint = "" if ok else "open the volume again; each opening replaces the grant of the one before"
    return Finding("volume.grant", "the newest format grant", "that one" if ok else "another one", hint, ok=ok)


def _digest(grant: str) -> str:
    return hashlib.sha256(grant.encode("utf-8", "surrogatepass")).hexdigest()
