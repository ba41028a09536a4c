"""Threads for acts: what a close ends and what it lets go on."""

import asyncio
import threading

import pytest

from casemate.api.pool import Pool


def test_what_waits_at_a_close_is_not_begun_and_what_was_begun_goes_on():
    begun, go, there = [], threading.Event(), threading.Event()

    def act(number):
        begun.append(number)
        there.set()
        assert go.wait(20)
        return number

    async def ask():
        pool = Pool(1)
        asked = [asyncio.create_task(pool.run(act, number)) for number in range(5)]
        await asyncio.to_thread(there.wait, 20)
        threads = list(pool._threads)
        pool.close()
        go.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        await asyncio.to_thread(threads[0].join, 20)
        assert not threads[0].is_alive()
        return found

    first, *rest = asyncio.run(ask())
    assert first == 0
    assert begun == [0]
    assert len(rest) == 4
    assert all(isinstance(one, asyncio.CancelledError) for one in rest)


@pytest.mark.parametrize("times", [1, 3])
def test_a_pool_that_never_ran_closes(times):
    pool = Pool(2)
    for _ in range(times):
        pool.close()
