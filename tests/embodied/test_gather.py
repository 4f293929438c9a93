"""The report's data from a run directory, whatever there is of it, and the films in it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from embodied import cli, runs
from embodied.cli.config import compose, save
from embodied.cli.schema import RenderConfig, RunConfig
from embodied.core import EvalReport
from embodied.planning.execute import Step, carry_out, make_env
from embodied.repertoire import Repertoire
from embodied.skills.library import SkillLibrary
from embodied.viz import film as films
from embodied.viz import gather
from envs.goals import Goal, schema_of
from envs.observations import FEATURES
from envs.playroom.oracle import ScriptedOracle
from policies.random import RandomPolicy

RENDER = RenderConfig(backend="rays", width=32, height=24)
STATE = {
    "steps": 5_000, "seconds": 12.5, "episodes": 40, "finished": False, "operators": {},
    "mastered": [{"steps": 4_000, "seconds": 9.0, "count": 1}],
    "curves": {"open(drawer)": [[1_000, 10, 50], [4_000, 49, 50]]},
}  # fmt: skip


def make_run(path: Path) -> Path:
    """A run with one admitted goal and one candidate, two ledger lines and half of a third."""
    path.mkdir()
    save(compose(RunConfig, ["preset=quick", "seed=3", f"name={path.name}"]), path / runs.CONFIG)
    lines = [
        {"round": 0, "kind": "play", "goal": "", "why": "first", "result": "", "outcome": "learnt", "details": {}},
        {"round": 1, "kind": "practice", "goal": "open(drawer)", "why": "new", "result": "98 %",
         "outcome": "admitted", "details": {"steps": 4000, "reasons": ["a", "b"], "nothing": []}},
    ]  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (path / runs.LEDGER).write_text(text + '{"round": 2, "kind": "prac')
    RandomPolicy(FEATURES, 5).save_pretrained(path / "policy")
    with SkillLibrary.open(path / runs.LIBRARY) as library, library.round(0) as tx:
        skill = tx.add_skill("open(drawer)", path / "policy", provenance={"from": "play"})
        for seed, purpose, rate in ((1, "screen", 40), (2, "gate", 195), (3, "confirm", 190)):
            tx.add_evidence(skill.version, purpose, report("open(drawer)", seed, rate))
        tx.add_evidence(skill.version, "gate", report("lit(lamp)", 4, 20))
        tx.seal(ledger_offset=len(text), store_offsets={}, state=STATE)
    return path


def report(goal: str, seed: int, successes: int) -> EvalReport:
    return EvalReport(goal, "", seed, np.arange(200) < successes, versions={"mujoco": "4.0.0"})


def test_a_run_is_read_as_the_reports_data(tmp_path: Path):
    data = gather.gather(make_run(tmp_path / "life"))
    assert (data.name, data.preset, data.seed, data.state) == ("life", "quick", 3, "running")
    budget = compose(RunConfig, ["preset=quick"]).steps
    assert (data.environment_steps, data.step_budget, data.episodes, data.gate) == (5_000, budget, 40, 0.8)
    assert data.versions == {"mujoco": "4.0.0"}
    opened = next(goal for goal in data.goals if goal["goal"] == "open(drawer)")
    assert (opened["status"], opened["successes"], opened["n"]) == ("admitted", 190, 200)
    assert opened["text"] == "open the drawer"
    lit = next(goal for goal in data.goals if goal["goal"] == "lit(lamp)")
    assert (lit["status"], lit["successes"]) == ("candidate", 20)
    assert data.curves[0]["points"][1] == {"steps": 4_000, "successes": 49, "n": 50}
    assert (data.library[0]["status"], data.library[0]["warm_start"]) == ("admitted", "play")
    assert [entry["goal"] for entry in data.decisions] == ["play", "open(drawer)"]
    assert data.decisions[1]["details"] == {"steps": "4,000", "reasons": "a; b"}
    assert data.heldout == []
    assert data.pictures == []


def test_the_state_of_a_run_follows_from_its_files(tmp_path: Path):
    run = make_run(tmp_path / "life")
    for name in (runs.CONFIG, runs.LIBRARY, runs.LEDGER):
        os.utime(run / name, (time.time() - 7_200, time.time() - 7_200))
    assert gather.gather(run).state == "stopped"
    row = {"method": "agent", "depth": 2, "successes": 3, "n": 4}
    (run / runs.HELDOUT).write_text(json.dumps([row | {"more": 1}]))
    assert gather.gather(run).state == "finished"
    assert gather.gather(run).heldout == [row]
    part = {"successes": 3, "n": 4}
    (run / runs.HELDOUT).write_text(json.dumps({"rows": {"loop": part | {"by_steps": {"2": part}}}}))
    assert gather.gather(run).heldout == [row]
    (run / runs.HELDOUT).write_text("{")
    assert gather.gather(run).heldout == []
    assert gather.gather(run, "running").state == "running"


def test_the_page_is_written_for_a_run_that_has_only_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save(RunConfig(name="new"), tmp_path / runs.CONFIG)
    assert cli.main(["report", f"run={tmp_path}"]) == 1
    assert "no library" in capsys.readouterr().err
    SkillLibrary.open(tmp_path / runs.LIBRARY).close()
    assert cli.main(["report", f"run={tmp_path}"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / runs.REPORT)
    page = (tmp_path / runs.REPORT).read_text()
    assert "The robot has not moved yet" in page


class Expert:
    def bind(self, env):
        self.oracle = ScriptedOracle(env)

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return self.oracle.act(), state


class Experts(Repertoire):
    def planner(self):
        def plan(state, rest, failed):
            literal = rest.final[0]
            schema = schema_of(Goal.of(literal))
            return [Step(schema, str(literal))] if schema in self.actors else "I have no skill for that"

        return plan


@pytest.fixture
def experts(monkeypatch: pytest.MonkeyPatch) -> Experts:
    def bound(goals, skills, plan, seed, *, threads, **options):
        env = make_env(skills, len(goals), 1)
        for skill in skills.values():
            skill.bind(env)
        return carry_out(goals, skills, plan, seed, env=env, **options)

    monkeypatch.setattr(films, "carry_out", bound)
    acts = {"open(drawer)": "open(drawer)", "lit(lamp)": "lit(lamp)", "not lit(lamp)": "lit(lamp)"}
    return Experts({"open(drawer)": Expert(), "lit(lamp)": Expert()}, acts=acts)


def test_films_are_kept_and_found_again_for_the_page(tmp_path: Path, experts: Experts):
    run = make_run(tmp_path / "life")
    (run / runs.VIDEOS).mkdir()
    (run / runs.VIDEOS / "film-07.json").write_text("{}")  # of an earlier time
    asked = ["lit(lamp)", "open the drawer", "put the red block on the cabinet"]
    made = gather.film(experts, run, 5, RENDER, asked, 1)
    assert [(entry["instruction"], entry["success"]) for entry in made] == [
        ("turn on the lamp", True), ("open the drawer", True),
    ]  # fmt: skip
    data = gather.gather(run)
    assert [entry["instruction"] for entry in data.pictures] == [entry["instruction"] for entry in made]
    assert [entry["animation"] for entry in data.pictures] == [entry["animation"] for entry in made]
    assert data.renderer.startswith("renderer rays")
    assert gather.gather(run, pictures=False).pictures == []
    (run / runs.VIDEOS / "film-00.png").unlink()
    assert len(films.kept(run)) == 1
    page = gather.write(run, "finished").read_text()
    assert "open the drawer" in page
    assert "data:image/" in page


def test_what_is_filmed_is_what_is_known(experts: Experts):
    chosen = films.subjects(experts, 0)
    assert chosen == films.subjects(experts, 0)
    assert len(chosen) == films.INSTRUCTIONS + 2
    assert chosen[-1] == "open(drawer)"
    assert films.film(Repertoire(), Path("nowhere"), 0, RENDER) == []
