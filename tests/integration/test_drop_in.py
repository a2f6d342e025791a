"""The Flask original is replaced as documented, and nothing else changes: nginx, RAGFlow, the script."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.cli.processes import ROOT, running
from tests.conftest import RunningGateway
from tests.documents import DOCUMENTS, MIGRATIONS, fences
from tests.nginx import nginx_serving
from tests.pace import PATIENCE
from tests.ports import free_port
from tests.waiting import look_again

SCRIPT = ROOT / "tests/cli/original_script.py"
ORIGINAL_KEY = "fake key"
SAID = "As a mock AI Assitant, I can only echo your last message:你是谁"
HOST = "llm.corp.example"
"""The host name that RAGFlow uses for this machine."""

PLAIN_LOCATION = "proxy_pass http://127.0.0.1:{port}; proxy_buffering off;"
USUAL_LOCATION = f"""{PLAIN_LOCATION}
    proxy_set_header Host $host;
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;"""
SERVER = """
server {{
    listen unix:{home}/nginx.sock;
    listen 127.0.0.1:{nginx};
    location /agent/api/llm_proxy/ {{ {location} }}
}}
"""


@dataclass(frozen=True)
class Answers:
    """The answers that RAGFlow got."""

    chat: str | None
    streamed: str
    vectors: Sequence[Sequence[float]]


def the_file_of(page: str, gateway: str) -> str:
    """Return the page's `my.toml` with the addresses of the gateway."""
    (text,) = fences(DOCUMENTS[page], "toml")
    text = text.replace("https://auth.corp.example", gateway)
    text = re.sub(r"https://(llm|embed)\.corp\.example", gateway, text)
    return text.replace('appId = "ragflow"', 'appId = "demo"')


async def ask(nginx: int, key: str = ORIGINAL_KEY) -> Answers:
    """Send RAGFlow's requests through nginx."""
    async with openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{nginx}/agent/api/llm_proxy/v1",
        api_key=key,
        max_retries=0,
        default_headers={"Host": HOST},
        http_client=httpx2.AsyncClient(trust_env=False, timeout=PATIENCE),
    ) as client:
        messages: Any = [{"role": "user", "content": "你是谁"}]
        chat = await client.chat.completions.create(model="mock-gpt-model", messages=messages)
        stream: Any = await client.chat.completions.create(
            model="mock-gpt-model", messages=messages, stream=True
        )
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        embedded = await client.embeddings.create(model="mock-embedding-model", input=["一", "二"])
    return Answers(
        chat.choices[0].message.content,
        "".join(pieces),
        [item.embedding for item in embedded.data],
    )


async def run_script(port: int) -> str:
    """Return the joined output of the original script, which runs with another port."""
    script = SCRIPT.read_text().replace("localhost:5002", f"localhost:{port}")
    async with running(sys.executable, "-c", f"{script}\ntest_steam()") as process:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            text = (await process.stdout.read()).decode()
            status = await process.wait()
    return "".join(re.findall(r'"content": "(.*?)"', text)) if status == 0 else f"status {status}"


@asynccontextmanager
async def listening(port: int, *command: str, **environment: str) -> AsyncIterator[None]:
    """Run a service on this port, and wait until it listens."""
    async with (
        running(sys.executable, "-m", *command, **environment) as process,
        asyncio.timeout(None) as clock,
    ):
        clock.reschedule(asyncio.get_running_loop().time() + PATIENCE)
        while True:
            assert process.returncode is None, "it ended"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await look_again()
                continue
            writer.close()
            break
        clock.reschedule(None)
        yield


@pytest.mark.parametrize(
    ("page", "location"), [*zip(MIGRATIONS, (USUAL_LOCATION, PLAIN_LOCATION), strict=True)]
)
async def test_the_original_is_replaced_and_nothing_else_changes(
    gateway: RunningGateway, tmp_path: Path, page: str, location: str
) -> None:
    port, nginx = free_port(), free_port()
    config = tmp_path / "my.toml"
    config.write_text(the_file_of(page, gateway.url))
    serve = ("proxy", "serve", "--config", str(config), "--bind", f"127.0.0.1:{port}")
    server = SERVER.format(home=tmp_path, nginx=nginx, location=location.format(port=port))
    secrets = {"CORP_APP_SECRET": "demo-secret", "RAGFLOW_KEY": "sk-a-long-key-of-ragflow"}
    async with nginx_serving(tmp_path, server):
        async with listening(port, "tests.integration.original_app", gateway.url, str(port)):
            before, script_before = await asyncio.gather(ask(nginx), run_script(port))
        async with listening(port, *serve, **secrets):
            after, script_after = await asyncio.gather(ask(nginx), run_script(port))
        assert (after, script_after) == (before, script_before)
        assert before.chat == before.streamed == script_before == SAID

        with_key = config.read_text()
        with_key = re.sub(r"^(mode|hosts) = .*\n", "", with_key, flags=re.MULTILINE).replace("[access]\n", "")
        config.write_text(re.sub(r"^# ", "", with_key, flags=re.MULTILINE))
        async with listening(port, *serve, **secrets):
            with pytest.raises(openai.AuthenticationError):
                await ask(nginx)
            assert await ask(nginx, key=secrets["RAGFLOW_KEY"]) == before
