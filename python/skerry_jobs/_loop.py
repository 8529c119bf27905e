"""An event loop in a thread of its own, on which handlers that are coroutines run."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Coroutine, Set


class HandlerLoop:
    """Runs coroutines until it is closed. Its methods are for other threads than the loop's."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._tasks: Set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="skerry-loop", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, None]) -> None:
        """Begins a coroutine that raises nothing."""
        self._loop.call_soon_threadsafe(self._begin, work)

    def cancel(self, task: asyncio.Task[None]) -> None:
        """Cancels a task of the loop. A task that has ended, and a loop that is closed, need none."""
        try:
            self._loop.call_soon_threadsafe(task.cancel)
        except RuntimeError:
            pass

    def close(self) -> None:
        """Waits until all coroutines have ended, and ends the loop."""
        asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        # The loop itself holds tasks weakly.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()
