"""The systems under test; another peer is one more class here and one more line in `build_targets`."""

import asyncio
import shutil
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.benchmarks import wire
from tests.benchmarks.load import MalformedResponseError, build_request, connect
from tests.benchmarks.process import BenchError, Process, children, memory_mb
from tests.ports import free_port

READY_SECONDS: Final = 15.0
POLL_SECONDS: Final = 0.02
OPEN_FILES: Final = 16384
CALLER_KEY: Final = "sk-bench-7c1f"

NGINX_CONF: Final = """\
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {home}/nginx.pid;
error_log {home}/error.log warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    keepalive_requests 1000000;
    upstream gateway {{
        server 127.0.0.1:{upstream};
        keepalive 600;
        keepalive_requests 1000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://gateway;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Authorization "Bearer {token}";
            proxy_buffering off;
        }}
    }}
}}
"""

PROXY_TOML: Final = """\
[access]
[[access.keys]]
name = "bench"
key = "{key}"
[routes]
default = "chat"
[upstreams.chat]
base_url = "http://127.0.0.1:{upstream}/v1"
credential = "corp"
[credentials.corp]
source = "http"
url = "http://127.0.0.1:{upstream}/token"
method = "POST"
json = {{ appId = "bench", appSecret = "bench-app-secret" }}
success = {{ path = "code", equals = 0 }}
token = "data.token"
expires = [{{ path = "data.expireTime", as = "epoch_ms" }}]
[logs]
level = "info"
"""


class Target(ABC):
    """A server that takes the caller's key and gives the upstream's answer.

    `pids` names the processes whose CPU and memory count.
    """

    name: str

    def __init__(self, home: Path, upstream: int) -> None:
        self.home = home
        self.upstream = upstream
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.headers: Mapping[str, str] = {"Authorization": f"Bearer {CALLER_KEY}"}
        self.ready_seconds = 0.0
        self.idle_mb = 0.0
        self.process = Process(self.name, home / "output.log")

    @abstractmethod
    def command(self) -> list[str]:
        """Write the settings, return the command line."""

    async def answers(self) -> bool:
        """Whether it serves already; may raise OSError instead of saying no."""
        (await connect(self.url)).close()
        return True

    def pids(self) -> list[int]:
        """The process and all below it."""
        return [self.process.pid, *children(self.process.pid)]

    def peak_mb(self) -> float:
        """The most memory it has held."""
        return memory_mb(self.pids(), "VmHWM")

    async def start(self, core: int) -> None:
        """Start it and wait until it serves."""
        self.home.mkdir()
        began = time.monotonic()
        await self.process.start(self.command(), core)
        await until_ready(self)
        self.ready_seconds = time.monotonic() - began
        self.idle_mb = memory_mb(self.pids(), "VmRSS")


class Gateway(Target):
    """The upstream itself, started and awaited like what stands before it."""

    name = "upstream"

    def command(self) -> list[str]:
        """It needs no settings."""
        return [sys.executable, "-m", "tests.benchmarks.upstream", str(self.port)]


class Nginx(Target):
    """Plain nginx with the token written into its settings: the physical limit."""

    name = "nginx"

    def command(self) -> list[str]:
        """Keep every path inside its own folder, away from a system service."""
        settings = NGINX_CONF.format(
            files=OPEN_FILES, home=self.home, upstream=self.upstream, port=self.port, token=wire.TOKEN
        )
        path = self.home / "nginx.conf"
        path.write_text(settings)
        log = str(self.home / "output.log")  # -e: the log before the settings are read is also ours
        return [find_nginx(), "-p", str(self.home), "-e", log, "-c", str(path)]

    def pids(self) -> list[int]:
        """The workers; the master only watches."""
        return children(self.process.pid)


class Proxy(Target):
    """This project, with its token fetched by recipe and its logs on."""

    name = "proxy"

    def command(self) -> list[str]:
        """Start it as an operator would."""
        path = self.home / "proxy.toml"
        path.write_text(PROXY_TOML.format(key=CALLER_KEY, upstream=self.upstream))
        serve = ["serve", "--config", str(path), "--bind", f"127.0.0.1:{self.port}"]
        return [sys.executable, "-m", "proxy", *serve]

    async def answers(self) -> bool:
        """Ready is what it says itself, so its token is there before the first request."""
        connection = await connect(self.url)
        try:
            url = f"http://127.0.0.1:{self.port}/readyz"
            return await connection.exchange(build_request("GET", url, {}), len) == 200
        finally:
            connection.close()


def build_targets(home: Path, upstream: int) -> dict[str, Target]:
    """Every system by its name, the baseline first."""
    kinds: list[type[Target]] = [Nginx, Proxy]
    return {kind.name: kind(home / kind.name, upstream) for kind in kinds}


async def until_ready(target: Target) -> None:
    """Poll until it answers; raise BenchError with its log's end where it does not."""
    why = "no answer"
    deadline = time.monotonic() + READY_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        target.process.require_alive()
        try:
            async with asyncio.timeout(left):
                if await target.answers():
                    return
                why = "not ready yet"
        except (OSError, MalformedResponseError) as error:  # a TimeoutError is an OSError
            why = repr(error)
        await asyncio.sleep(POLL_SECONDS)
    raise target.process.failure(f"did not become ready in {READY_SECONDS:.0f} s ({why})")


def find_nginx() -> str:
    """The nginx program, also where only administrators have it on their path."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/local/sbin:/usr/sbin")
    if found is None:
        raise BenchError("nginx is not installed, and every figure is a ratio to it")
    return found
