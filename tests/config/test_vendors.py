"""The `http` examples with endpoints that act as their vendors: requests and replies as published."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from proxy.credentials.sources import TokenFetchError
from proxy.credentials.upstream_credential import RejectionRules
from tests.config.examples import Brought, Surroundings, bring, value_of
from tests.config.vendor import Says, Vendor, form_of, json_of, path_of, query_of

JSON = [(b"content-type", b"application/json; charset=utf-8")]


@dataclass(frozen=True, kw_only=True)
class Case:
    """An example, the expected request to its vendor, and the expected result of the reply."""

    example: str
    credential: str
    path: str
    reply: Any
    token: str
    lifetime: float
    method: str = "POST"
    status: int = 200
    reply_headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    json: Any = None
    form: dict[str, str] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    """Headers of the request for a token, which may have more."""
    written: dict[str, str] = field(default_factory=dict)
    """The upstream's headers,"""
    written_query: str = ""
    """or its query."""
    refusals: tuple[tuple[int, bytes], ...] = ()
    """The response of an upstream that no longer accepts the token."""

    def __str__(self) -> str:
        return f"{self.example}:{self.credential}"


def epoch_ms(seconds: float) -> int:
    return int((time.time() + seconds) * 1000)


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(time.time() + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def cases() -> list[Case]:
    wechat = {
        "grant_type": "client_credential",
        "appid": value_of("WECHAT_APPID"),
        "secret": value_of("WECHAT_SECRET"),
    }
    of_wechat: dict[str, Any] = {
        "example": "wechat.toml",
        "reply": {"access_token": "wx-token", "expires_in": 7200},
        "token": "wx-token",
        "lifetime": 7200,
        "written_query": "access_token=wx-token",
        "refusals": (
            (
                200,
                b'{"errcode": 40001, "errmsg": "invalid credential, access_token is invalid or not latest"}',
            ),
            (200, b'{"errcode": 42001, "errmsg": "access_token expired"}'),
        ),
    }
    return [
        Case(
            example="custom-json.toml",
            credential="corp",
            path="/token",
            json={"appId": "ragflow", "appSecret": value_of("CORP_APP_SECRET")},
            reply={"code": 0, "msg": "success", "data": {"token": "c0rp", "expireTime": epoch_ms(300)}},
            token="c0rp",
            lifetime=300,
            written={"authorization": "Bearer c0rp"},
        ),
        Case(
            example="baidu.toml",
            credential="baidu",
            path="/oauth/2.0/token",
            query={
                "grant_type": "client_credentials",
                "client_id": value_of("BAIDU_API_KEY"),
                "client_secret": value_of("BAIDU_SECRET_KEY"),
            },
            reply={
                "refresh_token": "25.r", "expires_in": 2592000, "session_key": "9mz",
                "access_token": "24.6c5e", "scope": "public brain_all_scope", "session_secret": "s3",
            },
            token="24.6c5e",
            lifetime=2592000,
            written_query="access_token=24.6c5e",
            refusals=(
                (200, b'{"error_code": 110, "error_msg": "Access token invalid or no longer valid"}'),
                (200, b'{"error_code": 111, "error_msg": "Access token expired"}'),
            ),
        ),
        Case(
            example="huawei.toml",
            credential="huawei",
            path="/v3/auth/tokens",
            query={"nocatalog": "true"},
            json={
                "auth": {
                    "identity": {
                        "methods": ["password"],
                        "password": {
                            "user": {
                                "domain": {"name": value_of("HUAWEI_ACCOUNT")},
                                "name": value_of("HUAWEI_IAM_USER"),
                                "password": value_of("HUAWEI_IAM_PASSWORD"),
                            }
                        },
                    },
                    "scope": {"project": {"name": "cn-north-4"}},
                }
            },
            status=201,
            reply_headers={"X-Subject-Token": "MIIatAYJKoZIhvcNAQ"},
            reply={"token": {"expires_at": iso(86400), "issued_at": iso(0), "methods": ["password"]}},
            token="MIIatAYJKoZIhvcNAQ",
            lifetime=86400,
            written={"x-auth-token": "MIIatAYJKoZIhvcNAQ"},
            refusals=((401, b""),),
        ),
        Case(
            example="ibm.toml",
            credential="ibm",
            path="/identity/token",
            headers={"accept": "application/json"},
            form={
                "grant_type": "urn:ibm:params:oauth:grant-type:apikey",
                "apikey": value_of("IBM_API_KEY"),
            },
            reply={
                "access_token": "eyJibm0", "refresh_token": "not_supported", "token_type": "Bearer",
                "expires_in": 3600, "expiration": int(time.time()) + 3600, "scope": "ibm openid",
            },
            token="eyJibm0",
            lifetime=3600,
            written={"authorization": "Bearer eyJibm0"},
        ),
        Case(
            example="feishu.toml",
            credential="feishu",
            path="/open-apis/auth/v3/tenant_access_token/internal",
            json={"app_id": value_of("FEISHU_APP_ID"), "app_secret": value_of("FEISHU_APP_SECRET")},
            reply={"code": 0, "msg": "ok", "tenant_access_token": "t-caecc734", "expire": 7189},
            token="t-caecc734",
            lifetime=7189,
            written={"authorization": "Bearer t-caecc734"},
            refusals=((400, b'{"code": 99991663, "msg": "Invalid access token for authorization."}'),),
        ),
        Case(credential="wechat-stable", path="/cgi-bin/stable_token", json=wechat, **of_wechat),
        Case(credential="wechat", method="GET", path="/cgi-bin/token", query=wechat, **of_wechat),
        Case(
            example="vault.toml",
            credential="vault",
            path="/v1/auth/approle/login",
            json={"role_id": value_of("VAULT_ROLE_ID"), "secret_id": value_of("VAULT_SECRET_ID")},
            reply=VAULT_LOGIN,
            token="hvs.login",
            lifetime=1200,
            written={"x-vault-token": "hvs.login"},
        ),
    ]  # fmt: skip


VAULT_LOGIN = {
    "request_id": "r", "lease_id": "", "renewable": False, "lease_duration": 0, "data": None,
    "auth": {
        "renewable": True, "lease_duration": 1200, "metadata": None, "token_policies": ["default"],
        "accessor": "fd6c9a00", "client_token": "hvs.login",
    },
}  # fmt: skip
VAULT_SECRET = {
    "request_id": "r", "lease_id": "", "renewable": False, "lease_duration": 0, "auth": None,
    "data": {"data": {"api_key": "sk-from-vault"}, "metadata": {"version": 1, "destroyed": False}},
}  # fmt: skip


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    """The case of a name, made now: its replies hold points in time."""
    return named(request.param)


def named(name: str) -> Case:
    return next(case for case in cases() if str(case) == name)


@pytest.mark.parametrize("case", [str(case) for case in cases()], indirect=True)
async def test_the_request_and_the_token_of_the_reply(
    case: Case, vendor: Vendor, around: Surroundings
) -> None:
    brought = await played(case, vendor, around)

    (asked,) = vendor.asked
    assert (asked.method, path_of(asked)) == (case.method, case.path)
    assert (query_of(asked) if "?" in asked.target else {}) == case.query
    if case.json is not None:
        assert json_of(asked) == case.json
    elif case.form is not None:
        assert form_of(asked) == case.form
    else:
        assert asked.body == b""
    assert case.headers.items() <= asked.headers.items()
    assert "authorization" not in asked.headers
    assert brought.token == case.token
    assert brought.fetched.lifetime == pytest.approx(case.lifetime, abs=5)
    assert (brought.headers, brought.query) == (case.written, case.written_query)


async def played(case: Case, vendor: Vendor, around: Surroundings) -> Brought:
    around.origin = vendor.url
    vendor.replies[case.path] = Says(case.reply, case.status, case.reply_headers)
    return await bring(around.example(case.example), case.credential)


@pytest.mark.parametrize("case", [str(case) for case in cases() if case.refusals], indirect=True)
def test_a_rejected_token_is_recognised_and_a_successful_response_is_not(
    case: Case, around: Surroundings
) -> None:
    rules = RejectionRules(around.example(case.example).credentials[case.credential].invalidate_on)

    assert all(
        rules.match_head(status, JSON)
        or (rules.need_body(status, JSON) and rules.match_body(status, JSON, body))
        for status, body in case.refusals
    )
    for status in (200, 400):
        assert not rules.match_head(status, JSON)
        for answer in (b'{"id": "a", "result": "hello"}', b'{"code": 0}', b'{"error_code": 18}'):
            assert not rules.match_body(status, JSON, answer)


async def test_the_second_vault_request_sends_the_token_of_the_first(
    vendor: Vendor, around: Surroundings
) -> None:
    around.origin = vendor.url
    vendor.replies = {
        "/v1/auth/approle/login": Says(VAULT_LOGIN),
        "/v1/secret/data/llm": Says(VAULT_SECRET),
    }
    brought = await bring(around.example("vault.toml"), "from-vault")

    login, read = vendor.asked
    assert (login.method, login.target) == ("POST", "/v1/auth/approle/login")
    assert (read.method, read.target, read.body) == ("GET", "/v1/secret/data/llm", b"")
    assert read.headers["x-vault-token"] == "hvs.login"
    assert (brought.token, brought.fetched.lifetime) == ("sk-from-vault", 300)
    assert brought.headers == {"authorization": "Bearer sk-from-vault"}


@pytest.mark.parametrize(
    ("example", "credential", "reply"),
    [
        ("custom-json.toml", "corp", {"code": 10401, "msg": "wrong appId", "data": None}),
        ("feishu.toml", "feishu", {"code": 10003, "msg": "invalid param"}),
        ("wechat.toml", "wechat", {"errcode": 40013, "errmsg": "invalid appid"}),
    ],
)
async def test_an_error_inside_a_200_is_not_a_token(
    example: str, credential: str, reply: Any, vendor: Vendor, around: Surroundings
) -> None:
    around.origin = vendor.url
    vendor.replies[named(f"{example}:{credential}").path] = Says(reply)

    with pytest.raises(TokenFetchError, match=r"(signals no success|has no token) at "):
        await bring(around.example(example), credential)
