"""Predicates invented in closed-form worlds, where what separates is planted."""

from __future__ import annotations

import json

import numpy as np
import pytest

from embodied.planning.execute import symbolic_state
from embodied.planning.invented import Comparison, Invented, InventionError, extend
from embodied.planning.invention import Executions, NamingRequest, executions, invent
from embodied.planning.operators import Operator, OperatorError
from embodied.planning.search import plan
from envs.goals import Goal
from envs.predicates import BLOCK, BLOCK_STRIDE, COLUMNS, DRAWER, GRIP, WIDTH

TERMS = tuple(
    Comparison(name, args, True, 0.0)
    for name, args in (
        ("gap", ("?a", "?b")), ("reach", ("?a",)), ("height", ("?a",)), ("turn", ("?a",)), ("opening", ("drawer",)),
        ("spread", ()),
    )
)  # fmt: skip
ONE = (Comparison("gap", ("?a", "?b"), False, 0.5),)
TWO = (Comparison("gap", ("?a", "?b"), False, 0.4), Comparison("turn", ("?a",), True, 0.6))


def world(rng: np.random.Generator, planted: tuple[Comparison, ...], n: int = 240, noise: float = 0.05) -> Executions:
    """Executions in 6 abstract states, successful where the planted separator holds, but for noise."""
    values = rng.random((n, len(TERMS)))
    states = tuple(int(s) for s in rng.integers(6, size=n))
    found = Executions(states, TERMS, values, np.zeros(n, bool))
    outcome = found.satisfied(planted) if planted else rng.random(n) < 0.5
    return Executions(states, TERMS, values, np.where(rng.random(n) < noise, ~outcome, outcome))


def found_in(seed: int, planted: tuple[Comparison, ...], **how: float) -> Invented | None:
    rng = np.random.default_rng(seed)
    return invent("skill", world(rng, planted, **how), lambda: world(rng, planted, **how))  # type: ignore[arg-type]


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_planted_threshold_is_found_alone(noise: float) -> None:
    for seed in range(12):
        found = found_in(seed, ONE, noise=noise)
        assert found is not None and len(found.comparisons) == 1
        (one,) = found.comparisons
        assert (one.quantity, one.args) == ("gap", ("?a", "?b")) and abs(one.threshold - 0.5) < 0.05


def test_two_are_taken_only_where_one_will_not_do() -> None:
    right = 0
    for seed in range(12):
        found = found_in(seed, TWO, n=320)
        right += found is not None and {c.quantity for c in found.comparisons} == {"gap", "turn"}
    assert right >= 11


def test_nothing_is_invented_where_outcomes_are_coin_flips() -> None:
    assert sum(found_in(seed, (), n=160) is not None for seed in range(40)) <= 2


def test_nothing_counts_before_fresh_executions_confirm_it() -> None:
    """What separated once, and did not again, was luck; where nothing separates, nothing is executed anew."""
    rng, asked = np.random.default_rng(0), []

    def coins() -> Executions:
        asked.append(1)
        return world(rng, ())

    assert invent("skill", world(rng, ONE), coins) is None and asked == [1]
    same = world(rng, ONE)
    settled = Executions(same.states, TERMS, same.values, np.ones(240, bool))
    assert invent("skill", settled, coins) is None and asked == [1]


def test_what_the_vocabulary_can_say_is_not_invented_again() -> None:
    """Success depends on the abstract state alone, with which a quantity goes along."""
    rng = np.random.default_rng(1)
    states = tuple(int(s) for s in rng.integers(2, size=200))
    values = np.array(states)[:, None] + 0.1 * rng.random((200, len(TERMS)))
    found = Executions(states, TERMS, values, rng.random(200) < np.where(np.array(states) == 1, 0.95, 0.05))
    assert invent("skill", found, lambda: found) is None


def test_a_model_may_choose_among_the_confirmed_and_name_them_and_no_more() -> None:
    rng = np.random.default_rng(2)
    seen: list[NamingRequest] = []

    def named(answer: object) -> str:
        def naming(request: NamingRequest) -> tuple[int, str]:
            seen.append(request)
            return answer  # type: ignore[return-value]

        found = invent("skill", world(rng, ONE), lambda: world(rng, ONE), taken=("apart",), naming=naming)
        assert found is not None and found.comparisons[0].quantity == "gap"
        return found.name

    assert named((0, "roomy")) == "roomy"
    for answer in ((7, "roomy"), (0, "on"), (0, "apart"), (0, "rm -rf"), (True, "roomy"), "roomy", None, (0, "x" * 99)):
        assert named(answer) == "apart_2"
    assert seen[0].schema == "skill" and "gap(?a, ?b) > 0." in seen[0].candidates[0]


