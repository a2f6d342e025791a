"""Building a token source from a section of the configuration."""

import asyncio
from pathlib import Path
from typing import Any, Final, cast, get_args

import pytest
from pydantic import TypeAdapter

from proxy.credentials import MemoryTokenStore
from proxy.credentials.build import CredentialRegistry, build_credentials, build_source, tls_files
from proxy.credentials.sources.http import HttpTokenSource
from proxy.credentials.sources.local import StaticTokenSource
from proxy.credentials.sources.oauth2 import oauth2_recipe
from proxy.secret import Secret
from proxy.settings import (
    AzureCredential,
    BedrockCredential,
    CredentialSettings,
    ExecCredential,
    GoogleCredential,
    HttpCredential,
    Inject,
    OAuth2Credential,
)
from proxy.settings.credentials.section import CredentialSection
from proxy.settings.interpolation import Interpolated
from proxy.tls_contexts import TlsContexts
from tests.credentials.sources.token_endpoint import TokenEndpoint, recipe_of
from tests.loopback import serve_on_loopback
from tests.signing_keys import certificate_pem
from tests.tls_servers import make_certificate

STATIC = {"source": "static", "value": "s3cret-static-token"}
OAUTH2 = {
    "source": "oauth2",
    "token_url": "https://auth.example/token",
    "client_id": "id",
    "client_secret": "s3cret",
}
HTTP = {"source": "http", "url": "https://auth.example/token", "token": "data.token"}


def section(values: dict[str, Any]) -> CredentialSettings:
    """Return a section as loaded from settings."""
    checked: CredentialSettings = TypeAdapter(CredentialSettings).validate_python(values)
    return checked


def http(**more: Any) -> HttpCredential:
    checked = section({**HTTP, **more})
    assert isinstance(checked, HttpCredential)
    return checked


def oauth2(**more: Any) -> HttpCredential:
    checked = section({**OAUTH2, **more})
    assert isinstance(checked, OAuth2Credential)
    return oauth2_recipe(checked)


@pytest.mark.parametrize(
    ("values", "kind"), [(STATIC, StaticTokenSource), (OAUTH2, HttpTokenSource), (HTTP, HttpTokenSource)]
)
async def test_each_source_has_its_kind(values: dict[str, Any], kind: type) -> None:
    source = build_source(section(values))
    assert isinstance(source, kind)
    await source.close()


def test_an_http_section_with_every_default() -> None:
    recipe = http()
    assert recipe == recipe_of(
        url="https://auth.example/token", token="data.token", timeout=10.0, connect_timeout=2.0
    )
    assert (recipe.method, recipe.json_body, recipe.form, recipe.timeout) == ("POST", None, None, 10.0)


