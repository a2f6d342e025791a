"""`token NAME`: print the lifetime and the masked reply of one fetch, but never the token."""

import asyncio
import re
from pathlib import Path

import pytest

from proxy.cli import main
from tests.conftest import KEY, RunningGateway
from tests.credentials.sources.token_endpoint import TokenEndpoint
from tests.loopback import serve_on_loopback

ROOT = Path(__file__).parents[2]
TOKEN = "canary-token-7f3a"
SECRET = "canary-secret-91bc"
Printed = pytest.CaptureFixture[str]

AROUND = """
[access]
[[access.keys]]
name = "tester"
key = "{key}"
[upstreams.chat]
base_url = "http://127.0.0.1:9/v1"
credential = "corp"
"""


def write(tmp_path: Path, credentials: str) -> str:
    path = tmp_path / "proxy.toml"
    path.write_text(AROUND.format(key=KEY) + credentials)
    return str(path)


async def run(*arguments: str) -> int:
    """Run the command in a thread, next to the servers of the test."""
    return await asyncio.to_thread(main, ["token", *arguments])


def test_the_runnable_default_needs_no_other_file(capsys: Printed) -> None:
    assert main(["token", "corp", "--config", str(ROOT / "config/proxy.toml")]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^credential +corp$", printed, re.MULTILINE)
    assert re.search(r"^lifetime +5 min ", printed, re.MULTILINE)
    assert re.search(r"^refreshed +after 3 min to 3 min 45 s .*\d\d:\d\d:\d\d to ", printed, re.MULTILINE)
    assert re.search(r"^not sent +after 4 min 50 s: ", printed, re.MULTILINE)
    assert re.search(r"^fingerprint +[0-9a-f]{8} ", printed, re.MULTILINE)
    assert re.search(r"^  data.token +\*{8} \(43 characters\)$", printed, re.MULTILINE)


async def test_one_credential_is_fetched_once_and_no_secret_shows(
    gateway: RunningGateway, tmp_path: Path, capsys: Printed
) -> None:
    config = write(tmp_path, f"[credentials.corp]{gateway.credential}\n[credentials.b]{gateway.credential}")
    assert await run("corp", "--config", config) == 0
    printed = capsys.readouterr()
    assert gateway.gateway.stats.token_fetches == 1
    assert "demo-secret" not in printed.out + printed.err


RECIPES = """
[credentials.corp]
source = "http"
url = "{url}/corp"
headers = {{ Authorization = "Bearer ${{credential:first}}" }}
form = {{ secret = "{secret}" }}
token = "access_token"
expires = [{{ path = "expires_in", as = "seconds" }}]

[credentials.first]
source = "http"
url = "{url}/first"
token_header = "x-subject-token"
default_ttl = 7200

[credentials.other]
source = "http"
url = "{url}/other"
token = "absent"
success = {{ path = "code", equals = 0 }}

[credentials.fixed]
source = "static"
value = "{token}"
"""


async def test_the_credentials_that_it_needs_are_fetched_and_no_others(
    tmp_path: Path, capsys: Printed
) -> None:
    endpoint = TokenEndpoint(headers={"X-Subject-Token": TOKEN})
    endpoint.says({"access_token": TOKEN, "expires_in": 7200, "echo": f"{SECRET} {TOKEN}"})
    async with serve_on_loopback(endpoint.app()) as url:
        config = write(tmp_path, RECIPES.format(url=url, secret=SECRET, token=TOKEN))
        assert await run("corp", "--config", config) == 0
        assert await run("first", "--config", config) == 0
        assert await run("fixed", "--config", config) == 0
    assert [asked.target for asked in endpoint.asked] == ["/first", "/corp", "/first"]
    printed = capsys.readouterr()
    assert TOKEN not in printed.out + printed.err
    assert SECRET not in printed.out + printed.err
    corp, first, fixed = printed.out.split("credential ")[1:]
    assert re.search(r"^  expires_in +7200$", corp, re.MULTILINE)
    assert "header x-subject-token  ******** (17 characters)" in first
    assert "does not expire" in fixed
    assert "reply" not in fixed


async def test_even_a_short_token_does_not_show(tmp_path: Path, capsys: Printed) -> None:
    endpoint = TokenEndpoint()
    endpoint.says({"access_token": "tok-7f", "expires_in": 300, "echo": "<tok-7f>"})
    async with serve_on_loopback(endpoint.app()) as url:
        section = f'[credentials.corp]\nsource = "http"\nurl = "{url}"\ntoken = "access_token"\n'
        assert await run("corp", "--config", write(tmp_path, section)) == 0
    printed = capsys.readouterr()
    assert "tok-7f" not in printed.out + printed.err
    assert "echo" in printed.out


async def test_the_reply_is_not_referred_to_where_it_is_shown(tmp_path: Path, capsys: Printed) -> None:
    endpoint = TokenEndpoint()
    endpoint.says({"code": 40001, "msg": "app secret wrong", "data": None})
    async with serve_on_loopback(endpoint.app()) as url:
        section = f'[credentials.corp]\nsource = "http"\nurl = "{url}"\ntoken = "data.token"\n'
        assert await run("corp", "--config", write(tmp_path, section)) == 1
    printed = capsys.readouterr().err
    assert "looks like an error (code is 40001)" in printed
    assert '  msg   "app secret wrong"' in printed
    assert "shows the reply" not in printed


@pytest.mark.parametrize(
    ("token", "template", "warns"),
    [
        (f"Bearer {TOKEN}", "Bearer {token}", True),
        (f"bearer {TOKEN}", "Bearer {token}", True),
        (f"Bearer {TOKEN}", "{token}", False),
        (f"Bearer{TOKEN}", "Bearer {token}", False),
        (TOKEN, "Bearer {token}", False),
    ],
)
def test_a_token_that_repeats_the_template_causes_a_warning(
    tmp_path: Path,
    capsys: Printed,
    token: str,
    template: str,
    warns: bool,  # noqa: FBT001
) -> None:
    fixed = (
        f'[credentials.corp]\nsource = "static"\nvalue = "{token}"\ninject = {{ template = "{template}" }}\n'
    )
    assert main(["token", "corp", "--config", write(tmp_path, fixed)]) == 0
    printed = capsys.readouterr()
    assert ('already begins with "Bearer", which would be sent twice' in printed.err) == warns
    assert TOKEN not in printed.out + printed.err


def test_a_revoking_issuer_causes_a_warning(tmp_path: Path, capsys: Printed) -> None:
    fixed = f'[credentials.corp]\nsource = "static"\nvalue = "{TOKEN}"\nreissue = "revokes_previous"\n'
    assert main(["token", "corp", "--config", write(tmp_path, fixed)]) == 0
    assert "revokes the token of a running service" in capsys.readouterr().err


async def test_a_failure_exits_1_with_the_reason_in_words(tmp_path: Path, capsys: Printed) -> None:
    endpoint = TokenEndpoint(body=f'{{"message": "{TOKEN}"}}'.encode())
    async with serve_on_loopback(endpoint.app()) as url:
        config = write(tmp_path, RECIPES.format(url=url, secret=SECRET, token=TOKEN))
        assert await run("other", "--config", config) == 1
        endpoint.status = 403
        assert await run("other", "--config", config) == 1
        assert await run("corp", "--config", config) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert (
        f"credentials.other: the reply of the token endpoint {url} signals no success at 'code'"
        in printed.err
    )
    assert f"credentials.other: the token endpoint {url} answered 403" in printed.err
    assert "credentials.corp: a credential in the request has no token" in printed.err
    assert TOKEN not in printed.err


async def test_a_failure_of_the_embedded_gateway_is_reported_the_same_way(
    tmp_path: Path, capsys: Printed
) -> None:
    text = (
        (ROOT / "config/proxy.toml").read_text().replace('appSecret = "demo-secret"', 'appSecret = "wrong"')
    )
    path = tmp_path / "proxy.toml"
    path.write_text(text)
    assert await run("corp", "--config", str(path)) == 1
    assert "signals no success at 'code'" in capsys.readouterr().err


def test_an_unknown_name_exits_2_with_the_nearest(tmp_path: Path, capsys: Printed) -> None:
    config = write(tmp_path, RECIPES.format(url="http://127.0.0.1:9", secret=SECRET, token=TOKEN))
    assert main(["token", "crop", "--config", config]) == 2
    assert 'crop: names no credential, did you mean "corp"?' in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["token"])
    assert ended.value.code == 2


