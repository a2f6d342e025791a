"""Load the files of config/credentials/ in a test, with everything that they name."""

import json
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.credentials import MemoryTokenStore
from proxy.credentials.build import build_credentials, build_source
from proxy.credentials.token import FetchedToken, with_deadlines
from proxy.credentials.upstream_credential import write_token
from proxy.settings import Settings, load_settings
from tests.signing_keys import certificate_pem, pem

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "config" / "credentials"
NAMES = tuple(sorted(path.name for path in FOLDER.glob("*.toml")))

FRAME = """
[access]
mode = "open"

[routes]
default = "first"

[shared]
redis_url = "redis://127.0.0.1:6379/0"
encryption_key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
"""
UPSTREAM = '[upstreams.{upstream}]\nbase_url = "https://llm.example/v1"\ncredential = "{credential}"\n'
VARIABLE = re.compile(r"\$\{env:(\w+)\}")
_URL = re.compile(r'(?m)^(?P<key>(?:token_)?url = ")https://[^/"]+')
_PATH = re.compile(r"(?<=[\":])/(?:var/)?run/(?P<rest>[\w./-]+)")
_PROGRAM = "#!/bin/sh\nexit 1\n"


@dataclass
class Surroundings:
    """What an example finds around it.

    Args:
        folder: A folder of the test's own, where the file and everything that it names lie.
        origin: In the place of each token endpoint's scheme and host.
        environ: Over the values that its variables have by default.
        files: The content of files that it names, by their last part.
        programs: Shell scripts in the place of the commands that it names.
    """

    folder: Path
    origin: str = "https://issuer.example"
    environ: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    programs: Mapping[str, str] = field(default_factory=dict)

    def load(self, text: str) -> Settings:
        """Load a text with credentials. Add access and upstreams if it has none."""
        programs = self.folder / "bin"
        programs.mkdir(exist_ok=True)
        tables = tomllib.loads(text)
        written = _PATH.sub(lambda found: str(self._file(found["rest"])), text)
        written = _URL.sub(lambda found: found["key"] + self.origin, written)
        for program in {**dict.fromkeys(commands_of(tables), _PROGRAM), **self.programs}.items():
            write_program(programs, *program)
        if "upstreams" not in tables:
            written += FRAME if "shared" not in tables else FRAME.partition("[shared]")[0]
            for place, credential in enumerate(tables["credentials"]):
                upstream = f"u{place}" if place else "first"
                written += UPSTREAM.format(upstream=upstream, credential=credential)
        path = self.folder / "proxy.toml"
        path.write_text(written, encoding="utf-8")
        variables = {name: self._value(name) for name in VARIABLE.findall(text)}
        return load_settings(path, {"PATH": f"{programs}:/usr/bin:/bin", **variables, **self.environ})

    def example(self, name: str) -> Settings:
        """Load one of the files."""
        return self.load((FOLDER / name).read_text(encoding="utf-8"))

    def _file(self, rest: str) -> Path:
        path = self.folder / rest.rpartition("/")[2]
        default = "canary"
        if path.suffix == ".pem":
            default = pem("rsa") if "key" in path.name else certificate_pem("rsa")
        path.write_text(self.files.get(path.name, default))
        return path

    def _value(self, name: str) -> str:
        if name == "GOOGLE_PRIVATE_KEY":
            return pem("rsa")
        if name.endswith("_FILE"):
            path = self.folder / name.lower()
            path.write_text(json.dumps({"type": "service_account"}))
            return str(path)
        return value_of(name)


def value_of(variable: str) -> str:
    """Return the default value of a variable."""
    return f"of-{variable.lower().replace('_', '-')}"


def commands_of(tables: Mapping[str, Any]) -> list[str]:
    """Return the programs that credentials run, except the shell."""
    sections = tables.get("credentials", {}).values()
    return [section["command"][0] for section in sections if section.get("command", ["sh"])[0] != "sh"]


def write_program(folder: Path, name: str, script: str) -> None:
    """Add a program to the PATH of the example."""
    path = folder / name
    path.write_text(script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@dataclass(frozen=True)
class Brought:
    """A token, and a request to an upstream with it."""

    fetched: FetchedToken
    headers: dict[str, str]
    query: str

    @property
    def token(self) -> str:
        return self.fetched.secret.reveal()


async def bring(settings: Settings, name: str) -> Brought:
    """Fetch a token as the service does, and write it into a request."""
    store = MemoryTokenStore()
    others = build_credentials(settings.credentials, store)
    source = build_source(settings.credentials[name], others)
    try:
        fetched = await source.fetch()
        credential = with_deadlines(fetched, generation=1, obtained=0.0, uniform=min)
        headers, query = write_token(others[name].inject, credential, [], b"")
    finally:
        await source.close()
        await others.close()
        await store.close()
    return Brought(fetched, {name.decode(): value.decode() for name, value in headers}, query.decode())
