"""What a policy costs: compiled, evaluated here, evaluated through a child, by many threads, remembered."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from casemate.drivers.rego import Pool
from casemate.policy.rego import shipped
from casemate.policy.rego.machine import Run
from casemate.policy.rego.plan import Program

INPUT = {
    "snp": {"measurement": "ab" * 48, "reported_tcb_snp": 5, "policy_debug_allowed": False},
    "report_data": "cd" * 64,
    "casemate": {
        "platform_class": "production",
        "memory_encrypted": True,
        "rules": {f"rule.{n}": True for n in range(40)} | {"measurement.snp": True, "platform.tcb": True},
    },
}
ROUNDS = 300


def milliseconds(act: Callable[[], object], rounds: int = ROUNDS) -> float:
    """The median time of `act`."""
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter()
        act()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1000


def main() -> int:
    """Print the figures; 1 when an evaluation takes a millisecond or more."""
    pool = Pool(2)
    text = shipped.text("default_cpu") or ""
    begun = time.perf_counter()
    policy = pool.compiled(text)
    print(f"policy: compiled in a child            {(time.perf_counter() - begun) * 1000:8.2f} ms, once for each text")
    program = Program(policy.plan)
    data: dict[str, object] = {"reference": {}}
    here = milliseconds(lambda: program.rule("trust_claims", Run({}), INPUT, data))
    print(f"policy: evaluated in this process      {here:8.3f} ms")
    begun = time.perf_counter()
    pool.evaluate(policy, given=INPUT, rules=("trust_claims",))
    print(f"policy: the first question (a start)   {(time.perf_counter() - begun) * 1000:8.2f} ms")
    there = milliseconds(lambda: pool.evaluate(policy, given=INPUT, rules=("trust_claims", "extensions")))
    print(f"policy: evaluated in a child           {there:8.3f} ms (target: less than 1)")
    log = [{"index": n, "event": "QUJD" * 40, "digests": [{"digest": "ab" * 48}]} for n in range(150)]
    large = milliseconds(
        lambda: pool.evaluate(policy, given={**INPUT, "tdx": {"log": log}}, rules=("trust_claims",)), 100
    )
    print(f"policy: with an event log of 50 KiB    {large:8.3f} ms")
    with ThreadPoolExecutor(8) as threads:
        begun = time.perf_counter()
        list(threads.map(lambda _: pool.evaluate(policy, given=INPUT, rules=("trust_claims",)), range(2000)))
        rate = 2000 / (time.perf_counter() - begun)
    print(f"policy: eight threads, two children    {rate:8.0f} a second")
    pool.close()
    return int(there >= 1)


if __name__ == "__main__":
    raise SystemExit(main())
