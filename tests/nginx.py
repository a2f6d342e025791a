"""A real nginx with the location file that the project ships, in a separate folder."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.conftest import require
from tests.pace import PATIENCE
from tests.raw_caller import RawCaller
from tests.waiting import look_again

LOCATIONS = Path(__file__).parents[1] / "config/nginx/proxy.conf"
SHIPPED_ADDRESS = "http://127.0.0.1:5002"

CONF = """\
daemon off;
{user}
worker_processes 1;
pid {home}/nginx.pid;
error_log {home}/error.log warn;
events {{ worker_connections 256; }}
http {{
    access_log {home}/access.log;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    {servers}
}}
"""
LOCATIONS_AT_SOCKET = """
    server {{
        listen unix:{home}/nginx.sock;
        include {home}/locations.conf;
    }}
"""


def find_nginx() -> str | None:
    """Return the program, even if it is only on the path of administrators."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/local/sbin:/usr/sbin")


@asynccontextmanager
async def nginx_before(
    proxy: str, home: Path, *, more: str = "", edit: Callable[[str], str] = str
) -> AsyncIterator[Path]:
    """Serve the shipped locations in front of a proxy; yield the Unix socket on which nginx listens.

    Args:
        proxy: Its address, which replaces the shipped one.
        home: The folder of this nginx.
        more: Lines inside http { }.
        edit: Edits the locations, as their comments allow.
    """
    locations = LOCATIONS.read_text()
    assert locations.count(SHIPPED_ADDRESS) == 2
    (home / "locations.conf").write_text(edit(locations.replace(SHIPPED_ADDRESS, proxy)))
    async with nginx_serving(home, more + LOCATIONS_AT_SOCKET.format(home=home)) as socket:
        yield socket


@asynccontextmanager
async def nginx_serving(home: Path, servers: str) -> AsyncIterator[Path]:
    """Run nginx with these lines inside http { }; yield the Unix socket `nginx.sock` in its folder.

    Args:
        home: The folder of this nginx.
        servers: The servers, one of which listens on `nginx.sock` in that folder.
    """
    program = find_nginx()
    require("nginx", found=program is not None)
    user = "user root;" if os.geteuid() == 0 else ""  # otherwise its workers could not write to this folder
    (home / "nginx.conf").write_text(CONF.format(home=home, user=user, servers=servers))
    log = home / "start.log"
    process = await asyncio.create_subprocess_exec(
        str(program), "-p", str(home), "-e", str(log), "-c", str(home / "nginx.conf")
    )
    try:
        async with asyncio.timeout(PATIENCE):
            while not await _listens(home / "nginx.sock"):
                assert process.returncode is None, log.read_text()
        yield home / "nginx.sock"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _listens(path: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        await look_again()
        return False
    writer.close()
    return True


@asynccontextmanager
async def caller_through(path: Path) -> AsyncIterator[RawCaller]:
    """Connect a caller to the socket of nginx."""
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 24)
    try:
        yield RawCaller(reader, writer)
    finally:
        writer.close()
