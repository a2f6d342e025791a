"""`init`: ask five questions, try the answers, write a commented configuration, and test it with `doctor`.

Secrets are written to files that only their owner can read, and never printed. No file is overwritten.
"""

import argparse
import asyncio
import contextlib
import getpass
import io
import itertools
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Final

from proxy.cli.arguments import typed_command
from proxy.cli.doctor.command import diagnose
from proxy.cli.doctor.models import is_for_chat
from proxy.cli.doctor.report import Report
from proxy.cli.doctor.walk import CheckPlan, SettingsWalk, has_failed
from proxy.cli.init_phrases import COMMENTS, TEXTS
from proxy.cli.recipe import TestedRecipe, read_curl_line, tested_recipe
from proxy.errors import SettingsError
from proxy.recipe.block import toml
from proxy.recipe.phrases import language_of
from proxy.settings import EMBEDDED, Logs, Settings, Upstream, load_settings
from proxy.telemetry import configure_logs
from proxy.wire.endpoints import Shape
from proxy.wire.repairs import SETS

CREDENTIAL: Final = "corp"
API_KEY: Final = "GATEWAY_API_KEY"
DEFAULT_CALLER: Final = "ragflow"
ANSWER_CHARACTERS_MAX: Final = 16 * 1024
MODELS_SHOWN: Final = 8
_STEM: Final = re.compile(r"[A-Za-z0-9._-]+")
_ACCESS: Final = {"1", "2", "3"}
_SOURCE: Final = re.compile(r"^source = .*$", re.MULTILINE)
_HEADER: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}")
_PASTED: Final = re.compile(r"curl|invoke-", re.IGNORECASE)
_CALLER: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_DEMONSTRATION: Final = f"""\
[credentials.{CREDENTIAL}]
source = "http"
url = "embedded:/token"
json = {{ appId = "demo", appSecret = "demo-secret" }}
success = {{ path = "code", equals = 0 }}
token = "data.token"
expires = [{{ path = "data.expireTime", as = "epoch_ms" }}]

[gateway]
"""


def init(options: argparse.Namespace) -> int:
    """Ask, try, write and test; return the exit status.

    Raises:
        SettingsError: The options contradict each other, or a file exists.
    """
    if not options.yes and not sys.stdin.isatty():
        raise SettingsError("init: asks on a terminal; elsewhere use --yes with the flags of --help")
    if options.curl is not None and options.api_key is not None:
        raise SettingsError("--api-key: cannot be combined with --curl: give only one of them")
    if options.base_url is None and (options.curl is not None or options.api_key is not None):
        raise SettingsError("--base-url: is required with --curl and --api-key")
    places = Places(options.output)
    places.check_free()
    configure_logs(Logs(level="error"), io.StringIO())  # The findings say what the log would.
    return Setup(options, places, language_of(os.environ)).run()


@dataclass(frozen=True)
class Places:
    """The files to write."""

    config: Path

    @property
    def folder(self) -> Path:
        """Where files hold secrets."""
        return self.config.with_name(f"{self.config.stem}.secrets")

    @property
    def environment(self) -> Path:
        """Exports secrets as variables of a shell."""
        return self.config.with_name(f"{self.config.stem}.env")

    def check_free(self) -> None:
        """Raise an error instead of overwriting a file.

        Raises:
            SettingsError: The name is invalid, its folder is missing, or a file exists.
        """
        if not _STEM.fullmatch(self.config.name):
            raise SettingsError("--output: the name must be letters, digits, dots, - and _")
        if not self.config.parent.is_dir():
            raise SettingsError(f"--output: {self.config.parent}: is not a folder")
        if self.config in {self.folder, self.environment}:
            raise SettingsError(
                "--output: the names that end with .secrets and .env are for secrets; take .toml"
            )
        for path in (self.config, self.folder, self.environment):
            if path.exists() or path.is_symlink():
                raise SettingsError(f"--output: {path} exists and is not overwritten; choose another name")


