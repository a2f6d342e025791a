"""Threads for long repairs: a few at a time, in which callers take turns.

asyncio's default executor renders the chat too, and serves its queue in the order of arrival: one caller with
many large responses would delay everything else that it runs.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

from proxy.daemon_threads import start_call

THREADS_MAX: Final = 2
"""Repairs hold Python's global lock most of the time, so more threads would only delay the event loop."""

T = TypeVar("T")


class RepairThreads:
    """The threads of one worker, and who waits for one."""

    def __init__(self) -> None:
        self._running = 0
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """The turns that each caller waits for; the caller that was served last is the last one."""

    async def run(self, caller: str, call: Callable[[], T]) -> T:
        """Call a function in a thread, after the calls of other callers that wait, but one of each at most.

        A call that has begun keeps its place until it ends, even if nobody waits for it any more.

        Args:
            caller: The caller whose response is repaired.
            call: The function.
        """
        await self._take_turn(caller)
        try:
            called = start_call(call, "repair")
        except RuntimeError:  # The system allows no further thread.
            self._release()
            raise
        called.add_done_callback(lambda _: self._release())
        await asyncio.wait([called])
        return called.result()

    async def _take_turn(self, caller: str) -> None:
        if self._running < THREADS_MAX:
            self._running += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(caller, turn)
            else:  # It came at the same moment.
                self._release()
            raise

    def _leave(self, caller: str, turn: "asyncio.Future[None]") -> None:
        turns = self._waiting.get(caller)
        if turns is not None and turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[caller]

    def _release(self) -> None:
        """Give the place to the caller that has waited longest since its last turn."""
        while self._waiting:
            caller = next(iter(self._waiting))
            turns = self._waiting.pop(caller)
            turn = turns.popleft()
            if turns:
                self._waiting[caller] = turns
            if not turn.done():  # Its task may have been cancelled, and not have run since.
                turn.set_result(None)
                return
        self._running -= 1
