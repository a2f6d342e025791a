"""Every file of config/credentials/: it loads as it is, builds, explains itself, and shows no secret."""

import re
import tomllib

import pytest

from proxy.credentials.build import build_source
from proxy.credentials.sources.cloud import CloudTokenSource
from proxy.settings import describe
from tests.config.examples import FOLDER, NAMES, VARIABLE, Surroundings, value_of

each_example = pytest.mark.parametrize("name", NAMES)
SECRET_VARIABLE = re.compile(r"SECRET|PASSWORD|KEY$")
HEADER = (2, 5)
SET_BY_THE_PLATFORM = {"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"}
WIDTH = 118


@each_example
async def test_every_example_loads_and_builds(name: str, around: Surroundings) -> None:
    settings = around.example(name)

    written = tomllib.loads((FOLDER / name).read_text())
    assert list(settings.credentials) == list(written["credentials"])
    for section in settings.credentials.values():
        await build_source(section).close()


def test_each_is_one_or_two_credentials_and_nothing_else() -> None:
    for name in NAMES:
        written = tomllib.loads((FOLDER / name).read_text())

        assert list(written) == ["credentials"], name
        assert len(written["credentials"]) in {1, 2}, name


def test_each_begins_with_a_short_comment_that_names_its_users_and_its_variables() -> None:
    for name in NAMES:
        lines = (FOLDER / name).read_text().splitlines()
        header = lines[: lines.index("")]
        named = {*re.findall(r"[A-Z][A-Z0-9_]+", "\n".join(header))}

        assert HEADER[0] <= len(header) <= HEADER[1], name
        assert all(line.startswith("# ") for line in header), name
        assert header[0].startswith("# For "), name
        assert {*VARIABLE.findall("\n".join(lines))} <= named | SET_BY_THE_PLATFORM, name
        assert max(map(len, lines)) <= WIDTH, name


def test_no_example_shows_a_secret(around: Surroundings) -> None:
    for name in NAMES:
        shown = describe(around.example(name))

        for variable in VARIABLE.findall((FOLDER / name).read_text()):
            if SECRET_VARIABLE.search(variable):
                assert value_of(variable) not in shown, name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("azure.toml", CloudTokenSource),
        ("google.toml", CloudTokenSource),
        ("bedrock.toml", CloudTokenSource),
    ],
)
def test_the_clouds_have_their_sdk(name: str, kind: type, around: Surroundings) -> None:
    for section in around.example(name).credentials.values():
        assert isinstance(build_source(section), kind)


def test_issuers_that_revoke_the_previous_token_require_sharing(around: Surroundings) -> None:
    credentials = around.example("wechat.toml").credentials

    assert (credentials["wechat"].reissue, credentials["wechat"].sharing) == (
        "revokes_previous",
        "redis_required",
    )
    assert credentials["wechat-stable"].reissue == "same_until_near_expiry"
