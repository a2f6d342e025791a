"""The processor time of the tasks of a page, on which other programs have no influence."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Browser

from tests.pace import PATIENCE


@dataclass
class Tasks:
    """The tasks of pages during a block, in milliseconds; complete after the block."""

    milliseconds: list[float] = field(default_factory=list)


@asynccontextmanager
async def traced(browser: Browser) -> AsyncIterator[Tasks]:
    """Measure the tasks of the main threads of all pages."""
    tasks, events = Tasks(), list[dict[str, Any]]()
    complete = asyncio.Event()
    session = await browser.new_browser_cdp_session()
    session.on("Tracing.dataCollected", lambda collected: events.extend(collected["value"]))
    session.on("Tracing.tracingComplete", lambda _: complete.set())
    config = {"includedCategories": ["toplevel"]}
    await session.send("Tracing.start", {"traceConfig": config, "transferMode": "ReportEvents"})
    yield tasks
    await session.send("Tracing.end")
    async with asyncio.timeout(PATIENCE):
        await complete.wait()
    await session.detach()
    main = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    tasks.milliseconds += (
        event["tdur"] / 1000 for event in events if (event["pid"], event["tid"]) in main and "tdur" in event
    )
