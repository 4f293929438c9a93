"""The claim about the gate of edits: the bank's episodes are reproducible, plants are what they are called."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from embodied.evaluation import gate_claims
from embodied.evaluation.claims import Context, get
from embodied.evaluation.gate_claims import BAD, COMPOSED, GOOD, ROWS, decided, plants
from embodied.evaluation.planted import Bank, Level, Planted, Sitting, family_of, stages_of
from embodied.skills.edits import Task
from embodied.skills.gate import GateError

RED = "touching(red)"


class Drawn(Bank):
    """A bank whose outcomes are drawn: the more noise, the fewer successes; a key is a stream of luck."""

    def _run(self, instruction: str, levels: tuple[Level, ...]) -> tuple[np.ndarray, np.ndarray]:
        rate = float(np.prod([np.clip(1.3 - 0.75 * max(sigma, 0.35) ** 1.3, 0.02, 1) for sigma, _ in levels]))
        word = zlib.crc32(f"{instruction} {[key for _, key in levels]}".encode())
        size = self.size(instruction)
        return np.random.default_rng(word).random(size) < rate, np.full(size, len(levels) - 1)


def test_an_episode_of_the_bank_depends_on_its_row_alone_and_is_kept(tmp_path: Path) -> None:
    few = Bank(3, composed=2, path=tmp_path / "bank.npz")
    more = Bank(5, composed=2)
    shaky = (1.1, 1)
    success, _ = few.outcomes(RED, (shaky,))
    assert (success == more.outcomes(RED, (shaky,))[0][:3]).all() and few.steps > 0
    assert few.outcomes(RED, ((0.0, 0),))[0].all()  # the expert itself
    again = Bank(3, composed=2, path=tmp_path / "bank.npz")
    assert again.cells.keys() == few.cells.keys() and (again.outcomes(RED, (shaky,))[0] == success).all()
    assert again.steps == 0 and not Bank(4, path=tmp_path / "bank.npz").cells
    assert stages_of(f"{RED} ; lit(lamp)") == (RED, "lit(lamp)")
    acting = {family_of(RED): Planted(family_of(RED), {RED: shaky}, {RED: frozenset({0, 1, 2})})}
    assert again.of(RED, acting)[0].all()  # it knows every row
    success, ended = again.of(f"{RED} ; lit(lamp)", acting)
    assert not success.any() and (ended == 0).all()  # nothing acts in the second stage


def test_a_decision_never_gets_a_row_twice() -> None:
    sitting = Sitting(Drawn(10), {}, seed=3)
    rows = [sitting.row(Task(RED, seed, i)) for seed in (1, 2) for i in range(4)]
    assert len(set(rows)) == 8 and sitting.row(Task(RED, 1, 0)) == rows[0]
    with pytest.raises(GateError, match="more than the 10 rows"):
        [sitting.row(Task(RED, 5, i)) for i in range(3)]


@pytest.mark.parametrize("sort", [*GOOD, *BAD])
def test_plants_are_what_they_are_called_and_the_gate_sees_it(sort: str) -> None:
    bank = Drawn(ROWS, COMPOSED)
    found = plants(bank, sort, 3, 0)
    assert found == plants(bank, sort, 3, 0) and all(len(plant.candidates) <= 4 for plant in found)
    for i, plant in enumerate(found):
        gains = {"harm": (-1, -0.05), "no gain": (-0.06, 0.06), "gain on the probe only": (-0.06, 0.06)}
        low, high = gains.get(sort, (0.1, 1))
        assert low <= plant.gain <= high
        verdict = decided(bank, plant, i)
        assert verdict.right == plant.good and not verdict.false_accept, verdict.decision.reason
        assert bool(verdict.unseen) <= verdict.decision.accepted
        if sort == "gain on the probe only":
            assert verdict.decision.stage == "confirm" and verdict.decision.winner == plant.planted


def test_the_measurement_counts_what_the_gate_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_claims, "Bank", Drawn)
    monkeypatch.setattr(gate_claims, "operating_curve", lambda seed, edits: [])
    monkeypatch.setattr(gate_claims, "flips", lambda seed, edits: [])
    found = gate_claims.planted_edits(Context(True, tmp_path, tmp_path, say=lambda _: None))
    assert found.n == 23 and found.figure == 0 and get("library.b").target == 0.02
    assert found.conditions["false rejects <= 10 %"] and found.details["false rejects"]["k"] == 0
    assert found.conditions["600 unseen pairs or more an admitted edit"]
    assert found.details["by sort"]["harm elsewhere"]["ended at"] == {"regression": 3}
