"""How the claim is measured that boundaries found by surprise are where play's behaviours change.

Everything is learnt and set without labels: the model from play of one seed, the cuts judged on play of another. The
settings of surprise and of gripper events were chosen once, the best of some tried on play of a seed that is not used
here. Random and fixed cuts are as many a step as surprise makes on the play it learnt from. Labels only judge.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from embodied.evaluation.claims import Context, Measurement

SLOTS, LENGTH = 384, 500  # episodes of play to learn from, and their steps
HELD_OUT = 64  # episodes that are judged
TOLERANCE = 5  # steps a boundary may be off
GRIPPER = {"change": 0.05, "least": 6}  # the best of twelve pairs on other play
BASELINES = ("fixed", "gripper", "random")
RESAMPLES = 2_000


def segments(context: Context) -> Measurement:
    """play.f: boundary F1 (5 steps either way) of cuts by surprise on held-out play, and of three baselines.

    The figure is what surprise is ahead of the best baseline, with a paired bootstrap's interval over all seeds'
    episodes. Besides, its own interval must lie above each baseline's; a quick measurement is too small to tell.
    """
    from embodied.data import segmentation as s

    slots, held_out, model = (96, 24, {"gradient_steps": 600}) if context.quick else (SLOTS, HELD_OUT, {})
    seeds = context.seeds_or(1 if context.quick else 3)
    counts: dict[str, list[tuple[int, int, int]]] = {name: [] for name in ("surprise", *BASELINES, "often")}
    by_seed, table = {}, []
    for seed in seeds:
        found, learnt = _judged(100 + seed, slots, held_out, model)
        for name, rows in found.items():
            counts[name] += rows
        by_seed[str(seed)] = {name: s.pooled_f1(np.array(rows)) for name, rows in found.items()} | learnt
        table.append(by_seed[str(seed)])
        context.say(f"seed {seed}: " + ", ".join(f"{name} {table[-1][name]:.3f}" for name in found))
    f1 = {name: s.pooled_f1(np.array(rows)) for name, rows in counts.items()}
    intervals = {name: _interval(np.array(rows), context.seed) for name, rows in counts.items()}
    low = intervals["surprise"][0]
    apart = {f"above {name}, intervals apart": low > intervals[name][1] for name in BASELINES}
    matched, cut, true = np.array(counts["surprise"]).sum(axis=0)
    details = {
        "f1": f1, "intervals": intervals, "seeds": by_seed, "precision": float(matched / max(1, cut)),
        "recall": float(matched / max(1, true)), "tolerance": TOLERANCE,
        "often": "fixed length with a cut every 11 steps, which no boundary escapes",
        "labels": "boundaries are where behaviour or thing changes; the same drawn again does not show",
    }  # fmt: skip
    best = max(BASELINES, key=lambda name: f1[name])
    details |= {"best_baseline": best, "apart": apart}
    gap, episodes = _gap(counts, best, context.seed), len(counts["surprise"])
    conditions = {} if context.quick else apart
    return Measurement(f1["surprise"] - f1[best], gap, seeds, episodes, conditions, details)


def _judged(
    seed: int, slots: int, held_out: int, model: dict[str, Any]
) -> tuple[dict[str, list[tuple[int, int, int]]], dict[str, float]]:
    """Boundary counts of each method's cuts, an episode a row; and how often surprise cuts."""
    from embodied.data import segmentation as s
    from embodied.training.segments import SegmentModel
    from envs.scenes.scene import load

    learner = SegmentModel(load("playroom"), seed=seed, **model)
    pieces = _play(2 * seed, slots)
    facts = np.concatenate([p["facts"] for p in pieces])
    actions = np.concatenate([np.pad(p["actions"], ((0, 1), (0, 0))) for p in pieces])
    loss = learner.fit(facts, actions, np.cumsum([len(p["facts"]) for p in pieces]))
    some = pieces[:64]
    rate = sum(len(learner.cuts(p["facts"], p["actions"])) for p in some) / sum(len(p["actions"]) for p in some)
    rng = np.random.default_rng(seed)
    rows: dict[str, list[tuple[int, int, int]]] = {name: [] for name in ("surprise", *BASELINES, "often")}
    for piece in _play(2 * seed + 1, held_out):
        steps, true = len(piece["actions"]), s.label_cuts(piece["labels"])
        cuts = {
            "surprise": learner.cuts(piece["facts"], piece["actions"]),
            "fixed": s.fixed_cuts(steps, 1.0 / max(rate, 1e-3)),
            "gripper": s.gripper_cuts(piece["actions"][:, 4], **GRIPPER),
            "random": s.random_cuts(steps, rate, rng),
            "often": s.fixed_cuts(steps, 2 * TOLERANCE + 1),
        }
        for name, found in cuts.items():
            rows[name].append(s.boundary_counts(found, true, TOLERANCE))
    return rows, {"loss": loss, "steps_a_cut": 1.0 / max(rate, 1e-3)}


def _play(seed: int, slots: int) -> list[dict[str, Any]]:
    """Play of ``slots`` episodes of `LENGTH` steps; a few are shorter where a block was lost."""
    from envs.scenes.play import ScenePlay, play_env

    env = play_env(slots)
    pieces = ScenePlay(env, seed, max_episode=LENGTH).collect(slots * LENGTH)
    env.close()
    return pieces


def _draws(episodes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(episodes, size=(RESAMPLES, episodes))


def _resampled(counts: np.ndarray, seed: int) -> np.ndarray:
    """F1 float64[RESAMPLES] of as many episodes drawn with repetition."""
    sums = counts[_draws(len(counts), seed)].sum(axis=1)
    return 2.0 * sums[:, 0] / np.maximum(1, sums[:, 1] + sums[:, 2])


def _interval(counts: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % bootstrap interval over episodes, of `boundary_counts` int[episodes, 3]."""
    low, high = np.quantile(_resampled(counts, seed), (0.025, 0.975))
    return float(low), float(high)


def _gap(counts: dict[str, list[tuple[int, int, int]]], best: str, seed: int) -> tuple[float, float]:
    """The same of the difference between surprise and a baseline on the same episodes."""
    gap = _resampled(np.array(counts["surprise"]), seed) - _resampled(np.array(counts[best]), seed)
    low, high = np.quantile(gap, (0.025, 0.975))
    return float(low), float(high)
