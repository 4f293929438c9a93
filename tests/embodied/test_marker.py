"""A foreign package of the same name is noticed at import, in one sentence and without being run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import embodied

OURS = 'DISTRIBUTION = "embodied-repertoire"\n'


def imported(folder: Path) -> str:
    """The last line that importing the packages in a folder prints; -S leaves out what is installed beside them."""
    code = "import sys, embodied; print('fine', {'torch', 'mujoco', 'envs'} & set(sys.modules))"
    child = subprocess.run([sys.executable, "-S", "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    return (child.stdout + child.stderr).strip().splitlines()[-1]


@pytest.mark.parametrize(
    "file, text, sentence",
    [
        ("envs/__init__.py", OURS, "fine set()"),
        (
            "envs/__init__.py",
            "raise SystemExit('foreign code ran')\n",
            "'envs' at .* is another distribution's",
        ),
        ("policies/__init__.py", None, "'policies' is missing"),
        ("embodied/core/__init__.py", "", "'embodied' is installed over this one"),
    ],
)
def test_importing_tells_what_is_in_the_way(tmp_path: Path, file: str, text: str | None, sentence: str) -> None:
    for name in ("envs", "policies", "embodied"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(OURS)
    shutil.copy(embodied.__file__, tmp_path / "embodied" / "__init__.py")
    (tmp_path / file).parent.mkdir(exist_ok=True)
    if text is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_text(text)
    line = imported(tmp_path)
    assert re.search(sentence, line), line
