"""`source = "file"`, and `source = "static"` with a file."""

from pathlib import Path

import pytest

from proxy.settings import CredentialSettings, Expiry, FileCredential, StaticCredential
from tests.settings.conftest import MINIMAL, Load, Problems

FIRST_LINE = MINIMAL.count("\n") + 2
FILE = 'source = "file"\npath = "token"\n'


@pytest.fixture(autouse=True)
def token(tmp_path: Path) -> Path:
    """Create a file beside the settings file."""
    path = tmp_path / "token"
    path.write_text("s3cr3t")
    return path


def credential(load: Load, text: str) -> CredentialSettings:
    return load(f"{MINIMAL}[credentials.corp]\n{text}").credentials["corp"]


def file(load: Load, text: str = "") -> FileCredential:
    loaded = credential(load, FILE + text)
    assert isinstance(loaded, FileCredential)
    return loaded


def test_a_file_with_every_default(load: Load) -> None:
    loaded = file(load)

    assert loaded.path == Path("token")  # the settings file is x.toml in the folder where the service runs
    assert (loaded.format, loaded.token, loaded.expires, loaded.max_age) == ("auto", None, (), 60)


def test_a_file_with_everything(load: Load) -> None:
    loaded = file(
        load,
        """\
format = "json"
token = "auth.client_token"
expires = [{ path = "auth.lease_duration", as = "seconds" }, { path = "auth.client_token", as = "jwt" }]
max_age = 3
""",
    )

    assert (loaded.format, loaded.token, loaded.max_age) == ("json", "auth.client_token", 3)
    assert loaded.expires == (
        Expiry.model_validate({"path": "auth.lease_duration", "as": "seconds"}),
        Expiry.model_validate({"path": "auth.client_token", "as": "jwt"}),
    )


def test_a_path_starts_from_the_settings_files_folder(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absolute = credential(load, f'source = "file"\npath = "{tmp_path}/token"\n')

    assert isinstance(absolute, FileCredential)
    assert absolute.path == tmp_path / "token"


def test_a_static_token_in_a_file(load: Load) -> None:
    loaded = credential(load, 'source = "static"\nfile = "token"\n')

    assert isinstance(loaded, StaticCredential)
    assert (loaded.value, loaded.file) == (None, Path("token"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('source = "file"', "-1 path: is required"),
        (
            'source = "file"\npath = "missing"',
            "1 path: the file cannot be read: No such file or directory",
        ),
        ('source = "file"\npath = "."', "1 path: the file cannot be read: Is a directory"),
        (FILE + 'format = "yaml"', '2 format: must be "auto", "text" or "json"'),
        (
            FILE + 'format = "json"',
            '-1 token: is required for format = "json": '
            'the path of the token in the JSON, such as "data.token"',
        ),
        (
            FILE + 'format = "text"\ntoken = "a"',
            '3 token: is only used with format = "auto" or format = "json"',
        ),
        (
            FILE + 'expires = [{ path = "a", as = "jwt" }]',
            "2 expires: requires token as well: both are paths in JSON",
        ),
        (FILE + 'token = "a..b"', '2 token: must be a path into the reply, such as "data.token"'),
        (FILE + "max_age = 2", "2 max_age: must be at least 3"),
        (FILE + "max_age = 61", "2 max_age: must be at most 60"),
        (FILE + "max_age = true", "2 max_age: must be a number"),
        (FILE + 'value = "x"', '2 value: unknown key, known: "default_ttl", "expires", "format", "inject", '),
    ],
)
def test_an_invalid_value_is_reported(problems: Problems, text: str, told: str) -> None:
    line, words = told.split(" ", 1)

    assert problems(f"{MINIMAL}[credentials.corp]\n{text}")[0].startswith(
        f"x.toml:{FIRST_LINE + int(line)}: credentials.corp.{words}"
    )
