"""The rows of the benchmark: two references, this service in every form, and the Flask original."""

import os
import shutil
import sys
from pathlib import Path
from typing import ClassVar, Final

from tests.benchmarks import wire
from tests.benchmarks.process import REPOSITORY, BenchError, children, installed
from tests.benchmarks.report import output
from tests.benchmarks.targets import CALLER_KEY, OPEN_FILES, Target
from tests.integration.original_app import MOUNT

NGINX_CONF: Final = """\
daemon off;
{user}
worker_processes 1;
worker_rlimit_nofile {files};
pid {home}/nginx.pid;
error_log {home}/error.log warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_max_body_size 64m;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    keepalive_requests 1000000;
    {servers}
}}
"""

PLAIN_SERVER: Final = """\
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
            proxy_request_buffering off;
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

OFFLOAD_SECRET: Final = "offload-secret-of-the-benchmark"
DISK_IN_MEMORY: Final = "/dev/shm"  # noqa: S108  a path in the shipped files
PACED: Final = frozenset({"paced-500x30", "paced-500x300", "paced-1000x30", "paced-1000x300"})


class Nginx(Target):
    """Plain nginx with the token written into its settings: the physical limit."""

    name = "nginx"
    share = 4

    def servers(self) -> str:
        """Return the directives of the http block."""
        return PLAIN_SERVER.format(upstream=self.upstream, port=self.port, token=wire.TOKEN)

    def command(self) -> list[str]:
        """Keep every path inside its own folder, away from a system service."""
        settings = NGINX_CONF.format(
            files=OPEN_FILES,
            home=self.home,
            user="user root;" if os.geteuid() == 0 else "",  # otherwise its workers could not write here
            servers=self.servers(),
        )
        path = self.home / "nginx.conf"
        path.write_text(settings)
        log = str(self.home / "output.log")  # -e: the log before the settings are read is also ours
        return [find_nginx(), "-p", str(self.home), "-e", log, "-c", str(path)]

    def version(self) -> str | None:
        """Return the version that nginx reports."""
        return output(find_nginx(), "-v").rpartition(" ")[2].replace("/", " ")

    def pids(self) -> list[int]:
        """Return the workers: the master only supervises, and the loader of a cache exits."""
        return [pid for pid in children(self.process.pid) if b"worker" in _title(pid)]


def _title(pid: int) -> bytes:
    """Return the title of a process; nginx sets a different one in each kind of process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


class Floor(Target):
    """A bare Quart view on stock Hypercorn, without an upstream."""

    name = "floor"
    scenarios = frozenset({"chat", "start"})

    def command(self) -> list[str]:
        """Return the command; it needs no settings."""
        return [sys.executable, "-m", "tests.benchmarks.floor", str(self.port)]


class Proxy(Target):
    """This project, with its token fetched by recipe and its logs on."""

    name = "proxy"
    options: ClassVar[tuple[str, ...]] = ()
    more_settings: ClassVar[str] = ""

    def command(self) -> list[str]:
        """Return the command that an operator would use."""
        path = self.home / "proxy.toml"
        settings = PROXY_TOML.format(key=CALLER_KEY, upstream=self.upstream)
        path.write_text(settings + self.more_settings)
        serve = ["serve", "--config", str(path), "--bind", f"127.0.0.1:{self.port}", *self.options]
        return [self.python(), "-m", "proxy", *serve]

    def python(self) -> str:
        """Return the Python of an installation from `requirements.lock`, as operators have it.

        The tests' own has packages that libraries import wherever they are installed, such as aiohttp: 12 MB.
        """
        return installed("service/bin/python")


class OnUvicorn(Proxy):
    """This project on uvicorn."""

    name = "uvicorn"
    options = ("--server", "uvicorn")


class OnGranian(Proxy):
    """This project on Granian."""

    name = "granian"
    options = ("--server", "granian")


class TwoWorkers(Proxy):
    """This project in two processes, on the single core that every system gets."""

    name = "workers"
    options = ("--workers", "2")


class AskedByNginx(Proxy):
    """The service that nginx asks for tokens."""

    more_settings = f'[offload]\nsecret = "{OFFLOAD_SECRET}"\nupstreams = ["chat"]\n'


class Offload(Nginx):
    """nginx relays, and asks the service for the caller and the token: `config/nginx/offload.conf`."""

    name = "offload"
    scenarios = PACED | {"chat", "embeddings", "burst", "flood", "open"}

    def __init__(self, home: Path, upstream: int) -> None:
        super().__init__(home, upstream)
        self.asked = AskedByNginx(home / "service", upstream)

    async def start(self, *cores: int) -> None:
        """Start the service, then nginx."""
        self.home.mkdir()
        await self.asked.start(*cores)
        await self.launch(*cores)

    async def stop(self) -> None:
        """End the service and nginx."""
        await self.process.stop()
        await self.asked.stop()

    def pids(self) -> list[int]:
        """Return the processes of the service and of nginx."""
        return [*super().pids(), *self.asked.pids()]

    def version(self) -> str | None:
        """Return the version of nginx."""
        return None

    def servers(self) -> str:
        """Return the shipped files, edited as their comments describe."""
        folder = REPOSITORY / "config/nginx"
        edits = {
            "replace-by-the-secret-in-offload": OFFLOAD_SECRET,
            "127.0.0.1:5002": f"127.0.0.1:{self.asked.port}",
            "corp { server llm.corp.example:443; keepalive 256;": (
                f"chat {{ server 127.0.0.1:{self.upstream}; keepalive 600; keepalive_requests 1000000;"
            ),
            DISK_IN_MEMORY: str(self.home),
        }
        http, server = ((folder / name).read_text() for name in ("offload-http.conf", "offload.conf"))
        for old, new in edits.items():
            http = http.replace(old, new)
        server = server.replace("/var/log/nginx", str(self.home)).replace(DISK_IN_MEMORY, str(self.home))
        (self.home / "offload.conf").write_text(server)
        listening = f"listen 127.0.0.1:{self.port} backlog=4096;"
        return f"{http}\nserver {{ {listening} include {self.home}/offload.conf; }}"


class FlaskOriginal(Target):
    """The design that this project replaces: a token and an SDK client for each request, in threads."""

    name = "flask"
    mount = f"{MOUNT}/v1"
    exact = False
    share = 0.02
    scenarios = frozenset({"chat", "burst", "paced-500x30", "start"})

    def command(self) -> list[str]:
        """Return the command of the short version in the tests."""
        gateway = f"http://127.0.0.1:{self.upstream}"
        return [sys.executable, "-m", "tests.integration.original_app", gateway, str(self.port)]


SYSTEMS: Final[dict[str, type[Target]]] = {
    kind.name: kind
    for kind in (Nginx, Offload, Floor, Proxy, OnUvicorn, OnGranian, TwoWorkers, FlaskOriginal)
}
"""All systems in the order of the table and of a round: what is compared is measured in quick succession."""


def find_nginx() -> str:
    """Return the nginx program, even if it is only on the path of administrators."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/local/sbin:/usr/sbin")
    if found is None:
        raise BenchError("nginx is not installed, and every figure is a ratio to it")
    return found
