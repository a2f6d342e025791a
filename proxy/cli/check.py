"""`check`: validate the settings and print them; with `--online`, also try what they refer to."""

import asyncio
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from proxy.cli.arguments import EXIT_FAILED
from proxy.cli.gateway import embedded_gateway
from proxy.cli.trial import REVOKES, try_credential, try_redis, try_upstream
from proxy.credentials.sources.reply import duration
from proxy.errors import SettingsError
from proxy.settings import HttpCredential, Logs, Settings, describe, load_settings
from proxy.settings.access import keys_that_match, weak_keys
from proxy.settings.section import dotted
from proxy.telemetry import configure_logs

_MISTAKEN_KEYS: Final = (
    (
        re.compile(r"""(["']).*\1"""),
        "has quotes around it, which callers must send, too; `docker run --env-file` does not remove them",
    ),
    (
        re.compile(r"\$(env:)?\w+|%\w+%"),
        "is the name of a variable and not its value: write ${env:NAME}",
    ),
)
"""Keys that are valid but probably mistakes, and what is wrong with them."""


def check(config: Path, *, online: bool = False) -> int:
    """Print the settings with secrets masked, and whether they are valid; return the exit status."""
    settings = load_settings(config, os.environ)
    print(describe(settings))
    for warning in warnings(settings):
        print(f"warning: {warning}", file=sys.stderr)
    if online:
        configure_logs(Logs(level="error"))
        failures = asyncio.run(_try_all(settings))
        if failures:
            print(f"FAILED: {_count(failures, 'problem')} with {config}, see above", file=sys.stderr)
            return EXIT_FAILED
    print(f"OK: {config}: {summary(settings)}")
    return 0


def summary(settings: Settings) -> str:
    """Return the numbers of keys, upstreams and credentials."""
    keys = "no key required" if settings.access.mode == "open" else _count(len(settings.access.keys), "key")
    upstreams = _count(len(settings.upstreams), "upstream")
    return f"{keys}, {upstreams}, {_count(len(settings.credentials), 'credential')}"


def warnings(settings: Settings) -> Iterator[str]:
    """Yield warnings about settings that are valid but probably mistakes."""
    for name in weak_keys(settings.access):
        yield (
            f'access.keys: the key of "{name}" has fewer than 16 characters and could be guessed; '
            "`openssl rand -hex 24` makes a better one"
        )
    for pattern, words in _MISTAKEN_KEYS:
        for name in keys_that_match(settings.access, pattern):
            yield f'access.keys: the key of "{name}" {words}'
    for name, credential in settings.credentials.items():
        if isinstance(credential, HttpCredential) and isinstance(credential.json_body, str):
            path = dotted(("credentials", name, "json"))
            yield f'{path}: is sent as one string in quotes; write an object as json = {{ appId = "..." }}'


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


async def _try_all(settings: Settings) -> int:
    """Try Redis, every credential and every upstream, and print a line for each; return how many failed."""
    failures = 0
    async with embedded_gateway(settings) as resolve:
        resolved = resolve(settings)
        if resolved.shared is not None:
            fault = await try_redis(resolved.shared)
            failures += _print_result("shared", str(fault or "Redis answers"), good=fault is None)
        for name in resolved.credentials:
            failures += await _try_credential(resolved, name)
        for name in resolved.upstreams:
            trial = await try_upstream(resolved, name)
            failures += _print_result(f"upstreams.{dotted((name,))}", trial.words, good=trial.good)
    return failures


async def _try_credential(settings: Settings, name: str) -> int:
    label = f"credentials.{dotted((name,))}"
    if settings.credentials[name].reissue == "revokes_previous":
        print(f"warning: {label}: {REVOKES}", file=sys.stderr)
    try:
        trial = await try_credential(settings.credentials, name)
    except SettingsError as error:
        return _print_result(label, str(error), good=False)
    if trial.token is None:
        return _print_result(label, f"{trial.reason}; `token {name}` shows more", good=False)
    if trial.token.doubt is not None:
        print(f"warning: {label}: {trial.token.doubt.reason}", file=sys.stderr)
    life = trial.token.lifetime
    return _print_result(
        label, f"a token that lives {duration(life)}" if life < 1e12 else "a token without end", good=True
    )


def _print_result(label: str, words: str, *, good: bool) -> int:
    """Print one line; return 1 for a failure, otherwise 0."""
    print(f"{'ok    ' if good else 'FAILED'}  {label}: {words}", file=sys.stdout if good else sys.stderr)
    return int(not good)
