"""Discovered skills in the library: sorted by effect, gated, asked for; a script stands in for what was discovered."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from embodied import runs
from embodied.asking import AskError, ask
from embodied.cli.schema import AskConfig, RenderConfig, SkillsConfig
from embodied.cli.skills import Asked, list_skills
from embodied.planning import discovered as planning
from embodied.planning.discovered import Option, Options, coded, cover, perform, stages_of
from embodied.skills.gate import GateConfig
from embodied.skills.library import SkillLibrary
from embodied.training.discovered import act_out, effects_of, keep_discovered, measure_codes, scene_of
from embodied.training.discovery import Skills, make_skills, settings_of
from envs.scenes.discovery import DiscoveryVectorEnv
from envs.scenes.facts import BLOCKS
from envs.scenes.features import CENTRE, TOOL_FEATURES
from policies.discovery import Discovery, DiscoveryConfig

WORLD = {"scene": "discovery", "blocks": 1}
WORDS = scene_of(WORLD).vocabulary
WAYS = np.array([(0.0, 1.0), (0.0, -1.0), (1.0, 0.0), (0.0, 0.9)], np.float32)  # (1, 0) does nothing


def push(observation: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Actions that push the block slowly to the left or the right, from behind it; other codes wait."""
    tool = observation[:, :3] / 8.0 + CENTRE
    block = observation[:, TOOL_FEATURES + 6 : TOOL_FEATURES + 9] / 8.0 + CENTRE
    way = np.sign(codes[:, 1])
    off = tool - block
    behind, aside = -off[:, 1] * way, np.abs(off[:, 0])
    aim = np.stack([block[:, 0], block[:, 1] - 0.07 * way, np.full(len(tool), 0.13)], axis=1)
    ready = (aside < 0.012) & (behind > 0.02)
    aim[ready, 2] = 0.02
    action = np.clip((aim - tool) / 0.03, -1.0, 1.0)
    low = ready & (tool[:, 2] < 0.04)
    action[low, 1] = 0.12 * way[low]
    action[np.abs(codes[:, 0]) > 0.5] = 0.0
    return np.concatenate([action, np.zeros((len(tool), 1)), -np.ones((len(tool), 1))], axis=1).astype(np.float32)


class Pushing(Skills):
    """Skills that a script carries out."""

    def act(self, observation, codes, deterministic=True):
        return push(observation, codes)


class Ways:
    """Draws the codes above, in turn."""

    def codes(self, n, seed=None):
        import torch

        return torch.from_numpy(np.resize(WAYS, (n, 2)))