REDIS = """
[shared]
redis_url = "redis://:canary-pw@127.0.0.1:{port}/0"
encryption_key = "00000000000000000000000000000000000000000000000000000000000000aa"
"""


def corp(url: str, **more: str) -> str:
    """Return the settings of a credential from one endpoint."""
    keys = {
        "source": '"http"',
        "url": f'"{url}/token?secret={SECRET}"',
        "json": f'{{ appSecret = "{SECRET}" }}',
        "token": '"access_token"',
        **more,
    }
    return "[credentials.corp]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())


async def test_a_failed_reply_is_shown_with_the_endpoints_own_message(
    tmp_path: Path, capsys: Printed
) -> None:
    endpoint = TokenEndpoint()
    endpoint.says({"ret": 4003, "errmsg": f"bad signature of {SECRET}", "data": {"sid": "ab12"}})
    async with serve_on_loopback(endpoint.app()) as url:
        config = write(tmp_path, corp(url, success='{ path = "ret", equals = 0 }'))
        assert await run("corp", "--config", config) == 1
        endpoint.status = 401
        assert await run("corp", "--config", config) == 1
    printed = capsys.readouterr()
    assert "signals no success at 'ret': it is 4003, but 0 is expected" in printed.err
    assert f"the token endpoint {url} answered 401; it refuses the request" in printed.err
    assert printed.err.count('  errmsg    "bad signature of ********"') == 2
    assert "  data.sid  ******** (4 characters)" in printed.err
    assert "its reply: status 401, " in printed.err
    assert SECRET not in printed.err + printed.out


