"""Every code block of the README and of docs is run by a test, or its lines are checked to be ones that parse."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from embodied import cli
from embodied.cli.config import compose
from embodied.evaluation import checkout
from embodied.evaluation.claims import ClaimError

TOP = Path(__file__).resolve().parents[2]
README = (TOP / "README.md").read_text(encoding="utf-8")
PAGES = sorted((TOP / "docs").glob("*.md"))
BLOCKS = checkout.code_blocks(README)
for _page in PAGES:
    BLOCKS |= checkout.code_blocks(_page.read_text(encoding="utf-8"))
CONFIG = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))
LINES = [line for mark, code in BLOCKS.items() if mark.startswith(("command", "shell")) for line in code.splitlines()]


def embodied_calls(line: str) -> list[list[str]]:
    """The arguments of each ``embodied`` call in a shell line."""
    words = shlex.split(line, comments=True)
    starts = [i for i, word in enumerate(words) if word in ("embodied", ".venv/bin/embodied")]
    return [words[i + 1 : words.index("&&", i) if "&&" in words[i:] else None] for i in starts]


def test_every_code_block_has_a_mark_that_says_how_it_is_tested():
    assert {"command: run", "command: test"} <= set(BLOCKS)
    assert all(re.match(r"(command: \w+|python|shell|yaml|suites)", mark) for mark in BLOCKS), list(BLOCKS)
    with pytest.raises(ClaimError, match="mark"):
        checkout.code_blocks("text\n\n```bash\nls\n```\n")


@pytest.mark.parametrize("line", LINES)
def test_every_shell_line_calls_commands_that_exist_with_keys_that_exist(line: str):
    for name, *rest in embodied_calls(line):
        command = cli.load(name)
        compose(command.schema, command.parse(rest).overrides)


def test_the_two_commands_are_one_line_each_and_install_what_exists():
    run, test = checkout.readme_command("run"), checkout.readme_command("test")
    assert run.startswith("python3 -m venv .venv && .venv/bin/pip install ")
    assert embodied_calls(run)[-1][0] == "run"
    extras = re.findall(r"\.\[([\w,]+)\]", test)
    assert extras
    assert set(extras[0].split(",")) <= set(CONFIG["project"]["optional-dependencies"])
    assert test.rpartition("&&")[2].strip() == ".venv/bin/python -m pytest"


@pytest.mark.parametrize("mark", [mark for mark in BLOCKS if mark.startswith("yaml")])
def test_every_scene_builds(mark: str, tmp_path: Path):
    import mujoco

    from envs.playroom.robot import add_arm
    from envs.scenes.scene import load

    arm = mujoco.MjSpec()
    arm.compiler.degree = False
    add_arm(arm, (2, 0), (2, 4))
    arm.compile()
    (tmp_path / "arm.xml").write_text(arm.to_xml(), encoding="utf-8")
    duck = '<mujoco><worldbody><body><geom size="0.02" mass="0.05"/></body></worldbody></mujoco>'
    (tmp_path / "duck.xml").write_text(duck, encoding="utf-8")
    (tmp_path / "scene.yaml").write_text(BLOCKS[mark], encoding="utf-8")
    assert load(tmp_path / "scene.yaml").tasks


@pytest.mark.parametrize("mark", [mark for mark in BLOCKS if mark.startswith(("python", "suites"))])
def test_every_python_block_runs_as_it_stands(mark: str, tmp_path: Path):
    if mark.startswith("suites"):
        pytest.importorskip("envpool", reason="needs the extra [suites]")
    environment = os.environ | {"PYTHONPATH": str(TOP), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKS[mark]],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_commands_of_the_readme_are_those_that_exist():
    documented = set(re.findall(r"^\| `embodied (\w+)", README, re.MULTILINE))
    assert documented == set(cli.COMMANDS)


def test_the_packaging_names_what_is_there():
    wheel = CONFIG["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["embodied", "envs", "policies"]
    assert all((TOP / package / "__init__.py").is_file() for package in wheel["packages"])
    assert (TOP / "configs" / "run.yaml").is_file()
    assert "the embodied-repertoire authors" in (TOP / "LICENSE").read_text(encoding="utf-8")


def test_the_continuous_integration_runs_the_readmes_commands_and_parses():
    script = TOP / ".ci" / "run"
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text(encoding="utf-8")
    assert "readme run" in text
    assert "readme test" in text
    assert os.access(script, os.X_OK)
