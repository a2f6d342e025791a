"""The command `doctor`: choose the checks, print the findings, and return the exit status.

The exit status is 0 if nothing has failed (warnings are not failures), 1 if a check has failed, and 2 for
wrong usage or settings.
"""

import argparse
import asyncio
import getpass
import io
import os
import sys
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Final

from proxy.cli.arguments import EXIT_FAILED, EXIT_USAGE
from proxy.cli.check import summary
from proxy.cli.doctor.findings import Finding
from proxy.cli.doctor.report import Report
from proxy.cli.doctor.walk import CheckPlan, SettingsWalk, has_failed, walk_address
from proxy.cli.gateway import embedded_gateway
from proxy.errors import SettingsError
from proxy.recipe.phrases import language_of
from proxy.settings import Logs, Upstream, load_settings
from proxy.task_groups import task_group
from proxy.telemetry import configure_logs
from proxy.wire.endpoints import Shape

QUIET_SECONDS: Final = 5.0
"""After this time without a finding, or twice as long, what is being tested is named."""
KEY_VARIABLE: Final = "PROXY_DOCTOR_KEY"
"""Has the key for `--url` if the command line does not, because other users can read command lines."""
KEY_CHARACTERS_MAX: Final = 16 * 1024


def doctor(options: argparse.Namespace) -> int:
    """Test, print and return the exit status."""
    if options.url is None and (options.key is not None or options.ca_file is not None):
        raise SettingsError("--key, --ca-file: are only used with --url")
    configure_logs(Logs(level="error"), io.StringIO())  # The findings say what the log would.
    report = Report(language_of(os.environ), as_json=options.json, stream=sys.stdout)
    try:
        if options.url is not None:
            checks = _from_outside(options, report)
        else:
            checks = diagnose(options.config, _plan(options, report), report, os.environ)
        status = asyncio.run(_reminding(checks, report, options.timeout))
    finally:
        report.stop()
    report.end()
    return status


async def _reminding(checks: Awaitable[int], report: Report, seconds: float) -> int:
    """Run the checks; meanwhile name on standard error what takes long. Return the exit status."""
    async with task_group() as group:
        reminders = group.create_task(_remind(report, seconds))
        try:
            return await checks
        finally:
            reminders.cancel()


async def _remind(report: Report, seconds: float) -> None:
    while True:
        await asyncio.sleep(QUIET_SECONDS)
        report.remind(sys.stderr, seconds)


async def diagnose(config: Path, plan: CheckPlan, report: Report, environ: Mapping[str, str]) -> int:
    """Test everything that a settings file refers to; return the exit status."""
    plan.begin(str(config))
    try:
        settings = load_settings(config, environ)
    except SettingsError as error:
        for problem in error.problems:
            report.add(Finding("settings_invalid", "settings", {"problem": problem}))
        return EXIT_USAGE
    report.add(Finding("settings_valid", "settings", {"file": config, "summary": summary(settings)}))
    async with embedded_gateway(settings) as resolve:
        async for finding in SettingsWalk(resolve(settings), plan).findings():
            report.add(finding)
    return EXIT_FAILED if has_failed(report.findings) else 0


async def _from_outside(options: argparse.Namespace, report: Report) -> int:
    base_url = options.url.rstrip("/")
    for endpoint in Shape:
        if base_url.endswith(f"/{endpoint}"):
            better = base_url.removesuffix(f"/{endpoint}")
            values = {"endpoint": f"/{endpoint}", "better": better}
            report.add(Finding("base_url_has_endpoint", "url", values))
            return EXIT_FAILED
    key = _key(options)
    section = _upstream(base_url, key, options.ca_file)
    async for finding in walk_address("url", section, key, _plan(options, report)):
        report.add(finding)
    return EXIT_FAILED if has_failed(report.findings) else 0


def _upstream(base_url: str, key: str, ca_file: Path | None) -> Upstream:
    """Return the address as an upstream; the first option that is not valid is reported by its own name."""
    values: dict[str, object] = {}
    for name, value, words in (
        (
            "base_url",
            base_url,
            "--url: must be an http:// or https:// URL with a host, without a query or a password",
        ),
        ("headers", {"authorization": f"Bearer {key}"}, "--key: must be one line of ASCII characters"),
        ("ca_file", ca_file, "--ca-file: must be a readable file with certificates in PEM form"),
    ):
        values[name] = value
        try:
            Upstream.model_validate(values)
        except ValueError:
            raise SettingsError(words) from None
    return Upstream.model_validate(values)


def _key(options: argparse.Namespace) -> str:
    """Return the key from the command line, standard input or the environment."""
    key = options.key
    if key == "-":
        key = getpass.getpass("API key: ") if sys.stdin.isatty() else sys.stdin.readline(KEY_CHARACTERS_MAX)
        key = key.strip()
    elif key is None:
        key = os.environ.get(KEY_VARIABLE)
    if not key:
        raise SettingsError(
            f"--key: is required with --url: the key, - for standard input, or {KEY_VARIABLE}"
        )
    return str(key)


def _plan(options: argparse.Namespace, report: Report) -> CheckPlan:
    return CheckPlan(
        models=tuple(options.model),
        embedding_model=options.embedding_model,
        rerank_model=options.rerank_model,
        seconds=options.timeout,
        begin=report.begin,
    )
