"""Other proxies, each installed into its own environment below `.peers/`: `make bench-peers`."""

import json
import shutil
from pathlib import Path
from typing import ClassVar, Final

from tests.benchmarks import wire
from tests.benchmarks.process import BenchError, installed
from tests.benchmarks.report import output
from tests.benchmarks.targets import CALLER_KEY, Target

MODELS: Final = ("bench-chat", "bench-burst", "bench-paced")

HAPROXY_CFG: Final = """\
global
    maxconn 8192
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 900s
    timeout server 900s
    http-reuse always
    option http-no-delay
frontend callers
    bind 127.0.0.1:{port}
    http-request set-header Authorization "Bearer {token}"
    default_backend gateway
backend gateway
    server one 127.0.0.1:{upstream}
"""

CADDYFILE: Final = """\
{{
    admin off
    auto_https off
}}
http://127.0.0.1:{port} {{
    reverse_proxy 127.0.0.1:{upstream} {{
        header_up Authorization "Bearer {token}"
        flush_interval -1
        transport http {{
            keepalive_idle_conns_per_host 1024
        }}
    }}
}}
"""

LM_PROXY_TOML: Final = """\
host = "127.0.0.1"
port = {port}
[connections.corp]
api_type = "open_ai"
api_base = "http://127.0.0.1:{upstream}/v1/"
api_key = "{token}"
[routing]
"*" = "corp.*"
[groups.default]
api_keys = ["{key}"]
"""


class Peer(Target):
    """Another proxy, with the upstream's token in its settings."""

    scenarios = frozenset({"chat", "burst", "paced-500x30", "start"})
    ready_seconds_max = 180.0
    settings: ClassVar[tuple[str, str]]
    """The name and the text of its settings file."""

    def write_settings(self) -> str:
        """Write the settings, and return the path."""
        name, text = self.settings
        path = self.home / name
        path.write_text(text.format(port=self.port, upstream=self.upstream, token=wire.TOKEN, key=CALLER_KEY))
        return str(path)


class HaProxy(Peer):
    """HAProxy of the system, as a bare proxy."""

    name = "haproxy"
    settings = ("haproxy.cfg", HAPROXY_CFG)

    def command(self) -> list[str]:
        """Stay in the foreground."""
        return [program("haproxy"), "-db", "-f", self.write_settings()]

    def version(self) -> str | None:
        """Return the version that it reports."""
        return "HAProxy " + output(program("haproxy"), "-v").partition("version ")[2].partition("-")[0]


class Caddy(Peer):
    """Caddy of the system, as a bare proxy on one processor."""

    name = "caddy"
    settings = ("Caddyfile", CADDYFILE)

    def command(self) -> list[str]:
        """Return the command of Caddy with this file only."""
        return [program("caddy"), "run", "--adapter", "caddyfile", "--config", self.write_settings()]

    def environment(self) -> dict[str, str]:
        """Return its folder for data, and the number of processors."""
        return {"GOMAXPROCS": "1", "XDG_DATA_HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home)}

    def version(self) -> str | None:
        """Return the version that it reports."""
        return "Caddy " + output(program("caddy"), "version").partition(" ")[0]


class Portkey(Peer):
    """The Portkey gateway on Node, without streams: on Node 20 they fail, for headers are immutable there."""

    name = "portkey"
    scenarios = frozenset({"chat", "start"})
    exact = False
    share = 0.5

    def command(self) -> list[str]:
        """Return the command of the gateway without its console."""
        script = installed("portkey/node_modules/@portkey-ai/gateway/build/start-server.js")
        self.headers = {
            "Authorization": f"Bearer {wire.TOKEN}",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{self.upstream}/v1",
        }
        return [program("node"), script, f"--port={self.port}", "--headless"]

    def environment(self) -> dict[str, str]:
        """Allow an upstream on this machine."""
        return {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost", "NODE_ENV": "production"}

    def version(self) -> str | None:
        """Return the version of its package."""
        package = installed("portkey/node_modules/@portkey-ai/gateway/package.json")
        version = json.loads(Path(package).read_text())["version"]
        return f"Portkey {version} on Node {output(program('node'), '--version')}"


class LmProxy(Peer):
    """lm-proxy in Python."""

    name = "lm-proxy"
    exact = False
    share = 0.2
    settings = ("config.toml", LM_PROXY_TOML)

    def command(self) -> list[str]:
        """Start it."""
        return [installed("lm-proxy/bin/lm-proxy"), "--config", self.write_settings()]

    def version(self) -> str | None:
        """Return the version that pip shows."""
        return pip_version(self.name)


class LiteLlm(Peer):
    """The LiteLLM proxy in Python, one worker, without a database."""

    name = "litellm"
    exact = False
    share = 0.1

    def command(self) -> list[str]:
        """Write its settings, which are JSON, for JSON is YAML."""
        parameters = {"api_base": f"http://127.0.0.1:{self.upstream}/v1", "api_key": wire.TOKEN}
        path = self.home / "config.yaml"
        models = [
            {"model_name": model, "litellm_params": {"model": f"openai/{model}", **parameters}}
            for model in MODELS
        ]
        settings = {
            "model_list": models,
            "general_settings": {"master_key": CALLER_KEY},
            "litellm_settings": {"telemetry": False},
        }
        path.write_text(json.dumps(settings))
        serve = ["--config", str(path), "--host", "127.0.0.1", "--port", str(self.port), "--num_workers", "1"]
        return [installed("litellm/bin/litellm"), *serve]

    def folder(self) -> Path:
        """Return a folder whose grandparent is empty: LiteLLM imports Python files from there."""
        folder = self.home / "empty" / "lower" / "lowest"
        folder.mkdir(parents=True)
        return folder

    def environment(self) -> dict[str, str]:
        """Keep it from asking the network for prices of models."""
        return {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "DISABLE_ADMIN_UI": "True"}

    def version(self) -> str | None:
        """Return the version that pip shows."""
        return pip_version(self.name)


PEERS: Final[dict[str, type[Target]]] = {
    kind.name: kind for kind in (HaProxy, Caddy, Portkey, LmProxy, LiteLlm)
}


def program(name: str) -> str:
    """Return the path of a program of the system."""
    found = shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin")
    if found is None:
        raise BenchError(f"{name} is not installed")
    return found


def pip_version(name: str) -> str:
    """Return the version of a package in the environment of its name."""
    shown = output(installed(f"{name}/bin/python"), "-m", "pip", "show", name)
    found = [line.partition(" ")[2] for line in shown.splitlines() if line.startswith("Version:")]
    return f"{name} {''.join(found)}"
