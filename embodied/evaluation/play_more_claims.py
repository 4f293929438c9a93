"""More claims about learning from play: disturbances (play.b), few steps and latency (play.e), data (play.g).
Policies are those of `embodied.evaluation.arms`, trained where they are not there yet.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from embodied.data.batches import Batches, Recorded
from embodied.evaluation.arms import (
    ARMS,
    BEST,
    SCENE,
    TEST_SEED,
    Arm,
    Table,
    about_of,
    exam_of,
    keep,
    kept,
    matching,
    play_data,
    table_path,
    trained,
)
from embodied.evaluation.claims import Context, Measurement
from embodied.evaluation.goal_exam import AFTER, STEPS, Act, Exam, acting, set_exam, sit_exam
from embodied.skills.statistics import bootstrap_interval
from embodied.training.offline import make_learner
from envs.scenes.experts import ScriptedExpert
from envs.scenes.goal_states import GoalStates
from envs.scenes.playroom import PlayroomVectorEnv
from envs.scenes.scene import load

__all__ = [
    "EXPERTS", "cloned_experts", "data_speed", "demonstrations", "disturbed", "expert_rows", "few_steps",
]  # fmt: skip

EXPERTS = "18 experts"  # the row of them all
LATENCIES = ("flow", "gcbc", "beso", "latent plans")


# ---- play.b


def demonstrations(task: str, steps: int, seed: int) -> Recorded:
    """So many steps of the scripted expert's successful episodes of a task, each ending as an exam's goal does."""
    slots = 64
    env = PlayroomVectorEnv(
        slots, [task], SCENE, max_steps=1 << 40, terminate_on_success=False, autoreset_mode="Disabled", sleep=False
    )
    env.reset(seed=seed)
    expert = ScriptedExpert(env)
    facts: list[np.ndarray] = []
    actions: list[np.ndarray] = []
    ends: list[int] = []
    running: list[tuple[list[np.ndarray], list[np.ndarray]]] = [([], []) for _ in range(slots)]
    after = np.zeros(slots, np.int64)
    total = 0
    while total < steps:
        act = expert.act()
        for i in range(slots):
            running[i][0].append(env.facts[i].astype(np.float32))
            running[i][1].append(act[i].astype(np.float32))
        info = env.step(act)[4]
        after = np.where(info["success"], after + 1, 0)
        over = (after > AFTER) | env.lost | info["bad_physics"] | np.array([len(r[0]) >= STEPS for r in running])
        for i in np.flatnonzero(over):
            if after[i] > AFTER:
                facts += [*running[i][0], env.facts[i].astype(np.float32)]
                actions += [*running[i][1], np.zeros(act.shape[1], np.float32)]
                ends.append(len(facts))
                total += len(running[i][0])
            running[i] = ([], [])
        if over.any():
            env.reset(options={"reset_mask": over})
            after[over] = 0
    env.close()
    about: dict[str, object] = {"demonstrations": task, "steps": steps, "seed": seed, "scene": SCENE}
    return Recorded(np.stack(facts), np.stack(actions), np.array(ends), GoalStates(load(SCENE)), about=about)


def cloned_experts(context: Context, exam: Exam, seed: int) -> Callable[[], Act]:
    """18 separately trained clones, one a task, on as many steps together as the play has; each sits its own task.

    What is returned makes one that acts, without any memory of an earlier exam.
    """
    arm, steps = _clone(context, len(exam.tasks))
    clones = []
    for task in exam.tasks:
        data = demonstrations(task, steps, seed + 5)
        clones.append((trained(context, f"expert of {task}", arm, seed, data).policy, data.encoder))
        context.say(f"clone of the expert of {task}")

    def begin() -> Act:
        acts = [acting(policy, encoder) for policy, encoder in clones]

        def act(facts: np.ndarray, goals: np.ndarray) -> np.ndarray:
            found = np.zeros((len(facts), 5), np.float32)
            for k, one in enumerate(acts):
                rows = np.flatnonzero(exam.which == k)
                found[rows] = one(facts[rows], goals[rows])
            return found

        return act

    return begin


def _clone(context: Context, tasks: int) -> tuple[Arm, int]:
    """How an expert is cloned, and the steps of demonstrations each clone learns from."""
    updates, steps = (600, 2_000) if context.quick else (2_000, 1_008_000 // tasks)
    return replace(ARMS["flow"], updates=updates), steps


def expert_rows(context: Context) -> Table:
    """The clones' answers where nothing disturbed them, by seed, of what play.b has measured with present settings."""
    table = matching(kept(table_path(context, "play.b.arms.json")), {EXPERTS: _expert_about(context)})[0]
    return {who: {seed: row["none"] for seed, row in rows.items()} for who, rows in table.items()}


