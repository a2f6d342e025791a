"""A token that a command writes: any credential helper, run without a shell."""

import time
from typing import Final

from proxy.credentials.credential import FetchedToken
from proxy.credentials.sources import TokenFetchError
from proxy.credentials.sources.command_output import read_output
from proxy.credentials.sources.process import Ended, run_command
from proxy.secret import Secret
from proxy.settings import ExecCredential
from proxy.telemetry import get_logger

_CURE: Final = "run it by hand, as the service's user and with its env, to see what it says"


class ExecTokenSource:
    """Runs the command anew at each fetch.

    Args:
        section: What is run, and how its output is read.
    """

    def __init__(self, section: ExecCredential) -> None:
        self._section = section
        self._log = get_logger("credentials")

    async def fetch(self) -> FetchedToken:
        """Run the command and read the token from its output.

        Raises:
            TokenFetchError: it could not be run, failed, or brought no token that is still good.
        """
        section = self._section
        ended = await run_command(
            [_plain(argument) for argument in section.command],
            environment={name: _plain(value) for name, value in section.environment.items()},
            folder=section.cwd,
            timeout=section.timeout,
        )
        self._check(ended)
        fetched = read_output(ended.output, section, time.time())
        if fetched.doubt is not None:
            self._log.warning(fetched.doubt.event, reason=fetched.doubt.reason)
        return fetched

    async def close(self) -> None:
        """Nothing to let go of: each command is over with its fetch."""

    def _check(self, ended: Ended) -> None:
        if ended.status == 0:
            return
        # How much it said, never what: a helper may print its secrets when it fails.
        self._log.warning("token_command_failed", status=ended.status, stderr_bytes=ended.error_bytes)
        end = f"ended with status {ended.status}"
        if ended.status < 0:
            end = f"was killed by signal {-ended.status}"
        raise TokenFetchError(f"the command {end}; {_CURE}")


def _plain(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value
