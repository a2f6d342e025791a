"""What workers serve by survives the way to another process, and only this way."""

import pickle
from pathlib import Path

import pytest

from proxy.cli import worker_configuration
from proxy.cli.worker_configuration import WorkerConfiguration, pack, unpack
from proxy.errors import SettingsError
from proxy.server.certificates import TlsContents
from proxy.server.config import ServerConfig
from proxy.settings import Settings, load_settings
from tests.conftest import KEY, SETTINGS

EVERYTHING = """
[credentials.other]
source = "http"
url = "https://127.0.0.1:9/token"
json = { app = "${env:APP}", at = "${now}", deep = [1, 2.5, true, { a = "b" }] }
headers = { X-Token = "Bearer ${credential:corp}" }
token = "data.token"
expires = [{ path = "data.expires", as = "iso8601", offset = "+08:00" }]

[credentials.ran]
source = "exec"
command = ["true"]
env = { SECRET = "${env:APP}" }

[models]
known = [{ id = "m" }]

[shared]
redis_url = "redis://:password@127.0.0.1:9/0"
encryption_key = "KEY"

[offload]
secret = "sk-offload-0123456789"
upstreams = ["chat"]
""".replace("KEY", "ab" * 32)


def settings_in(folder: Path) -> Settings:
    """Return settings with every kind of value."""
    (folder / "token").write_text("from-a-file\n")
    credential = 'source = "static"\nvalue = "${file:token}"'
    text = SETTINGS.format(
        key=KEY, upstream="http://127.0.0.1:9", credential=credential, options="", more=EVERYTHING
    )
    (folder / "proxy.toml").write_text(text)
    return load_settings(folder / "proxy.toml", {"APP": "from-the-environment"})


def test_a_worker_gets_the_same_configuration(tmp_path: Path) -> None:
    server = ServerConfig()
    server.bind, server.readiness_delay = ["127.0.0.1:5002"], 3.0
    files = TlsContents((("certfile", b"certificate"), ("keyfile", b"key")))
    sent = WorkerConfiguration(server, settings_in(tmp_path), files)
    received: WorkerConfiguration = unpack(pack(sent))
    assert (received.settings, received.tls_contents) == (sent.settings, files)
    assert vars(received.server) == vars(server)
    assert received.settings.model_fields_set == sent.settings.model_fields_set
    with pytest.raises(TypeError):
        received.settings.upstreams["another"] = received.settings.upstreams["chat"]  # type: ignore[index]


def test_secrets_are_pickled_here_and_nowhere_else(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    assert KEY.encode() in pack(settings)
    with pytest.raises(TypeError):
        pickle.dumps(settings.access)
    assert "certificate" not in repr(
        WorkerConfiguration(ServerConfig(), settings, TlsContents((("a", b"certificate"),)))
    )
    assert KEY not in repr(WorkerConfiguration(ServerConfig(), settings))


def test_a_worker_of_another_version_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack(settings_in(tmp_path))
    monkeypatch.setattr(worker_configuration, "_VERSION", b"99\n")
    with pytest.raises(SettingsError, match="restart the service"):
        unpack(packed)
