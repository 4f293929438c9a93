"""Behavioural consensus: an honest candidate passes, a poisoned one is flagged, and the planner learns from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embodied.core import EvalReport
from embodied.repertoire import Repertoire
from embodied.skills.consensus import Consensus, alone, contexts_of, judge, neighbours_of, simulated, teach
from embodied.skills.library import LibraryError, SkillLibrary
from policies.random import RandomPolicy

FACTS = ("on(red, blue)", "clear(red)", "clear(blue)", "lit(lamp)", "open(drawer)")
GOAL, SCHEMA = "on(red, blue)", "on(?a:block, ?b:block)"
ON, LAMP, DRAWER = 0, 3, 4


class World:
    """Executions without a simulator: everybody puts red on blue, and slips in so many cases of its own; the poisoned
    one shuts the drawer where the lamp is lit, or does so anywhere with a small chance.
    """

    def __init__(self, poison: str = "", slips: float = 0.02) -> None:
        self.poison, self.slips = poison, slips

    def __call__(self, version: str, states: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        n, seed = states
        draws = np.random.default_rng(seed)
        before = draws.random((n, len(FACTS))) < 0.5
        before[:, ON] = False
        own = np.random.default_rng([seed, *version.encode()])
        after = before.copy()
        after[:, ON] = own.random(n) > self.slips
        after[own.random(n) < self.slips, LAMP] ^= True
        if version == "new" and self.poison == "lit":
            after[before[:, LAMP], DRAWER] = False
        if version == "new" and self.poison == "rare":
            after[own.random(n) < 0.2, DRAWER] ^= True
        return before, after


def compare(poison: str = "", neighbours: tuple[str, ...] = ("a", "b", "c"), seed: int = 0, n: int = 200) -> Consensus:
    return judge("new", neighbours, World(poison), (n, seed), (n, seed + 1000), FACTS, learn=contexts_of(GOAL, FACTS))


def test_an_honest_candidate_is_in_keeping_with_its_neighbours():
    flagged = [compare(seed=seed).flagged for seed in range(60)]
    assert sum(flagged) <= 3  # two tests at half a percent each
    assert not any(compare(seed=seed, neighbours=("a",)).flagged for seed in range(20))


def test_a_poisoned_candidate_is_flagged_and_the_context_becomes_a_lesson():
    found = compare("lit")
    assert found.flagged and found.near.p < 1e-6 and found.random.p < 1e-6
    assert max(found.near.facts, key=lambda name: found.near.facts[name]) == "open(drawer)"
    assert found.verdict.startswith("flagged: ")
    assert any(set(lesson) <= {"lit(lamp)", "open(drawer)"} for lesson in found.lessons)
    assert all(compare("rare", seed=seed).flagged for seed in range(10))
    assert compare("lit", neighbours=("a",)).flagged


def test_what_was_found_is_recorded_and_reaches_the_planner(tmp_path: Path):
    found = compare("lit")
    RandomPolicy(4, 2).save_pretrained(tmp_path / "p")
    with SkillLibrary.open(tmp_path / "library.sqlite") as library:
        with library.edit() as tx:
            skills = [tx.add_skill(SCHEMA, tmp_path / "p", conditioning={"number": i}) for i in range(3)]
            for skill in skills[:2]:
                for seed, purpose in enumerate(("gate", "confirm")):
                    tx.add_evidence(skill.version, purpose, EvalReport(GOAL, "", seed, np.ones(100, bool)))
            teach(tx, SCHEMA, found)
        assert set(neighbours_of(library, skills[2].version)) == {skills[0].version, skills[1].version}
        assert neighbours_of(library, skills[0].version) == [skills[1].version]
        (row,) = library.gate_decisions("new")
        assert row.verdict == "flagged" and row.numbers["near"]["n"] == 200
        forbidden = Repertoire.load(library, {}).operators[SCHEMA].forbidden
        assert {lesson.literals for lesson in forbidden} == {tuple(sorted(x)) for x in found.lessons}


def test_executions_that_do_not_fit_are_refused():
    with pytest.raises(LibraryError, match="has no neighbour"):
        compare(neighbours=())

    def other_starts(version: str, states: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        return World()(version, (states[0], states[1] + (version == "b")))

    with pytest.raises(LibraryError, match="began in other states"):
        judge("new", ("a", "b"), other_starts, (20, 0), (20, 1), FACTS)
    with pytest.raises(LibraryError, match=r"expected \[n, 1\]"):
        judge("new", ("a",), World(), (20, 0), (20, 1), FACTS[:1])


def test_in_the_simulator_every_version_begins_in_the_same_states(tmp_path: Path):
    from envs.vector import TabletopVectorEnv

    env = TabletopVectorEnv(1)
    size = env.single_observation_space.shape[0]  # type: ignore[index]
    env.close()
    with SkillLibrary.open(tmp_path / "library.sqlite") as library:
        with library.edit() as tx:
            versions = []
            for seed in range(2):
                RandomPolicy(size, 5, seed=seed).save_pretrained(tmp_path / "p")
                versions.append(tx.add_skill("open(drawer)", tmp_path / "p").version)
        execute, facts = simulated(library, "open(drawer)", threads=1)
        found = judge(versions[0], versions[1:], execute, (3, 1, False), (3, 2, True), facts)
    assert (found.near.n, found.random.n) == (3, 3)


@pytest.mark.parametrize(("share", "flagged"), [(0.02, False), (0.5, True)])
def test_without_a_neighbour_a_candidate_must_leave_alone_what_is_not_its_business(share: float, flagged: bool):
    def execute(version: str, states: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        n, seed = states
        draws = np.random.default_rng(seed)
        before = draws.random((n, len(FACTS))) < 0.5
        after = before.copy()
        after[:, ON] = ~before[:, ON]  # its own business
        after[draws.random(n) < share, DRAWER] ^= True
        return before, after

    found = alone("new", GOAL, execute, (200, 0), (200, 1), FACTS, learn=contexts_of(GOAL, FACTS))
    assert found.flagged is flagged and set(found.near.facts) <= {"open(drawer)"} and found.neighbours == ()
    assert "its goal does not speak of" in found.verdict
