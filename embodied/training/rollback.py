r"""Going back on updates that did harm (PIPO, arXiv 2604.00860).

Practice measures itself: every rollout says how many of its episodes succeeded. Windows of ``WINDOW`` rollouts are
compared with an anchor, the best window so far, by the test of two proportions

.. math:: z = \frac{\hat p - \hat p_a}{\sqrt{\bar p (1-\bar p)(1/n + 1/n_a)}}, \qquad \text{back where } z < -2.58.

A window that is at least as good becomes the anchor. What is gone back to are the parameters and the optimisers' state
of the moment at which the anchor's window *began*: it proved what acted in it, while an update at its end has proved
nothing yet. Episodes that began before that are over only some rollouts later, so as many are not counted. The
streams of random numbers go on: the same exploration again would end the same.

The paper lets the measured change weigh the gradient of the update before; here the update is undone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from policies.multi_critic_ppo import MultiCriticPPO

__all__ = ["Rollback", "worse"]

WINDOW = 8  # rollouts
LEVEL = 2.58  # standard deviations: one window in 200 that is no worse is taken for one
KEPT = ("learning_rate", "actor_optimizer", "critic_optimizer")  # what of the training's arrays goes back


def worse(successes: int, n: int, anchor: tuple[int, int]) -> bool:
    """Whether a success rate lies significantly below that of an anchor (successes, n)."""
    before, count = anchor
    if not (n and count):
        return False
    pooled = (successes + before) / (n + count)
    deviation = math.sqrt(pooled * (1.0 - pooled) * (1.0 / n + 1.0 / count))
    return successes / n - before / count < -LEVEL * deviation


class Rollback:
    """Watches a policy's practice, with the ``average`` of its actor's weights; `observe` may take both back.

    ``delay``: rollouts after which no episode is left that began before.
    """

    def __init__(self, policy: MultiCriticPPO, average: dict[str, Any], delay: int) -> None:
        self.policy, self.average, self.delay = policy, average, delay
        self.times = 0  # that it went back
        self._anchor: tuple[int, int] = (0, 0)
        self._safe = self._begun = self._snapshot()
        self._skip = self._rollouts = self._successes = self._n = 0

    def observe(self, metrics: dict[str, float]) -> bool:
        """Takes note of a rollout, by `policies.practice.train_ppo`'s metrics; True where it went back."""
        if self._skip:
            self._skip -= 1
            return False
        episodes = int(metrics["episodes"])
        self._rollouts += 1
        self._n += episodes
        self._successes += round(metrics.get("success", 0.0) * episodes)
        if self._rollouts < WINDOW:
            return False
        window = self._successes, self._n
        harmful = worse(*window, self._anchor)
        if harmful:
            self._restore()
            self.times, self._skip = self.times + 1, self.delay
        elif window[0] * self._anchor[1] >= self._anchor[0] * window[1]:
            self._anchor, self._safe = window, self._begun
        self._begun = self._snapshot()
        self._rollouts = self._successes = self._n = 0
        return harmful

    def _snapshot(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        average = {name: weight.clone() for name, weight in self.average.items()}
        training = {k: v for k, v in self.policy.training_arrays().items() if k.startswith(KEPT)}
        return self.policy.arrays(), training, average

    def _restore(self) -> None:
        arrays, training, average = self._safe
        self.policy.load_arrays(arrays)
        now = {k: v for k, v in self.policy.training_arrays().items() if not k.startswith(KEPT)}
        self.policy.load_training_arrays(now | training)
        for name, weight in average.items():
            self.average[name].copy_(weight)
