"""The configuration of the server: what Hypercorn's keys mean here, and the one that it lacks."""

from pathlib import Path

from proxy.server.config import ServerConfig
from tests.terminal import make_encrypted_pair, run_on_terminal

LOAD = """
import sys
from proxy.server.config import ServerConfig
config = ServerConfig()
config.certfile, config.keyfile = sys.argv[1:]
config.create_ssl_context()
"""


def test_both_kinds_of_keys_are_read_from_one_mapping() -> None:
    config = ServerConfig.from_mapping({"readiness_delay": 2.5, "keyfile_password": "p", "backlog": 7})
    assert isinstance(config, ServerConfig)
    assert (config.readiness_delay, config.keyfile_password, config.backlog) == (2.5, "p", 7)


def test_an_encrypted_key_without_a_password_fails_and_does_not_ask_the_terminal(tmp_path: Path) -> None:
    ended = run_on_terminal(LOAD, *make_encrypted_pair(tmp_path))
    assert ended.returncode == 1
    assert b"SSLError" in ended.stderr
