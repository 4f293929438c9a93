"""The arm's kinematics against the simulator's own, and the inverse over the whole workspace."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from envs.kinematics import Chain, forward_kinematics, solve
from envs.playroom.robot import HOME, JOINT_HIGH, JOINT_LOW
from envs.playroom.scene import build_model
from envs.step import WORKSPACE_HIGH, WORKSPACE_LOW, YAW_LIMIT


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return build_model()


@pytest.fixture(scope="module")
def chain(model) -> Chain:
    return Chain.from_model(model, HOME)


def inverse(chain: Chain, target: np.ndarray, yaw: np.ndarray, iterations: int = 25) -> np.ndarray:
    q = np.tile(chain.home, (len(target), 1))
    solve(
        q, target, yaw, chain.positions, chain.rotations, chain.low, chain.high, chain.home, iterations,
    )  # fmt: skip
    return q


def tools(chain: Chain, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return forward_kinematics(q, chain.positions, chain.rotations)


def test_forward_kinematics_is_the_simulators(model, chain):
    data = mujoco.MjData(model)
    joints = np.random.default_rng(0).uniform(JOINT_LOW, JOINT_HIGH, (50, 7))
    positions, rotations = tools(chain, joints)
    for q, position, rotation in zip(joints, positions, rotations, strict=True):
        data.qpos[:7] = q
        mujoco.mj_kinematics(model, data)
        site = data.site("tool")
        np.testing.assert_allclose(position, site.xpos, atol=1e-9)
        np.testing.assert_allclose(rotation, site.xmat.reshape(3, 3), atol=1e-9)


def test_joint_ranges_are_the_models(chain):
    np.testing.assert_allclose(chain.low, JOINT_LOW)
    np.testing.assert_allclose(chain.high, JOINT_HIGH)


def test_the_inverse_reaches_the_whole_workspace_to_a_millimetre(chain):
    axes = [np.linspace(low, high, 6) for low, high in zip(WORKSPACE_LOW, WORKSPACE_HIGH, strict=True)]
    grid = np.stack(np.meshgrid(*axes, np.linspace(-YAW_LIMIT, YAW_LIMIT, 5), indexing="ij"), axis=-1).reshape(-1, 4)
    target, yaw = np.ascontiguousarray(grid[:, :3]), np.ascontiguousarray(grid[:, 3])
    q = inverse(chain, target, yaw)
    positions, rotations = tools(chain, q)
    error = np.linalg.norm(positions - target, axis=1)
    reach = np.hypot(target[:, 0], target[:, 1]) < 0.79  # all but the far right edge, where the arm is stretched out
    assert reach.mean() > 0.97
    assert error[reach].max() < 1e-3
    assert error.max() < 0.02
    down = np.zeros((len(yaw), 3, 3))
    down[:, 0, 0], down[:, 0, 1], down[:, 1, 0], down[:, 1, 1] = np.cos(yaw), np.sin(yaw), np.sin(yaw), -np.cos(yaw)
    down[:, 2, 2] = -1.0
    assert np.abs(rotations - down)[reach].max() < 0.01  # points down, turned by yaw
    assert (q >= JOINT_LOW).all()
    assert (q <= JOINT_HIGH).all()


def test_what_cannot_be_reached_stays_finite_and_within_the_joints(chain):
    target = np.array([[3.0, 0.0, 0.2], [-1.0, 2.0, 5.0], [0.0, 0.0, 0.0]])
    q = inverse(chain, target, np.array([9.0, -9.0, 0.0]), iterations=200)
    assert np.isfinite(q).all()
    assert (q >= JOINT_LOW).all()
    assert (q <= JOINT_HIGH).all()


def test_a_row_is_solved_without_its_neighbours(chain):
    target = np.random.default_rng(1).uniform(WORKSPACE_LOW, WORKSPACE_HIGH, (8, 3))
    together = inverse(chain, target, np.zeros(8))
    for k in range(8):
        np.testing.assert_array_equal(inverse(chain, target[k : k + 1], np.zeros(1))[0], together[k])
