"""Groups of plans for the same task, and what they teach: advantages relative to the group, as in GRPO."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from embodied.language.task_plans import Answers

__all__ = ["Segment", "group_advantage"]


@dataclass(frozen=True)
class Segment:
    """Rollouts as tensors: those prompts alone whose plans have something to teach."""

    prompts: torch.Tensor
    tokens: torch.Tensor
    masks: torch.Tensor
    before: torch.Tensor
    advantage: torch.Tensor

    @classmethod
    def of(cls, found: Answers, advantage: np.ndarray) -> Segment | None:
        """From answers and their advantages float[n]; None where there is nothing to teach."""
        copies = len(advantage) // len(found.prompts)
        keep = np.flatnonzero((np.abs(advantage) > 1e-6).reshape(-1, copies).any(1))
        if not len(keep):
            return None
        rows = (keep[:, None] * copies + np.arange(copies)).ravel()
        s = found.sampled
        arrays = (s.tokens[rows], s.masks[rows], s.log_probabilities[rows], advantage[rows, None].astype(np.float32))
        return cls(torch.from_numpy(found.prompts[keep]), *map(torch.from_numpy, arrays))


def group_advantage(reward: np.ndarray, group: int) -> np.ndarray:
    """float[n]: the group's normalised rewards; 0 where all of a group are equal."""
    rows = reward.reshape(-1, group)
    return ((rows - rows.mean(1, keepdims=True)) / (rows.std(1, keepdims=True) + 0.1)).ravel()
