"""Prometheus metrics: Trustee's names (`kbs_…`) for dashboards that exist, ours (`casemate_…`) for what they lack.

Labels never hold what a caller sent: routes are templates, TEEs and rules are names of our code, and every label has a
bound, beyond which values are counted as `other`. `/metrics` is open, so `resource_path` says `*` unless the operator
chose `metrics_paths`: names of resources are nobody else's business.

With several worker processes each writes into files of a shared folder (PROMETHEUS_MULTIPROC_DIR, set by the process
that starts them, before this module is imported), and any of them answers for all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from casemate import __version__
from casemate.broker.meter import BROKEN
from casemate.tee import ROOMS

if TYPE_CHECKING:
    from casemate.broker.settings import Settings

disable_created_metrics()  # type: ignore[no-untyped-call] # (no types there) a second series each, asked for by nobody

M = TypeVar("M", Counter, Histogram)

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
OTHER = "other"
HIDDEN = "*"
MAX_RULES, MAX_PATHS = 400, 1000
_SECONDS = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.5, 1)  # Trustee's
_STEPS = (0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
_BYTES = (32, 128, 512, 2048, 8192)
_RULE = re.compile(r"[a-z0-9_.-]{1,80}")
AUTH, ATTEST, RESOURCE = "/kbs/v0/auth", "/kbs/v0/attest", "/kbs/v0/resource/"


class Bounded:
    """At most `most` different values of a label; later ones are `other`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: set[str] = set()

    def __call__(self, value: str) -> str:
        """The value, or `other`."""
        if value not in self._seen:
            if len(self._seen) >= self._most:
                return OTHER
            self._seen.add(value)
        return value


@dataclass(frozen=True)
class Answered:
    """A request that was answered.

    `route` is its template, "" for paths that are nobody's. `got` and `sent` are bytes of bodies, `rules` those that
    failed, `tee` the wire name of the TEE whose evidence was judged, or "".
    """

    route: str
    method: str
    path: str
    status: int
    seconds: float
    sent: int
    got: int
    rules: Sequence[str] = ()
    tee: str = ""