def test_text_reads_back_and_nothing_outside_the_grammar_does() -> None:
    near = Invented("near", (Comparison("gap", ("?a", "?b"), True, 0.051),))
    assert str(near) == "near(?a, ?b) := gap(?a, ?b) < 0.0510" and Invented.parse(str(near)) == near
    both = Invented(
        "low_and_pulled", (Comparison("height", ("?b",), True, 0.1), Comparison("opening", ("drawer",), False, 0.05))
    )
    assert both.args == ("?b", "drawer") and Invented.parse(str(both)) == both
    for text in (
        "near := ", "near(?a) := gap(?a) < 1", "on(?a, ?b) := gap(?a, ?b) < 1", "near(?a) := weight(?a) < 1",
        "near(?a) := height(?a) < nan", "near(drawer) := height(drawer) < 1", "x" * 10_000,
        "near(?a) := __import__('os')",
        "near(?a, ?a) := gap(?a, ?a) < 1", "far(?a) := height(?a) < 1 & height(?a) > 0 & speed(?a) < 1",
    ):  # fmt: skip
        with pytest.raises(InventionError):
            Invented.parse(text)


def rows(rng: np.random.Generator, n: int) -> np.ndarray:
    """Facts of two blocks lying on the table, the gripper away and open."""
    facts = np.zeros((n, len(COLUMNS)))
    facts[:, GRIP], facts[:, WIDTH], facts[:, 2] = 1.0, 0.08, 0.25
    for block in range(2):
        first = BLOCK + BLOCK_STRIDE * block
        facts[:, first : first + 2] = rng.uniform((0.30, -0.2), (0.68, 0.33), (n, 2))
        facts[:, first + 2] = 0.02
    facts[:, DRAWER] = rng.uniform(0.0, 0.155, n)
    return facts


def test_from_facts_to_a_precondition_that_plans_respect() -> None:
    """Blocks that lie close together cannot be lifted: learnt, written down, and planned around."""
    rng, schema = np.random.default_rng(3), "lifted(?a:block)"

    def tried(n: int) -> tuple[Goal, np.ndarray, np.ndarray]:
        goal, facts = Goal.parse(f"lifted({rng.choice(['red', 'blue'])})"), rows(rng, n)
        gap = np.linalg.norm(facts[:, BLOCK : BLOCK + 2] - facts[:, BLOCK + BLOCK_STRIDE :][:, :2], axis=1)
        return goal, facts, (gap > 0.15) != (rng.random(n) < 0.03)

    def lifted(batches: list) -> Executions:
        parts = [executions(Operator(schema), goal, symbolic_state(x), x, y) for goal, x, y in batches]
        return sum(parts[1:], parts[0])

    batches = [tried(60) for _ in range(6)]
    found = invent(schema, lifted(batches), lambda: lifted([tried(60) for _ in range(4)]))
    assert found is not None and found.name == "apart" and abs(found.comparisons[0].threshold - 0.15) < 0.02
    operator = Operator(schema, invented=[found])
    for goal, facts, success in batches:
        for state, reached in zip(symbolic_state(facts, [found]), success, strict=True):
            operator.observe(goal, state, state | {str(goal): bool(reached)}, bool(reached))
    assert operator.model.precondition == ("apart(?a, ?b)",)
    restored = Operator.from_dict(json.loads(json.dumps(operator.to_dict())))
    assert restored == operator and restored.model == operator.model
    close, wide = rows(rng, 2)
    close[BLOCK : BLOCK + 2], wide[BLOCK : BLOCK + 2] = (0.4, 0.1), (0.4, 0.1)
    close[BLOCK + BLOCK_STRIDE :][:2], wide[BLOCK + BLOCK_STRIDE :][:2] = (0.47, 0.1), (0.62, 0.1)
    facts = symbolic_state(np.stack([close, wide]), [found])
    goal = Goal.parse("lifted(red)")
    refused, made = (plan(goal, state, [restored]) for state in facts)
    assert "only when apart(red, blue) holds" in refused.explanation and made.found
    assert not restored.ground(goal).applies(facts[0]) and restored.ground(goal).applies(facts[1])
    other = Operator("open(drawer)")
    other.observe(Goal.parse("open(drawer)"), facts[0], facts[0] | {"open(drawer)": True}, True)
    assert not any("apart" in fact for fact in other.changes)  # what was invented for another is not counted
    with pytest.raises(OperatorError, match="cannot be read"):
        Operator.from_dict(operator.to_dict() | {"invented": ["apart := exec(1)"]})


def test_facts_of_invented_predicates_stand_beside_the_others() -> None:
    facts = rows(np.random.default_rng(4), 3)
    states: list[dict[str, bool]] = [{} for _ in facts]
    extend(states, facts, [Invented("pulled", (Comparison("opening", ("drawer",), False, 0.08),))])
    assert [state["pulled(drawer)"] for state in states] == (facts[:, DRAWER] > 0.08).tolist()
