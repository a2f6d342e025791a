"""The embedded gateway: settings point to it while the block runs, and nothing listens afterwards."""

import asyncio
from urllib.parse import urlsplit

import pytest

from proxy.cli.gateway import embedded_gateway
from proxy.settings import load_settings
from proxy.shipped import shipped


async def test_settings_point_to_a_gateway_of_this_process_until_the_end_of_the_block() -> None:
    settings = load_settings(shipped("config/proxy.toml"), {})
    async with embedded_gateway(settings) as resolve:
        url = urlsplit(resolve(settings).upstreams["chat"].base_url)
        assert url.hostname == "127.0.0.1"
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 401 ")
        writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(url.hostname, url.port)


async def test_without_a_gateway_settings_stay_as_they_are() -> None:
    settings = load_settings(shipped("config/proxy.toml"), {}).model_copy(update={"gateway": None})
    async with embedded_gateway(settings) as resolve:
        assert resolve(settings) is settings
