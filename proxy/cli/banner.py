"""The banner that `serve` prints: where the service is, and how to try it. It contains no private key."""

import sys
from collections.abc import Iterable
from typing import Final

from proxy import __version__
from proxy.cli.arguments import typed_command
from proxy.cli.output import announce
from proxy.settings import DEFAULT_CALLER_KEYS, Access, Settings, mask_url

NAMES_SHOWN: Final = 5
_MEANINGS: Final = {"any": "none is required: any will do", "YOUR_KEY": "one of yours in [[access.keys]]"}


def print_banner(settings: Settings, address: str) -> None:
    """Print the banner: always for the demonstration gateway, otherwise only on a terminal."""
    if settings.gateway is not None:
        announce(
            _of_demonstration(settings, address, _public_key(settings.access), settings.gateway.token_ttl)
        )
    elif sys.stdout.isatty():
        announce(_of_service(settings, address))


def _public_key(access: Access) -> str:
    """Return the key to show: a public default key, never one of the operator's."""
    keys = [caller.key.reveal() for caller in access.keys if caller.key is not None]
    if access.mode == "open":
        return "any"
    return next((key for key in keys if key in DEFAULT_CALLER_KEYS), "YOUR_KEY")


def _of_demonstration(settings: Settings, address: str, key: str, token_ttl: float) -> str:
    return f"""
LLM token proxy, in front of its demonstration gateway.

  base URL   {address}/v1   (the original's: {address}/agent/api/llm_proxy/v1)
  key        {_MEANINGS.get(key, key)}
  token      fetched and refreshed by the proxy; each lives {token_ttl:g} s
{_pages(settings, address)}
Try it:

  curl -N {address}/v1/chat/completions \\
    -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\
    -d '{{"model": "mock-gpt-model", "stream": true, "messages": [{{"role": "user", "content": "你是谁"}}]}}'

Connect your own gateway:   {typed_command()} init
"""


def _of_service(settings: Settings, address: str) -> str:
    callers = [caller.name for caller in settings.access.keys]
    keys = "none is required" if settings.access.mode == "open" else _join_names(callers)
    return f"""
LLM token proxy {__version__}

  base URL   {address}/v1
  keys       {keys}
  upstreams  {_join_names(f"{name} ({mask_url(each.base_url)})" for name, each in settings.upstreams.items())}
{_pages(settings, address)}
Does it work?   {typed_command()} doctor --url {address}/v1 --key -
"""


def _join_names(names: Iterable[str]) -> str:
    listed = [*names]
    return ", ".join(listed[:NAMES_SHOWN]) + (", ..." if len(listed) > NAMES_SHOWN else "")


def _pages(settings: Settings, address: str) -> str:
    pages = [("chat", "/chat/", settings.chat), ("status", "/status", settings.status)]
    return "".join(f"  {name:<10} {address}{path}\n" for name, path, section in pages if section is not None)
