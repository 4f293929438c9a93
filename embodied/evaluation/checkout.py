"""This project's own checkout, as claims and tests use it: the README's commands, and copies to try them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from embodied.evaluation.claims import ClaimError

_BLOCK = re.compile(r"^<!-- (?P<mark>[^\n]*?) -->\n```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_ANY_BLOCK = re.compile(r"^```\w", re.MULTILINE)


def root() -> Path:
    """The top of the checkout this code runs from. Raises ClaimError for an installed copy."""
    top = Path(__file__).resolve().parents[2]
    if not (top / "pyproject.toml").is_file() or not (top / "README.md").is_file():
        raise ClaimError("this needs a checkout of the project: install it with pip install -e '.[test]' and try again")
    return top


def code_blocks(markdown: str) -> dict[str, str]:
    """The code blocks of a document by the mark in the comment above each: mark -> code.

    Raises ClaimError where a block has no mark, or two have the same: no test would run it.
    """
    found = [(m["mark"], m["code"]) for m in _BLOCK.finditer(markdown)]
    if len(found) != len(_ANY_BLOCK.findall(markdown)) or len(dict(found)) != len(found):
        raise ClaimError(f"every code block needs a mark of its own in a comment above it; marks found: {found}")
    return dict(found)


def readme_command(name: str) -> str:
    """The README's command line marked ``command: name``."""
    blocks = code_blocks((root() / "README.md").read_text(encoding="utf-8"))
    lines = blocks.get(f"command: {name}", "").splitlines()
    if len(lines) != 1:
        raise ClaimError(f"README.md must have one line marked 'command: {name}', not {len(lines)}")
    return lines[0]


def copy(destination: Path) -> None:
    """Copy what git knows or would add, so that nothing else lying about can help."""
    top = root()
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=top,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (top / name).is_file():
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(top / name, destination / name)


def without_network() -> list[str]:
    """A prefix that runs a command with no network at all; empty where this system does not allow that."""
    prefix = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        return []
    return prefix
