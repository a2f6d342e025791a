"""The way out for a line that computes something, such as a signature: a script, run by `exec`."""

from pathlib import Path
from typing import Any, Final

from proxy.recipe.block import toml
from proxy.recipe.reply import Reading
from proxy.settings.section import dotted

SCRIPT_NAME: Final = "get-token.sh"
HMAC_NAME: Final = "hmac-token.py"
HMAC_SCRIPT: Final = Path(__file__).with_name("hmac_token.txt")
"""A script that signs with HMAC-SHA256; also in config/credentials/."""
STEPS: Final = (
    f"  1. Save the line as {SCRIPT_NAME} beside your settings; it must print the endpoint's whole reply,",
    "     so leave out jq and the like. Take secrets from its environment; env of the block names them.",
    "  2. Or take the script below instead, which signs with HMAC-SHA256, and adapt what is signed and sent:",
    f'     save it as {HMAC_NAME}, and write command = ["python3", "{HMAC_NAME}"].',
    "  3. Check the paths in the block, then try it: python -m proxy token NAME --config FILE",
)


def exec_block(name: str, reading: Reading | None) -> str:
    """A `[credentials.NAME]` block that runs the line as a script.

    Args:
        name: Of the credential.
        reading: Of a saved reply, if there is one: then the paths are right.
    """
    comments = ["# The line computes something for each request, so a script of yours makes it."]
    token, expires = "data.token", [{"path": "data.expireTime", "as": "epoch_ms"}]
    placed = [] if reading is None else [found for found in reading.tokens if found.kind == "path"]
    if reading is None or not placed:
        comments.append("# unsure: token and expires are examples; write the paths of your endpoint's reply")
    else:
        token = placed[0].path
        expires = [
            {"path": found.path, "as": found.unit} for found in reading.expiries if found.kind == "path"
        ]
    table: dict[str, Any] = {
        "source": "exec",
        "command": ["bash", SCRIPT_NAME],
        "env": {"APP_SECRET": f"${{env:{_variable(name)}_APP_SECRET}}"},
        "format": "json",
        "token": token,
        "expires": expires[:1],
    }
    lines = [*comments, f"[credentials.{dotted((name,))}]"]
    return "\n".join([*lines, *(f"{key} = {toml(value)}" for key, value in table.items())]) + "\n"


def hmac_script() -> str:
    """The example that signs."""
    return HMAC_SCRIPT.read_text(encoding="utf-8")


def _variable(name: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in name).upper()