@dataclass
class Answers:
    """What the user answered, or the flags say."""

    base_url: str = ""
    """Empty for the demonstration gateway."""
    recipe: TestedRecipe | None = None
    api_key: str = ""
    header: str = ""
    """The header that carries the token or key, if it is not Authorization."""
    model: str = ""
    caller: str = DEFAULT_CALLER
    in_files: bool = True
    secrets: dict[str, str] = field(default_factory=dict)
    """The secrets of the gateway and the issuer, by the names of their variables or files."""
    caller_key: str = field(default_factory=lambda: f"sk-{token_hex(24)}")

    @property
    def key_name(self) -> str:
        """The name of the variable or file with the caller's key, different from all names in `secrets`."""
        stem = f"{self.caller.upper().replace('-', '_')}_KEY"
        names = itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(2)))
        taken = {name.upper() for name in self.secrets}  # Some file systems ignore case.
        return next(name for name in names if name not in taken)

    @property
    def values(self) -> dict[str, str]:
        """All secrets, with the caller's key, by the names of their variables or files."""
        return {**self.secrets, self.key_name: self.caller_key}


class Setup:
    """One run of the command.

    Args:
        options: The command line.
        places: Where to write.
        language: `zh` or `en`.
    """

    def __init__(self, options: argparse.Namespace, places: Places, language: str) -> None:
        self._options = options
        self._places = places
        self._language = language
        # A standard stream is None if it was closed before the process began.
        self._report = Report(language, as_json=False, stream=sys.stderr or sys.stdout)
        self._answers = Answers()

    def run(self) -> int:
        """Ask, try, write and test; return the exit status."""
        options, answers = self._options, self._answers
        answers.base_url, answers.header = self._base_url(), _checked_header(options.header or "")
        if answers.base_url:
            listed = self._reach_or_ask() if self._take_access() else None
            if listed is None:
                self._say("nothing")
                return 1
            answers.model = options.model or self._model(listed)
        else:
            answers.model = options.model or "x1"
        answers.caller = self._caller()
        answers.in_files = self._in_files()
        self._write()
        self._say("testing")
        report = Report(self._language, as_json=False, stream=sys.stdout)
        environ = os.environ if answers.in_files else {**os.environ, **answers.values}
        try:
            status = asyncio.run(
                diagnose(self._places.config, CheckPlan(begin=report.begin), report, environ)
            )
        finally:
            report.stop()
        report.end()
        self._print_next_steps()
        return status

    # --- the questions

    def _base_url(self) -> str:
        if self._options.base_url is not None or self._options.yes:
            return _checked_url(self._without_endpoint(self._options.base_url or ""))
        return self._asked_url("url")

    def _asked_url(self, question: str) -> str:
        while True:
            try:
                return _checked_url(self._without_endpoint(self._ask(question)))
            except SettingsError as error:
                print(f"     {error}", file=sys.stderr)

    def _without_endpoint(self, url: str) -> str:
        """Remove an endpoint, as in a URL that was copied from a request, and say so."""
        bare = url.rstrip("/")
        for endpoint in Shape:
            if bare.endswith(f"/{endpoint}"):
                base_url = bare.removesuffix(f"/{endpoint}")
                self._say("corrected", base_url)
                return base_url
        return url

    def _take_access(self) -> bool:
        """Ask how the gateway is to be accessed; return whether that works so far."""
        options = self._options
        chosen = "1" if options.curl is not None else "2" if options.api_key is not None else ""
        line = None if options.curl == "-" else options.curl
        if not chosen:
            chosen = "3" if options.yes else self._access()
        if chosen not in _ACCESS:
            chosen, line = "1", read_curl_line(f"{chosen}\n")
        if chosen == "2":
            self._answers.api_key = self._api_key()
            self._answers.secrets[API_KEY] = self._answers.api_key
        if chosen != "1":
            return True
        recipe = argparse.Namespace(
            curl=line, offline=None, name=CREDENTIAL, utc_offset=None, yes=options.yes
        )
        self._answers.recipe = tested_recipe(recipe)
        if self._answers.recipe is None:
            return False
        self._answers.secrets |= self._answers.recipe.environ
        return True

    def _access(self) -> str:
        """Return the choice, or the first line of a command that was pasted instead."""
        while (answer := self._ask("access", "1")) not in _ACCESS and not _PASTED.match(answer):
            self._say("again")
        return answer

    def _api_key(self) -> str:
        given = self._options.api_key
        if given == "-":
            given = sys.stdin.readline(ANSWER_CHARACTERS_MAX)
        elif given is None:
            try:
                given = getpass.getpass(f"{self._text('key')}: ")
            except EOFError:
                given = ""
        if not given.strip() or not given.strip().isprintable():
            raise SettingsError("--api-key: must be one line of printable characters")
        return str(given.strip())

    def _model(self, listed: list[str]) -> str:
        first = listed[0] if listed else ""
        if self._options.yes:
            return first
        if listed:
            self._say("models", ", ".join(listed[:MODELS_SHOWN]))
        return self._ask("model", first)

    def _caller(self) -> str:
        caller = self._options.caller
        if caller is None and self._options.yes:
            return DEFAULT_CALLER
        while caller is None or not _CALLER.fullmatch(caller):
            if self._options.caller is not None:
                raise SettingsError("--caller: must be letters, digits, - and _, and begin with a letter")
            caller = self._ask("caller", DEFAULT_CALLER)
        return str(caller)

    def _in_files(self) -> bool:
        chosen = self._options.secrets
        if chosen is None and not self._options.yes:
            chosen = {"1": "files", "2": "env"}[self._choose("secrets", "1", {"1", "2"})]
        return bool(chosen != "env")

    # --- the trial

    def _reach_or_ask(self) -> list[str] | None:
        """Try the answers, on a terminal with another base URL until one works or none is given."""
        listed = self._reach()
        while listed is None and not self._options.yes:
            base_url = self._asked_url("other_url")
            if not base_url:
                break
            self._answers.base_url = base_url
            listed = self._reach()
        return listed

    def _reach(self) -> list[str] | None:
        """Try the answers, and another header if the gateway rejects them; return the chat models."""
        listed, is_rejected = asyncio.run(self._try())
        if not is_rejected or self._answers.header:
            return listed
        if self._options.yes:
            self._say("other_header")
            return listed
        self._answers.header = self._header()
        return asyncio.run(self._try())[0] if self._answers.header else listed

    def _header(self) -> str:
        while True:
            try:
                return _checked_header(self._ask("header"))
            except SettingsError as error:
                print(f"     {error}", file=sys.stderr)

    async def _try(self, *, corrected: bool = False) -> tuple[list[str] | None, bool]:
        """Reach the gateway as the service would, and correct its base URL.

        Returns:
            Its chat models, or None if something failed; and whether it rejected the token or key.
        """
        self._report.begin(self._answers.base_url)
        answers = self._answers
        environ = {**os.environ, **answers.values}
        try:
            settings = _loaded(self._config(in_files=False), environ)
            walk = SettingsWalk(settings, CheckPlan(begin=self._report.begin, sends_chats=False))
            findings = [finding async for finding in walk.findings()]
        finally:
            self._report.stop()
        better = next((finding.values["better"] for finding in findings if "better" in finding.values), "")
        if better and not corrected:
            answers.base_url = str(better)
            self._say("corrected", answers.base_url)
            return await self._try(corrected=True)
        for finding in findings:
            self._report.add(finding)
        if has_failed(findings):
            return None, any(finding.id == "token_rejected" for finding in findings)
        return [model for model in walk.listed.get("chat", []) if is_for_chat(model)], False

    # --- the files

    def _config(self, *, in_files: bool) -> str:
        """Write the configuration."""
        answers, folder = self._answers, self._places.folder.name
        opening, who, gateway, repairs, chat, own_key = COMMENTS[self._language]

        def reference(name: str) -> str:
            return toml(f"${{file:{folder}/{name}}}" if in_files else f"${{env:{name}}}")

        names = answers.caller.lower() if answers.caller.lower() in SETS else "common"
        lines = [
            f"# {opening}",
            "",
            f"[[access.keys]]  # {who}",
            f"name = {toml(answers.caller)}",
            f"key = {reference(answers.key_name)}",
            "",
            f"[upstreams.chat]  # {gateway}",
            f"base_url = {toml(answers.base_url or f'{EMBEDDED}/v1')}",
        ]
        if answers.recipe is not None or answers.api_key or not answers.base_url:
            lines.append(f"credential = {toml(CREDENTIAL)}")
        lines += [f"repairs = [{toml(names)}]  # {repairs}", ""]
        if answers.model:
            lines += [f"[chat]  # {chat}", f"model = {toml(answers.model)}", ""]
        inject = f'inject = {{ header = {toml(answers.header)}, template = "{{token}}" }}'
        if answers.recipe is not None:
            block = answers.recipe.block(CREDENTIAL, folder if in_files else None)
            if answers.header:
                block = _SOURCE.sub(lambda source: f"{source[0]}\n{inject}", block, count=1)
            lines.append(block)
        elif answers.api_key:
            lines += [f"[credentials.{CREDENTIAL}]  # {own_key}", 'source = "static"']
            lines += [f"value = {reference(API_KEY)}", *([inject] if answers.header else []), ""]
        elif not answers.base_url:
            lines.append(_DEMONSTRATION)
        return "\n".join(lines).rstrip() + "\n"

    def _write(self) -> None:
        places, answers = self._places, self._answers
        text = self._config(in_files=answers.in_files)
        try:
            with contextlib.ExitStack() as undo:
                if answers.in_files:
                    places.folder.mkdir(mode=0o700)
                    undo.callback(shutil.rmtree, places.folder, ignore_errors=True)
                    for name, value in answers.values.items():
                        _write_new(places.folder / name, value, mode=0o600)
                else:
                    exports = (
                        f"export {name}={shlex.quote(value)}\n" for name, value in answers.values.items()
                    )
                    _write_new(places.environment, "".join(exports), mode=0o600)
                    undo.callback(places.environment.unlink)
                _write_new(places.config, text, mode=0o644)
                undo.pop_all()
        except OSError as error:
            path = error.filename or places.config
            raise SettingsError(f"--output: {path}: cannot be written: {error.strerror}") from error
        kept = places.folder if answers.in_files else places.environment
        self._say("written", f"{places.config}, {kept}")

    def _print_next_steps(self) -> None:
        places, answers = self._places, self._answers
        if answers.in_files:
            self._say("hand_over", answers.caller, str(places.folder / answers.key_name))
        else:
            self._say("hand_over", answers.caller, str(places.environment))
            self._say("load", f". {shlex.quote(str(places.environment.absolute()))}")
        self._say("serve", f"{typed_command()} serve --config {shlex.quote(str(places.config))}")

    # --- the terminal

    def _text(self, name: str) -> str:
        english, chinese = TEXTS[name]
        return chinese if self._language == "zh" else english

    def _say(self, name: str, *values: str) -> None:
        print(self._text(name).format(*values), file=sys.stderr)

    def _ask(self, name: str, default: str = "") -> str:
        shown = f" [{default}]" if default else ""
        print(f"{self._text(name)}{shown}: ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline(ANSWER_CHARACTERS_MAX)
        if not answer:
            raise SettingsError("init: the input has ended; nothing was written")
        return answer.strip() or default

    def _choose(self, name: str, default: str, known: set[str]) -> str:
        while (chosen := self._ask(name, default)) not in known:
            self._say("again")
        return chosen


def _checked_header(text: str) -> str:
    if text and not _HEADER.fullmatch(text):
        raise SettingsError("--header: must be the name of a header")
    return text


def _checked_url(text: str) -> str:
    """Return a base URL without a trailing slash; empty for the demonstration gateway."""
    if not text:
        return ""
    try:
        return Upstream.model_validate({"base_url": text}).base_url
    except ValueError:
        raise SettingsError(
            "--base-url: must be an http:// or https:// URL with a host, without a query or a password"
        ) from None


def _loaded(text: str, environ: Mapping[str, str]) -> Settings:
    """Load a configuration as the service would."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "my.toml")
        path.write_text(text, encoding="utf-8")
        return load_settings(path, environ)


def _write_new(path: Path, text: str, *, mode: int) -> None:
    """Write a file that must not exist yet; nobody can read it before its mode is set.

    Raises:
        OSError: It cannot be written; then it does not exist.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with contextlib.ExitStack() as undo:
        undo.callback(path.unlink)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        undo.pop_all()