def test_an_http_section_with_everything(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(certificate_pem("p256"))
    recipe = http(
        method="get",
        json={"appSecret": Interpolated("s3cret"), "deep": [1, {"a": None}]},
        query={"q": Interpolated("s3cret")},
        headers={"X-Key": Interpolated("s3cret")},
        basic=["id", "s3cret"],
        success={"path": "code", "equals": 0},
        expires=[{"path": "data.at", "as": "epoch_ms"}, {"path": "data.ttl", "as": "seconds"}],
        default_ttl=60,
        max_ttl=600,
        timeout=3,
        ca_file=tmp_path / "ca.pem",
    )
    assert recipe == recipe_of(
        url="https://auth.example/token",
        method="GET",
        json={"appSecret": Secret("s3cret"), "deep": (1, {"a": None})},
        query={"q": Secret("s3cret")},
        headers={"X-Key": Secret("s3cret")},
        basic=("id", Secret("s3cret")),
        success=("code", 0),
        token="data.token",
        expires=(("data.at", "epoch_ms"), ("data.ttl", "seconds")),
        default_ttl=60.0,
        max_ttl=600.0,
        timeout=3.0,
        connect_timeout=2.0,
        ca_file=tmp_path / "ca.pem",
    )


def test_an_http_section_with_a_form_and_a_token_in_a_header() -> None:
    recipe = http(token=None, token_header="X-Subject-Token", form={"a": Interpolated("s3cret")})
    assert recipe.form == {"a": Secret("s3cret")}
    assert (recipe.token, recipe.token_header) == (None, "X-Subject-Token")


def test_client_credentials_by_basic() -> None:
    recipe = oauth2(client_id="i d", client_secret="s&=:+", default_ttl=60, timeout=3)
    assert recipe == recipe_of(
        url="https://auth.example/token",
        form={"grant_type": "client_credentials"},
        basic=("i+d", Secret("s%26%3D%3A%2B")),
        token="access_token",
        expires=(("expires_in", "seconds"),),
        refresh_in="refresh_in",
        default_ttl=60.0,
        timeout=3.0,
        connect_timeout=2.0,
    )


def test_client_credentials_in_the_form() -> None:
    recipe = oauth2(auth="post", scope="a b", audience="aud", params={"resource": "r"})
    assert recipe.basic is None
    assert recipe.form == {
        "grant_type": "client_credentials",
        "resource": "r",
        "scope": "a b",
        "audience": "aud",
        "client_id": "id",
        "client_secret": Secret("s3cret"),
    }


def test_the_secret_is_masked_wherever_a_recipe_is_shown() -> None:
    for recipe in (
        oauth2(),
        oauth2(auth="post", params={"assertion": Interpolated("s3cret")}),
        http(json={"a": [{"b": Interpolated("s3cret")}]}, basic=["id", "s3cret"]),
        http(form={"a": Interpolated("s3cret")}, headers={"X-Key": Interpolated("s3cret")}),
    ):
        assert "s3cret" not in repr(recipe) + str(recipe)


async def test_the_registry_has_every_credential_under_its_name() -> None:
    endpoint = TokenEndpoint()
    endpoint.says({"data": {"token": "s3cret"}})
    async with serve_on_loopback(endpoint.app()) as url:
        registry = build_credentials(
            {
                "fixed": section({**STATIC, "inject": {"header": "X-Key", "template": "{token}"}}),
                "corp": section({**HTTP, "url": url, "inject": {"query": "access_token"}}),
            },
            MemoryTokenStore(),
        )
        assert registry["fixed"].source.name == "fixed"
        assert registry["fixed"].inject == Inject(header="X-Key", template="{token}")
        assert registry["corp"].inject == Inject(header=None, template="{token}", query="access_token")
        assert (await registry["fixed"].source.get()).secret == Secret("s3cret-static-token")
        assert (await registry["corp"].source.get()).secret == Secret("s3cret")
        await registry.close()


async def test_credentials_with_the_same_request_share_one_token() -> None:
    endpoint = TokenEndpoint()
    endpoint.says({"data": {"token": "s3cret"}})
    async with serve_on_loopback(endpoint.app()) as url:
        corp = {**HTTP, "url": url, "reissue": "revokes_previous"}
        sections: dict[str, dict[str, Any]] = {
            "corp": corp,
            "elsewhere": {**corp, "inject": {"header": "X-Key"}, "timeout": 9},
        }
        registry = build_credentials(
            {name: section(values) for name, values in sections.items()}, MemoryTokenStore()
        )
        tokens = await asyncio.gather(*(registry[name].source.get() for name in sections))
        assert {token.secret for token in tokens} == {Secret("s3cret")}
        assert len(endpoint.asked) == 1
        await registry.close()


async def test_files_that_are_equal_at_first_are_not_confused_later(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        path.write_text("the-same-at-first")
    registry = build_credentials(
        {path.name: section({"source": "file", "path": path}) for path in (one, two)}, MemoryTokenStore()
    )
    assert (await registry["one"].source.get()).secret == Secret("the-same-at-first")
    two.write_text("another-token")
    assert (await registry["two"].source.get()).secret == Secret("another-token")
    await registry.close()


READ_AT_EACH_FETCH: Final = {
    (AzureCredential, "ca_file"),
    (AzureCredential, "token_file"),
    (BedrockCredential, "ca_file"),
    (GoogleCredential, "ca_file"),
    (ExecCredential, "cwd"),
}
FILES: Final = [
    (kind, name)
    for kind in get_args(get_args(CredentialSettings)[0])
    for name, field in kind.model_fields.items()
    if ".Path" in str(field.annotation) and (kind, name) not in READ_AT_EACH_FETCH
]


def test_the_walk_finds_the_files_of_all_credentials() -> None:
    names = {"ca_file", "certificate_file", "client_cert", "client_key", "file", "path"}
    assert {name for _, name in FILES} == names


@pytest.mark.parametrize(("kind", "name"), FILES)
async def test_the_new_content_of_each_file_takes_effect_at_a_reload(
    kind: type[CredentialSection], name: str, tmp_path: Path
) -> None:
    names = {name, "client_cert"} if name == "client_key" else {name}
    files = {each: tmp_path / each for each in names}
    required = {key: "https://a.test" for key, field in kind.model_fields.items() if field.is_required()}
    values: dict[str, Any] = {**required, **files}
    with_files = cast(CredentialSettings, kind.model_construct(None, **values))
    contexts, store = TlsContexts(), MemoryTokenStore()

    def write() -> None:
        pair = make_certificate(tmp_path).read_bytes()
        for path in files.values():
            path.write_bytes(pair)

    async def load(before: CredentialRegistry | None) -> CredentialRegistry:
        known = {needed: await contexts.get(needed) for needed in tls_files(with_files)}
        return build_credentials({"corp": with_files}, store, None, before, contexts=known)

    write()
    first = await load(None)
    same = await load(first)
    write()
    changed = await load(same)
    assert first["corp"].source is same["corp"].source
    assert same["corp"].source is not changed["corp"].source
    for registry in (first, same, changed):
        await registry.close()