def _expert_about(context: Context) -> dict[str, Any]:
    clone, steps = _clone(context, len(load(SCENE).tasks))
    return about_of(context, clone, demonstrations=steps)


def disturbed(context: Context) -> Measurement:
    """play.b: how much less the play policy loses to a push or a moved block than the cloned experts do, in success."""
    seeds = context.seeds_or(1 if context.quick else 3)
    path = table_path(context, "play.b.arms.json")
    table = kept(path)
    exam = exam_of(context)
    abouts = {"play": about_of(context, ARMS[BEST]), EXPERTS: _expert_about(context)}
    for seed in seeds:
        for who, about in abouts.items():
            if table.get(who, {}).get(str(seed), {}).get("about") == about:
                continue
            begin = cloned_experts(context, exam, seed) if who == EXPERTS else _play_policy(context, seed)
            found = {
                kind or "none": sit_exam(begin(), exam, disturb=kind, seed=seed).summary()
                for kind in (None, "push", "move")
            }
            table.setdefault(who, {})[str(seed)] = {"about": about} | found
            keep(path, table, quick=context.quick)
            context.say(f"{who}, seed {seed}: " + ", ".join(f"{k} {v['rate']:.3f}" for k, v in found.items()))
    table, left_out = matching(table, abouts)

    def losses(who: str) -> np.ndarray:
        rows = [table[who][str(seed)] for seed in seeds]
        return np.array([row["none"]["rate"] - (row["push"]["rate"] + row["move"]["rate"]) / 2 for row in rows])

    gaps = losses(EXPERTS) - losses("play")
    interval = bootstrap_interval(gaps, np.mean) if len(seeds) > 1 else None
    conditions = {"the interval lies above 0": interval is not None and interval[0] > 0}
    details = {"arms": table, "left out": left_out, "loss": {who: losses(who).tolist() for who in abouts}}
    return Measurement(float(gaps.mean()), interval, seeds, len(exam) * len(seeds), conditions, details)


def _play_policy(context: Context, seed: int) -> Callable[[], Act]:
    data = play_data(context)
    policy = trained(context, BEST, ARMS[BEST], seed, data).policy
    return lambda: acting(policy, data.encoder)


# ---- play.e


def few_steps(context: Context) -> Measurement:
    """play.e: BESO's success with 50 sampling steps less that with 3, on the same starts; each policy's latency."""
    from policies.beso import BESO

    seeds = context.seeds_or(1)
    data = play_data(context)
    each = 3 if context.quick else 56
    exam = set_exam(list(load(SCENE).tasks), each, TEST_SEED, scene=SCENE)
    found = {}
    for steps in (3, 50):
        policy = trained(context, "beso", ARMS["beso"], seeds[0], data).policy
        assert isinstance(policy, BESO)
        policy.sampling_steps = steps
        found[steps] = sit_exam(acting(policy, data.encoder), exam)
        context.say(f"BESO at {steps} steps: {found[steps].rate:.3f}")
    gap = found[50].success.astype(float) - found[3].success.astype(float)
    spread = 1.96 * float(gap.std()) / np.sqrt(len(gap))
    latencies = {}
    for name in LATENCIES:
        arm = ARMS[name]
        policy = make_learner(arm.policy, data, gradient_steps=1, **arm.config)
        latencies[name] = latency(policy, data)
    details = {"rates": {str(k): v.summary() for k, v in found.items()}, "latency": latencies}
    conditions = {"at least 1,000 paired episodes": len(exam) >= 1_000}
    return Measurement(
        float(gap.mean()), (gap.mean() - spread, gap.mean() + spread), seeds, len(exam), conditions, details
    )


def latency(policy: Any, data: Recorded, calls: int = 300) -> dict[str, float]:
    """Milliseconds of a call that draws a chunk at n = 1 (median, 99th percentile), and steps/s at n = 64 as acted."""
    one = data.encoder.features(data.observations[:1], data.observations[50:51])
    many = data.encoder.features(data.observations[:64], data.observations[50:114])
    times = []
    for _ in range(calls):
        begin = time.perf_counter()
        policy.predict(one)
        times.append(1e3 * (time.perf_counter() - begin))
    _, state = policy.predict(many)
    begin = time.perf_counter()
    for _ in range(calls):
        _, state = policy.predict(many, state)
    rate = 64 * calls / (time.perf_counter() - begin)
    return {"median_ms": float(np.median(times)), "p99_ms": float(np.quantile(times, 0.99)), "steps_per_second": rate}


# ---- play.g