async def test_a_login_page_is_recognised(tmp_path: Path, capsys: Printed) -> None:
    endpoint = TokenEndpoint(body=b"<!doctype html><title>Sign in</title><form>")
    async with serve_on_loopback(endpoint.app()) as url:
        config = write(tmp_path, corp(url, success='{ path = "ret", equals = 0 }'))
        assert await run("corp", "--config", config) == 1
    said = capsys.readouterr().err
    assert "it is an HTML page, such as a login or an error page: check the URL" in said
    assert 'an HTML page of 43 characters, titled "Sign in"' in said


@pytest.mark.parametrize(
    ("expires", "value", "words"),
    [
        (
            '{ path = "data.end", as = "epoch" }',
            300,
            'expires at "data.end" as epoch: the reply has no such value',
        ),
        ('{ path = "life", as = "seconds" }', 300_000, 'as = "milliseconds" would make it 5 min'),
        ('{ path = "life", as = "milliseconds" }', 7200, 'as = "seconds" would make it 2 h'),
        ('{ path = "life", as = "seconds" }', 3 * 86400, "is 3 d, more than 24 h"),
    ],
)
async def test_an_implausible_lifetime_causes_a_warning_with_credential_and_path(
    tmp_path: Path, capsys: Printed, expires: str, value: int, words: str
) -> None:
    endpoint = TokenEndpoint()
    endpoint.says({"access_token": TOKEN, "life": value})
    async with serve_on_loopback(endpoint.app()) as url:
        assert await run("corp", "--config", write(tmp_path, corp(url, expires=f"[{expires}]"))) == 0
    said = capsys.readouterr().err
    assert said.startswith("warning: credentials.corp: ")
    assert words in said
    assert len(said.splitlines()) == 1


async def test_an_unreachable_endpoint_is_named_without_its_query(
    tmp_path: Path, capsys: Printed, closed_port: int
) -> None:
    url = f"http://127.0.0.1:{closed_port}"
    assert await run("corp", "--config", write(tmp_path, corp(url))) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"credentials.corp: the token endpoint {url}: connection refused; check the host")
    assert SECRET not in said


@pytest.mark.parametrize(("sharing", "status"), [("redis", 0), ("redis_required", 1)])
async def test_an_unavailable_redis_is_reported(
    tmp_path: Path, capsys: Printed, closed_port: int, sharing: str, status: int
) -> None:
    endpoint = TokenEndpoint()
    async with serve_on_loopback(endpoint.app()) as url:
        text = corp(url, sharing=f'"{sharing}"') + REDIS.format(port=closed_port)
        assert await run("corp", "--config", write(tmp_path, text)) == status
    printed = capsys.readouterr()
    assert f"warning: shared: redis://127.0.0.1:{closed_port}: connection refused; " in printed.err
    assert "until Redis is back" in printed.err
    assert "canary-pw" not in printed.err
    assert "lifetime" in printed.out


async def test_a_failing_command_is_reported_as_in_the_service(tmp_path: Path, capsys: Printed) -> None:
    text = '[credentials.corp]\nsource = "exec"\ncommand = ["sh", "-c", "exit 3"]\n'
    assert await run("corp", "--config", write(tmp_path, text)) == 1
    assert capsys.readouterr().err.startswith(
        "credentials.corp: the command ended with status 3; run it by hand"
    )
