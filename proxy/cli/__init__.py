"""The commands of `python -m proxy` and `llm-token-proxy`; `arguments` has their options.

The exit status is 0 for success, 2 for wrong usage or settings, and 1 for any other failure.
"""

import argparse
import gc
import io
import sys
from collections.abc import Sequence
from typing import Final, TextIO, cast

from proxy.cli.arguments import SCRIPT, build_parser
from proxy.cli.output import Output, OutputFailed
from proxy.errors import SettingsError

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2


def main(arguments: Sequence[str]) -> int:
    """Run one command and return the exit status."""
    arguments = list(arguments)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in {"-h", "--help", "--version"}):
        arguments.insert(0, "serve")
    options = build_parser().parse_args(arguments)
    try:
        return _run(options)
    except SettingsError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return EXIT_FAILED


def script() -> int:
    """Run the command of this process's command line and return the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # A locale such as zh_CN.GBK lacks some characters.
    output = Output(sys.stdout)
    sys.stdout = cast(TextIO, output)
    try:
        try:
            return main(sys.argv[1:])
        finally:
            output.flush()  # Otherwise Python does it after this function, with a traceback.
    except OutputFailed as failure:
        output.discard()
        print(f"{SCRIPT}: cannot write to standard output: {failure}", file=sys.stderr)
        return EXIT_FAILED


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
    return serve(options)