def data_speed(context: Context) -> Measurement:
    """play.g: windows/s of our sampling over that of a plain PyTorch ``DataLoader`` on the same data."""
    data = play_data(context)
    repeats = 3 if context.quick else 5
    arm = ARMS["flow"]
    policy = make_learner(arm.policy, data, gradient_steps=100, **arm.config)
    batches = Batches(data, policy.spec, 512, 0, horizon=arm.horizon)
    loader = DataLoader(_Plain(data, policy.spec.chunk, arm.horizon), 512, shuffle=False)

    def ours(count: int) -> float:
        begin = time.perf_counter()
        for i in range(count):
            batches.batch(i)
        return 512 * count / (time.perf_counter() - begin)

    def plain(count: int) -> float:
        begin, stream = time.perf_counter(), iter(loader)
        for _ in range(count):
            next(stream)
        return 512 * count / (time.perf_counter() - begin)

    def learn(source: Callable[[int], Any], count: int) -> float:
        begin = time.perf_counter()
        for i in range(count):
            policy.update(source(i))
        return count / (time.perf_counter() - begin)

    ours(2)
    plain(1)
    stream = iter(loader)
    float32 = make_learner(arm.policy, data, gradient_steps=100, **(dict(arm.config) | {"precision": "float32"}))
    ratios, training = [], []
    for _ in range(repeats):
        ratios.append(ours(50) / plain(4))
        policy = make_learner(arm.policy, data, gradient_steps=100, **arm.config)
        fast = learn(batches.batch, 20)
        policy = float32
        training.append(fast / learn(lambda _: next(stream), 10))
    flat = _memory(context, policy.spec.chunk)
    conditions = {"10 million steps with flat memory": flat["growth_bytes"] < 50e6}
    details = {
        "ratios": ratios, "windows_per_second": ours(50), "training_ratio": training, "memory": flat,
        "threads": torch.get_num_threads(),
        "training": "updates/s of our sampling with bfloat16 products over a DataLoader's windows with float32 ones",
    }  # fmt: skip
    interval = (min(ratios), max(ratios))
    return Measurement(float(np.median(ratios)), interval, (context.seed,), repeats, conditions, details)


class _Plain(Dataset[dict[str, np.ndarray]]):
    """The same windows, one at a time, as anyone would first write them: numpy, a row an item."""

    def __init__(self, data: Recorded, chunk: int, horizon: int) -> None:
        self.data, self.chunk, self.horizon = data, chunk, horizon
        self.draws, self.past = np.random.default_rng(0), data.encoder.past(data.observations)

    def __len__(self) -> int:
        return self.data.steps

    def __getitem__(self, _: int) -> dict[str, np.ndarray]:
        data, encoder = self.data, self.data.encoder
        episode = int(self.draws.integers(len(data.episode_ends)))
        end = int(data.episode_ends[episode])
        begin = int(data.episode_ends[episode - 1]) if episode else 0
        start = int(self.draws.integers(begin, end - 1))
        goal = 0
        for _try in range(5):
            goal = int(self.draws.integers(start + 1, min(end - 1, start + self.horizon) + 1))
            moved = np.abs(data.observations[goal, encoder.watched] - data.observations[start, encoder.watched])
            if (moved > encoder.thresholds).any() or self.draws.random() > 0.95:
                break
        rows = np.minimum(np.arange(start, start + self.chunk), end - 2)
        where = np.array([start]), np.array([goal])
        features = encoder.features(
            data.observations[where[0]], encoder.hindsight(data.observations, *where, self.past)
        )
        return {"features": features[0], "actions": data.actions[rows]}


def _memory(context: Context, chunk: int) -> dict[str, float]:
    """Memory of the process's own (not of mapped files) before and after drawing from 10 million mapped steps."""
    from policies.offline import BatchSpec

    source = play_data(context)
    steps = 1_000_000 if context.quick else 10_000_000
    path = context.out / "play" / "ten-million.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    width, piece = source.observations.shape[1], source.observations[:10_000]
    rows = -(-steps // len(piece)) * len(piece)
    big = np.memmap(path, np.float32, "w+", shape=(rows, width))
    for at in range(0, rows, len(piece)):
        big[at : at + len(piece)] = piece
    big.flush()
    view = np.asarray(np.memmap(path, np.float32, "r", shape=(rows, width)))
    actions = np.zeros((rows, 5), np.float32)
    data = Recorded(view, actions, np.arange(500, rows + 1, 500), source.encoder)
    batches = Batches(data, BatchSpec(chunk=chunk), 512, 0)
    for i in range(50):
        batches.batch(i)
    before = _own_memory()
    for i in range(50, 450):
        batches.batch(i)
    growth = _own_memory() - before
    del big, view, data, batches
    path.unlink()
    return {
        "steps": float(rows),
        "growth_bytes": float(growth),
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1e3,
    }


def _own_memory() -> int:
    """Bytes of anonymous memory of this process (Linux)."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("RssAnon"):
                return int(line.split()[1]) * 1024
    return 0
