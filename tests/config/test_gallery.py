"""docs/vendors*.md: each block fetches its token from a local server that acts as the documented vendor."""

import base64
import re
import time
import tomllib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import jwt
import pytest

from proxy.credentials.upstream_credential import RejectionRules
from tests.config.examples import Brought, Surroundings, bring, value_of
from tests.config.vendor import Says, Vendor, form_of, json_of, path_of, query_of
from tests.documents import DOCUMENTS, fences, in_both_languages

PAGES: Final = in_both_languages("docs/vendors")
ANNOUNCED: Final = re.compile(r"\b26\b")
TOKEN: Final = "t0ken-of-the-vendor"
BLOCKS: Final = {
    name: block
    for block in fences(DOCUMENTS[PAGES[0]], "toml")
    for name in tomllib.loads(block)["credentials"]
}
CLIENT_CREDENTIALS: Final = {"grant_type": "client_credentials"}
JSON: Final = [(b"content-type", b"application/json")]


@dataclass(frozen=True, kw_only=True)
class Case:
    """The expected request to the vendor, its reply, and the expected request to the gateway."""

    path: str
    reply: dict[str, Any]
    status: int = 200
    reply_headers: dict[str, str] = field(default_factory=dict)
    lifetime: float = 3600
    method: str = "POST"
    client: tuple[str, str] | None = None
    """The variables with the user and password of the Authorization header."""
    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    json: Any = None
    form: dict[str, str] | None = None
    sent: tuple[str, str] = ("authorization", f"Bearer {TOKEN}")
    """The header for the gateway,"""
    sent_query: str = ""
    """or the query."""
    rejection: tuple[int, bytes] | None = None
    """How the gateway rejects a token, if not with 401."""


def oauth2(
    path: str, client: tuple[str, str], *, post: bool = False, lifetime: float = 3600, **more: str
) -> Case:
    """Return the case of an OAuth 2.0 server with the client-credentials grant."""
    form, basic = CLIENT_CREDENTIALS | more, None if post else client
    if post:
        form |= {"client_id": value_of(client[0]), "client_secret": value_of(client[1])}
    reply = {"access_token": TOKEN, "token_type": "Bearer", "expires_in": lifetime}
    return Case(path=path, reply=reply, lifetime=lifetime, client=basic, form=form)


def client_of(vendor: str) -> tuple[str, str]:
    return f"{vendor}_CLIENT_ID", f"{vendor}_CLIENT_SECRET"


