"""The sources on the clouds' SDKs, `azure`, `google` and `bedrock`, and a start without their SDK."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from proxy.cli import main
from proxy.secret import Secret
from proxy.settings import (
    AzureCredential,
    BedrockCredential,
    CredentialSettings,
    GoogleCredential,
    describe,
)
from tests.settings.conftest import MINIMAL, Load, Problems
from tests.signing_keys import certificate_pem

FIRST_LINE = MINIMAL.count("\n") + 2
SCOPE = "https://cognitiveservices.azure.com/.default"
AZURE = f'source = "azure"\nscope = "{SCOPE}"\n'
IDS = 'tenant_id = "t.example"\nclient_id = "id"\n'
GOOGLE = 'source = "google"\n'
BEDROCK = 'source = "bedrock"\nregion = "us-east-1"\n'
PACKAGES = [
    (AZURE, "azure", "azure-identity", "azure.identity"),
    (AZURE, "azure", "azure-identity", "azure"),
    (GOOGLE, "google", "google-auth", "google.auth"),
    (GOOGLE, "google", "google-auth", "google"),
    (GOOGLE, "google", "google-auth", "requests"),
    (BEDROCK, "bedrock", "aws-bedrock-token-generator", "aws_bedrock_token_generator"),
]


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    """Create files beside the settings file."""
    (tmp_path / "file").write_text("{}")
    (tmp_path / "ca.pem").write_text(certificate_pem("p256"))
    for kind in ("service_account", "external_account", "authorized_user"):
        (tmp_path / f"{kind}.json").write_text(json.dumps({"type": kind}))


def credential(load: Load, text: str, **environ: str) -> CredentialSettings:
    return load(f"{MINIMAL}[credentials.corp]\n{text}", environ).credentials["corp"]


def azure(load: Load, text: str = "", **environ: str) -> AzureCredential:
    loaded = credential(load, AZURE + text, **environ)
    assert isinstance(loaded, AzureCredential)
    return loaded


def google(load: Load, text: str = "") -> GoogleCredential:
    loaded = credential(load, GOOGLE + text)
    assert isinstance(loaded, GoogleCredential)
    return loaded


def bedrock(load: Load, text: str = "") -> BedrockCredential:
    loaded = credential(load, BEDROCK + text)
    assert isinstance(loaded, BedrockCredential)
    return loaded


def test_azure_with_every_default(load: Load) -> None:
    loaded = azure(load)

    assert (loaded.scope, loaded.method, loaded.timeout) == (SCOPE, "default", 10)
    assert (loaded.tenant_id, loaded.client_id, loaded.client_secret, loaded.authority) == (None,) * 4
    assert (loaded.certificate_file, loaded.certificate_password, loaded.token_file) == (None,) * 3
    assert (loaded.ca_file, loaded.proxy, loaded.trust_env) == (None, None, False)


def test_azure_with_everything_that_a_client_secret_takes(load: Load) -> None:
    loaded = azure(
        load,
        IDS
        + """\
