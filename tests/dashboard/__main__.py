"""Load a proxy, let a real Prometheus scrape it, and draw the dashboard from what its own queries return.

    python -m tests.dashboard [--minutes 4] [--picture docs/images/dashboard.svg]

It needs the program `prometheus`. Grafana is not involved: `drawing.py` draws the panels.
"""

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.dashboard.drawing import Panel, Series, draw
from tests.ports import free_port

ROOT: Final = Path(__file__).parents[2]
DASHBOARD: Final = ROOT / "config/grafana/dashboard.json"
STEP_SECONDS: Final = 3
START_SECONDS: Final = 60
VARIABLES: Final = {"$job": "llm-token-proxy", "$instance": ".*", "$__rate_interval": "30s"}
CALLERS: Final = ("ragflow", "dify", "batch")
SETTINGS: Final = """
[[access.keys]]
name = "ragflow"
key = "sk-ragflow-4f1c2e9b"
max_streams = 20

[[access.keys]]
name = "dify"
key = "sk-dify-77a0b3d5"

[[access.keys]]
name = "batch"
key = "sk-batch-c9e81f02"
rate = "60/minute"

[routes]
default = "chat"
embeddings = "embed"
models = [{{ match = "cheap", upstream = "flaky" }}]

[upstreams.chat]
base_url = "{gateway}/v1"
credential = "corp"

[upstreams.embed]
base_url = "{gateway}/v1"
credential = "corp"

[upstreams.flaky]
base_url = "{flaky}/v1"
credential = "corp"
fallback = "chat"
breaker = {{ failures = 3, cool_down = 30 }}

[credentials.corp]
source = "http"
url = "{gateway}/token"
json = {{ appId = "demo", appSecret = "demo-secret" }}
token = "data.token"
expires = [{{ path = "data.expireTime", as = "epoch_ms" }}]
"""
SCRAPE: Final = """
global: {{scrape_interval: 2s}}
scrape_configs: [{{job_name: llm-token-proxy, static_configs: [{{targets: ["{target}"]}}]}}]
"""


@contextlib.asynccontextmanager
async def running(*command: str) -> AsyncIterator[None]:
    """Run a program during the block."""
    devnull = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=devnull, stderr=devnull)
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def wait_for(session: aiohttp.ClientSession, url: str) -> None:
    """Wait until a program answers."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(url) as response:
                    if response.ok:
                        return
            await asyncio.sleep(0.1)


async def load(session: aiohttp.ClientSession, proxy: str, seconds: float) -> None:
    """Send requests for some time, first at a growing and then at a falling rate."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        while (passed := time.monotonic() - began) < seconds:
            group.create_task(ask(session, proxy, random.choice(CALLERS)))
            rate = 3 + 9 * (1 - abs(2 * passed / seconds - 1))
            await asyncio.sleep(random.expovariate(rate))


async def ask(session: aiohttp.ClientSession, proxy: str, caller: str) -> None:
    """Send one request of a caller. Some callers leave early, and some request an unknown path."""
    keys = dict(zip(CALLERS, ("sk-ragflow-4f1c2e9b", "sk-dify-77a0b3d5", "sk-batch-c9e81f02"), strict=True))
    headers = {"Authorization": f"Bearer {keys[caller] if random.random() > 0.02 else 'sk-unknown'}"}
    kind = random.choices(("stream", "embeddings", "leave"), (6, 3, 1))[0]
    question = {"role": "user", "content": "Tell me about tokens, please. " * random.randint(1, 4)}
    body: dict[str, Any] = {"model": "bge-m3", "input": ["one", "two"]}
    if kind != "embeddings":
        model = random.choices(("gpt-4o", "qwen-max", "cheap"), (5, 3, 1))[0]
        options = {"include_usage": True}
        body = {"model": model, "stream": True, "messages": [question], "stream_options": options}
    path = "embeddings" if kind == "embeddings" else "chat/completions"
    with contextlib.suppress(aiohttp.ClientError):
        async with session.post(f"{proxy}/v1/{path}", json=body, headers=headers) as response:
            if kind == "leave":
                await response.content.readline()
            else:
                await response.read()


async def query(
    session: aiohttp.ClientSession, prometheus: str, model: dict[str, Any], span: tuple[float, float]
) -> Panel:
    """Ask Prometheus for the data of one panel."""
    series = []
    for target in model["targets"]:
        expression = target["expr"]
        for name, value in VARIABLES.items():
            expression = expression.replace(name, value)
        parameters = {"query": expression, "start": span[0], "end": span[1], "step": STEP_SECONDS}
        async with session.get(f"{prometheus}/api/v1/query_range", params=parameters) as response:
            answer = await response.json()
        assert answer["status"] == "success", answer
        for result in answer["data"]["result"]:
            name = target["legendFormat"]
            for label, value in result["metric"].items():
                name = name.replace("{{" + label + "}}", value)
            points = [(float(at), float(value)) for at, value in result["values"] if value != "NaN"]
            series.append(Series(name, points))
    return Panel(model, series, span)


async def measure(minutes: float) -> list[Panel]:
    """Return the panels with data of some minutes."""
    gateway, flaky, proxy, prometheus = (f"127.0.0.1:{free_port()}" for _ in range(4))
    python = (sys.executable, "-m", "proxy")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings, scrape = folder / "proxy.toml", folder / "prometheus.yml"
        settings.write_text(SETTINGS.format(gateway=f"http://{gateway}", flaky=f"http://{flaky}"))
        scrape.write_text(SCRAPE.format(target=proxy))
        storage = f"--storage.tsdb.path={folder / 'data'}"
        async with (
            running(*python, "gateway", "--bind", gateway, "--token-ttl", "60", "--word-delay", "0.05"),
            running(*python, "serve", "--config", str(settings), "--bind", proxy),
            running("prometheus", f"--config.file={scrape}", storage, f"--web.listen-address={prometheus}"),
            aiohttp.ClientSession() as session,
        ):
            for url in (f"http://{proxy}/readyz", f"http://{prometheus}/-/ready"):
                await wait_for(session, url)
            began = time.time()
            await load(session, f"http://{proxy}", minutes * 60)
            span = (began + 2 * STEP_SECONDS, time.time())
            models = json.loads(DASHBOARD.read_text())["panels"]
            return [await query(session, f"http://{prometheus}", model, span) for model in models]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.dashboard")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--picture", type=Path, default=ROOT / "docs/images/dashboard.svg")
    options = parser.parse_args()
    panels = asyncio.run(measure(options.minutes))
    options.picture.write_text(draw(panels))
    empty = [panel.model["title"] for panel in panels if not any(series.points for series in panel.series)]
    print("drawn; panels without data:", ", ".join(empty) or "none")
