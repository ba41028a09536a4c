"""Policies that crash, loop and hoard; many threads at a time; children that are killed. The service goes on."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casemate.drivers.rego import Broken, Compiling, Crowded, Pool, compile_policy
from casemate.drivers.rego import pool as pools
from casemate.drivers.rego.askers import Askers
from casemate.drivers.rego.compile import program
from casemate.errors import Malformed, Unavailable
from casemate.policy.rego import inputs

HEAD = "package policy\nimport rego.v1\n"
GOOD = HEAD + 'trust_claims := {"hardware": 2} if input.x in query_reference_value("known")\n'


def good(pool, group=""):
    """The answer of a sound policy."""
    asked = {"given": {"x": 1}, "references": {"known": [1]}, "group": group}
    return pool.evaluate(pool.compiled(GOOD), **asked).values


BOMBS = {
    "loop": "a := count([1 | some i in numbers.range(1, 99999); some j in numbers.range(1, 99999); i * j == -7])",
    "regex": 'a := regex.match("(a+)+$", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab")',
    "memory": "a := [x | some i in numbers.range(1, 90000); x := numbers.range(1, 90000 + i - i)]",
    "nested": "a := json.marshal([x | some i in numbers.range(1, 300); x := numbers.range(1, 90000)])",
    "text": 'a := concat("", [s | some i in numbers.range(1, 99999); s := sprintf("%0200d", [i])])',
    "number": "a := product(numbers.range(1, 99999))",
    "conflict": "a := 1\na := 2",
}


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_a_bomb_fails_its_own_request_alone(pool, name):
    policy = pool.compiled(HEAD + BOMBS[name])
    with pytest.raises(Broken):
        pool.evaluate(policy, given={})
    assert good(pool) == {"trust_claims": {"hardware": 2}}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "package other\na := 1",
        HEAD + "a := {",
        HEAD + "a := nobody(1)",
        HEAD + "a := b\nb := a",
        HEAD + "a := http.send({})",
        HEAD + "a := opa.runtime()",
        HEAD + "a := 1\0",
        "a" * (257 << 10),
        HEAD + 'a := allow with input as {"z": 1}',
        HEAD
        + "a if allow with input as {}\nallow if input.x == 3\nb if { allow with input.z as 3 }\nw := allow with input",
    ],
)
def test_what_cannot_be_compiled_is_malformed(text):
    with pytest.raises(Malformed):
        compile_policy(text)


@pytest.mark.parametrize("end", ["", "\n", "# the end", "\n# the end", "\r\n# the end"])
def test_a_policy_may_end_as_it_likes(pool, end):
    text = GOOD.rstrip("\n") + end
    answer = pool.evaluate(pool.compiled(text), given={"x": 1}, references={"known": [1]})
    assert answer.values["trust_claims"] == {"hardware": 2}
    assert compile_policy(text).digest == inputs.text_digest(text)


def test_an_error_names_its_line():
    with pytest.raises(Malformed) as caught:
        compile_policy(HEAD + "a := 1\n\nb := [1, 2\n")
    assert 5 in {problem.line for problem in caught.value.problems}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.text(max_size=200), st.text(alphabet='ab:={}[]()"`|.,;_%<>!0 1\n\t', max_size=120)))
def test_any_text_compiles_or_is_malformed(text):
    try:
        compile_policy(HEAD + text)
    except Malformed:
        pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON)
def test_any_input_has_an_answer_and_comes_back_as_it_is(pool, value):
    policy = pool.compiled(HEAD + "same := input.x\nother if input.x != query_reference_value(input.y)\n")
    answer = pool.evaluate(policy, given={"x": value, "y": value})
    assert answer.values == {"same": value}  # neither is anything compared with a value that is missing


def test_a_child_that_is_killed_is_replaced(pool):
    good(pool)
    for pid in pool.pids():
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.05)
    assert good(pool) == {"trust_claims": {"hardware": 2}}


def test_a_group_with_slow_policies_leaves_an_evaluator_to_others():
    pool = Pool(2, seconds=5)
    slow = pool.compiled(HEAD + "a := count([1 | some i in numbers.range(1, 60); numbers.range(1, 1000)[_] == i])")
    try:
        with ThreadPoolExecutor(8) as threads:
            crowd = [threads.submit(pool.evaluate, slow, given={}, group="crowd") for _ in range(12)]
            assert good(pool, "one") == {"trust_claims": {"hardware": 2}}
            ended = sum(one.done() for one in crowd)
            assert all(one.result().values for one in crowd)
        assert ended < 12
    finally:
        pool.close()


def test_many_threads_get_their_own_answers():
    pool = Pool(2)
    policy = pool.compiled(HEAD + "twice := input.x * 2\n")
    try:
        with ThreadPoolExecutor(16) as threads:
            found = list(threads.map(lambda n: pool.evaluate(policy, given={"x": n}).values["twice"], range(400)))
        assert found == [2 * n for n in range(400)]
        assert pool.figures.started <= 2
    finally:
        pool.close()


def test_threads_with_bombs_among_them(pool):
    bomb = pool.compiled(HEAD + "a := count([1 | some i in numbers.range(1, 99999); numbers.range(1, i)[_] == -1])")

    def ask(number):
        try:
            return pool.evaluate(bomb, given={}) if number % 8 == 0 else good(pool)
        except Broken:
            return None

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(ask, range(64)))
    assert [f for n, f in enumerate(found) if n % 8] == [{"trust_claims": {"hardware": 2}}] * 56
    assert found[::8] == [None] * 8


def test_a_policy_that_breaks_its_child_is_set_aside_for_a_while():
    now = [0.0]
    pool = Pool(1, seconds=0.1, clock=lambda: now[0])
    try:
        slow = pool.compiled(HEAD + BOMBS["regex"])
        for _ in range(pools.PATIENCE):
            with pytest.raises(Broken):
                pool.evaluate(slow, given={})
        killed = pool.figures.killed
        with pytest.raises(Broken, match="set aside"):
            pool.evaluate(slow, given={})
        assert pool.figures.killed == killed  # it was not tried
        assert good(pool)
        now[0] += pools.LONGEST
        with pytest.raises(Broken, match="longer than"):
            pool.evaluate(slow, given={})
    finally:
        pool.close()


def test_a_policy_is_set_aside_for_the_group_that_asked():
    pool = Pool(1, seconds=0.1)
    try:
        policy = pool.compiled(HEAD + 'a if regex.match("(a+)+$", input)')
        for _ in range(pools.PATIENCE):
            with pytest.raises(Broken, match="longer than"):
                pool.evaluate(policy, given="a" * 40 + "b", group="one")
        with pytest.raises(Broken, match="set aside"):
            pool.evaluate(policy, given="a", group="one")
        pool._seconds = 10.0
        assert pool.evaluate(policy, given="a", group="two").values == {"a": True}
    finally:
        pool.close()


@pytest.mark.parametrize(("threads", "children", "each", "whole"), [(8, 2, 2, 4), (4, 2, 2, 2), (8, 8, 4, 4),
                         (1, 2, 1, 1), (32, 2, 8, 16), (None, 1, 99, 99)])  # fmt: skip
def test_a_group_and_all_groups_hold_a_part_of_the_threads(threads, children, each, whole):
    askers, held = Askers(threads, children), []

    def more(group):
        one = askers.one(group)
        try:
            one.__enter__()
        except Crowded as error:
            return error.room()  # no
        held.append(one)
        return True

    assert sum(more("a") for _ in range(99)) == each
    assert each + sum(more("b") for _ in range(99 if threads else 0)) <= max(whole, each + 1)
    if threads and threads >= 4:
        assert more("c") or threads - len(held) <= threads // 4  # whoever holds none gets one, up to three quarters
        assert len(held) <= threads - threads // 4
    with askers.one("a", own=True):
        pass
    for one in held:
        one.__exit__(None, None, None)
    assert sum(more("b") for _ in range(99)) == each


def test_groups_never_share_a_child():
    pool = Pool(1)
    try:
        good(pool, "one")
        first = pool.pids()
        good(pool, "one")
        assert pool.pids() == first
        good(pool, "two")
        assert pool.pids() != first
    finally:
        pool.close()


def test_children_that_do_not_start_are_not_tried_at_once(pool, monkeypatch):
    made = Pool(1)
    monkeypatch.setattr("casemate.drivers.rego.worker.program", lambda _: ["/bin/false"])
    with pytest.raises(Unavailable):
        made.evaluate(pool.compiled(GOOD), given={})
    monkeypatch.setattr("casemate.drivers.rego.worker.program", program)
    with pytest.raises(Unavailable):
        made.evaluate(pool.compiled(GOOD), given={})
    time.sleep(0.3)
    assert made.evaluate(pool.compiled(GOOD), given={"x": 1}, references={"known": [1]}).values
    made.close()


def test_a_closed_pool_answers_nobody_and_leaves_no_child():
    pool = Pool(1)
    good(pool)
    pids = pool.pids()
    pool.close()
    with pytest.raises(Unavailable):
        good(pool)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_busy_evaluators_are_waited_for(pool):
    """More questions than children: all get their answer."""
    results = []
    threads = [threading.Thread(target=lambda: results.append(good(pool))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 10


def test_a_child_is_confined(pool):
    good(pool)
    assert "limits" in pool.figures.confinement
    status = Path(f"/proc/{pool.pids()[0]}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    if "seccomp" in pool.figures.confinement:
        assert "Seccomp:\t2" in status


@pytest.fixture
def stuck(monkeypatch):
    """A compiler that is at it, for a text with the word `slow`, until the second of these events."""
    begun, go = threading.Event(), threading.Event()

    def compiling(text):
        if "slow" in text:
            begun.set()
            assert go.wait(60)
        return compile_policy(text)

    monkeypatch.setattr(pools, "compile_policy", compiling)
    yield begun, go
    go.set()


def test_a_text_that_is_slow_to_compile_keeps_no_other_waiting(stuck):
    begun, go = stuck
    made = Pool(1)
    with ThreadPoolExecutor(3) as threads:
        slow = [threads.submit(made.compiled, HEAD + "slow := 1\n") for _ in range(2)]
        assert begun.wait(20)
        other = threads.submit(made.compiled, GOOD)
        try:
            assert other.result(20).rules
        finally:
            go.set()
        assert slow[0].result(20) is slow[1].result(20)  # once for each text
    assert not made._turns


def test_groups_take_turns_at_what_they_try(stuck):
    begun, go = stuck
    made = Pool(1)
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(made.fresh, HEAD + "slow := 1\n", "one")
        assert begun.wait(20)
        try:
            with pytest.raises(Unavailable):
                made.fresh(GOOD, "one")
            assert made.fresh(GOOD, "two").rules
        finally:
            go.set()
        assert slow.result(20).rules
    assert made.fresh(GOOD, "one").rules
    assert not made._compiled


def _slow(made, threads, groups):
    return [threads.submit(made.fresh, HEAD + f"slow := {number}\n", name) for number, name in enumerate(groups)]


def _until(what):
    while not what():
        threading.Event().wait(0.005)


def test_who_finds_the_compilers_taken_waits_in_line(stuck):
    """Two tenants with slow policies do not keep a third from setting one; nobody is there twice."""
    _, go = stuck
    made = Pool(1, threads=8)
    with ThreadPoolExecutor(8) as threads:
        try:
            slow = _slow(made, threads, ("one", "two"))
            _until(lambda: len(made._fresh) == pools.FRESH)
            waits = []
            for name in ("three", "four"):
                waits.append(threads.submit(made.fresh, GOOD, name))
                _until(lambda name=name: name in made._line)
            assert made._line == ["three", "four"]
            for name in ("one", "three", "five"):  # compiled, waiting, and one more thread than may be held
                with pytest.raises(Compiling):
                    made.fresh(GOOD, name)
        finally:
            go.set()
        assert all(one.result(20).rules for one in (*slow, *waits))
    assert not made._fresh
    assert not made._line


def test_a_wait_for_the_compiler_ends(stuck, monkeypatch):
    _, go = stuck
    made = Pool(1)
    monkeypatch.setattr(pools, "FRESH_SECONDS", 0.05)
    with ThreadPoolExecutor(2) as threads:
        slow = _slow(made, threads, ("one", "two"))
        try:
            _until(lambda: len(made._fresh) == pools.FRESH)
            with pytest.raises(Compiling):
                made.fresh(GOOD, "three")
        finally:
            go.set()
        assert all(one.result(20).rules for one in slow)
    assert made.fresh(GOOD, "three").rules


def test_troubles_are_changed_under_their_lock(pool):
    class Watched(dict):
        def pop(self, *which):
            held.append(pool._free._is_owned())
            return super().pop(*which)

    held, before = [], pool._troubles
    pool._troubles = Watched(before)
    try:
        good(pool)
    finally:
        pool._troubles = before
    assert held == [True]


def test_plans_in_use_are_kept(monkeypatch):
    monkeypatch.setattr(pools, "MAX_COMPILED", 2)
    made = Pool(1)
    kept = made.compiled(GOOD)
    for number in range(3):
        made.compiled(HEAD + f"a := {number}\n")
        assert made.compiled(GOOD) is kept
