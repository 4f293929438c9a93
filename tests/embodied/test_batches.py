"""Goals for values, on rows that say their own number."""

import numpy as np

from embodied.data.batches import Batches, Concatenated, Recorded
from policies.offline import BatchSpec


def test_a_moment_is_its_own_goal_in_one_draw_of_five_and_only_there_is_no_cost():
    rows = np.arange(60, dtype=np.float32)[:, None] / 10
    ends = np.array([20, 40, 60])
    data = Recorded(rows, np.zeros((60, 1), np.float32), ends, Concatenated(np.zeros(1), np.ones(1)))
    batch = Batches(data, BatchSpec(values=True, discount=0.9), 4000, 0, horizon=90).batch(0)
    now, goal = np.rint(10 * batch["value_features"].T).astype(int)
    later, same = np.rint(10 * batch["next_features"].T).astype(int)
    np.testing.assert_array_equal(later, now + 1)
    np.testing.assert_array_equal(same, goal)
    np.testing.assert_array_equal(batch["rewards"], np.where(now == goal, 0, -1))
    np.testing.assert_array_equal(batch["masks"], now != goal)
    assert abs((now == goal).mean() - 0.2 - 0.3 / 60) < 0.03
    future = (goal > now) & (goal < ends[np.searchsorted(ends, now, side="right")])
    assert abs((goal == now + 1)[future].mean()) > 0.06 and 0.45 < future.mean() < 0.62
    elsewhere = now // 20 != goal // 20
    assert abs(elsewhere.mean() - 0.3 * 2 / 3) < 0.03