class Metrics:
    """One broker's counters in a registry of their own."""

    def __init__(self, settings: Settings) -> None:
        self.registry = made = CollectorRegistry()
        self._rules, self._paths, self._shown = Bounded(MAX_RULES), Bounded(MAX_PATHS), settings.metrics_paths
        self._children: dict[tuple[int | str, ...], Any] = {}
        build = Gauge("kbs_build_info", "Always 1; the labels say what runs", _BUILD, registry=made, **_MOST)
        build.labels(__version__, "", "").set(1)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=made)

        self._http(made)
        self._requests = counter("casemate_http_requests", "Requests", "route", "method", "status")
        self._refusals = counter("casemate_refusals", "Failed rules of requests that were refused", "route", "rule")
        self._decisions = counter("casemate_decisions", "Decisions on evidence", "act", "tee_type", "result")
        self._reasons = counter("casemate_decision_reasons", "Failed rules of decisions on evidence", "act", "rule")
        self._limited = counter("casemate_limited", "Requests turned away unread", "why")
        self._dropped = counter("casemate_dropped", "Connections ended: unreadable, head, unread, connections", "why")
        self._steps = Histogram(
            "casemate_step_seconds", "A step's time", ["act", "step"], registry=made, buckets=_STEPS
        )
        self._resource = {
            method: counter(f"kbs_resource_{name}", f"Resource {name}", "resource_path")
            for method, name in (("GET", "reads"), ("POST", "writes"), ("DELETE", "deletes"))
        }
        self._policy = {
            name: counter(f"kbs_policy_{name}", f"Resource decisions: {name}")
            for name in ("evaluations", "approvals", "violations", "errors")
        }
        self._auth = {name: counter(f"kbs_auth_{name}", f"Challenges: {name}") for name in _ANSWERS}
        self._attest = {
            name: counter(f"kbs_attestation_{name}", f"Attestations: {name}") for name in ("requests", "errors")
        }
        self._attested = {
            name: counter(f"kbs_attestation_{name}", f"Attestations: {name}", "tee_type")
            for name in ("successes", "failures")
        }

    def _http(self, made: CollectorRegistry) -> None:
        self._all = Counter("kbs_http_requests", "Requests", registry=made)
        self._seconds = Histogram("kbs_http_request_duration_seconds", "Time", registry=made, buckets=_SECONDS)
        self._in = Histogram("kbs_http_request_size_bytes", "Bodies in", registry=made, buckets=_BYTES)
        self._out = Histogram("kbs_http_response_size_bytes", "Bodies out", registry=made, buckets=_BYTES)
        self.active = Gauge(
            "kbs_http_active_connections", "Requests under way", registry=made, multiprocess_mode="livesum"
        )

    def answered(self, told: Answered) -> None:
        """Count an answered request."""
        route, method, status = told.route or OTHER, told.method, told.status
        self._all.inc()
        self._seconds.observe(told.seconds)
        self._in.observe(told.got)
        self._out.observe(told.sent)
        self._of(self._requests, route, method if method in _METHODS else OTHER, str(status)).inc()
        for rule in told.rules:
            self._of(self._refusals, route, self._rule(rule)).inc()
        if route == AUTH:
            self._auth["requests"].inc()
            self._auth["successes" if status < 400 else "errors"].inc()
        elif route == ATTEST:
            self._attest["requests"].inc()
            if told.tee:
                name = "successes" if status < 400 else "failures"
                self._of(self._attested[name], told.tee if told.tee in ROOMS else OTHER).inc()
            else:
                self._attest["errors"].inc()
        elif route.startswith(RESOURCE) and method in self._resource and status < 400:
            self._of(self._resource[method], self._path(told.path[len(RESOURCE) :])).inc()

    def limited(self, why: str) -> None:
        """Count a request that was turned away; `why` is a constant."""
        self._limited.labels(why).inc()

    def dropped(self, why: str) -> None:
        """Count a connection that was ended by `api.protocol`; `why` is a constant."""
        self._dropped.labels(why).inc()

    def step(self, act: str, name: str, seconds: float) -> None:
        """Part of `broker.meter.Sink`."""
        self._of(self._steps, act, name).observe(seconds)

    def decided(self, act: str, tee: str, allowed: bool, rules: Iterable[str]) -> None:
        """Part of `broker.meter.Sink`."""
        known = tee if tee in ROOMS else OTHER
        self._of(self._decisions, act, known, "allowed" if allowed else "refused").inc()
        failed = [self._rule(rule) for rule in rules]
        for rule in failed:
            self._of(self._reasons, act, rule).inc()
        broken = not allowed and not BROKEN.isdisjoint(failed)
        if act == "release" or broken:
            self._policy["evaluations"].inc()
            self._policy["errors" if broken else "approvals" if allowed else "violations"].inc()

    def text(self) -> tuple[bytes, str]:
        """The exposition of all processes, and its media type."""
        if folder := os.environ.get(FOLDER):
            whole = CollectorRegistry()
            MultiProcessCollector(whole, path=folder)  # type: ignore[no-untyped-call] # the library has no types here
            return generate_latest(whole), CONTENT_TYPE_LATEST
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    def _of(self, metric: M, *labels: str) -> M:
        """A metric's child; labels are bounded, so what is kept of them is too."""
        child: M | None = self._children.get((id(metric), *labels))
        if child is None:
            child = self._children[id(metric), *labels] = metric.labels(*labels)
        return child

    def _rule(self, rule: str) -> str:
        return self._rules(rule) if _RULE.fullmatch(rule) else OTHER

    def _path(self, path: str) -> str:
        if self._shown == "none":
            return HIDDEN
        return self._paths(path if self._shown == "full" else path.partition("/")[0])


_BUILD = ("version", "git_hash", "build_date")
_MOST: dict[str, Any] = {"multiprocess_mode": "max"}
_ANSWERS = ("requests", "successes", "errors")
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
