"""Build the files of a release from the last commit, or write the list of licences.

    python -m tests.release [--folder dist]   wheel, source distribution, bill of materials, and their hashes
    python -m tests.release --licences        requirements-licences.txt

The same commit gives the same bytes: only committed files are built, and their times are that of the commit.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from proxy import __version__
from tests.release.packages import LIST, ROOT, licence_list
from tests.release.sbom import bill_of_materials

SUMS: Final = "SHA256SUMS"


def git(*arguments: str) -> bytes:
    """Return the output of git."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True).stdout


def build(folder: Path) -> list[Path]:
    """Build the files of a release into a folder; return them."""
    folder.mkdir(parents=True, exist_ok=True)
    epoch = git("log", "-1", "--format=%ct").decode().strip()
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(["tar", "-x", "-C", name], input=git("archive", "HEAD"), check=True)
        for kind in ("wheel", "sdist"):
            subprocess.run(
                [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder.resolve())],
                cwd=name,
                env={**os.environ, "SOURCE_DATE_EPOCH": epoch},
                check=True,
                capture_output=True,
            )
    stem = f"llm_token_proxy-{__version__}"
    files = [folder / f"{stem}-py3-none-any.whl", folder / f"{stem}.tar.gz", folder / f"{stem}.cdx.json"]
    files[-1].write_text(bill_of_materials(int(epoch)))
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (folder / SUMS).write_text("".join(sums))
    return [*files, folder / SUMS]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.release")
    parser.add_argument("--folder", type=Path, default=ROOT / "dist")
    parser.add_argument(
        "--licences", action="store_true", help="write the list of licences, and nothing else"
    )
    options = parser.parse_args()
    if options.licences:
        LIST.write_text(licence_list())
        return
    if git("status", "--porcelain"):
        print("warning: there are changes that are not committed, and not in this release", file=sys.stderr)
    if f"\n## [{__version__}]" not in (ROOT / "CHANGELOG.md").read_text():
        print(f"warning: CHANGELOG.md has no section [{__version__}]", file=sys.stderr)
    build(options.folder)
    print((options.folder / SUMS).read_text(), end="")


if __name__ == "__main__":
    main()
