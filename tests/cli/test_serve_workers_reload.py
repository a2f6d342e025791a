"""`serve --workers`: a worker's successor serves by the settings in effect, whatever the files contain."""

import asyncio
import contextlib
import os
import signal
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_serve_workers import answer_json
from tests.cli.worker_processes import SERVER, Workers, two_workers, write_files
from tests.conftest import KEY
from tests.pace import PATIENCE
from tests.raw_caller import raw_caller
from tests.raw_upstream import raw_upstream
from tests.tls_servers import make_certificate

pytestmark = [pytest.mark.fleet, pytest.mark.xdist_group("load")]

CALLS = 20
JSON = "Content-Type: application/json"
NEW_KEY = "sk-new-key-91-0a7c"
LIMITED = 'name = "tester"\nmodels = ["cheap"]'


async def replace_worker(service: Workers) -> None:
    """Kill a worker, and wait for its successor, which has to start at its first attempt."""
    os.kill(service.pids[0], signal.SIGKILL)
    await service.read("worker_ready")
    assert [line["ready"] for line in service.log if line["event"] == "worker_died"] == [True]


async def statuses(service: Workers, key: str, body: bytes = b'{"model": "cheap"}') -> set[int]:
    """Return the statuses of requests that both workers answer."""
    return {await status(service, key, body) for _ in range(CALLS)}


async def status(service: Workers, key: str, body: bytes) -> int:
    """Send a request on a new connection, and return its status."""
    async with raw_caller(service.url) as caller:
        await caller.send("POST", "/v1/chat/completions", JSON, body=body, key=key)
        answer = await caller.answer()
        await caller.body(answer)
        return answer.status


def with_another_key(text: str) -> str:
    return text.replace(KEY, NEW_KEY)


def without_its_end(text: str) -> str:
    return text.partition("models =")[0] + text.partition("[routes]")[2].join(["[routes]", ""])


def malformed(text: str) -> str:
    return text + "[access\n"


@pytest.mark.parametrize("edit", [with_another_key, without_its_end, malformed])
async def test_a_file_that_nobody_has_asked_to_load_is_not_loaded(
    tmp_path: Path, edit: Callable[[str], str]
) -> None:
    async with raw_upstream(answer_json) as upstream:
        write_files(tmp_path, upstream.url)
        path = tmp_path / "proxy.toml"
        path.write_text(path.read_text().replace('name = "tester"', LIMITED))
        async with two_workers(tmp_path) as service:
            path.write_text(edit(path.read_text()))
            await replace_worker(service)
            assert await statuses(service, KEY) == {200}
            assert await statuses(service, KEY, b'{"model": "expensive"}') == {403}
            assert await statuses(service, NEW_KEY) == {401}


async def test_a_successor_serves_by_what_the_last_reload_accepted(tmp_path: Path) -> None:
    async with raw_upstream(answer_json) as upstream:
        write_files(tmp_path, upstream.url)
        async with two_workers(tmp_path) as service:
            write_files(tmp_path, upstream.url, key=NEW_KEY, more='[cors]\norigins = ["*"]\n')
            service.process.send_signal(signal.SIGHUP)
            await service.read("reloaded", 2)
            (tmp_path / "proxy.toml").write_text("[access\n")
            service.process.send_signal(signal.SIGHUP)
            await service.read("reload_rejected")
            await replace_worker(service)
            assert await statuses(service, NEW_KEY) == {200}
            for _ in range(CALLS):  # [cors] needs a restart, of all workers
                async with raw_caller(service.url) as caller:
                    await caller.send(
                        "POST", "/v1/chat/completions", "Origin: https://a.example", body=b"{}", key=NEW_KEY
                    )
                    answer = await caller.answer()
                    await caller.body(answer)
                    assert answer.header("Access-Control-Allow-Origin") == []
    rejections = [line for line in service.log if line["event"] == "reload_rejected"]
    assert len(rejections) == 1


async def test_a_successor_presents_the_certificate_in_effect(tmp_path: Path) -> None:
    first, second = make_certificate(tmp_path), make_certificate(tmp_path)
    pair = tmp_path / "pair.pem"
    write_files(tmp_path, "http://127.0.0.1:9")
    (tmp_path / "hypercorn.toml").write_text(f'{SERVER}certfile = "pair.pem"\nkeyfile = "pair.pem"\n')
    pair.write_bytes(first.read_bytes())

    async def shown(service: Workers, certificate: Path) -> bool:
        context = ssl.create_default_context(cafile=certificate)
        async with asyncio.timeout(PATIENCE):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", service.port, ssl=context)
            except ssl.SSLCertVerificationError:
                return False
        writer.close()
        with contextlib.suppress(OSError):  # the end of TLS
            await writer.wait_closed()
        return True

    async with two_workers(tmp_path) as service:
        assert {await shown(service, first) for _ in range(CALLS)} == {True}
        pair.write_bytes(second.read_bytes())
        service.process.send_signal(signal.SIGHUP)
        await service.read("reloaded", 2)
        assert {await shown(service, second) for _ in range(CALLS)} == {True}
        pair.write_bytes(first.read_bytes()[:-100])
        service.process.send_signal(signal.SIGHUP)
        await service.read("certificate_rejected")
        await replace_worker(service)
        assert {await shown(service, second) for _ in range(CALLS)} == {True}
