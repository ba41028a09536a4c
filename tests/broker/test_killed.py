"""Brokers killed under load: what they acknowledged is there, and no connection suffers but the killed ones."""

import random
import time

import pytest

from casemate.testing import postgres, programs, replicas
from casemate.testing.replicas import Outage, Replica


@pytest.fixture
def server():
    try:
        with postgres.running() as made:
            yield made
    except programs.Missing as reason:
        pytest.skip(str(reason))


def cycles(replica, number, handshakes, *, between=lambda i: None):
    """Kill and start a broker under load; returns what the crowd saw."""
    outages = []
    with replicas.running(replica):
        with replicas.crowd(replica.settings.port, replica) as crowd:
            for i in range(number):
                replicas.wait_for(crowd.seen, handshakes, 2)
                time.sleep(random.random() * 0.1)
                outages.append(replicas.killed(replica))
                between(i)
            replicas.wait_for(crowd.seen, handshakes, 2)
        assert replica.stop() == 0
    return crowd.seen, outages


def judge(settings, seen, outages):
    assert seen.faults == []
    assert replicas.unexplained(seen, outages) == []
    assert replicas.lost(settings, seen) == []
    assert seen.refused_replays > 0
    assert len(seen.checkpoints) > 5


def durable(folder, number, handshakes, url=""):
    settings = replicas.prepared(folder, url)
    seen, outages = cycles(Replica(folder), number, handshakes)
    assert seen.unavailable == 0
    judge(settings, seen, outages)


def durable_on_postgres(folder, number, handshakes, server):
    """Every other time the database server dies too."""
    settings = replicas.prepared(folder, server.url)
    away = []

    def between(i):
        if i % 2 == 0:
            away.append(time.monotonic())
            server.kill()
            server.start()

    seen, outages = cycles(Replica(folder), number, handshakes, between=between)
    judge(settings, seen, outages)
    assert away


@pytest.mark.timeout(400)
def test_three_kills_on_sqlite(tmp_path):
    durable(tmp_path / "b", 3, 15)


@pytest.mark.timeout(400)
def test_three_kills_on_postgresql(tmp_path, server):
    durable_on_postgres(tmp_path / "b", 3, 15, server)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_fifty_kills_on_sqlite(tmp_path):
    durable(tmp_path / "b", 50, 30)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_fifty_kills_on_postgresql(tmp_path, server):
    durable_on_postgres(tmp_path / "b", 50, 30, server)


def pair(tmp_path, server, kills, handshakes):
    settings = replicas.prepared(tmp_path / "one", server.url)
    two = replicas.twin(tmp_path / "one", tmp_path / "two")
    both = [Replica(tmp_path / "one"), Replica(two)]
    instants = []
    with replicas.running(*both), replicas.proxied(tmp_path, [one.settings.port for one in both]) as port:
        with replicas.crowd(port, both[0], guests=8) as crowd:
            for _ in range(kills):
                replicas.wait_for(crowd.seen, handshakes, 2)
                victim = random.choice(both)
                begun = time.monotonic()
                victim.kill()
                instants.append(Outage(begun, time.monotonic()))  # the other one answers meanwhile
                time.sleep(0.3 * random.random())
                victim.start()
                time.sleep(1)  # the proxy sees it
            replicas.wait_for(crowd.seen, handshakes, 2)
        for one in both:
            assert one.stop() == 0
    assert crowd.seen.unavailable == 0
    judge(settings, crowd.seen, instants)


@pytest.mark.timeout(400)
def test_two_replicas_killed_in_turn(tmp_path, server):
    pair(tmp_path, server, 3, 15)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_two_replicas_killed_many_times(tmp_path, server):
    pair(tmp_path, server, 50, 60)
