"""How far a policy gets by being told: the questions of `goal_exam`, put in English, and no goal to be seen.

Starts and judges are the goal exam's. What a policy is given is a sentence: one that labels said too, or one held out
(`embodied.data.labels.phrasings`), or, as a control, the sentence of another task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from embodied.data.batches import Encoder
from embodied.data.labels import Phrasing
from embodied.evaluation.goal_exam import Act, Exam
from policies.multi_context import MultiContext
from policies.text import TextEncoder

__all__ = ["WAYS", "instructions", "told"]

WAYS = ("heard", "held out", "another task's")


def instructions(exam: Exam, sentences: Mapping[str, Phrasing], way: str, seed: int = 0) -> list[str]:
    """One sentence for each question, drawn with ``seed`` where there are several. ValueError for another way."""
    if way not in WAYS:
        raise ValueError(f"unknown way '{way}' of putting a question; valid: {', '.join(WAYS)}")
    draws = np.random.default_rng([exam.seed, seed, 5])
    found = []
    for which, u in zip(exam.which.tolist(), draws.random((len(exam), 2)), strict=True):
        if way == "another task's":
            which = (which + 1 + int(u[1] * (len(exam.tasks) - 1))) % len(exam.tasks)
        phrasing = sentences[exam.tasks[which]]
        found.append(phrasing.held_out if way == "held out" else phrasing.said[int(u[0] * len(phrasing.said))])
    return found


def told(
    policy: MultiContext, encoder: Encoder, texts: Sequence[str], words: TextEncoder, deterministic: bool = False
) -> Act:
    """The policy, told ``texts[i]`` in slot i, as what an exam is put to; it never sees the goal."""
    state = policy.instruct(words.encode(texts))

    def act(facts: np.ndarray, goals: np.ndarray) -> np.ndarray:
        nonlocal state
        features = np.zeros((len(facts), encoder.feature_size), np.float32)
        features[:, : encoder.state_size] = encoder.states(facts)
        actions, state = policy.predict(features, state, None, deterministic)
        return actions

    return act
