"""What an operator decides about a broker: one TOML file, every default safe."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from casemate.broker.oidc import Issuer
from casemate.drivers.masterkey import ByCommand, InFile, InToken
from casemate.errors import Malformed, Unusable

FILE = "broker.toml"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`folder` holds the keys and, by default, the store. Times are seconds.

    `refused_tees` are rooms whose evidence is never accepted: `sample` proves nothing, so it is among them.
    `accepted_cautions` are weaknesses of genuine evidence, by rule, that the operator takes upon himself. A start with
    fewer of them, or with more refused TEEs, ends every lease.
    `collateral` is the store (or bundle) of vendors' statements, by default `collateral` in the folder; a relative path
    starts there. Nothing is fetched for a guest: `casemate collateral fetch --store` fills it.
    `checkpoint` is where the broker keeps what it saw last of its log, best on another disk than the store;
    `witnesses` are files where others keep what they saw. A store that is behind any of them is not served.
    `papers` names for a TEE the folder of what its challenges are made from (IBM SE: host-key documents, lists,
    the image). `reference_signers` are files with keys whose reference values are believed, by tenant (`*`: those that
    hold for the whole broker).
    `attestation_service` is the prefix of the attestation service's REST; empty: it is not served.
    `strict_trustee` answers with the status codes of Trustee's key broker, for clients that know no others.
    `admin_issuers` are issuers whose tokens make admins; `client_ca` is a file of CAs (or single certificates) of
    admins who come by mTLS. `repos` says whose a repository is: kbs:///<repo>/… → tenant. `issuer` is this broker's
    address in tokens for others. A change that needs a second owner waits for `approval_seconds`.
    `masters` are the master keys: the first one seals, all open; by default the file `master.key` in the folder.
    `lease_seconds` is how long a guest may keep what it was given without attesting again. A version that was replaced
    opens for another `rotation_seconds`; a secret that is to be deleted can be had back for `deletion_seconds`.
    `policy_children` evaluate policies that somebody set, each question within `policy_seconds`.
    `threads` bounds the requests that compute at the same time, `requests` those under way, `connections` all that are
    open; one address gets an eighth of the latter two. `rate` is how many requests a second an address without (good)
    credentials may make, after a `burst`; 0 sets no bound. Addresses in `rate_exempt` are not asked: behind a balancer
    every guest has the balancer's address.
    `workers` are processes that share the port. `tls_minimum` 1.2 is for old clients alone.
    `agent_socket` is the local API's socket of a guest's agent, for a broker that is a workload itself: it then gives
    its own evidence.
    `/metrics` is open unless `metrics_open` is false (then: an auditor's); `metrics_paths` says which part of a
    resource's path they show. `console` serves pages for admins at `/console`.
    `guest_reasons` is what refused guests and strangers are told: `short` names rules, hints and the request, `full`
    says what was expected and found too, which the decisions and the broker's own log tell admins in any case.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8443
    store: str = ""
    checkpoint: Path = Path("checkpoint")
    witnesses: tuple[Path, ...] = ()
    names: tuple[str, ...] = ("localhost", "127.0.0.1")
    refused_tees: tuple[str, ...] = ("sample",)
    accepted_cautions: tuple[str, ...] = ()
    collateral: Path = Path("collateral")
    papers: dict[str, Path] = {}
    reference_signers: dict[str, tuple[Path, ...]] = {}
    attestation_service: Annotated[str, Meta(pattern="^(/[a-z0-9-]{1,32})?$")] = ""
    strict_trustee: bool = False
    admin_issuers: tuple[Issuer, ...] = ()
    client_ca: Path | None = None
    repos: dict[str, str] = {}
    issuer: Annotated[str, Meta(pattern="^(https://[^#?\\s]{1,400}[^#?\\s/])?$")] = ""
    approval_seconds: Annotated[int, Meta(ge=60, le=2592000)] = 86400
    challenge_seconds: Annotated[int, Meta(ge=10, le=3600)] = 300
    token_seconds: Annotated[int, Meta(ge=10, le=3600)] = 300
    masters: Annotated[tuple[InFile | InToken | ByCommand, ...], Meta(min_length=1)] = (InFile(),)
    lease_seconds: Annotated[int, Meta(ge=10, le=86400)] = 600
    rotation_seconds: Annotated[int, Meta(ge=0, le=7776000)] = 1200
    deletion_seconds: Annotated[int, Meta(ge=0, le=7776000)] = 604800
    policy_children: Annotated[int, Meta(ge=1, le=64)] = 2
    policy_seconds: Annotated[float, Meta(ge=0.05, le=30)] = 1.0
    threads: Annotated[int, Meta(ge=1, le=256)] = 8
    connections: Annotated[int, Meta(ge=1, le=100000)] = 1000
    requests: Annotated[int, Meta(ge=1, le=100000)] = 500
    rate: Annotated[float, Meta(ge=0, le=1000000)] = 50
    burst: Annotated[int, Meta(ge=1, le=1000000)] = 200
    rate_exempt: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    tls_minimum: Literal["1.3", "1.2"] = "1.3"
    agent_socket: Path | None = None
    metrics_open: bool = True
    metrics_paths: Literal["none", "repo", "full"] = "none"
    drain_seconds: Annotated[int, Meta(ge=0, le=600)] = 10
    console: bool = False
    guest_reasons: Literal["short", "full"] = "short"

    @property
    def checkpoint_file(self) -> Path:
        """The log's newest checkpoint as this broker saw it."""
        return self.folder / self.checkpoint

    @property
    def witness_files(self) -> tuple[Path, ...]:
        """Checkpoints as others saw them."""
        return tuple(self.folder / path for path in self.witnesses)

    @property
    def collateral_store(self) -> Path:
        """Where collateral is read from."""
        return self.folder / self.collateral

    @property
    def issuer_url(self) -> str:
        """The `iss` of tokens for others, and where their keys are found by discovery."""
        return self.issuer or f"https://{self.names[0]}:{self.port}"

    @property
    def store_url(self) -> str:
        """The database, by default a SQLite file in the folder."""
        return self.store or f"sqlite:///{self.folder / 'store.db'}"


