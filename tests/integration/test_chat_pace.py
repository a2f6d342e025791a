"""When text appears in the chat: each sentence as soon as it has ended; and a reload loses nothing."""

import asyncio
from pathlib import Path

from proxy.app import reload
from tests.chat.visitor import blocks, states
from tests.conftest import RunProxy
from tests.integration.test_chat import CHAT, DONE, chatting, chunk, first_of, held, says
from tests.raw_upstream import Conversation, raw_upstream
from tests.test_config_snapshots import settings


async def test_a_sentence_is_shown_while_the_model_pauses_after_it(run_proxy: RunProxy) -> None:
    go_on = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.start_stream()
        await talk.chunk(chunk(content="第一句。"))
        if await first_of(go_on, talk):
            await talk.chunk(chunk(content="第二句") + DONE)
            await talk.end()

    async with chatting(run_proxy, script) as (someone, _, _), someone.listen() as stream:
        await someone.ask("问")
        await stream.until("answering")
        assert (await stream.next()).html == "<div class='left'><p>第一句。</p></div>"
        go_on.set()
        assert blocks(await stream.turn()) == ["<div class='left'><p>第二句</p></div>"]


async def test_new_settings_interrupt_no_dialogue_and_apply_to_the_next_one(
    run_proxy: RunProxy, tmp_path: Path
) -> None:
    go_on, script = held()
    other = says(chunk(content="别处。\n"), DONE)
    async with (
        chatting(run_proxy, script) as (someone, proxy, before),
        raw_upstream(other) as after,
        someone.listen() as stream,
    ):
        await someone.ask("问")
        heard = await stream.until("answering")
        await reload(proxy.app, settings(tmp_path, after.url, more=CHAT))
        go_on.set()
        heard += await stream.turn()
        assert states(heard)[-1] == "done"
        assert "着是二。" in "".join(blocks(heard))
        await someone.ask("再问")
        assert blocks(await stream.turn())[-1] == "<div class='left'><p>别处。\n</p></div>"
    assert [len(before.requests), len(after.requests)] == [1, 1]


async def test_the_fallback_answers_in_the_chat_too(run_proxy: RunProxy) -> None:
    async def refuse(talk: Conversation) -> None:
        await talk.answer(b"{}", status="503 No")

    async with raw_upstream(says(chunk(content="后备。\n"), DONE)) as backup:
        more = f'{CHAT}[upstreams.backup]\nbase_url = "{backup.url}/v1"\n'
        async with (
            chatting(run_proxy, refuse, more, 'fallback = "backup"') as (someone, _, _),
            someone.listen() as stream,
        ):
            await someone.ask("问")
            assert blocks(await stream.turn())[-1] == "<div class='left'><p>后备。\n</p></div>"
