"""A call that waits until something is true of a job."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from service.api.context import Context
from service.db.reader import Statement

POLL_S = 0.02
"""Seconds before the second look at a job of another process. The pause grows with the time waited."""
MAX_POLL_S = 0.2
"""Seconds at which that pause stops to grow."""


async def wait(context: Context, job_id: str, looked_at: Statement, is_over: Callable[[Any], bool], seconds: float) -> None:
    """Wait until `is_over` of the row that `looked_at` finds. A worker in this process rings a bell. For other workers the row is read."""
    began, rang = time.monotonic(), asyncio.Event()
    loop = asyncio.get_running_loop()
    with context.database.bells.listening(job_id, lambda: loop.call_soon_threadsafe(rang.set)):
        while (waited := time.monotonic() - began) < seconds:
            rang.clear()
            row = await context.reader.row(looked_at, {"id": job_id})
            if row is None or is_over(row):
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(rang.wait(), min(max(POLL_S, waited / 10), MAX_POLL_S, seconds - waited))
