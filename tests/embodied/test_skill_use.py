"""Frozen skills used: options, a model of their effects, plans over codes, and learning over codes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from embodied.errors import UsageError
from embodied.evaluation import slim_use_claims
from embodied.evaluation.claims import Context
from embodied.planning.code_planning import MODES, Planner, PlannerConfig, reach
from embodied.planning.skill_effects import collect, effect_state, errors
from embodied.training import hierarchy
from embodied.training.hierarchy import SkillVectorEnv, hold, learn_over, measure, unit
from policies.effect_model import EffectModel, EffectModelConfig

STEP = 0.012  # m that the stub's block moves in a control step


class Table:
    """A block that goes where the first two numbers of an action point, and falls off beyond 0.3 m from the middle."""

    skill_features = 4

    def __init__(self, num_envs=16, max_steps=80, mode="Disabled"):
        self.num_envs, self.max_steps, self.metadata = num_envs, max_steps, {"autoreset_mode": mode}
        self.single_observation_space = spaces.Box(-5.0, 5.0, (6,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.terms, self.facts = np.zeros((num_envs, 3)), np.zeros((num_envs, 36))
        self.place, self.goal = np.zeros((num_envs, 2)), np.zeros((num_envs, 3))
        self.elapsed = np.zeros(num_envs, int)
        self.begun = np.zeros(num_envs, int)

    @property
    def objects(self):
        return np.concatenate([self.place, np.zeros((self.num_envs, 1))], axis=1)[:, None]

    def observation(self):
        both = [self.place, self.place - self.goal[:, :2], 10 * (self.goal[:, :2] - self.place)]
        return np.concatenate(both, axis=1, dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.draws = np.random.default_rng(seed)
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        n = int(mask.sum())
        self.place[mask] = self.draws.uniform(-0.1, 0.1, (n, 2))
        self.goal[mask, :2] = self.place[mask] + 0.15 * unit(self.draws.normal(size=(n, 2)))
        self.facts[mask, :2] = self.place[mask]
        self.elapsed[mask] = 0
        self.begun[mask] += 1
        return self.observation(), {}

    def step(self, actions):
        before = np.linalg.norm(self.place - self.goal[:, :2], axis=1)
        self.place += STEP * actions[:, :2]
        self.facts[:, :2] = self.place
        self.elapsed += 1
        away = np.linalg.norm(self.place - self.goal[:, :2], axis=1)
        success, lost = away < 0.04, np.linalg.norm(self.place, axis=1) > 0.3
        terms = np.stack([(before - away) / STEP + 5.0 * success, np.zeros(self.num_envs)], axis=1)
        info = {"reward_terms": terms, "objects": self.objects, "success": success, "lost": lost}
        return self.observation(), terms.sum(axis=1), lost | success, self.elapsed >= self.max_steps, info

    def close(self):
        pass


def act(observation, codes):
    return np.concatenate([codes, np.zeros((len(codes), 3))], axis=1)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    data = collect(Quiet(), act, 2, 2000, steps=5, seed=0, features=4)
    found = EffectModel(EffectModelConfig(option=5, hidden=(64, 64), gradient_steps=600))
    assert found.fit(data) < 0.3
    return found


class Quiet(Table):
    """Without goals: only falling and time end an episode."""

    def step(self, actions):
        seen, reward, _, truncated, info = super().step(actions)
        return seen, reward, info["lost"], truncated & ~info["lost"], info


def test_an_option_stands_still_after_its_episodes_end_and_where_it_stops():
    env = Table(3)
    observation, _ = env.reset(seed=0)
    env.place[:] = [[0.29, 0.0], [0.0, 0.0], [0.0, 0.0]]
    env.goal[:, :2] = 0.0, 0.2
    codes = np.array([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]], np.float32)
    found = hold(env, act, codes, 5, observation, 4)
    np.testing.assert_allclose(env.place[:, 0], [0.29 + STEP, 0.0, -5 * STEP], rtol=1e-6)
    assert found.lost.tolist() == found.terminated.tolist() == [True, False, False]
    assert found.done.tolist() == [True, False, False]
    np.testing.assert_allclose(found.objects[:, 0, 0], env.place[:, 0])
    assert found.reward[1] == 0.0 and found.reward.shape == (3,) and found.terms.shape == (3, 2)


def test_options_are_an_environment_that_begins_ended_slots_anew():
    env = SkillVectorEnv(Table(2), act, 2, steps=5)
    env.reset(seed=0)
    env.env.place[:] = [[0.29, 0.0], [0.0, 0.0]]
    env.env.goal[:, :2] = 0.0, 0.2
    seen, reward, terminated, truncated, info = env.step(np.array([[3.0, 0.0, 0.0], [3.0, 0.0, 0.9]]))
    assert terminated.tolist() == [True, False] and not truncated.any() and env.env.begun.tolist() == [2, 1]
    assert info["final_obs"][0, 0] > 0.3 and np.abs(seen[0, :2]).max() < 0.1
    np.testing.assert_array_equal(seen[0], env.env.observation()[0])
    assert reward[1] == 0.0 and env.max_steps == 16
    np.testing.assert_allclose(env.codes(np.array([[3.0, 4.0, 0.0]])), [[0.6, 0.8]], rtol=1e-6)
    for broken, words in ((Table(2, mode="SameStep"), "Disabled"), (Table(2, max_steps=81), "whole number")):
        with pytest.raises(UsageError, match=words):
            SkillVectorEnv(broken, act, 2)
    with pytest.raises(ValueError, match=r"\(2, 3\) is needed"):
        env.step(np.zeros((2, 5)))


def test_states_tell_of_the_nearest_block():
    objects = np.array([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]])
    state = effect_state(objects, 2 * objects, np.array([[0.9, 0.0, 0.1]]), np.array([1.0]))
    np.testing.assert_allclose(state, [[0, 0, 0, 1, 0, 0, -0.1, 0, 0.1, 2, 0, 0, 1]], atol=1e-12)


def test_effects_are_learnt_and_kept(model: EffectModel, tmp_path):
    data = collect(Quiet(), act, 2, 400, steps=5, seed=7, features=4)
    assert data["fell"].any() and (~data["fell"]).any() and len(data["fell"]) >= 400
    found = errors(model, data)
    assert found["position"] < 0.15 * found["unmoved"] and found["fell"] > 0.85
    model.save(tmp_path / "effects")
    again = EffectModel.load(tmp_path / "effects")
    states, codes = (torch.from_numpy(np.asarray(data[k], np.float32)) for k in ("states", "codes"))
    for one, other in zip(model.predict(states, codes), again.predict(states, codes), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="must be rows of 10 and 2 numbers"):
        model.fit({key: value[:, :3] if value.ndim == 2 else value for key, value in data.items()})


def test_plans_reach_goals_that_chance_does_not(model: EffectModel):
    share = {mode: reach(Table(48), act, mode, model, seed=5).summary() for mode in MODES}
    assert share["cem"]["success"] > 0.9 and share["random"]["success"] > 0.9 and share["straight"]["success"] > 0.9
    assert share["chance"]["success"] < 0.5
    assert reach(Table(48), act, "cem", model, seed=5).summary() == share["cem"]
    planner = Planner(model, PlannerConfig(near=0.03))
    state = np.zeros((1, 10))
    codes, cost = planner.codes(state, np.array([[0.02, 0.0, 0.0]]))
    assert not codes.any() and cost[0] < 0.05
    codes, _ = planner.codes(state, np.array([[0.15, 0.0, 0.0]]))
    assert codes[0, 0] > 0.8 and np.isclose(np.linalg.norm(codes), 1.0, atol=1e-5)
    with pytest.raises(UsageError, match=r"unknown mode 'best'; valid: cem, random, straight, once, chance"):
        reach(Table(2), act, "best", model)
    with pytest.raises(UsageError, match="unknown planning method 'ilqr'"):
        PlannerConfig(method="ilqr")


def test_codes_are_learnt_over_skills(monkeypatch):
    skills = SimpleNamespace(
        discovery=SimpleNamespace(config=SimpleNamespace(discrete=False, method="position", code=2))
    )
    monkeypatch.setattr(
        hierarchy, "over_skills", lambda skills, slots, task, steps, threads: SkillVectorEnv(Table(slots), act, 2)
    )
    before = measure(SkillVectorEnv(Table(32), act, 2), lambda seen: np.zeros((32, 3)), 9)
    policy = learn_over(skills, "place", 8_000, num_envs=16)  # type: ignore[arg-type]
    after = measure(SkillVectorEnv(Table(32), act, 2), lambda seen: policy.predict(seen, deterministic=True)[0], 9)
    assert before.mean() < 0.1 and after.mean() > 0.6
    skills.discovery.config.discrete = True
    monkeypatch.undo()
    with pytest.raises(UsageError, match="are discrete"):
        learn_over(skills, "place", 8_000)  # type: ignore[arg-type]


def test_the_claim_compares_with_the_best_flat_arm_and_keeps_rows(tmp_path, monkeypatch):
    success = {"PPO over skills": 0.8, "PPO": 0.25, "SAC+HER of stable-baselines3": 0.5, "skills, planned": 0.4}
    calls: list[str] = []

    def run(context, task, arm, seed, budget):
        calls.append(arm)
        return {"success": success[arm], "n": 16, "curve": [[1, 0.0], [2, success[arm]]]}

    monkeypatch.setattr(slim_use_claims, "_run", run)
    context = Context(quick=True, results=tmp_path, out=tmp_path, seeds=2, say=lambda text: None)
    found = slim_use_claims.hierarchy(context)
    assert found.figure == pytest.approx(0.3) and found.interval == pytest.approx((0.3, 0.3))
    assert found.details["best flat arm"] == "SAC+HER of stable-baselines3" and found.n == 2
    assert all(found.conditions.values()) and len(calls) == 8
    assert slim_use_claims.hierarchy(context) == found and len(calls) == 8
    monkeypatch.setattr(slim_use_claims, "BUDGET", -1.0)
    monkeypatch.setattr(slim_use_claims, "TEST_SEED", 1)
    late = slim_use_claims.hierarchy(context)
    assert np.isnan(late.figure) and len(late.details["missing"]) == 8 and len(late.details["left out"]) == 8
