"""`recipe`: turn a curl line that fetches a token into a tested `[credentials.NAME]` block.

The block is printed to standard output; questions, errors and the variables to export to standard error.
"""

import argparse
import asyncio
import dataclasses
import os
import re
import ssl
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

from proxy.cli.arguments import EXIT_FAILED
from proxy.credentials.build import build_source
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.sources.http import HttpTokenSource
from proxy.credentials.sources.reply import Reply
from proxy.credentials.token import FetchedToken
from proxy.errors import SettingsError
from proxy.recipe.block import STEPS, credential_block, exec_block, exports, hmac_script, request_block
from proxy.recipe.curl_line import CurlRequest, parse_curl
from proxy.recipe.draft import Draft, take_secrets_out
from proxy.recipe.expiries import Candidate, span, with_offset
from proxy.recipe.outline import outline
from proxy.recipe.phrases import language_of, translator
from proxy.recipe.reply import Reading, parse_reply, read_reply, reading_for
from proxy.recipe.shell_words import ComputedLine, CurlLineError, UnfinishedLine, split_words
from proxy.recipe.windows_words import windows_words
from proxy.settings import CredentialSettings, Logs, load_settings
from proxy.telemetry import configure_logs

CHOSEN_CONFIDENCE: Final = 1000
_NAME: Final = re.compile(r"[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?")
OFFSET: Final = re.compile(r"[+-](?:0\d|1[0-4]):[0-5]\d")
_LOOKS_LIKE_A_REQUEST: Final = re.compile(r"curl|://|invoke-|iwr|irm", re.IGNORECASE)
_REST_OF_THE_FILE: Final = """
[access]
mode = "open"
[upstreams.recipe]
base_url = "http://127.0.0.1/v1"
credential = "{name}"
"""


def recipe(options: argparse.Namespace) -> int:
    """Print the block and return the exit status.

    Raises:
        SettingsError: No block can be written, with the reasons in the user's language.
    """
    try:
        return _recipe(options)
    except SettingsError as error:
        translate = translator(language_of(os.environ))
        raise SettingsError(*map(translate, error.problems)) from None


def _recipe(options: argparse.Namespace) -> int:
    if not _NAME.fullmatch(options.name):
        raise SettingsError("--name: must be letters, digits, - and _, and begin with a letter")
    if options.utc_offset is not None and not OFFSET.fullmatch(options.utc_offset):
        raise SettingsError("--utc-offset: must be an offset from UTC, such as +08:00")
    configure_logs(Logs(level="error"))
    recipe = tested_recipe(options)
    if recipe is None:
        return EXIT_FAILED
    print(recipe.block(options.name), end="")
    _print_notes("", *exports(recipe.draft.variables))
    return _check(recipe.section, recipe.reply, [*recipe.environ.values()])


@dataclass(frozen=True, slots=True)
class TestedRecipe:
    """A request that was sent, or whose reply was saved, and how to read its reply."""

    draft: Draft
    reading: Reading
    environ: Mapping[str, str]
    """The values of the variables."""
    section: CredentialSettings
    reply: Reply

    def block(self, name: str, folder: str | None = None) -> str:
        """Write the block in the language of the locale; see `credential_block`."""
        translate = translator(language_of(os.environ))
        return credential_block(name, self.draft, self.reading, translate, folder=folder)


def tested_recipe(options: argparse.Namespace) -> TestedRecipe | None:
    """Read the curl line and the reply to its request; return None if that fails, after saying why."""
    try:
        draft = _draft(options)
    except ComputedLine as error:
        _offer_exec(options, str(error))
        return None
    environ = _environment(draft, offline=options.offline is not None)
    try:
        reply = _reply(options, draft, environ)
    except TokenFetchError as error:
        _failed(error.reason)
        return None
    secrets = [*environ.values()]
    if not HTTPStatus.OK <= reply.status < HTTPStatus.MULTIPLE_CHOICES:
        followed = ", a redirect, which is not followed" if reply.status // 100 == 3 else ""
        _failed(f"the endpoint answered {reply.status}{followed}", reply, secrets)
        return None
    reading = read_reply(reply)
    if not reading.tokens or (reading.refused and reading.unsure_token):
        _failed("the reply contains nothing that looks like a token", reply, secrets)
        return None
    if not options.yes and sys.stdin.isatty():
        reading = _ask_user(reading, reply)
    reading = _with_zone(reading, reply, options)
    block = credential_block(options.name, draft, reading, translator(language_of(os.environ)))
    section = _loaded(block, options.name, environ)
    return TestedRecipe(draft, reading, environ, section, reply)


