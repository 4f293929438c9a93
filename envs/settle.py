"""What a physics step amounts to, in one pass over the batch: facts, judging, rewards, features, ends of episodes."""

from __future__ import annotations

import numba as nb
import numpy as np

from envs.kinematics import tool_motion
from envs.observations import slot_features, slot_targets
from envs.playroom.resets import draw_places
from envs.playroom.scene import BLOCK_HALF
from envs.predicates import B_PEAK, BLOCK, BLOCK_STRIDE, distances
from envs.rewards import slot_terms
from envs.step import L_PEAK, slot_facts

__all__ = ["begin", "look", "settle"]


@nb.njit(cache=True, nogil=True)
def settle(low, high, physics, rules, clock, seen, ends, actions, broken):
    """Settles a control step of slots ``low`` … ``high`` - 1, which depend on no other.

    physics: qpos, qvel, latches, facts, lost, the chain's positions and rotations. rules: seed, episodes, hold, reward
    weights, whether success ends an episode, max_steps. clock: `GoalClock.arrays`. seen: distance, terms, costs,
    targets, mask, role, features. ends: reward, success, terminated, truncated, all filled. actions float64[n, A].
    Slots marked in ``broken`` bool[n] keep their facts, gain no success and are truncated.
    """
    qpos, qvel, latches, facts, lost, positions, rotations = physics
    seed, episodes, hold, weights, success_ends, max_steps = rules
    (
        count, codes, place, all_count, all_codes, all_place, first, stages, goal_of, stage, held, reached, elapsed,
    ) = clock  # fmt: skip
    distance, terms, costs, targets, mask, role, feature = seen
    reward, success, terminated, truncated = ends
    axes, origins = np.empty((7, 3)), np.empty((7, 3))
    rot, tmp, pose, spot = np.empty((3, 3)), np.empty((3, 3)), np.empty(7), np.empty(3)
    for i in range(low, high):
        x = facts[i]
        if not broken[i]:
            tool_motion(qpos[i], qvel[i], positions, rotations, axes, origins, rot, tmp, pose)
            lost[i] = slot_facts(qpos[i], qvel[i], latches[i], x, pose)
        elapsed[i] += 1
        distances(x, count[i], codes[i], place[i], distance[i])
        held[i] = held[i] + 1 if distance[i].min() > 0.0 else 0
        last = stage[i] == stages[goal_of[i]] - 1
        if held[i] >= hold and not last:  # on to the next stage
            stage[i] += 1
            held[i] = 0
            row = first[goal_of[i]] + stage[i]
            count[i] = all_count[row]
            codes[i] = all_codes[row]
            place[i] = all_place[row]
            one = slice(i, i + 1)
            draw_places(
                seed, np.array([i]), episodes[one] + 1000 * stage[i], facts[one], count[one], codes[one], place[one]
            )
            distances(x, count[i], codes[i], place[i], distance[i])
            last = stage[i] == stages[goal_of[i]] - 1
        slot_terms(x, actions[i], count[i], codes[i], place[i], distance[i], lost[i], spot, terms[i], costs[i])
        if held[i] >= hold and last and not broken[i]:
            reached[i] = True
        success[i] = reached[i]
        terminated[i] = not broken[i] and (lost[i] or (success_ends and reached[i]))
        truncated[i] = not terminated[i] and (broken[i] or elapsed[i] >= max_steps)
        reward[i] = 0.0
        for k in range(weights.shape[0]):
            reward[i] += weights[k] * terms[i, k]
        role[i] = slot_targets(x, count[i], codes[i], place[i], spot, targets[i], mask[i])
        slot_features(x, targets[i], mask[i], role[i], feature[i])


@nb.njit(cache=True, nogil=True)
def begin(slots, latches, facts, clock):
    """Starts the goals of ``slots`` int64[m] anew: stage, steps, hold count, and how high blocks have been."""
    stage, held, reached, elapsed = clock[-4:]
    for i in slots:
        stage[i] = 0
        held[i] = 0
        reached[i] = False
        elapsed[i] = 0
        for block in range(2):
            at = BLOCK + BLOCK_STRIDE * block
            latches[i, L_PEAK + block] = facts[i, at + 2] - BLOCK_HALF
            facts[i, at + B_PEAK] = latches[i, L_PEAK + block]


@nb.njit(cache=True, nogil=True)
def look(slots, facts, clock, seen):
    """Distances, targets and features of ``slots`` int64[m] after starts or goals changed, without moving any clock."""
    count, codes, place = clock[:3]
    distance, _, _, targets, mask, role, feature = seen
    spot = np.empty(3)
    for i in slots:
        distances(facts[i], count[i], codes[i], place[i], distance[i])
        role[i] = slot_targets(facts[i], count[i], codes[i], place[i], spot, targets[i], mask[i])
        slot_features(facts[i], targets[i], mask[i], role[i], feature[i])
