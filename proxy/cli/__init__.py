"""The commands `python -m proxy [serve]`, `check`, `token`, `recipe` and `gateway`.

The exit status is 0 for success, 2 for wrong usage or settings, and 1 for any other failure.
"""

import argparse
import gc
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from proxy import __version__
from proxy.errors import SettingsError
from proxy.shipped import nearest

DEFAULT_CONFIG: Final = "config/proxy.toml"
SCRIPT: Final = "llm-token-proxy"
"""The command that the wheel installs."""
EXIT_USAGE: Final = 2
WORD_DELAY_SECONDS_MAX: Final = 0.5
_SERVERS: Final = ("hypercorn", "uvicorn", "granian")
_COMMANDS: Final = ("serve", "check", "token", "recipe", "doctor", "gateway")


def main(arguments: Sequence[str]) -> int:
    """Run one command and return the exit status."""
    arguments = list(arguments)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in {"-h", "--help", "--version"}):
        arguments.insert(0, "serve")
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except SettingsError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:  # The reader of our output has exited.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def script() -> int:
    """Run the command of this process's command line and return the exit status."""
    return main(sys.argv[1:])


def _run(options: argparse.Namespace) -> int:
    # Imported here because most commands need only some of these modules, and `--help` needs none.
    if options.command == "check":
        from proxy.cli.check import check

        return check(options.config, online=options.online)
    if options.command == "token":
        from proxy.cli.token import token

        return token(options)
    if options.command == "recipe":
        from proxy.cli.recipe import recipe

        return recipe(options)
    if options.command == "doctor":
        from proxy.cli.doctor.command import doctor

        return doctor(options)
    if options.command == "gateway":
        from proxy.cli.gateway import serve_gateway

        return serve_gateway(options)
    # Importing creates hundreds of thousands of objects, all of which stay: collecting them costs 0.1 s.
    gc.disable()
    from proxy.cli.serve import serve

    gc.freeze()
    gc.enable()
    return serve(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=SCRIPT if Path(sys.argv[0]).name == SCRIPT else "python -m proxy",
        description="Static key in, live token out: a proxy for OpenAI-compatible gateways.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve (the default)")
    _add_config(serve)
    _add_server(serve)
    serve.add_argument(
        "--workers", type=_workers, metavar="N", help="processes, or auto: one a core (default 1)"
    )
    serve.add_argument(
        "--server",
        choices=_SERVERS,
        default=_SERVERS[0],
        help="HTTP server: hypercorn is ours with Hypercorn's configuration; the others are extras",
    )
    serve.add_argument("--assignment", type=int, help=argparse.SUPPRESS)  # of a worker process
    check = commands.add_parser("check", help="validate the settings and print them, secrets masked")
    check.add_argument("--online", action="store_true", help="also try Redis, every credential and upstream")
    _add_config(check)
    token = commands.add_parser("token", help="fetch a token once and print its lifetime, never the token")
    token.add_argument("name", metavar="NAME", help="the name in [credentials.NAME]")
    _add_config(token)
    _add_recipe(commands.add_parser("recipe", help="turn the curl line that gets a token into settings"))
    doctor = commands.add_parser("doctor", help="test the whole path of a request, and say where it breaks")
    _add_config(doctor)
    _add_doctor(doctor)
    gateway = commands.add_parser("gateway", help="serve the demonstration gateway alone")
    _add_server(gateway)
    _add_gateway(gateway)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    default = os.environ.get("PROXY_CONFIG") or nearest(DEFAULT_CONFIG)
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(default),
        help=f"settings file (default: PROXY_CONFIG, {DEFAULT_CONFIG}, or the runnable default)",
    )


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--curl", metavar="LINE", help="the line in quotes (default: standard input)")
    parser.add_argument(
        "--offline", type=Path, metavar="FILE", help="read this saved reply instead of sending the request"
    )
    parser.add_argument("--name", default="corp", help="name of the credential (default: corp)")
    parser.add_argument(
        "--utc-offset", metavar="+HH:MM", help="UTC offset of the issuer, for times without a time zone"
    )
    parser.add_argument(
        "--yes", action="store_true", help="ask no questions: choose the most likely, and mark it as unsure"
    )


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url",
        metavar="URL",
        help="test this OpenAI-compatible base URL from outside instead of the settings",
    )
    parser.add_argument(
        "--key",
        metavar="KEY",
        help="the key for --url; - reads it from standard input (default: PROXY_DOCTOR_KEY)",
    )
    parser.add_argument(
        "--model", metavar="M", action="append", default=[], help="a model to test; may be repeated"
    )
    parser.add_argument("--embedding-model", metavar="M", help="an embedding model to test")
    parser.add_argument("--rerank-model", metavar="M", help="a rerank model to test")
    parser.add_argument("--ca-file", type=Path, metavar="FILE", help="PEM certificates to trust for --url")
    parser.add_argument(
        "--timeout",
        type=_positive_seconds,
        default=60.0,
        metavar="S",
        help="limit for each request (default 60)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bind", metavar="HOST:PORT", help="address (default: the one in hypercorn.toml)")


def _add_gateway(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--token-ttl", type=_seconds, default=300.0, metavar="S", help="lifetime of tokens")
    parser.add_argument(
        "--word-delay", type=_word_delay, default=0.1, metavar="S", help="pause between words, 0 to 0.5"
    )
    parser.add_argument("--api-key", metavar="KEY", help="require this key instead of tokens")
    parser.add_argument(
        "--first-byte-delay", type=_seconds, default=0.0, metavar="S", help="pause before each response"
    )
    parser.add_argument(
        "--token-delay", type=_seconds, default=0.0, metavar="S", help="pause before each token"
    )
    parser.add_argument(
        "--token-status", type=_status, default=200, metavar="N", help="status of the token endpoint"
    )
    parser.add_argument("--status", type=_status, default=200, metavar="N", help="status of every API path")
    parser.add_argument("--cut-after", type=int, metavar="N", help="break off streams after N events")
    parser.add_argument("--stall-after", type=int, metavar="N", help="stall streams after N events")
    parser.add_argument("--reject-tokens", action="store_true", help="reject every token")


def _workers(text: str) -> int:
    """Read `--workers`: a number, or `auto` for one a core."""
    if text == "auto":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = int(text)
    if workers < 1:
        raise argparse.ArgumentTypeError("must be 1 or more, or auto")
    return workers


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError("must be seconds, 0 or more")
    return seconds


def _positive_seconds(text: str) -> float:
    seconds = _seconds(text)
    if not seconds:
        raise argparse.ArgumentTypeError("must be more than 0")
    return seconds


def _word_delay(text: str) -> float:
    seconds = _seconds(text)
    if seconds > WORD_DELAY_SECONDS_MAX:
        raise argparse.ArgumentTypeError(f"must be {WORD_DELAY_SECONDS_MAX} at most")
    return seconds


def _status(text: str) -> int:
    status = int(text)
    if not 200 <= status <= 599:
        raise argparse.ArgumentTypeError("must be an HTTP status, 200 to 599")
    return status
