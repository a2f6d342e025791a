"""Commands: `python -m proxy [serve]`, `check`, `gateway`.

Exit status 0: fine, 2: wrong use or settings, 1: anything else.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from proxy import __version__
from proxy.errors import SettingsError

DEFAULT_CONFIG: Final = "config/proxy.toml"
EXIT_USAGE: Final = 2
_COMMANDS: Final = ("serve", "check", "gateway")


def main(arguments: Sequence[str]) -> int:
    """Run one command; the exit status."""
    arguments = list(arguments)
    if not arguments or (arguments[0] not in _COMMANDS and arguments[0] not in {"-h", "--help", "--version"}):
        arguments.insert(0, "serve")
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except SettingsError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return EXIT_USAGE


def _run(options: argparse.Namespace) -> int:
    # Imported here: `check` needs no server, and `--help` nothing at all.
    if options.command == "check":
        from proxy.cli.check import check

        return check(options.config)
    if options.command == "gateway":
        from proxy.cli.gateway import serve_gateway

        return serve_gateway(options)
    from proxy.cli.serve import serve

    return serve(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m proxy",
        description="Static key in, live token out: a proxy for OpenAI-compatible gateways.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve (the default)")
    _add_config(serve)
    _add_server(serve)
    _add_config(commands.add_parser("check", help="validate the settings and print them, secrets masked"))
    gateway = commands.add_parser("gateway", help="serve the demonstration gateway alone")
    _add_server(gateway)
    _add_gateway(gateway)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    default = os.environ.get("PROXY_CONFIG", DEFAULT_CONFIG)
    parser.add_argument(
        "--config", type=Path, default=Path(default), help=f"settings file (default {default})"
    )


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bind", metavar="HOST:PORT", help="address (default: hypercorn.toml's)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (1 for now)")


def _add_gateway(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--token-ttl", type=float, default=300.0, metavar="S", help="life of a token")
    parser.add_argument(
        "--word-delay", type=float, default=0.1, metavar="S", help="pause between words, 0 to 0.5"
    )
    parser.add_argument("--api-key", metavar="KEY", help="check this key instead of tokens")
    parser.add_argument(
        "--first-byte-delay", type=float, default=0.0, metavar="S", help="pause before each answer"
    )
    parser.add_argument("--token-delay", type=float, default=0.0, metavar="S", help="pause before each token")
    parser.add_argument(
        "--token-status", type=int, default=200, metavar="N", help="answer of the token endpoint"
    )
    parser.add_argument("--status", type=int, default=200, metavar="N", help="answer of every API path")
    parser.add_argument("--cut-after", type=int, metavar="N", help="break a stream after N events")
    parser.add_argument("--stall-after", type=int, metavar="N", help="fall silent after N events")
    parser.add_argument("--reject-tokens", action="store_true", help="refuse every token")
