"""The service on uvicorn and on Granian: tests of other modules, and what these servers do differently."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from proxy.cli.server import load_server_config, open_sockets
from proxy.cli.worker import ServeOptions, serve_until_stopped
from proxy.settings import load_settings
from tests.blueprints.test_exchange import (
    test_a_key_is_accepted_in_any_of_its_headers,
    test_a_streamed_body_over_the_limit_is_413,
    test_invalid_json_is_400_and_is_not_forwarded,
)
from tests.blueprints.test_realtime import (
    test_a_wrong_key_is_rejected_in_the_envelope,
    test_text_and_binary_pass_unaltered_with_the_token_of_the_proxy,
    test_the_drain_closes_both_sides_with_going_away,
    test_the_upstreams_close_reaches_the_caller,
)
from tests.cli.worker_processes import two_workers, write_files
from tests.conftest import KEY, SETTINGS, STATIC, RunProxy
from tests.integration.test_bytes import (
    test_a_json_body_is_forwarded_byte_for_byte,
    test_a_large_upload_is_streamed_and_not_held,
    test_an_encoded_slash_arrives_encoded,
    test_any_method_is_forwarded_with_its_body,
    test_each_event_is_forwarded_before_the_next_one_is_created,
    test_half_an_event_waits_for_its_other_half,
    test_head_has_the_upstreams_length_and_no_body,
    test_headers_are_forwarded_with_the_live_token_instead_of_the_callers_key,
    test_multipart_arrives_as_sent,
)
from tests.integration.test_faults import (
    test_a_caller_who_leaves_a_silent_stream_closes_the_upstream,
    test_a_caller_who_leaves_before_the_response_closes_the_upstream,
    test_a_stream_that_breaks_gives_its_events_and_one_error_event,
    test_any_other_body_that_breaks_aborts_the_connection,
    test_draining_ends_a_stream_with_an_error_event,
)
from tests.integration.test_main_job import (
    test_a_caller_who_leaves_mid_stream_closes_the_upstream,
    test_a_revoked_token_is_replaced_unnoticed,
    test_a_stream_arrives_piece_by_piece,
    test_a_wrong_key_is_401_in_the_envelope,
    test_chat_arrives_at_every_mount,
    test_embeddings_go_to_their_own_upstream,
)
from tests.loopback import until_accepting
from tests.pace import PATIENCE, paced
from tests.raw_caller import raw_caller
from tests.raw_upstream import Conversation, raw_upstream

__all__ = [  # Tests of other modules, which run here on other servers.
    "test_a_caller_who_leaves_a_silent_stream_closes_the_upstream",
    "test_a_caller_who_leaves_before_the_response_closes_the_upstream",
    "test_a_caller_who_leaves_mid_stream_closes_the_upstream",
    "test_a_json_body_is_forwarded_byte_for_byte",
    "test_a_key_is_accepted_in_any_of_its_headers",
    "test_a_large_upload_is_streamed_and_not_held",
    "test_a_revoked_token_is_replaced_unnoticed",
    "test_a_stream_arrives_piece_by_piece",
    "test_a_stream_that_breaks_gives_its_events_and_one_error_event",
    "test_a_streamed_body_over_the_limit_is_413",
    "test_a_wrong_key_is_401_in_the_envelope",
    "test_a_wrong_key_is_rejected_in_the_envelope",
    "test_an_encoded_slash_arrives_encoded",
    "test_any_method_is_forwarded_with_its_body",
    "test_any_other_body_that_breaks_aborts_the_connection",
    "test_chat_arrives_at_every_mount",
    "test_draining_ends_a_stream_with_an_error_event",
    "test_each_event_is_forwarded_before_the_next_one_is_created",
    "test_embeddings_go_to_their_own_upstream",
    "test_half_an_event_waits_for_its_other_half",
    "test_head_has_the_upstreams_length_and_no_body",
    "test_headers_are_forwarded_with_the_live_token_instead_of_the_callers_key",
    "test_invalid_json_is_400_and_is_not_forwarded",
    "test_multipart_arrives_as_sent",
    "test_text_and_binary_pass_unaltered_with_the_token_of_the_proxy",
    "test_the_drain_closes_both_sides_with_going_away",
    "test_the_upstreams_close_reaches_the_caller",
]


@pytest.fixture(params=["uvicorn", "granian"])
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def endless(talk: Conversation) -> None:
    await talk.start_stream()
    await talk.chunk(b"data: 1\n\n")
    await talk.caller_left()


async def test_sigterm_ends_a_stream_with_an_error_event_and_then_the_service(
    tmp_path: Path, server: str
) -> None:
    async with raw_upstream(endless) as upstream, asyncio.TaskGroup() as group:
        path = tmp_path / "proxy.toml"
        path.write_text(
            SETTINGS.format(key=KEY, upstream=upstream.url, credential=STATIC, options="", more="")
        )
        config = load_server_config("127.0.0.1:0")
        config.graceful_timeout, config.readiness_delay = paced(0.3), 0
        sockets = open_sockets(config.bind, backlog=10)
        port = sockets[0].getsockname()[1]
        service = group.create_task(
            serve_until_stopped(load_settings(path, {}), ServeOptions(config, sockets, kind=server))
        )
        await until_accepting("127.0.0.1", port)
        async with raw_caller(f"http://127.0.0.1:{port}") as caller:
            await caller.send("POST", "/v1/chat/completions", body=b"{}")
            answer = await caller.answer()
            await caller.chunk()
            os.kill(os.getpid(), signal.SIGTERM)
            assert b'"code":"shutting_down"' in await caller.body(answer)
            caller.leave()
            async with asyncio.timeout(PATIENCE):
                await service


async def test_malformed_http_is_rejected_without_an_envelope(run_proxy: RunProxy) -> None:
    async with run_proxy("http://127.0.0.1:1") as proxy, raw_caller(proxy.url) as caller:
        await caller.write(b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n")
        answer = await caller.answer()
        assert answer.status == 400
        assert answer.header("content-type") != ["application/json"]


@pytest.mark.parametrize("server", ["uvicorn"])
async def test_every_worker_runs_on_the_server_that_was_chosen(tmp_path: Path, server: str) -> None:
    write_files(tmp_path, "http://127.0.0.1:1")
    async with two_workers(tmp_path, "--server", server) as service:
        for _ in range(8):  # The kernel spreads the connections.
            async with raw_caller(service.url) as caller:
                await caller.write(b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n")
                answer = await caller.answer()
                assert answer.header("content-type") == ["text/plain; charset=utf-8"]