def _draft(options: argparse.Namespace) -> Draft:
    try:
        line = options.curl if options.curl is not None else read_curl_line()
        return take_secrets_out(_with_absolute_files(parse_curl(line)), options.name)
    except ComputedLine:
        raise
    except CurlLineError as error:
        raise SettingsError(f"the curl line: {error}") from None


def _offer_exec(options: argparse.Namespace, reason: str) -> None:
    """Print a block that runs a script, which could not be tested."""
    reading = None if options.offline is None else read_reply(_saved(options.offline))
    print(exec_block(options.name, reading), end="")
    _print_notes(f'the curl line: {reason}. Use source = "exec" instead:', *STEPS, "", hmac_script().rstrip())


def read_curl_line(begun: str = "") -> str:
    """Read the curl line from standard input; on a terminal it ends where a shell would run it.

    Args:
        begun: The first line of the curl command, if that has been read already.

    Raises:
        CurlLineError: It is not valid UTF-8.
    """
    terminal = sys.stdin.isatty()
    if terminal and not begun:
        _print_notes("Paste the curl line that gets a token:")
    text = begun
    try:
        while not (terminal and text.strip() and _is_complete(text)):
            line = sys.stdin.readline()
            if not line:
                break
            text += line
    except UnicodeDecodeError:
        raise CurlLineError("it is not valid UTF-8") from None
    return text


def _is_complete(text: str) -> bool:
    if text.rstrip("\r\n").endswith(("\\", "^", "`")):
        return False
    try:
        _ = windows_words(text) or split_words(text)
    except UnfinishedLine:
        return False
    except CurlLineError:
        return bool(_LOOKS_LIKE_A_REQUEST.search(text))
    return bool(_LOOKS_LIKE_A_REQUEST.search(text))  # Otherwise these are variables before the command.


def _with_absolute_files(request: CurlRequest) -> CurlRequest:
    """Make paths absolute: curl resolves them from the current folder, the settings from their own."""
    return dataclasses.replace(
        request,
        ca_file=_absolute(request.ca_file),
        client_cert=_absolute(request.client_cert),
        client_key=_absolute(request.client_key),
    )


def _absolute(file: str | None) -> str | None:
    if file is None:
        return None
    try:
        return str(Path(file).expanduser().absolute())
    except (OSError, RuntimeError):
        raise CurlLineError("a path needs the current folder or your home folder, which is missing") from None


def _environment(draft: Draft, *, offline: bool) -> dict[str, str]:
    """Return the values of the variables that the block refers to."""
    environ = {}
    for variable in draft.variables:
        value = os.environ.get(variable.name) if variable.value is None else variable.value.reveal()
        if value is None and not offline:
            raise SettingsError(
                f"the curl line: the shell variable {variable.name} is not set: export it first"
            )
        environ[variable.name] = value or "unset"
    return environ


def _reply(options: argparse.Namespace, draft: Draft, environ: dict[str, str]) -> Reply:
    """Return the saved reply, or send the request once."""
    section = _loaded(request_block(options.name, draft), options.name, environ)
    if options.offline is None:
        return asyncio.run(_send(section))
    return _saved(options.offline)


def _saved(file: Path) -> Reply:
    try:
        return parse_reply(file.read_bytes().decode(), file.stat().st_mtime)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise SettingsError(f"--offline: {file}: cannot be read: {reason}") from None


