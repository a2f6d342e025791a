"""The command line: each command with its options and examples."""

import argparse
import contextlib
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from proxy import __version__
from proxy.shipped import nearest

DEFAULT_CONFIG: Final = "config/proxy.toml"
SCRIPT: Final = "llm-token-proxy"
"""The command that the wheel installs."""
READY_URL: Final = "http://127.0.0.1:5002/readyz"
SHELLS: Final = ("bash", "zsh", "fish")
WORD_DELAY_SECONDS_MAX: Final = 0.5
SERVERS: Final = ("hypercorn", "uvicorn", "granian")
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2


def typed_command() -> str:
    """Return the command as the user started it, for messages from which it can be copied."""
    if Path(sys.argv[0]).name == SCRIPT:
        return SCRIPT
    python = Path(sys.executable)
    with contextlib.suppress(OSError, ValueError):  # another folder, or one that has been deleted
        python = python.relative_to(Path.cwd())
    return f"{shlex.quote(str(python))} -m proxy"


class Parser(argparse.ArgumentParser):
    """A parser that knows its options, for shell completion."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.options: list[argparse.Action] = []
        super().__init__(*args, **options)

    def add_argument(self, *args: Any, **options: Any) -> argparse.Action:
        """Add an option, and remember it."""
        action = super().add_argument(*args, **options)
        self.options.append(action)
        return action


class Command(NamedTuple):
    """One command: its help, examples, and the function that adds its options."""

    help: str
    examples: tuple[str, ...]
    add_options: Callable[[Parser], None]


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the whole command line."""
    parser = Parser(
        prog=typed_command(),
        description="Static key in, live token out: a proxy for OpenAI-compatible gateways.",
        epilog=_examples(f"{SCRIPT} {example}" for example in _FIRST_STEPS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        command.add_options(
            commands.add_parser(
                name,
                help=command.help,
                description=f"{command.help[0].upper()}{command.help[1:]}.",
                epilog=_examples(command.examples),
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    return parser


def options_of(command: Command) -> list[argparse.Action]:
    """Return the options of a command, without hidden ones."""
    parser = Parser(add_help=False)
    command.add_options(parser)
    return [action for action in parser.options if action.help != argparse.SUPPRESS]


def _examples(lines: Iterator[str] | tuple[str, ...]) -> str:
    command = typed_command()
    return "\n".join(["examples:", *(f"  {line.replace(SCRIPT, command, 1)}" for line in lines)])


def _add_serve(parser: Parser) -> None:
    _add_config(parser)
    _add_server(parser)
    parser.add_argument(
        "--workers", type=_workers, metavar="N", help="processes, or auto: one per core (default 1)"
    )
    parser.add_argument(
        "--server",
        choices=SERVERS,
        default=SERVERS[0],
        help="HTTP server: hypercorn is ours with Hypercorn's configuration; the others are extras",
    )
    parser.add_argument("--assignment", type=int, help=argparse.SUPPRESS)  # only for worker processes


def _add_check(parser: Parser) -> None:
    parser.add_argument("--online", action="store_true", help="also try Redis, every credential and upstream")
    _add_config(parser)


def _add_token(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="the name in [credentials.NAME]")
    _add_config(parser)


def _add_init(parser: Parser) -> None:
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("my.toml"),
        metavar="FILE",
        help="where to write (default: my.toml)",
    )
    parser.add_argument("--base-url", metavar="URL", help="of the model gateway, such as https://host/v1")
    parser.add_argument(
        "--curl", metavar="LINE", help="the curl line that gets a token; - reads standard input"
    )
    parser.add_argument(
        "--api-key", metavar="KEY", help="of a gateway without tokens; - reads standard input"
    )
    parser.add_argument(
        "--header",
        metavar="NAME",
        help="that carries the token or key to the gateway (default: Authorization)",
    )
    parser.add_argument("--model", metavar="M", help="for the chat (default: the first of the gateway)")
    parser.add_argument("--caller", metavar="NAME", help="the program that will call (default: ragflow)")
    parser.add_argument(
        "--secrets", choices=("files", "env"), help="where to keep secrets: files or the environment"
    )
    parser.add_argument(
        "--yes", action="store_true", help="ask nothing; without --base-url, use the demonstration gateway"
    )


def _add_completion(parser: Parser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def _add_config(parser: Parser) -> None:
    default = os.environ.get("PROXY_CONFIG") or nearest(DEFAULT_CONFIG)
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(default),
        help=f"settings file (default: PROXY_CONFIG, {DEFAULT_CONFIG}, or the runnable default)",
    )


def _add_recipe(parser: Parser) -> None:
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


def _add_health(parser: Parser) -> None:
    parser.add_argument("--url", default=READY_URL, help=f"the probe to ask (default: {READY_URL})")


def _add_doctor(parser: Parser) -> None:
    _add_config(parser)
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


def _add_server(parser: Parser) -> None:
    parser.add_argument("--bind", metavar="HOST:PORT", help="address (default: the one in hypercorn.toml)")


def _add_gateway(parser: Parser) -> None:
    _add_server(parser)
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
    parser.add_argument("--cut-after", type=_count, metavar="N", help="break off streams after N events")
    parser.add_argument("--stall-after", type=_count, metavar="N", help="stall streams after N events")
    parser.add_argument("--reject-tokens", action="store_true", help="reject every token")


def _workers(text: str) -> int:
    """Read `--workers`: a number, or `auto` for one per core."""
    if text == "auto":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = _number(text)
    if not (workers >= 1 and workers.is_integer()):
        raise argparse.ArgumentTypeError("must be 1 or more, or auto")
    return int(workers)


def _number(text: str) -> float:
    """Return a number, or NaN, with which every comparison fails: argparse would name the Python function."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _count(text: str) -> int:
    count = _number(text)
    if not (count >= 0 and count.is_integer()):
        raise argparse.ArgumentTypeError("must be a whole number, 0 or more")
    return int(count)


def _seconds(text: str) -> float:
    seconds = _number(text)
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
    status = _number(text)
    if not (200 <= status <= 599 and status.is_integer()):
        raise argparse.ArgumentTypeError("must be an HTTP status, 200 to 599")
    return int(status)


COMMANDS: Final[Mapping[str, Command]] = {
    "serve": Command(
        "serve (the default)",
        (
            "llm-token-proxy serve",
            "llm-token-proxy serve --config my.toml --bind 0.0.0.0:5002 --workers auto",
        ),
        _add_serve,
    ),
    "init": Command(
        "ask five questions, try the answers, and write a configuration",
        (
            "llm-token-proxy init",
            "llm-token-proxy init --base-url https://llm.corp.example/v1 --curl - --yes < curl.txt",
            "llm-token-proxy init --yes --output demo.toml",
        ),
        _add_init,
    ),
    "check": Command(
        "validate the settings and print them, secrets masked",
        ("llm-token-proxy check --config my.toml", "llm-token-proxy check --online --config my.toml"),
        _add_check,
    ),
    "token": Command(
        "fetch a token once and print its lifetime, never the token",
        ("llm-token-proxy token corp --config my.toml",),
        _add_token,
    ),
    "recipe": Command(
        "turn the curl line that gets a token into settings",
        (
            "llm-token-proxy recipe < curl.txt",
            "llm-token-proxy recipe --offline reply.json --name corp < curl.txt",
        ),
        _add_recipe,
    ),
    "doctor": Command(
        "test the whole path of a request, and say where it breaks",
        (
            "llm-token-proxy doctor --config my.toml",
            "llm-token-proxy doctor --url https://proxy.corp.example/v1 --key - --model m < key.txt",
            "llm-token-proxy doctor --json",
        ),
        _add_doctor,
    ),
    "health": Command(
        "ask a running service whether it is ready",
        ("llm-token-proxy health", "llm-token-proxy health --url http://127.0.0.1:5002/livez"),
        _add_health,
    ),
    "gateway": Command(
        "serve the demonstration gateway alone",
        (
            "llm-token-proxy gateway",
            "llm-token-proxy gateway --bind 127.0.0.1:5003 --token-ttl 20",
        ),
        _add_gateway,
    ),
    "completion": Command(
        "print the script that completes these commands in a shell",
        (
            'eval "$(llm-token-proxy completion bash)"',
            "llm-token-proxy completion zsh > ~/.zfunc/_llm-token-proxy",
            "llm-token-proxy completion fish > ~/.config/fish/completions/llm-token-proxy.fish",
        ),
        _add_completion,
    ),
}
"""The commands by name, in the order of the help."""
_FIRST_STEPS: Final = ("init", "doctor --config my.toml", "serve --config my.toml", "COMMAND --help")
