"""The connection of a worker to its supervisor."""

import asyncio
import socket

import pytest

from proxy.server.supervisor import Lifeline
from tests.pace import PATIENCE


@pytest.mark.parametrize("has_read", [True, False])
async def test_a_worker_notices_the_death_of_its_supervisor(*, has_read: bool) -> None:
    ours, theirs = socket.socketpair()
    died = asyncio.Event()
    with ours, Lifeline(theirs.detach()) as lifeline:
        lifeline.watch(died.set, lambda _: None)
        if has_read:
            assert ours.recv(100) == b"\n"
        ours.close()
        async with asyncio.timeout(PATIENCE):
            await died.wait()