def cases() -> dict[str, Case]:
    """By the name of the credential; made now, because some replies contain the time."""
    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    apigee = oauth2("/oauth/client_credential/accesstoken", ("APIGEE_KEY", "APIGEE_SECRET"))
    salesforce = ("SALESFORCE_CONSUMER_KEY", "SALESFORCE_CONSUMER_SECRET")
    return {
        "entra": oauth2(
            f"/{value_of('ENTRA_TENANT_ID')}/oauth2/v2.0/token", client_of("ENTRA"), post=True,
            scope="https://cognitiveservices.azure.com/.default",
        ),
        "cognito": oauth2("/oauth2/token", client_of("COGNITO"), scope="llm/invoke"),
        "okta": oauth2("/oauth2/default/v1/token", client_of("OKTA"), scope="llm"),
        "auth0": oauth2(
            "/oauth/token", client_of("AUTH0"), post=True, lifetime=86400, audience="https://llm.corp.example"
        ),
        "keycloak": oauth2(
            "/realms/corp/protocol/openid-connect/token", ("", "KEYCLOAK_CLIENT_SECRET"), lifetime=300
        ),
        "ping": oauth2(f"/{value_of('PINGONE_ENVIRONMENT_ID')}/as/token", client_of("PINGONE")),
        "forgerock": oauth2(
            "/am/oauth2/realms/root/realms/alpha/access_token", client_of("FORGEROCK"), scope="llm"
        ),
        "spring": oauth2("/oauth2/token", ("", "SPRING_CLIENT_SECRET"), lifetime=300, scope="llm"),
        "kong": oauth2("/llm/oauth2/token", client_of("KONG"), post=True, lifetime=7200),
        "wso2": oauth2("/oauth2/token", ("WSO2_CONSUMER_KEY", "WSO2_CONSUMER_SECRET")),
        "apigee": Case(
            path=apigee.path, client=apigee.client, form=apigee.form, query=CLIENT_CREDENTIALS, lifetime=3599,
            reply={"access_token": TOKEN, "token_type": "BearerToken", "expires_in": "3599"},
        ),
        "ibm": Case(
            path="/identity/token", headers={"accept": "application/json"},
            form={
                "grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": value_of("IBM_API_KEY")
            },
            reply={"access_token": TOKEN, "refresh_token": "not_supported", "expires_in": 3600},
        ),
        "sap": oauth2("/oauth/token", client_of("SAP"), lifetime=43199),
        "salesforce": Case(
            path="/services/oauth2/token", lifetime=900,
            form=oauth2("", salesforce, post=True).form,
            reply={"access_token": TOKEN, "instance_url": "https://x", "issued_at": "1795000000000"},
        ),
        "huawei": Case(
            path="/v3/auth/tokens", query={"nocatalog": "true"}, status=201,
            json={
                "auth": {
                    "scope": {"project": {"name": "cn-north-4"}},
                    "identity": {
                        "methods": ["password"],
                        "password": {
                            "user": {
                                "name": value_of("HUAWEI_IAM_USER"),
                                "password": value_of("HUAWEI_IAM_PASSWORD"),
                                "domain": {"name": value_of("HUAWEI_ACCOUNT")},
                            }
                        },
                    },
                }
            },
            reply={"token": {"expires_at": in_an_hour.strftime("%Y-%m-%dT%H:%M:%S.000000Z")}},
            reply_headers={"X-Subject-Token": TOKEN}, sent=("x-auth-token", TOKEN),
        ),
        "dashscope": Case(
            path="/api/v1/tokens", query={"expire_in_seconds": "1800"}, lifetime=1800,
            headers={"authorization": f"Bearer {value_of('DASHSCOPE_API_KEY')}"},
            reply={"token": TOKEN, "expires_at": int(time.time()) + 1800},
        ),
        "baidu": Case(
            path="/oauth/2.0/token", lifetime=2592000,
            query=CLIENT_CREDENTIALS
            | {"client_id": value_of("BAIDU_API_KEY"), "client_secret": value_of("BAIDU_SECRET_KEY")},
            reply={"access_token": TOKEN, "expires_in": 2592000},
            sent_query=f"access_token={TOKEN}",
            rejection=(200, b'{"error_code": 110, "error_msg": "Access token invalid or no longer valid"}'),
        ),
        "feishu": Case(
            path="/open-apis/auth/v3/tenant_access_token/internal", lifetime=7200,
            json={"app_id": value_of("FEISHU_APP_ID"), "app_secret": value_of("FEISHU_APP_SECRET")},
            reply={"code": 0, "msg": "ok", "tenant_access_token": TOKEN, "expire": 7200},
            rejection=(400, b'{"code": 99991663, "msg": "Invalid access token for authorization."}'),
        ),
        "dingtalk": Case(
            path="/v1.0/oauth2/accessToken", lifetime=7200,
            json={"appKey": value_of("DINGTALK_APP_KEY"), "appSecret": value_of("DINGTALK_APP_SECRET")},
            reply={"accessToken": TOKEN, "expireIn": 7200},
            sent=("x-acs-dingtalk-access-token", TOKEN),
            rejection=(400, b'{"code": "InvalidAuthentication", "message": "access_token"}'),
        ),
        "wecom": Case(
            method="GET", path="/cgi-bin/gettoken", lifetime=7200,
            query={"corpid": value_of("WECOM_CORP_ID"), "corpsecret": value_of("WECOM_SECRET")},
            reply={"errcode": 0, "errmsg": "ok", "access_token": TOKEN, "expires_in": 7200},
            sent_query=f"access_token={TOKEN}",
            rejection=(200, b'{"errcode": 42001, "errmsg": "access_token expired"}'),
        ),
        "own": Case(
            path="/token", lifetime=300,
            json={"appId": "ragflow", "appSecret": value_of("CORP_APP_SECRET")},
            reply={"code": 0, "data": {"token": TOKEN, "expireTime": int(time.time() * 1000) + 300_000}},
        ),
    }  # fmt: skip


PERMANENT: Final = {"hunyuan": "HUNYUAN_API_KEY", "spark": "SPARK_API_PASSWORD"}
SIGNED_BY_US: Final = {
    "apisix": ("APISIX_SECRET", {"key": value_of("APISIX_KEY")}),
    "zhipu": ("ZHIPU_KEY_SECRET", {"api_key": value_of("ZHIPU_KEY_ID")}),
}
SECRET: Final = "a secret of more than thirty-two characters"
WITH_AN_ASSERTION: Final = "google"


