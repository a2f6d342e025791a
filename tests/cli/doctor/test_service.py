"""The settings of the service that the doctor starts: tokens that were fetched once, and no sharing."""

from pathlib import Path

from proxy.cli.doctor.service import with_tokens
from proxy.credentials.token import FetchedToken
from proxy.secret import Secret
from proxy.settings import StaticCredential, load_settings

SETTINGS = """
[upstreams.main]
base_url = "http://main.test/v1"
credential = "corp"

[upstreams.other]
base_url = "http://other.test/v1"
credential = "broken"

[routes]
default = "main"

[credentials.corp]
source = "file"
path = "token.txt"
inject = { header = "X-Token", template = "{token}" }

[credentials.broken]
source = "file"
path = "other.txt"

[[access.keys]]
name = "app"
key = "sk-app-1234567890abcdef"
"""


def test_each_fetched_token_replaces_its_source_and_keeps_its_place(tmp_path: Path) -> None:
    file = tmp_path / "proxy.toml"
    file.write_text(SETTINGS, encoding="utf-8")
    for name in ("token.txt", "other.txt"):
        tmp_path.joinpath(name).write_text("token", encoding="utf-8")
    settings = load_settings(file, {})
    changed = with_tokens(settings, {"corp": FetchedToken(Secret("fetched-canary"), 300.0)})
    (credential,) = changed.credentials.values()
    assert isinstance(credential, StaticCredential)
    assert credential.value == Secret("fetched-canary")
    assert credential.inject == settings.credentials["corp"].inject
    assert changed.upstreams["main"].credential == "corp"
    assert changed.upstreams["other"].credential is None  # its token could not be fetched
    assert settings.upstreams["other"].credential == "broken"
    assert changed.shared is None