def _loaded(block: str, name: str, environ: dict[str, str]) -> CredentialSettings:
    """Load the block as the service would."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "recipe.toml")
        path.write_text(block + _REST_OF_THE_FILE.format(name=name), encoding="utf-8")
        try:
            return load_settings(path, environ).credentials[name]
        except SettingsError as error:
            raise SettingsError(*(problem.split(": ", 1)[-1] for problem in error.problems)) from None


def _source(section: CredentialSettings) -> HttpTokenSource:
    try:
        source = build_source(section)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise SettingsError(f"the certificates cannot be used: {type(error).__name__}") from None
    assert isinstance(source, HttpTokenSource)  # noqa: S101 - this command writes no other blocks
    return source


async def _send(section: CredentialSettings) -> Reply:
    source = _source(section)
    try:
        return await source.ask()
    finally:
        await source.close()


async def _read(section: CredentialSettings, reply: Reply) -> FetchedToken:
    source = _source(section)
    try:
        return source.read(reply)
    finally:
        await source.close()


def _check(section: CredentialSettings, reply: Reply, secrets: list[str]) -> int:
    """Read the same reply with the finished block, as the service would; return the exit status."""
    try:
        token = asyncio.run(_read(section, reply))
    except TokenFetchError as error:
        return _failed(f"the block cannot read this reply: {error.reason}", reply, secrets)
    size = len(token.secret.reveal())
    life = span(token.lifetime)
    _print_notes(
        f"# tested: with this block the reply yields a token of {size} characters with a lifetime of {life}"
    )
    return 0


def _ask_user(reading: Reading, reply: Reply) -> Reading:
    """Ask the user about anything that is uncertain."""
    if reading.unsure_token:
        chosen = _choice("Which of these is the token?", reading.tokens)
        reading = reading_for(reply, chosen)
    if reading.unsure_expiry:
        chosen = _choice("Which of these is its lifetime?", reading.expiries)
        reading = dataclasses.replace(reading, expiries=chosen)
    return reading


def _with_zone(reading: Reading, reply: Reply, options: argparse.Namespace) -> Reading:
    """Ask for the UTC offset of a local time, which is never guessed."""
    if not reading.expiries or not reading.expiries[0].local:
        return reading
    best, *others = reading.expiries
    offset: str | None = options.utc_offset
    if offset is None and not options.yes and sys.stdin.isatty():
        _print_notes(
            f"{best.path} is a local time without a time zone. For these UTC offsets the lifetime would be:"
        )
        for known in ("+00:00", "+08:00", "-05:00"):
            life = with_offset(reply, best, known).lifetime
            _print_notes(f"  {known}  {span(life) if life else 'in the past'}")
        while offset is None or not OFFSET.fullmatch(offset):
            print("UTC offset of the issuer's clock, such as +08:00: ", end="", file=sys.stderr, flush=True)
            offset = sys.stdin.readline()
            if not offset:
                return reading
            offset = offset.strip()
    if offset is None:
        return reading
    return dataclasses.replace(reading, expiries=(with_offset(reply, best, offset), *others))


def _choice(question: str, candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    """Ask the user to choose; return the candidates with the chosen one first. Enter chooses the first."""
    if len(candidates) == 1:
        return candidates
    _print_notes(question)
    for number, candidate in enumerate(candidates, 1):
        unit = f" as {candidate.unit}" if candidate.unit else ""
        _print_notes(f"  {number}  {candidate.path or candidate.kind}{unit}: {candidate.why}")
    while True:
        print(f"1 to {len(candidates)} [1]: ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
        text = answer.strip() or "1"
        if text.isascii() and text.isdigit() and 1 <= int(text) <= len(candidates):
            chosen = candidates[int(text) - 1]
            rest = [candidate for candidate in candidates if candidate is not chosen]
            return (
                dataclasses.replace(chosen, confidence=CHOSEN_CONFIDENCE, why=f"{chosen.why} (chosen)"),
                *rest,
            )


def _failed(words: str, reply: Reply | None = None, secrets: list[str] | None = None) -> int:
    _print_notes(words)
    if reply is not None:
        _print_notes("the masked reply:", outline(reply.body, reply.text, secrets=secrets or []))
    return EXIT_FAILED


def _print_notes(*lines: str) -> None:
    """Print lines in the language of the locale."""
    translate = translator(language_of(os.environ))
    for line in lines:
        print(translate(line), file=sys.stderr)
