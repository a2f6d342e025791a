"""The commands of `python -m proxy` and `llm-token-proxy`; `arguments` has their options.

The exit status is 0 for success, 2 for wrong usage or settings, and 1 for any other failure. A command that
SIGTERM or SIGHUP ends has 143 or 129.
"""

import argparse
import gc
import io
import sys
from collections.abc import Sequence
from typing import TextIO, cast

from proxy.cli.arguments import EXIT_FAILED, EXIT_USAGE, SCRIPT, build_parser
from proxy.cli.early_signals import EarlySignals, handled_early
from proxy.cli.output import Output, OutputFailed
from proxy.errors import SettingsError


def main(arguments: Sequence[str], early: EarlySignals | None = None) -> int:
    """Run one command and return the exit status.

    Args:
        arguments: Those of the command line.
        early: The signals that this process handles; None if it leaves them to others.
    """
    options = build_parser().parse_args(_with_command(arguments))
    early = early or EarlySignals(serves=False)
    try:
        return _run(options, early)
    except SettingsError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        if not early.received:
            print(file=sys.stderr)  # The terminal shows ^C without the end of the line.
        return early.status


def _with_command(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the default command if they name none."""
    if arguments and (not arguments[0].startswith("-") or arguments[0] in {"-h", "--help", "--version"}):
        return [*arguments]
    return ["serve", *arguments]


def script() -> int:
    """Run the command of this process's command line and return the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # A locale such as zh_CN.GBK lacks some characters.
    output = Output(sys.stdout)
    sys.stdout = cast(TextIO, output)
    try:
        try:
            with handled_early(_with_command(sys.argv[1:])[0]) as early:
                return main(sys.argv[1:], early)
        finally:
            output.flush()  # Otherwise Python does it after this function, with a traceback.
    except OutputFailed as failure:
        output.discard()
        print(f"{SCRIPT}: cannot write to standard output: {failure}", file=sys.stderr)
        return EXIT_FAILED


def _run(options: argparse.Namespace, early: EarlySignals) -> int:
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
    if options.command == "init":
        from proxy.cli.init import init

        return init(options)
    if options.command == "doctor":
        from proxy.cli.doctor.command import doctor

        return doctor(options)
    if options.command == "health":
        from proxy.cli.health import health

        return health(options.url)
    if options.command == "completion":
        from proxy.cli.completion import completion

        print(completion(options.shell), end="")
        return 0
    if options.command == "gateway":
        from proxy.cli.gateway import serve_gateway

        return serve_gateway(options)
    # Importing creates hundreds of thousands of objects, all of which stay: collecting them costs 0.1 s.
    gc.disable()
    from proxy.cli.serve import serve

    gc.freeze()
    gc.enable()
    return serve(options, early.received)
