"""Fetch a token of a credential once, and judge the reply, the lifetime and the clocks."""

import asyncio
import math
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Final

from proxy.cli.doctor.findings import Finding
from proxy.cli.doctor.network import of_failure
from proxy.cli.trial import TokenTrial, repeated_prefix, try_credential
from proxy.credentials.sources.oauth2 import oauth2_recipe
from proxy.credentials.sources.reply import Reply, duration
from proxy.credentials.sources.reply_faults import is_html
from proxy.credentials.token import SHORT_LIFE_SECONDS, FetchedToken, with_deadlines
from proxy.errors import SettingsError
from proxy.settings import CredentialSettings, HttpCredential, OAuth2Credential
from proxy.settings.credentials.section import CredentialSection, RequestSection
from proxy.settings.section import dotted
from proxy.transport_failure import FailureKind, explain, origin_of

SKEW_SECONDS_MAX: Final = 5.0
"""A larger difference between the clocks is reported. The Date header has whole seconds."""
SLOW_FRACTION: Final = 0.5
"""An endpoint that takes a larger part of the time limit is reported as slow."""


def endpoint_of(section: CredentialSettings) -> str | None:
    """Return the URL of a credential's token endpoint, if it has one."""
    if isinstance(section, OAuth2Credential):
        return section.token_url
    return section.url if isinstance(section, HttpCredential) else None


def trust_of(section: CredentialSection) -> tuple[Path | None, str | None]:
    """Return the CA file and the forward proxy of a credential's requests."""
    return (section.ca_file, section.proxy) if isinstance(section, RequestSection) else (None, None)


async def check_credential(
    sections: Mapping[str, CredentialSettings], name: str
) -> tuple[list[Finding], FetchedToken | None]:
    """Fetch a token, and return the findings and the token."""
    section, subject = sections[name], f"credentials.{dotted((name,))}"
    clock = asyncio.get_running_loop().time
    began = clock()
    try:
        trial = await try_credential(sections, name)
    except SettingsError as error:
        return [Finding("token_failed", subject, {}, str(error))], None
    seconds = clock() - began
    skew = [*_skew(trial.reply, subject)]
    if trial.token is None:
        return [_failure(section, subject, trial), *skew], None
    return [*_judge(section, subject, trial.token, seconds), *skew], trial.token


def _failure(section: CredentialSettings, subject: str, trial: TokenTrial) -> Finding:
    """Return the finding for a fetch without a token."""
    url = endpoint_of(section)
    values = {"origin": origin_of(url or ""), "name": subject.removeprefix("credentials.")}
    if trial.reply is not None:
        values["status"] = str(trial.reply.status)
        return Finding(_fault_of(section, trial.reply), subject, values, trial.reason)
    if url is not None and trial.error is not None and trial.error.__cause__ is not None:
        failure = explain(trial.error.__cause__, url, trust_of(section)[1])
        if failure.kind is not FailureKind.OTHER:
            return of_failure(failure, subject)
    return Finding("token_failed", subject, values, trial.reason)


def _fault_of(section: CredentialSettings, reply: Reply) -> str:
    """Return the id of the finding for a reply without a valid token."""
    status = reply.status
    if status // 100 == 3:
        return "token_redirected"
    if status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
        return "token_path_unknown"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "token_rate_limited"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "token_endpoint_failed"
    if status >= HTTPStatus.BAD_REQUEST:
        return "token_refused"
    recipe = oauth2_recipe(section) if isinstance(section, OAuth2Credential) else section
    if not isinstance(recipe, HttpCredential):
        return "token_failed"
    if not reply.text.strip() and recipe.token_header is None:
        return "token_reply_empty"
    if is_html(reply):
        return "token_reply_html"
    if recipe.success is not None and reply.find(recipe.success.path) != recipe.success.equals:
        return "token_no_success"
    in_body = recipe.token_header is None and not recipe.token_text
    if in_body and reply.body is None:
        return "token_reply_not_json"
    if in_body and not reply.find(recipe.token or ""):
        return "token_missing"
    return "token_already_expired" if in_body else "token_missing"


def _judge(
    section: CredentialSettings, subject: str, token: FetchedToken, seconds: float
) -> Iterator[Finding]:
    """Yield findings about a token: its lifetime, and the time to refresh it."""
    life = token.lifetime
    prefix = repeated_prefix(section, token)
    if prefix:
        yield Finding("token_has_prefix", subject, {"prefix": prefix})
    if math.isinf(life):
        yield Finding("token_endless", subject)
        return
    values = {"life": duration(life), "seconds": f"{seconds:.1f}", "limit": f"{section.timeout:g}"}
    latest = with_deadlines(token, generation=1, obtained=0.0, uniform=max)
    window = latest.expires_at - latest.refresh_at
    values |= {"refresh": duration(latest.refresh_at), "window": duration(window)}
    if life < SHORT_LIFE_SECONDS:
        yield Finding("lifetime_too_short", subject, values)
    elif window < seconds:
        yield Finding("refresh_window_too_short", subject, values)
    else:
        yield Finding("token_works", subject, values)
    if token.doubt is not None:
        identity = "lifetime_doubtful" if token.doubt.readable else "lifetime_unreadable"
        yield Finding(identity, subject, values, token.doubt.reason)
    if seconds > SLOW_FRACTION * section.timeout:
        yield Finding("token_slow", subject, values)
    if section.reissue == "revokes_previous":
        yield Finding("token_revoked_previous", subject)


def _skew(reply: Reply | None, subject: str) -> Iterator[Finding]:
    """Compare the issuer's clock with ours."""
    if reply is None or reply.date is None:
        return
    ahead = reply.date - reply.received
    if abs(ahead) > SKEW_SECONDS_MAX:
        identity = "clock_behind" if ahead > 0 else "clock_ahead"
        yield Finding(identity, subject, {"difference": duration(abs(ahead))})
