"""`[upstreams.NAME]`: defaults, ranges and files."""

import pytest

from proxy.settings import Timeouts
from tests.settings.conftest import MINIMAL, Load, Problems


def test_an_upstream_needs_no_more_than_its_url(load: Load) -> None:
    upstream = load(MINIMAL).upstreams["chat"]

    assert upstream.base_url == "https://llm.example/v1"
    assert upstream.credential is None
    assert upstream.timeouts == Timeouts(connect=5, first_byte=120, idle=60, total=0)
    assert upstream.max_connections == 2000
    assert upstream.headers == {}
    assert upstream.ca_file is None
    assert upstream.proxy is None


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("timeouts = { connect = -1 }", "timeouts.connect: must be at least 0"),
        ("timeouts = { idle = inf }", "timeouts.idle: must be a finite number"),
        ("timeouts = { idle = nan }", "timeouts.idle: must be at least 0"),
        ("timeouts = { idle = '5 s' }", "timeouts.idle: must be a number"),
        ("timeouts = { idle = true }", "timeouts.idle: must be a number"),
        ("timeouts = { conect = 1 }", 'timeouts.conect: unknown key, did you mean "connect"?'),
        ("timeouts = 5", "timeouts: must be a table"),
        ("max_connections = 0", "max_connections: must be greater than 0"),
        ("max_connections = 1.5", "max_connections: must be a whole number"),
        ("headers = { 'a b' = '1' }", 'headers."a b": is not a valid header name'),
        ("headers = { a = 1 }", "headers.a: must be a string"),
        ("headers = { Content-Length = '5' }", "headers.Content-Length: controls the connection"),
        ("headers = { expect = '100-continue' }", "headers.expect: controls the connection"),
        ('headers = { a = "1\\r\\nb: 2" }', "headers.a: has characters that an HTTP header cannot carry"),
        ("headers = { a = '密' }", "headers.a: has characters that an HTTP header cannot carry"),
        ("ca_file = 'absent.pem'", "ca_file: the file absent.pem cannot be read: No such file or directory"),
        ("ca_file = '.'", "ca_file: the file cannot be read: Is a directory"),
        ('ca_file = "a\\u0000"', "ca_file: the file cannot be read: it is not the path of a file"),
        ("proxy = 'socks5://p.example'", "proxy: must be an http:// or https:// URL with a host"),
        ("proxy = 'embedded:/v1'", "proxy: must be an http:// or https:// URL with a host"),
        ("credential = 1", "credential: must be a string"),
    ],
)
def test_an_invalid_value_is_reported(problems: Problems, line: str, told: str) -> None:
    (problem,) = problems(MINIMAL + line)

    assert problem.startswith(f"x.toml:5: upstreams.chat.{told}")