def load(folder: Path, *, strict: bool = False) -> Settings:
    """The settings in `folder`/broker.toml, `strict` with Trustee's statuses; a folder without one was never made."""
    path, asked = folder / FILE, {"strict_trustee": True} if strict else {}
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise Unusable(
            f"{folder} holds no broker", hint="`casemate init` makes one, `casemate up` a local one"
        ) from error
    except (OSError, ValueError) as error:
        raise Malformed(f"{path}: {error}") from error
    if document.get("store") == "":  # a template's empty variable: SQLite in its place would be a surprise
        raise Malformed(
            f"{path}: store is empty", hint="give it a value, or leave the line out for SQLite in the folder"
        )
    try:
        return msgspec.convert({"folder": str(folder), **document, **asked}, Settings, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise Malformed(f"{path}: {error}") from error


def as_document(settings: Settings) -> dict[str, object]:
    """Every setting, defaults too, as plain data. The store's URL is without a password and without query values."""
    plain: dict[str, object] = msgspec.to_builtins(settings, enc_hook=str)
    return {**plain, "store": _shown(settings.store_url)}


def _shown(store: str) -> str:
    """A store's URL as anybody may see it; one that cannot be read is not shown at all."""
    from sqlalchemy import exc, make_url  # slow to load, and asked for by `serve --check` alone

    try:
        url = make_url(store)
    except (exc.ArgumentError, ValueError):
        return "***"
    if "@" in (url.host or ""):  # a password that was not escaped
        return "***"
    hidden = url.set(query=dict.fromkeys(url.query, "hidden"))
    return hidden.render_as_string(hide_password=True)


def as_toml(document: dict[str, object]) -> str:
    """The same as TOML that `load` would take: nothing is nested deeper than a table in a list."""
    return "".join(f"{name} = {_toml(value)}\n" for name, value in document.items() if value is not None)


def _toml(value: object) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(name)} = {_toml(item)}" for name, item in value.items() if item is not None)
        return "{ " + inner + " }" if inner else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value).lower()


def _key(name: str) -> str:
    return name if re.fullmatch("[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(kind)  # msgspec's way to hear that a hook does not know a type
