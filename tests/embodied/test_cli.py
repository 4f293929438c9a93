"""The command line: help that teaches, errors that name what is valid, exit codes to rely on."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import embodied
from embodied import cli, runs
from embodied.cli.arguments import Arguments, Command
from embodied.cli.fields import leaves
from embodied.cli.schema import RunConfig
from embodied.errors import MissingRunError, UsageError


def run_cli(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "embodied", *argv], capture_output=True, text=True, timeout=120)


def test_help_answers_at_once_and_imports_nothing_heavy():
    code = (
        "import sys; from embodied.cli import main; assert main(['--help']) == 0;"
        "print([m for m in ('torch', 'mujoco', 'numba', 'numpy', 'hydra', 'gymnasium') if m in sys.modules])"
    )
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - begin)
    assert out.stdout.splitlines()[-1] == "[]"
    assert min(seconds) < 0.5
    assert all(name in out.stdout for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_help_has_examples_and_every_key_with_its_meaning(name: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    command = cli.load(name)
    assert command.name == name
    assert text.count(f"embodied {name}") >= 2
    for key, (item, _) in leaves(command.schema).items():
        assert f"{key.rstrip('_')}=" in text
        assert item.metadata["meaning"] in text
    if command.schema is RunConfig:
        assert "ablation, default, quick, smoke" in text


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_example_in_the_help_is_a_command_line_that_parses(name: str):
    import shlex

    from embodied.cli.config import compose

    command = cli.load(name)
    for example, meaning in command.examples:
        program, verb, *rest = shlex.split(example)
        assert (program, verb, bool(meaning)) == ("embodied", name, True)
        compose(command.schema, command.parse(rest).overrides)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["rum"], ("rum", "valid commands", "run", "doctor")),
        (["run", "seeed=1"], ("seeed", "did you mean 'seed'", "valid keys", "num_envs")),
        (["run", "--seed=1"], ("--seed=1", "seed=1")),
        (["run", "--fast"], ("--fast", "--help")),
        (["run", "quick"], ("quick", "key=value")),
        (["ask"], ("embodied ask",)),
        (["bench"], ("embodied bench sim|render",)),
        (["bench", "rendering"], ("rendering", "sim", "did you mean 'render'")),
        (["view", "tabletop"], ("tabletop", "key=value")),
        (["claims", "run", "main.z"], ("main.z", "main.a")),
        (["claims", "run"], ("main.a",)),
    ],
)
def test_a_wrong_call_is_one_sentence_and_exit_code_2(
    argv: list[str], words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
):
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert all(word in err for word in words), err


def test_a_typo_shows_no_traceback_in_a_real_process():
    done = run_cli("run", "nun_envs=8")
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown key 'nun_envs' (did you mean 'num_envs'?); valid keys: preset, name,")
    assert "Traceback" not in done.stderr + done.stdout


def test_a_missing_run_names_those_that_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["eval"]) == 1
    assert "embodied run preset=quick" in capsys.readouterr().err
    for name in ("first", "second"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / runs.CONFIG).write_text("")
    assert cli.main(["eval", "run=third"]) == 1
    err = capsys.readouterr().err
    assert "third" in err
    assert "first" in err
    assert "second" in err
    assert runs.find("first") == Path("runs/first")
    with pytest.raises(MissingRunError):
        runs.find("first", out=tmp_path)


def test_what_a_person_can_act_on_is_a_sentence_and_a_fault_of_ours_is_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from envs.goals import GoalError

    def command(error: BaseException) -> Command:
        def fail(_: Arguments) -> int:
            raise error

        return Command("run", "", "", fail, RunConfig, (("", ""),))

    class FinerGoalError(GoalError):
        pass

    for error, code in (
        (FinerGoalError("no such goal"), 1),
        (OSError(28, "disk full"), 1),
        (UsageError("how"), 2),
    ):
        monkeypatch.setattr(cli, "load", lambda name, error=error: command(error))
        assert cli.main(["run"]) == code
        assert str(error) in capsys.readouterr().err
    monkeypatch.setattr(cli, "load", lambda name: command(ZeroDivisionError("ours")))
    with pytest.raises(ZeroDivisionError):
        cli.main(["run"])
    monkeypatch.setattr(cli, "load", lambda name: command(KeyboardInterrupt()))
    assert cli.main(["run", "name=my-run"]) == 130
    assert "to go on: embodied run name=my-run" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"embodied-repertoire {embodied.__version__}\n"


def test_a_foreign_package_of_our_name_is_named_at_once(tmp_path: Path):
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").write_text("")
    top = Path(embodied.__file__).parents[1]
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(top)!r}]; import embodied"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0
    assert f"the package 'envs' at {tmp_path / 'envs'} is another distribution's" in done.stderr


def test_doctor_reports_what_it_finds(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    from embodied.cli import doctor
    from embodied.cli.doctor import Finding

    monkeypatch.setattr(doctor, "renderer", lambda: Finding("rendering", "does not work: no GL", fine=False))
    assert cli.main(["doctor", "seconds=0.1", "num_envs=2", "threads=1"]) == 1
    out = capsys.readouterr().out
    assert all(word in out for word in ("torch", "mujoco", "usable", "environment steps/s"))
    assert "FAIL  rendering" in out