@pytest.fixture(scope="module")
def skills() -> Pushing:
    env = DiscoveryVectorEnv(1, threads=1)
    made = make_skills(settings_of("slim", steps=0), env.observation_space.shape[1], 5)  # type: ignore[index]
    env.close()
    return Pushing(made.policy, Ways(), made.settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(skills: Pushing, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("discovery")
    Skills(skills.policy, Discovery(DiscoveryConfig()), skills.settings).save(made)
    gate = GateConfig(screen=4, n=20, confirm=20)
    assert keep_discovered(made, skills, gate=gate, codes=4, starts=4, threads=1) == [
        "moved_left(red)",
        "moved_right(red)",
    ]
    return made


def test_codes_act_from_the_same_starts_alone_and_together(skills: Pushing) -> None:
    both = act_out(skills.act, [(2, 5, WAYS[0]), (2, 5, WAYS[1])], WORLD, steps=20, rest=2, threads=1)
    alone = act_out(skills.act, [(2, 5, WAYS[1])], WORLD, steps=20, rest=2, threads=1)
    assert both.end.shape == both.begin.shape
    np.testing.assert_array_equal(both.begin[:2], both.begin[2:])
    np.testing.assert_array_equal(both.end[2:], alone.end)
    assert both.kept.all() and (both.steps == 20).all()


def test_a_skill_stops_when_its_goal_has_held_and_is_judged_at_rest(skills: Pushing) -> None:
    asked = [(("moved_left(red)", 4, 9), WAYS[0]), (("moved_left(red)", 4, 9), WAYS[2])]
    (left, idle), (moved, _) = measure_codes(skills.act, asked, WORLD, "x", threads=1)
    assert left.success.all() and not idle.success.any()
    assert (moved.steps < 80).all() and (idle.lengths == 80).all()
    (ran_on,), (further,) = measure_codes(skills.act, asked[:1], WORLD, "x", threads=1, stops=False)
    assert (ran_on.lengths == 80).all()
    assert (further.end[:, BLOCKS + 1] > moved.end[:, BLOCKS + 1]).all()


def test_codes_of_one_effect_are_one_cluster_and_idle_codes_are_in_none(skills: Pushing) -> None:
    found = effects_of(skills, 3, codes=4, starts=3, threads=1)
    assert [(c.goal, len(c.codes)) for c in found] == [("moved_left(red)", 2), ("moved_right(red)", 1)]
    assert (found[0].codes[:, 1] > 0).all()
    assert (found[0].rates >= 0.8).all()


def test_what_passes_the_gate_is_in_the_library_with_evidence_operator_and_name(folder: Path) -> None:
    with SkillLibrary.open(folder / runs.LIBRARY, readonly=True) as library:
        library.verify()
        left, _ = library.mastered()
        assert left.skill.schema == "moved_left(?a:block)"
        assert left.skill.conditioning["code"] in WAYS[[0, 3]].tolist()
        assert left.skill.provenance["name"] == "move the red block to the left"
        assert {row.purpose for row in library.evidence(goal=left.goal)} == {"screen", "gate", "confirm"}
        counts = {(c.role, c.literal): (c.trials, c.hits) for c in library.operators(left.skill.schema)}
        trials, hits = counts["effect", "moved_left(?a)"]
        assert trials == hits >= 40
        assert "moved_right(?a)" not in {literal for _, literal in counts}


def test_a_policy_goes_through_the_gate_once(folder: Path, skills: Pushing) -> None:
    before = (folder / runs.LIBRARY).read_bytes()
    assert len(keep_discovered(folder, skills)) == 2
    with runs.library(folder) as library:
        assert library.next_round == 1
    assert (folder / runs.LIBRARY).read_bytes() == before


def test_the_skills_are_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list_skills(Asked(SkillsConfig(run=str(folder)))) == 0
    assert "2 distinct goals mastered" in capsys.readouterr().out


# -- asking --------------------------------------------------------------------------------------------------------


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "acting", lambda _: push)


def config(**changes: object) -> AskConfig:
    return AskConfig(**({"seed": 2, "video": "none", "render": RenderConfig("rays", 48, 36)} | changes))  # type: ignore[arg-type]


@pytest.mark.usefixtures("scripted")
def test_an_instruction_is_solved_with_a_discovered_skill_and_filmed(folder: Path, tmp_path: Path) -> None:
    said = io.StringIO()
    video = tmp_path / "push.gif"
    answer = ask("Shift the red block to the left!", folder, config(video=str(video)), Console(file=said))
    assert answer.success
    assert answer.outcome.plans == [["moved_left(red)"]]
    assert "I planned to move the red block to the left. Done. It took 1 skill" in said.getvalue()
    assert video.is_file() and video.with_suffix(".png").is_file()


@pytest.mark.usefixtures("scripted")
def test_stages_are_done_one_after_another(folder: Path) -> None:
    text = "move the red block to the left, then move the red block to the right"
    stages = stages_of(text, WORDS)
    assert stages == ["moved_left(red)", "moved_right(red)"]
    outcome = perform(stages, Options.load(folder), 4, replans=1)
    assert outcome.success, outcome
    assert [option.goal for option in outcome.options] == stages
    assert all(option.success and option.end[option.goal] for option in outcome.options)


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        (
            "make coffee",
            "'make coffee' is not understood; I can: move the red block to the left; move",
        ),
        ("lift the red block", "I have no skill to lift the red block; I can: move the red block to the left"),
    ],
)
def test_what_cannot_be_done_is_said_with_what_can(folder: Path, instruction: str, message: str) -> None:
    with pytest.raises(AskError, match=message):
        ask(instruction, folder, config(), Console(quiet=True))


def option(goal: str, lower: float = 0.9) -> Option:
    return Option(goal, goal, frozenset(WORDS.parse(goal)), lower, coded(push, WAYS[0]), 10)


@pytest.mark.parametrize(
    ("wanted", "plan"),
    [
        ("moved_left(red) & moved_away(red)", ["moved_away(red) & moved_left(red)"]),
        ("moved_left(red)", ["moved_left(red)"]),  # not the one that does more than was asked
        ("moved_right(red) & moved_near(red)", ["moved_right(red)", "moved_near(red)"]),
        ("moved_right(red) & lifted(red)", []),
    ],
)
def test_a_plan_covers_what_is_wanted_and_nothing_against_it(wanted: str, plan: list[str]) -> None:
    known = [
        option("moved_away(red) & moved_left(red)"), option("moved_left(red)", 0.85), option("moved_right(red)"),
        option("moved_near(red)", 0.88),
    ]  # fmt: skip
    assert [o.goal for o in cover(WORDS.parse(wanted), known, WORDS)] == plan


def test_what_failed_is_tried_last() -> None:
    known = [option("moved_away(red) & moved_left(red)"), option("moved_left(red)", 0.85)]
    (again,) = cover(WORDS.parse("moved_left(red)"), known, WORDS, ["moved_left(red)"])
    assert again.goal == "moved_away(red) & moved_left(red)"
