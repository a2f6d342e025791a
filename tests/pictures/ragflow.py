"""The pictures of `docs/ragflow.md`: the form, `doctor`, the log line of a request, and the status page."""

import asyncio
import contextlib
import io
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp

from proxy.app import create_app
from proxy.cli import main
from proxy.cli.gateway import embedded_gateway
from proxy.settings import Logs, load_settings
from proxy.telemetry import configure_logs
from tests.loopback import serve_on_loopback, until
from tests.pictures.drawing import Form, forms, terminal

ROOT: Final = Path(__file__).parents[2]
ORIGIN: Final = "http://127.0.0.1:5002"
KEY: Final = "sk-local"
STATUS_KEY: Final = "status-key-of-the-pictures"
LANGUAGES: Final = {"": "C.UTF-8", ".zh-CN": "zh_CN.UTF-8"}
"""The languages by the end of the file name."""
CHAT, EMBEDDINGS = "mock-gpt-model", "mock-embedding-model"
BASE_URL: Final = "http://HOST:5002/v1"

TITLES: Final = {
    "": (
        "Illustration of RAGFlow's form, filled in for a chat model and for an embedding model",
        "An illustration of RAGFlow's form, not a screenshot; the layout differs between releases.",
    ),
    ".zh-CN": (
        "示意图：RAGFlow 的表单，分别为对话模型和向量模型填写",
        "这是 RAGFlow 表单的示意图，不是截图；不同版本的布局有所不同。",
    ),
}
DIALOGS: Final = {
    "": [
        Form(
            "Add LLM",
            [
                ("Model type", kind),
                ("Model name", model),
                ("Base url", BASE_URL),
                ("API-Key", KEY),
                ("Max Tokens", "8192"),
            ],
            ["Cancel", "OK"],
        )
        for kind, model in (("chat", CHAT), ("embedding", EMBEDDINGS))
    ],
    ".zh-CN": [
        Form(
            "添加 LLM",
            [
                ("模型类型", kind),
                ("模型名称", model),
                ("基础 Url", BASE_URL),
                ("API-Key", KEY),
                ("最大token数", "8192"),
            ],
            ["取消", "确定"],
        )
        for kind, model in (("chat", CHAT), ("embedding", EMBEDDINGS))
    ],
}


def draw_forms(language: str) -> str:
    """Draw the two dialogs."""
    return forms(DIALOGS[language], *TITLES[language])


@asynccontextmanager
async def service(folder: Path) -> AsyncIterator[str]:
    """Serve the demonstration for a caller named `ragflow`, and yield the address."""
    path = folder / "proxy.toml"
    text = (ROOT / "config/proxy.toml").read_text(encoding="utf-8")
    path.write_text(text.replace('name = "local"', 'name = "ragflow"'), encoding="utf-8")
    settings = load_settings(path, {"PROXY__STATUS__KEY": STATUS_KEY})
    configure_logs(settings.logs, io.StringIO())  # The output of `doctor` must not mix with the log.
    async with embedded_gateway(settings) as resolve:
        app = create_app(resolve(settings))
        async with serve_on_loopback(app) as url:
            await until(app.serving.is_set)
            yield url


async def doctor(url: str, language: str) -> str:
    """Run the command of the page, and return the session."""
    arguments = ["doctor", "--url", f"{ORIGIN}/v1", "--key", KEY, "--model", CHAT]
    arguments += ["--embedding-model", EMBEDDINGS]
    printed = io.StringIO()
    with _language(language), contextlib.redirect_stdout(printed):
        status = await asyncio.to_thread(main, [word.replace(ORIGIN, url) for word in arguments])
    assert status == 0, printed.getvalue()
    return f"$ .venv/bin/python -m proxy {' '.join(arguments)}\n{printed.getvalue().replace(url, ORIGIN)}"


async def ask(url: str) -> None:
    """Ask one question as RAGFlow does, and read the answer."""
    body = {"model": CHAT, "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"Authorization": f"Bearer {KEY}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as response,
    ):
        await response.read()


async def request_line(url: str) -> str:
    """Ask one question, and return its line in the log."""
    log = io.StringIO()
    configure_logs(Logs(format="json"), log)
    await ask(url)
    await until(lambda: '"exchange"' in log.getvalue())
    (line,) = [line for line in log.getvalue().splitlines() if '"exchange"' in line]
    return json.dumps(
        json.loads(line), ensure_ascii=False
    )  # with spaces, at which the picture breaks the line


def draw_session(text: str, language: str) -> str:
    """Draw the session with `doctor`."""
    return terminal(text, {"": "doctor finds all well", ".zh-CN": "doctor：一切正常"}[language])


def draw_line(text: str) -> str:
    """Draw the log line of a request."""
    return terminal(text, "the log line of a chat: caller ragflow, outcome ok")


@contextlib.contextmanager
def _language(language: str) -> Iterator[None]:
    before = os.environ.get("LC_ALL")
    os.environ["LC_ALL"] = LANGUAGES[language]
    try:
        yield
    finally:
        if before is None:
            del os.environ["LC_ALL"]
        else:
            os.environ["LC_ALL"] = before