async def fetch(name: str, around: Surroundings) -> Brought:
    return await bring(around.load(BLOCKS[name]), name)


def test_every_block_is_tested() -> None:
    tested = [*cases(), *PERMANENT, *SIGNED_BY_US, WITH_AN_ASSERTION]

    assert sorted(BLOCKS) == sorted(tested)


@pytest.mark.parametrize("page", PAGES)
def test_each_vendor_has_one_block_and_a_link_to_its_own_page(page: str) -> None:
    head, *vendors = DOCUMENTS[page].split("\n### ")

    assert ANNOUNCED.search(head)
    assert len(vendors) == len(BLOCKS) == 26
    for section, name in zip(vendors, BLOCKS, strict=True):
        (block,) = fences(section.partition("\n## ")[0], "toml")
        assert tomllib.loads(block) == tomllib.loads(BLOCKS[name])
        assert name == "own" or "](https://" in section


@pytest.mark.parametrize("name", cases())
async def test_a_token_is_fetched_as_the_vendor_documents_it(
    name: str, vendor: Vendor, around: Surroundings
) -> None:
    case = cases()[name]
    around.origin = vendor.url
    vendor.replies[case.path] = Says(case.reply, case.status, case.reply_headers)
    brought = await fetch(name, around)

    (asked,) = vendor.asked
    assert (asked.method, path_of(asked)) == (case.method, case.path)
    assert (query_of(asked) if "?" in asked.target else {}) == case.query
    assert (form_of(asked) if case.form is not None else None) == case.form
    assert (json_of(asked) if case.json is not None else None) == case.json
    assert case.headers.items() <= asked.headers.items()
    if case.client is not None:
        user, secret = (value_of(variable) if variable else "ragflow" for variable in case.client)
        credentials = base64.b64encode(f"{user}:{secret}".encode()).decode()
        assert asked.headers["authorization"] == f"Basic {credentials}"
    assert brought.token == TOKEN
    assert brought.fetched.lifetime == pytest.approx(case.lifetime, abs=5)
    sent = {} if case.sent_query else dict([case.sent])
    assert (brought.headers, brought.query) == (sent, case.sent_query)


@pytest.mark.parametrize("name", [name for name, case in cases().items() if case.rejection])
def test_a_rejected_token_is_recognised(name: str, around: Surroundings) -> None:
    rules = RejectionRules(around.load(BLOCKS[name]).credentials[name].invalidate_on)
    status, body = cases()[name].rejection or (0, b"")

    assert rules.match_head(401, JSON)
    assert not rules.match_head(status, JSON)
    assert rules.match_body(status, JSON, body)
    assert not rules.match_body(status, JSON, b'{"id": "chatcmpl-1", "choices": []}')


@pytest.mark.parametrize("name", PERMANENT)
async def test_a_permanent_key_is_sent_as_it_is(name: str, around: Surroundings) -> None:
    brought = await fetch(name, around)

    assert brought.headers == {"authorization": f"Bearer {value_of(PERMANENT[name])}"}


@pytest.mark.parametrize("name", SIGNED_BY_US)
async def test_the_proxy_signs_the_token_itself(name: str, around: Surroundings) -> None:
    variable, claims = SIGNED_BY_US[name]
    around.environ = {variable: SECRET}
    brought = await fetch(name, around)
    signed = jwt.decode(
        brought.token, SECRET, algorithms=["HS256"], options={"verify_exp": False, "verify_iat": False}
    )

    assert claims.items() <= signed.items()
    assert brought.fetched.lifetime == pytest.approx(300, abs=5)
    milliseconds = 1000 if name == "zhipu" else 1
    assert signed["exp"] == pytest.approx((time.time() + 300) * milliseconds, abs=10 * milliseconds)


async def test_google_exchanges_a_signed_assertion(vendor: Vendor, around: Surroundings) -> None:
    around.origin = vendor.url
    vendor.replies["/token"] = Says({"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"})
    brought = await fetch(WITH_AN_ASSERTION, around)

    form = form_of(vendor.asked[0])
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    claims = jwt.decode(form["assertion"], options={"verify_signature": False})
    assert claims["iss"] == value_of("GOOGLE_CLIENT_EMAIL")
    assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
    assert claims["exp"] - claims["iat"] == 3600
    assert jwt.get_unverified_header(form["assertion"])["kid"] == value_of("GOOGLE_KEY_ID")
    assert (brought.token, round(brought.fetched.lifetime, -1)) == (TOKEN, 3600)
    assert brought.headers == {"authorization": f"Bearer {TOKEN}"}
