"""`token NAME`: fetch one credential once, and say what the service would make of it, never the token."""

import argparse
import asyncio
import math
import os
import sys
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from proxy.cli.gateway import embedded_gateway
from proxy.credentials import MemoryTokenStore
from proxy.credentials.build import build_credentials, build_source
from proxy.credentials.credential import FetchedToken, mint
from proxy.credentials.sources import TokenFetchError, TokenSource, as_fetch_error
from proxy.credentials.sources.expiry import Reply, duration
from proxy.credentials.sources.http_recipe import HttpTokenSource
from proxy.credentials.sources.request_values import credentials_in
from proxy.errors import SettingsError
from proxy.recipe import outline
from proxy.settings import Credential, Logs, Settings, load_settings
from proxy.settings.problems import dotted, suggestion
from proxy.settings.urls import EMBEDDED
from proxy.telemetry import configure_logs

EXIT_FAILED: Final = 1


class Fetched(NamedTuple):
    """A token, when it was asked for, and the reply where the source has one."""

    token: FetchedToken
    asked: float
    """Seconds since the epoch."""
    reply: Reply | None


def token(options: argparse.Namespace) -> int:
    """Print lifetime, refresh, expiry and the masked reply; the exit status."""
    settings = load_settings(options.config, os.environ)
    name = options.name
    if name not in settings.credentials:
        raise SettingsError(
            f"{options.config}: {dotted((name,))}: names no credential, "
            f"{suggestion(name, settings.credentials)}"
        )
    configure_logs(Logs(level="warning"))
    if settings.credentials[name].reissue == "revokes_previous":
        print(
            "note: this fetch ends the token that a running service holds; it will get a new one",
            file=sys.stderr,
        )
    needed = needed_by(name, settings.credentials)
    try:
        fetched = asyncio.run(_fetch(_narrowed(settings, needed), name))
    except TokenFetchError as error:
        print(f"credentials.{dotted((name,))}: {error.reason}", file=sys.stderr)
        return EXIT_FAILED
    print(report(name, settings.credentials[name].source, fetched))
    return 0


def needed_by(name: str, sections: Mapping[str, Credential]) -> list[str]:
    """The credential and those whose tokens its request holds, at any distance."""
    found: list[str] = []
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.append(current)
            waiting += credentials_in(dict(sections[current]))
    return found


def _narrowed(settings: Settings, names: list[str]) -> Settings:
    """Settings with these credentials alone, and with the embedded gateway only where one of them asks it."""
    credentials = {name: settings.credentials[name] for name in names}
    values = [value for section in credentials.values() for _, value in section]
    embedded = any(isinstance(value, str) and value.startswith(EMBEDDED) for value in values)
    gateway = settings.gateway if embedded else None
    return settings.model_copy(update={"credentials": credentials, "gateway": gateway})


async def _fetch(settings: Settings, name: str) -> Fetched:
    """Fetch once; an error passes the gateway's task group as a value, else it would come as a group."""
    async with embedded_gateway(settings) as resolve:
        outcome = await _outcome(resolve(settings).credentials, name)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


async def _outcome(sections: Mapping[str, Credential], name: str) -> Fetched | Exception:
    store = MemoryTokenStore()
    others = build_credentials({of: sections[of] for of in sections if of != name}, store)
    try:
        source = build_source(sections[name], others)
        try:
            async with asyncio.timeout(sections[name].timeout):
                return await _ask(source)
        finally:
            await source.close()
    except SettingsError as error:
        return error
    except Exception as error:  # whatever a source raises is told as the service would
        return as_fetch_error(error)
    finally:
        await others.close()
        await store.close()


async def _ask(source: TokenSource) -> Fetched:
    asked = time.time()
    if not isinstance(source, HttpTokenSource):
        return Fetched(await source.fetch(), asked, None)
    reply = await source.ask()
    return Fetched(source.read(reply), asked, reply)


def report(name: str, source: str, fetched: Fetched) -> str:
    """What the service would make of it, in lines."""
    earliest, latest = (mint(fetched.token, generation=1, obtained=0.0, uniform=pick) for pick in (min, max))
    lines = [("credential", name), ("source", source)]
    if math.isinf(fetched.token.lifetime):
        lines.append(("lifetime", "does not expire"))
    else:
        soft = f"{_moment(earliest.soft, fetched.asked)} to {_moment(latest.soft, fetched.asked)}"
        lines += [
            ("lifetime", f"{duration(fetched.token.lifetime)} from the moment it was asked for"),
            (
                "refreshed",
                f"after {duration(earliest.soft)} to {duration(latest.soft)} (drawn anew each time): {soft}",
            ),
            ("not sent", f"after {duration(earliest.hard)}: {_moment(earliest.hard, fetched.asked)}"),
        ]
    lines.append(("fingerprint", f"{earliest.fingerprint} (of this process: another one names it otherwise)"))
    text = "\n".join(f"{label:<12} {value}" for label, value in lines)
    return text if fetched.reply is None else f"{text}\n{_reply(fetched.reply, fetched.token)}"


def _reply(reply: Reply, fetched: FetchedToken) -> str:
    secret = fetched.secret.reveal()
    headers = {key: value for key, value in reply.headers.items() if value == secret}
    shown = outline(reply.body, reply.text, headers, secrets=[secret])
    return f"reply        status {reply.status}, {len(reply.text.encode())} bytes, values masked\n{shown}"


def _moment(after: float, asked: float) -> str:
    """Local time, with the date where it is another day."""
    start = datetime.fromtimestamp(asked).astimezone()
    moment = start + timedelta(seconds=after)
    return moment.strftime("%H:%M:%S" if moment.date() == start.date() else "%Y-%m-%d %H:%M:%S")
