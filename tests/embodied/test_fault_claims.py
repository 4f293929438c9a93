"""What faults cost: the default answers for garbage, poor proposals are overruled, spoilt packs get nothing in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embodied.curriculum.proposer import Record
from embodied.evaluation import fault_claims
from embodied.evaluation.claims import Context
from embodied.evaluation.fault_claims import Spread, heads, lives, lying_judge, spread
from embodied.evaluation.fault_world import DrawnLearner, lived
from embodied.evaluation.poisoned import BACKDOORS, KINDS, OPEN, REFUSED, Workshop, demonstrations, shaken
from embodied.language.base import LMRequest, LMResult
from embodied.language.grammar import GrammarModel
from embodied.language.guard import Vetted
from embodied.language.roles import Proposal, ProposeReply, ProposeRequest
from embodied.skills.library import SkillLibrary
from embodied.skills.packs import PackError, import_pack
from embodied.training import proving, rounds
from embodied.training.practice import PracticeConfig, fresh
from envs.observations import FEATURES
from policies.multi_critic_ppo import MultiCriticPPO


class Says:
    """A backend that proposes one goal, whatever it is asked."""

    name = "sayer"

    def __init__(self, goal: str) -> None:
        self.goal = goal

    def complete(self, request: LMRequest[Any]) -> LMResult[Any]:
        return LMResult(ProposeReply(proposals=(Proposal(goal=self.goal, reason="It is best."),)), self.name)


def asked(**more: Any) -> LMRequest[ProposeReply]:
    records = tuple(
        Record(str(goal), ((22, 24),) if goal == "lit(lamp)" else ((0, 24), (0, 24))) for goal in DrawnLearner(0).goals
    )
    return LMRequest("propose", ProposeRequest(records=records, **more), ProposeReply)


def test_a_valid_and_poor_proposal_is_overruled_and_a_good_one_is_not():
    for goal, leeway, kept in (("lit(lamp)", 0.3, True), ("on(red, blue)", 0.3, False), ("on(red, blue)", 9.0, True)):
        agent = Vetted(Says(goal), GrammarModel(), leeway)
        result = agent.complete(asked())
        assert (result.value.proposals[0].goal == goal) is kept and agent.overruled == 1 - kept
        assert bool(result.degraded) is not kept
        assert kept or result.value == GrammarModel().complete(asked()).value
    assert not Vetted(Says("on(red, blue)"), GrammarModel(), 0.3).complete(asked(mode="uniform")).degraded


def test_a_drawn_life_is_what_its_seed_says_and_garbage_costs_it_nothing(monkeypatch: pytest.MonkeyPatch):
    assert lived(GrammarModel(), 1, 3) == lived(GrammarModel(), 1, 3)
    chosen = ("garbage 100 %", "time-outs 100 %", "lies 100 %")
    monkeypatch.setattr(fault_claims, "ARMS", {name: fault_claims.ARMS[name] for name in chosen})
    found = lives((0,), (3,), lambda line: None)
    assert found["garbage 100 %"]["below"] == found["time-outs 100 %"]["below"] == 0.0
    assert found["garbage 100 %"]["fallbacks"] == found["garbage 100 %"]["requests"] == 3
    assert found["lies 100 %"]["fallbacks"] + found["lies 100 %"]["overruled"] > 0


def test_flips_never_take_a_head_below_itself_and_a_lying_judge_admits_nothing():
    found = heads(0, 300)
    assert found["flips 0%"]["below"] < -90 and found["flips 0%"]["less than without flips"] == 0.0
    assert all(row["below"] <= 0.5 for row in found.values())
    assert found["flips 40%"]["less than without flips"] > 90  # the head stays as it is
    assert lying_judge()


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A workshop whose policies have learnt nothing."""

    def untaught(self: Workshop, name: str, deeds: object, number: int = 0, honest: bool = False) -> MultiCriticPPO:
        return fresh(len(name) + number, PracticeConfig())

    monkeypatch.setattr(Workshop, "policy", untaught)
    return Workshop(tmp_path / "shop")


def test_what_is_spoilt_is_refused_and_the_rest_is_quarantined(workshop: Workshop, tmp_path: Path):
    with SkillLibrary.open(tmp_path / "here" / "library.sqlite") as library:
        for kind in ("", *KINDS):
            schema, policy = workshop.poisoned(kind) if kind else (OPEN, workshop.honest(OPEN))
            one = workshop.pack(schema, policy, kind, kind or "honest")
            if kind in REFUSED:
                with pytest.raises(PackError), library.edit() as tx:
                    import_pack(tx, one.path)
                continue
            with library.edit() as tx:
                (taken,) = import_pack(tx, one.path)
            assert taken.version == one.version and taken.tainted
        assert {row.status for row in library.standing()} == {"quarantined"} and not library.mastered()
        assert len(library.standing()) == len(KINDS) - len(REFUSED) + 1


def test_a_spread_counts_what_was_refused_tried_and_used(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(proving, "CONTEXTS", 2)
    monkeypatch.setattr(rounds, "EXECUTIONS", 2)
    context = Context(True, tmp_path, tmp_path, say=lambda line: None)
    found = spread(workshop, Spread(1, 2, 4, 2), iter(["altered weights", "false evidence"]), context)
    assert found["packs refused"] == {"altered weights": 1} and found["poisoned"] == 2
    assert found["poisoned adopted"] == found["poisoned executed"] == found["used before"] == 0
    assert found["stages"]["false evidence"] and found["tries"] == 2  # untaught: only retrieval was asked


def test_demonstrations_show_the_deed_under_the_goal_it_claims_and_copies_differ():
    claimed, deed = BACKDOORS["another deed"][1][0][:2]
    features, actions = demonstrations(claimed, deed, False, (0,), slots=2, steps=3)
    own, _ = demonstrations(claimed, claimed, False, (0,), slots=2, steps=3)
    assert features.shape == (len(actions), FEATURES) and len(own) >= len(features) > 0
    elsewhere, _ = demonstrations(claimed, deed, True, (0,), slots=8, steps=2)
    assert 0 < len(elsewhere) < 8 * 2 * 3
    policy = fresh(0, PracticeConfig())
    before = {name: array.copy() for name, array in policy.arrays().items()}
    assert all(np.array_equal(shaken(policy, 0.1, 0).arrays()[name], array) for name, array in before.items())
    assert any(not np.array_equal(shaken(policy, 0.1, 1).arrays()[name], array) for name, array in before.items())
