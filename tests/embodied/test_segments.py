"""Segments of play: effects by the scene's words, clusters, operators' counts, and the claim's arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from embodied.data.segmentation import label_cuts
from embodied.evaluation import segment_claims
from embodied.training.segments import (
    Segment,
    SegmentModel,
    begun,
    candidates,
    effects,
    segments_of,
    state_terms,
    truth,
)
from envs.scenes.experts import ScriptedExpert
from envs.scenes.play import ScenePlay, play_env
from envs.scenes.playroom import PlayroomVectorEnv
from envs.scenes.scene import Scene
from envs.scenes.words import Term

TASKS = ["open(drawer)", "lifted(cube)", "swept_left(cube)", "turned_right(cube)"]


def term(scene: Scene, text: str) -> Term:
    return scene.vocabulary.parse(text)[0]


@pytest.fixture(scope="module")
def shown() -> np.ndarray:
    """Facts float64[T+1, 4, NX] of the expert at `TASKS`."""
    env = PlayroomVectorEnv(4, TASKS, max_steps=300, terminate_on_success=False, autoreset_mode="Disabled", threads=1)
    env.reset(seed=3, options={"which": np.arange(4)})
    acting, rows, success = ScriptedExpert(env), [env.facts.copy()], np.zeros(4, bool)
    for _ in range(150):
        success |= env.step(acting.act())[4]["success"]
        rows.append(env.facts.copy())
    env.close()
    assert success.all()
    return np.stack(rows)


def test_what_an_expert_was_asked_for_is_the_effect(scene: Scene, shown: np.ndarray) -> None:
    for slot, task in enumerate(TASKS):
        (segment,) = segments_of(scene, shown[:, slot], np.zeros(0, np.int64))
        assert term(scene, task) in segment.effect
        assert (segment.start, segment.stop) == (0, len(shown) - 1)


def test_what_looks_back_looks_back_to_the_segment(scene: Scene, shown: np.ndarray) -> None:
    swept = term(scene, "swept_left(cube)")
    whole = begun(scene, shown[:, 2])
    np.testing.assert_allclose(whole, shown[-1, 2], atol=1e-6)  # its goal began with it
    late = begun(scene, shown[-2:, 2])
    assert truth(scene, whole[None], [swept])[0, 0] and not truth(scene, late[None], [swept])[0, 0]


def test_what_discovered_skills_are_said_to_do_is_not_said_of_play(scene: Scene, shown: np.ndarray) -> None:
    (segment,) = segments_of(scene, shown[:, 2], np.zeros(0, np.int64))
    assert truth(scene, shown[-1:, 2], [term(scene, "moved_left(cube)")])[0, 0]  # it holds: it was swept there
    said = segment.before | segment.after | set(segment.effect)
    assert not [t for t in (*said, *state_terms(scene)) if t.predicate.startswith("moved")]


def test_what_follows_from_another_effect_is_left_out(scene: Scene) -> None:
    def made(*texts: str) -> frozenset[Term]:
        return frozenset(term(scene, text) for text in texts)

    assert effects(scene, made(), made("swept(cube)", "swept_left(cube)")) == tuple(made("swept_left(cube)"))
    assert effects(scene, made(), made("lifted(cube)", "holding(cube)", "touching(cube)")) == tuple(
        made("lifted(cube)")
    )
    assert list(map(str, effects(scene, made("lit(green_lamp)"), made("toggled(green_lamp)")))) == [
        "not lit(green_lamp)"
    ]
    assert effects(scene, made("open(drawer)"), made("open(drawer)")) == ()


def test_clusters_are_lifted_counted_and_named(scene: Scene) -> None:
    def segment(k: int, before: str = "", after: str = "") -> Segment:
        sets = [frozenset(scene.vocabulary.parse(text)) if text else frozenset() for text in (before, after)]
        return Segment(k, 0, 50, sets[0], sets[1], effects(scene, sets[0], sets[1]))

    blocks = [b.name for b in scene.blocks][:2]
    found = [segment(k, "", f"lifted({blocks[k % 2]})") for k in range(5)]
    found += [segment(k, "lit(green_lamp)") for k in range(5, 8)]
    found += [segment(9, "", "open(drawer)"), segment(10)]
    lifted, off = candidates(scene, found, least=3)
    assert lifted.schema == "lifted(?a:block)" and lifted.count == 5
    assert lifted.goals == {f"lifted({blocks[0]})": 3, f"lifted({blocks[1]})": 2}
    assert lifted.name == scene.vocabulary.describe(f"lifted({blocks[0]})")
    assert (off.schema, off.name) == ("not lit(?l:lamp)", "turn off the green lamp")
    rows = {(c.literal, c.role): (c.trials, c.hits) for c in lifted.counts}
    assert rows["lifted(?a)", "effect"] == (5, 5)
    assert lifted.spans[0] == (0, 0, 50)


def test_play_gives_candidates_whose_goals_the_scene_can_say(scene: Scene) -> None:
    env = play_env(8, threads=1)
    pieces = ScenePlay(env, 11, max_episode=300).collect(8 * 300)
    env.close()
    segments = [
        s for k, piece in enumerate(pieces) for s in segments_of(scene, piece["facts"], label_cuts(piece["labels"]), k)
    ]
    assert sum(s.stop - s.start for s in segments) == sum(len(p["actions"]) for p in pieces)
    found = candidates(scene, segments, least=2)
    assert len(found) >= 3
    for candidate in found:
        for goal in candidate.goals:
            scene.vocabulary.parse(goal)
        assert scene.vocabulary.understand(candidate.name)
        assert all(0 <= c.hits <= c.trials for c in candidate.counts)
    assert set(state_terms(scene)) >= {t for s in segments for t in s.before}


def test_a_model_learns_from_play_and_cuts_it_the_same_every_time(scene: Scene) -> None:
    env = play_env(4, threads=1)
    pieces = ScenePlay(env, 12, max_episode=120).collect(4 * 120)
    env.close()
    facts = np.concatenate([p["facts"] for p in pieces])
    actions = np.concatenate([np.pad(p["actions"], ((0, 1), (0, 0))) for p in pieces])
    ends = np.cumsum([len(p["facts"]) for p in pieces])
    cuts = []
    for _ in range(2):
        learner = SegmentModel(scene, gradient_steps=40, hidden=(32,), batch=64)
        learner.fit(facts, actions, ends)
        cuts.append([learner.cuts(p["facts"], p["actions"]) for p in pieces])
    for one, other in zip(*cuts, strict=True):
        np.testing.assert_array_equal(one, other)
    assert learner.floor > 0


def test_intervals_of_perfect_and_of_mixed_counts() -> None:
    perfect = np.tile([3, 3, 3], (20, 1))
    assert segment_claims._interval(perfect, 0) == (1.0, 1.0)
    mixed = np.array([[3, 3, 3], [0, 3, 3]] * 20)
    low, high = segment_claims._interval(mixed, 0)
    assert 0.3 < low < 0.5 < high < 0.7
    gap = segment_claims._gap({"surprise": perfect.tolist(), "fixed": mixed[:20].tolist()}, "fixed", 0)
    assert 0.0 < gap[0] < 0.5 < gap[1]
