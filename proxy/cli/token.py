"""`token NAME`: fetch a token once, and print how the service would use it, but never the token."""

import argparse
import asyncio
import math
import os
import sys
from datetime import datetime, timedelta

from proxy.cli.arguments import EXIT_FAILED
from proxy.cli.gateway import embedded_gateway
from proxy.cli.trial import (
    REVOKES,
    TokenTrial,
    outline_of,
    repeated_prefix,
    try_credential,
    try_redis,
    with_dependencies,
)
from proxy.credentials.sources.reply import duration
from proxy.credentials.sources.reply_faults import REPLY_HINT
from proxy.credentials.token import FetchedToken, with_deadlines
from proxy.errors import SettingsError
from proxy.settings import CredentialSettings, Logs, Settings, load_settings
from proxy.settings.section import dotted, suggestion
from proxy.telemetry import configure_logs


def token(options: argparse.Namespace) -> int:
    """Print lifetime, refresh, expiry and the redacted reply; return the exit status.

    Raises:
        SettingsError: The settings are invalid, or have no credential of that name.
    """
    settings = load_settings(options.config, os.environ)
    name = options.name
    if name not in settings.credentials:
        raise SettingsError(
            f"{options.config}: {dotted((name,))}: names no credential, "
            f"{suggestion(name, settings.credentials)}"
        )
    configure_logs(Logs(level="error"))  # Warnings are printed below, worded for people.
    section = settings.credentials[name]
    if section.reissue == "revokes_previous":
        _warn(REVOKES)
    shared = asyncio.run(_redis_fault(settings, section))
    if shared:
        _warn(f"shared: {shared}")
    trial = asyncio.run(_try(with_dependencies(settings, name), name))
    label = f"credentials.{dotted((name,))}"
    if trial.token is None:
        print(f"{label}: {trial.reason.removesuffix(REPLY_HINT)}", file=sys.stderr)
        if trial.reply is not None:
            print(f"its reply: {outline_of(trial.reply, section, None)}", file=sys.stderr)
        return EXIT_FAILED
    print(report(name, section, trial, trial.token))
    if trial.token.doubt is not None:
        _warn(f"{label}: {trial.token.doubt.reason}")
    prefix = repeated_prefix(section, trial.token)
    if prefix:
        _warn(
            f'{label}: the token in the reply already begins with "{prefix}", which would be sent twice: set '
            'inject.template = "{token}"'
        )
    return EXIT_FAILED if shared and section.sharing == "redis_required" else 0


def _warn(words: str) -> None:
    print(f"warning: {words}", file=sys.stderr)


async def _redis_fault(settings: Settings, section: CredentialSettings) -> str:
    """Return the fault of the Redis that shares this credential, and its consequence; empty if none."""
    if section.sharing == "local" or settings.shared is None:
        return ""
    fault = await try_redis(settings.shared)
    if fault is None:
        return ""
    if section.sharing == "redis_required":
        return f"{fault}; with sharing = redis_required the service has no token until Redis is back"
    return f"{fault}; until Redis is back, each process fetches its own token"


async def _try(settings: Settings, name: str) -> TokenTrial:
    async with embedded_gateway(settings) as resolve:
        return await try_credential(resolve(settings).credentials, name)


def report(name: str, section: CredentialSettings, trial: TokenTrial, fetched: FetchedToken) -> str:
    """Describe in lines how the service would use the token."""
    earliest, latest = (
        with_deadlines(fetched, generation=1, obtained=0.0, uniform=pick) for pick in (min, max)
    )
    lines = [("credential", name), ("source", section.source)]
    if math.isinf(fetched.lifetime):
        lines.append(("lifetime", "does not expire"))
    else:
        start = trial.requested_at
        soft = f"{_moment(earliest.refresh_at, start)} to {_moment(latest.refresh_at, start)}"
        lines += [
            ("lifetime", f"{duration(fetched.lifetime)} from the moment of the request"),
            (
                "refreshed",
                f"after {duration(earliest.refresh_at)} to {duration(latest.refresh_at)} "
                f"(random each time): {soft}",
            ),
            (
                "not sent",
                f"after {duration(earliest.expires_at)}: {_moment(earliest.expires_at, start)}",
            ),
        ]
    lines.append(("fingerprint", f"{earliest.fingerprint} (in this process; it differs in others)"))
    if trial.reply is not None:
        lines.append(("reply", outline_of(trial.reply, section, fetched)))
    return "\n".join(f"{label:<12} {value}" for label, value in lines)


def _moment(after: float, requested_at: float) -> str:
    """Return the local time, with the date if it is another day."""
    start = datetime.fromtimestamp(requested_at).astimezone()
    moment = start + timedelta(seconds=after)
    return moment.strftime("%H:%M:%S" if moment.date() == start.date() else "%Y-%m-%d %H:%M:%S")