method = "client_secret"
client_secret = "${env:SECRET}"
authority = "https://login.microsoftonline.us/"
ca_file = "ca.pem"
proxy = "http://proxy.example:3128"
trust_env = true
""",
        SECRET="s3cr3t",
    )

    assert (loaded.tenant_id, loaded.client_id, loaded.client_secret) == ("t.example", "id", Secret("s3cr3t"))
    assert loaded.authority == "https://login.microsoftonline.us/"
    assert (loaded.ca_file, loaded.proxy, loaded.trust_env) == (
        Path("ca.pem"),
        "http://proxy.example:3128",
        True,
    )


@pytest.mark.parametrize(
    "text",
    [
        IDS + 'authority = "login.example"',
        IDS + 'method = "client_secret"\nclient_secret = "s"',
        IDS + 'method = "certificate"\ncertificate_file = "file"\ncertificate_password = "p"',
        IDS + 'method = "workload_identity"\ntoken_file = "file"\nauthority = "https://login.example"',
        'method = "managed_identity"\nclient_id = "id"',
        'method = "managed_identity"',
        'method = "cli"\ntenant_id = "t"',
    ],
)
def test_azure_knows_each_method_with_its_keys(load: Load, text: str) -> None:
    assert azure(load, text).scope == SCOPE


def test_google_with_every_default(load: Load) -> None:
    loaded = google(load)

    assert loaded.scopes == ("https://www.googleapis.com/auth/cloud-platform",)
    assert (loaded.file, loaded.audience, loaded.subject) == (None, None, None)
    assert (loaded.ca_file, loaded.proxy, loaded.trust_env, loaded.default_ttl) == (None, None, False, 300)


@pytest.mark.parametrize(
    "text",
    [
        'file = "service_account.json"\nsubject = "a@b.example"\nscopes = ["a", "b"]',
        'file = "service_account.json"\naudience = "https://llm.example"',
        'file = "external_account.json"',
        'audience = "https://llm.example"',
    ],
)
def test_google_accepts_every_valid_combination(load: Load, text: str) -> None:
    assert google(load, text).source == "google"


def test_bedrock_with_and_without_its_defaults(load: Load) -> None:
    least, most = bedrock(load), bedrock(load, 'ttl = 900\nprofile = "prod"')

    assert (least.region, least.ttl, least.profile) == ("us-east-1", 43200, None)
    assert (most.ttl, most.profile) == (900, "prod")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('source = "azure"', "-1 scope: is required"),
        (
            'source = "azure"\nscope = "a b"',
            '1 scope: must be one scope, such as "https://cognitiveservices.azure.com/.default"',
        ),
        (
            AZURE + 'method = "msi"',
            '2 method: must be "default", "client_secret", "certificate", "workload_identity", '
            '"managed_identity" or "cli"',
        ),
        (
            AZURE + 'method = "client_secret"\nclient_id = "id"\nclient_secret = "s"',
            '-1 tenant_id: is required for method = "client_secret", such as "${env:AZURE_TENANT_ID}"',
        ),
        (
            AZURE + IDS + 'method = "client_secret"',
            '-1 client_secret: is required for method = "client_secret"',
        ),
        (
            AZURE + IDS + 'method = "certificate"',
            '-1 certificate_file: is required for method = "certificate"',
        ),
        (
            AZURE + IDS + 'method = "workload_identity"',
            '-1 token_file: is required for method = "workload_identity", '
            'such as "${env:AZURE_FEDERATED_TOKEN_FILE}"',
        ),
        (AZURE + 'client_secret = "s"', '2 client_secret: is only used with method = "client_secret"'),
        (
            AZURE + 'method = "managed_identity"\ntenant_id = "t"',
            '3 tenant_id: is only used with method = "default" or method = "client_secret" or '
            'method = "certificate" or method = "workload_identity" or method = "cli"',
        ),
        (
            AZURE + 'token_file = "nowhere"',
            "2 token_file: the file cannot be read: No such file or directory",
        ),
        (
            AZURE + 'tenant_id = "a/b"',
            "2 tenant_id: must be the id or a domain of a tenant: letters, digits, dots and hyphens",
        ),
        *(
            (
                AZURE + f'authority = "{authority}"',
                '2 authority: must be a host or its https:// URL, such as "login.microsoftonline.us"',
            )
            for authority in ("http://login.example", "https://", "https://[", "u:p@host", "host?x=1")
        ),
        (AZURE + "tenant = 1", '2 tenant: unknown key, did you mean "tenant_id"?'),
        (AZURE + 'trust_env = "perhaps"', "2 trust_env: must be true or false"),
        (GOOGLE + "scopes = []", "1 scopes: is empty: name at least one scope"),
        *(
            (
                GOOGLE + f'file = "{file}"',
                "1 file: must be the JSON file of a service account or of an external account",
            )
            for file in ("file", "authorized_user.json", "x.toml")
        ),
        (
            GOOGLE + 'audience = "a"\nscopes = ["b"]',
            "1 audience: cannot be combined with scopes: an ID token has none",
        ),
        (
            GOOGLE + 'file = "service_account.json"\naudience = "a"\nsubject = "b"',
            "3 subject: cannot be combined with audience: give only one of them",
        ),
        (GOOGLE + 'subject = "b"', "1 subject: requires file as well: that of a service account"),
        (
            GOOGLE + 'file = "external_account.json"\naudience = "b"',
            "2 audience: needs the file of a service account",
        ),
        (
            GOOGLE + 'file = "external_account.json"\nsubject = "b"',
            "2 subject: needs the file of a service account",
        ),
        ('source = "bedrock"', "-1 region: is required"),
        ('source = "bedrock"\nregion = "Virginia"', '1 region: must be a region, such as "us-east-1"'),
        (BEDROCK + "ttl = 43201", "2 ttl: must be at most 43200"),
        (BEDROCK + "ttl = 0", "2 ttl: must be greater than 0"),
        (BEDROCK + 'profiles = "file"', '2 profiles: unknown key, did you mean "profile"?'),
    ],
)
def test_an_invalid_value_is_reported(problems: Problems, text: str, told: str) -> None:
    line, words = told.split(" ", 1)

    assert problems(f"{MINIMAL}[credentials.corp]\n{text}")[0] == (
        f"x.toml:{FIRST_LINE + int(line)}: credentials.corp.{words}"
    )


@given(st.text())
def test_any_text_is_an_authority_or_is_rejected(text: str) -> None:
    try:
        loaded = AzureCredential.model_validate({"source": "azure", "scope": "a", "authority": text})
    except ValidationError:
        return
    assert loaded.authority == text
    assert "://" not in text or text.lower().startswith("https://")


def test_secrets_are_masked_when_the_settings_are_shown(load: Load) -> None:
    text = 'method = "client_secret"\nclient_secret = "s3cr3t"\nproxy = "http://u:s3cr3t@proxy.example"\n'
    shown = describe(load(f"{MINIMAL}[credentials.corp]\n{AZURE}{IDS}{text}"))

    assert 'client_secret = "********"' in shown
    assert "s3cr3t" not in shown


@pytest.mark.parametrize(("text", "source", "package", "module"), PACKAGES)
def test_without_its_sdk_a_source_stops_the_start(
    problems: Problems, monkeypatch: pytest.MonkeyPatch, text: str, source: str, package: str, module: str
) -> None:
    for loaded in [name for name in sys.modules if name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed

    assert problems(f"{MINIMAL}[credentials.corp]\n{text}") == [
        f"x.toml:{FIRST_LINE}: credentials.corp.source: {source} needs the package {package}: "
        f"pip install '.[{source}]'"
    ]


def test_a_missing_sdk_is_reported_with_every_other_problem(
    problems: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)

    told = problems(f'{MINIMAL}[credentials.corp]\n{AZURE}timeout = 0\n[credentials.b]\nsource = "x"')

    assert [line.split(": ")[1] for line in told] == [
        "credentials.corp.source",
        "credentials.corp.timeout",
        "credentials.b.source",
    ]


@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_missing_sdk_is_a_usage_error_of_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    path = tmp_path / "x.toml"
    path.write_text(f"{MINIMAL}[credentials.corp]\n{AZURE}")

    assert main([command, "--config", str(path)]) == 2

    printed = capsys.readouterr()
    assert printed.out == ""
    assert "credentials.corp.source: azure needs the package azure-identity: pip install" in printed.err


def test_no_sdk_is_imported_before_a_token_of_its_source_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(f"{MINIMAL}[credentials.a]\n{AZURE}[credentials.g]\n{GOOGLE}[credentials.b]\n{BEDROCK}")
    program = f"""
import sys
from pathlib import Path
from proxy.credentials.build import build_source
from proxy.settings import load_settings
for section in load_settings(Path({str(path)!r}), {{}}).credentials.values():
    build_source(section)
print(sorted({{"azure.core", "msal", "google.auth", "requests", "botocore"}}.intersection(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ran.stdout == "[]\n"
