"""How each claim about the world is measured; see `embodied.evaluation.claims` for what is claimed."""

from __future__ import annotations

import resource
from typing import Any

import numpy as np

from embodied.evaluation.claims import Context, Measurement

WORLD = "playroom"
EPISODE = 200  # control steps an expert has
FLAT = 0.9  # of the rate at 64 slots that has to be left at 4096


def speed(context: Context) -> Measurement:
    """world.a: the smaller of the two ratios (64 and 256 slots) of environment steps/s to the raw physics limit."""
    from envs.bench import simulation

    seconds, repeats = (1.0, 3) if context.quick else (4.0, 5)
    found = {}
    for slots in (64, 256):
        found[slots] = simulation(seconds, repeats, slots, world=WORLD)
        context.say(
            f"{slots} slots: {found[slots]['ratio']:.3f} of the limit, sleep x{found[slots]['sleep_factor']:.2f}"
        )
    single = simulation(seconds, repeats, 1, threads=1, world=WORLD)
    rates, memory = _sizes((64, 256, 1024) if context.quick else (64, 256, 1024, 4096), seconds)
    worst = min(found, key=lambda slots: found[slots]["ratio"])
    first, last = min(rates), max(rates)
    conditions = {
        "0.90 with one slot on one thread": single["ratio"] >= 0.90,
        "1.5 with sleep": min(f["sleep_factor"] for f in found.values()) >= 1.5,
        f"flat from {first} to {last} slots": rates[last] >= FLAT * rates[first],
    }
    details = {
        "slots": {str(slots): found[slots] for slots in found},
        "one": single,
        "steps_per_second": {str(slots): rate for slots, rate in rates.items()},
        "bytes_per_environment": memory,
    }
    low, high = found[worst]["ratio_interval"]
    return Measurement(found[worst]["ratio"], (low, high), n=repeats, conditions=conditions, details=details)


def _sizes(sizes: tuple[int, ...], seconds: float) -> tuple[dict[int, float], float]:
    """Environment steps/s by number of slots, taking turns; and bytes of memory a slot."""
    from envs.bench import race, stepper
    from envs.registry import make_vector

    environments: dict[int, Any] = {}
    before, memory = 0.0, 0.0
    for slots in sizes:
        before = _resident()
        environments[slots] = make_vector(WORLD, slots, sleep=False)
        environments[slots].reset(seed=0)
        environments[slots].step(np.zeros(environments[slots].action_space.shape))
        memory = (_resident() - before) / slots
    work = {str(slots): stepper(env) for slots, env in environments.items()}
    for advance in work.values():
        advance()
    rates = race(work, 2 * seconds)
    for env in environments.values():
        env.close()
    return {int(slots): rate for slots, rate in rates.items()}, memory


def _resident() -> float:
    """Bytes of memory this process has in use."""
    with open("/proc/self/statm", encoding="ascii") as statistics:
        return int(statistics.read().split()[1]) * resource.getpagesize()


def peers(context: Context) -> Measurement:
    """world.b: simulated robot-seconds a wall second, over the best installed peer's, all taking turns in one run."""
    from envs.bench import race, stepper
    from envs.registry import make_vector
    from envs.suites import peers as others

    ours = {
        "pickplace, sleep": ("pickplace", True),
        "pickplace": ("pickplace", False),
        "playroom, sleep": ("playroom", True),
        "playroom": ("playroom", False),
    }
    environments: dict[str, Any] = {name: make_vector(env, 256, sleep=sleep) for name, (env, sleep) in ours.items()}
    started, absent = others.peers(), others.missing()
    dt = {name: 1.0 / env.metadata["render_fps"] for name, env in environments.items()}
    dt |= {name: peer.control_dt for name, peer in started.items()}
    work = {name: stepper(env) for name, env in environments.items()}
    work |= {name: peer.advance for name, peer in started.items()}
    for env in environments.values():
        env.reset(seed=0)
    race(work, 1.0)  # compiles, and settles
    repeats, seconds = (3, 1.0) if context.quick else (5, 4.0)
    windows = [{name: rate * dt[name] for name, rate in race(work, seconds).items()} for _ in range(repeats)]
    for thing in (*environments.values(), *started.values()):
        thing.close()
    rate = {name: float(np.median([window[name] for window in windows])) for name in work}
    best = max(started, key=lambda name: rate[name]) if started else ""
    ratios = [window["pickplace, sleep"] / window[best] for window in windows] if best else [float("nan")]
    details = {
        "robot_seconds_per_second": rate,
        "best_peer": best,
        "not_installed": absent,
        "without_sleep": rate["pickplace"] / rate[best] if best else None,
        "ways": {name: f"{peer.way}, {peer.control_dt} s a step, {peer.versions}" for name, peer in started.items()},
        "ours": "20 Hz control, 10 ms physics steps, 256 slots",
    }
    conditions = {"every peer is installed": not absent}
    interval = (float(min(ratios)), float(max(ratios)))
    return Measurement(float(np.median(ratios)), interval, n=repeats, conditions=conditions, details=details)


def experts(context: Context) -> Measurement:
    """world.d: the lowest success of the scripted expert over the 18 tasks; a shaken block; random play without end."""
    from envs.scenes.playroom import PlayroomVectorEnv
    from envs.scenes.scene import load

    tasks = list(load(WORLD).tasks)
    episodes = 20 if context.quick else 50
    rows: dict[str, dict[str, float]] = {}
    for actor in ("expert", "random"):
        env = PlayroomVectorEnv(len(tasks) * 10, tasks, max_steps=EPISODE, autoreset_mode="Disabled")
        reached = dict.fromkeys(tasks, 0)
        for block in range(episodes // 10):
            for task, successes in _attempts(env, actor, 1000 + context.seed * 100 + block).items():
                reached[task] += successes
        env.close()
        rows[actor] = {task: reached[task] / episodes for task in tasks}
        context.say(f"{actor}: {min(rows[actor].values()):.2f} to {max(rows[actor].values()):.2f}")
    slip = _slip()
    steps = 200_000 if context.quick else 10_000_000
    long = _random_play(steps, context)
    conditions = {
        "a held block slips less than 0.5 mm": slip < 0.5e-3,
        f"{steps:,} random steps: no NaN": long["bad_physics"] == 0,
        "nothing falls through": long["below_table"] == 0,
        "memory flat": long["growth_bytes"] < 32e6,
    }
    worst = min(rows["expert"].values())
    details = {"tasks": rows, "slip_m": slip, "random_play": long}
    return Measurement(worst, None, (context.seed,), episodes * len(tasks), conditions, details)


def _attempts(env: Any, actor: str, seed: int) -> dict[str, int]:
    """Successes by task of one episode in every slot."""
    from envs.scenes.experts import ScriptedExpert

    n, count = env.num_envs, len(env.tasks)
    which = np.arange(n) % count
    env.reset(seed=seed, options={"which": which})
    acting, draws = ScriptedExpert(env), np.random.default_rng(seed)
    over, reached = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    for _ in range(env.max_steps):
        actions = acting.act() if actor == "expert" else draws.uniform(-1, 1, env.action_space.shape)
        _, _, terminated, truncated, info = env.step(actions)
        reached |= info["success"] & ~over
        over |= terminated | truncated
        if over.all():
            break
    return {task: int(reached[which == k].sum()) for k, task in enumerate(env.tasks)}


def _slip(slots: int = 32) -> float:
    """How far (m) a cube, lifted and held still, has moved in the gripper after 2 s of shaking: 15 cm/s, turning every
    0.1 s.
    """
    from envs.scenes.experts import ScriptedExpert
    from envs.scenes.facts import BLOCKS, TOOL, YAW
    from envs.scenes.playroom import PlayroomVectorEnv

    env = PlayroomVectorEnv(
        slots, ["lifted(red)"], "cubes", blocks=1, max_steps=10_000, terminate_on_success=False,
        autoreset_mode="Disabled", sleep=False,
    )  # fmt: skip
    env.reset(seed=5)
    acting, cube = ScriptedExpert(env), BLOCKS

    def place() -> np.ndarray:
        away = env.facts[:, cube : cube + 3] - env.facts[:, TOOL : TOOL + 3]
        c, s = np.cos(env.facts[:, YAW]), np.sin(env.facts[:, YAW])
        return np.stack([c * away[:, 0] + s * away[:, 1], c * away[:, 1] - s * away[:, 0], away[:, 2]], axis=1)

    for _ in range(70):
        env.step(acting.act())
    rest = np.zeros((slots, 5))
    rest[:, 4] = -1.0
    for _ in range(10):  # the lift is over before it is held
        env.step(rest)
    held = env.distance[:, 0] > 0
    before = place()
    for step in range(40):
        shake = rest.copy()
        shake[:, :3] = 0.25 * np.sign(np.sin(2 * np.pi * (step + 0.5) / 4 + np.array([0.0, 1.0, 2.0])))
        env.step(shake)
    for _ in range(10):
        env.step(rest)
    moved = np.linalg.norm(place() - before, axis=1)
    env.close()
    return float(moved[held].max()) if held.mean() > 0.9 else float("inf")


def _random_play(steps: int, context: Context) -> dict[str, float]:
    """Random actions for so many environment steps: what went wrong, and how much memory was taken."""
    from envs.scenes.facts import B_BOTTOM, BLOCK_STRIDE, BLOCKS
    from envs.scenes.playroom import PlayroomVectorEnv

    slots = 256
    env = PlayroomVectorEnv(slots, terminate_on_success=False)
    env.reset(seed=context.seed)
    draws = np.random.default_rng(context.seed)
    blocks = [BLOCKS + BLOCK_STRIDE * k for k in range(len(env.scene.blocks))]
    bad = below = lost = 0
    deepest = 0.0
    begin = 0.0
    for count in range(steps // slots):
        _, _, _, _, info = env.step(draws.uniform(-1, 1, (slots, 5)))
        bad += int(info["bad_physics"].sum()) + int(not np.isfinite(env.facts).all())
        below += int((env.facts[:, [at + 2 for at in blocks]] < 0.0).any(axis=1).sum())  # a centre below the table
        deepest = min(deepest, float(env.facts[:, [at + B_BOTTOM for at in blocks]].min()))
        lost += int(info["lost"].sum())
        if count == 500:
            begin = _resident()
        if count % 5000 == 4999:
            context.say(f"random play: {(count + 1) * slots:,} of {steps:,} steps")
    growth = _resident() - begin
    env.close()
    return {
        "bad_physics": bad, "below_table": below, "deepest_m": deepest, "lost": lost, "growth_bytes": growth,
        "steps": steps,
    }  # fmt: skip


def play(context: Context) -> Measurement:
    """world.e: control steps/s of the play generator; and how much more play covers than demonstrations."""
    import time

    from envs.scenes.play import KINDS, ScenePlay, play_env

    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    pieces: list[np.ndarray] = []
    repeats, steps = (3, 20_000) if context.quick else (5, 40_000)
    for kind in KINDS:
        env = play_env(128)
        generator = ScenePlay(env, context.seed, kind)
        generator.collect(128 * 8)
        for _ in range(repeats):
            begin = time.perf_counter()
            found = generator.collect(steps)
            rates[kind].append(steps / (time.perf_counter() - begin))
            if kind == "correlated":
                pieces += [piece["facts"] for piece in found]
        env.close()
    total = repeats * steps
    played, shown = _covered(pieces), _covered(_demonstrations(total, context.seed))
    slowest = min(rates, key=lambda kind: float(np.median(rates[kind])))
    times = played / max(1, shown)
    conditions = {"play covers more than demonstrations": times > 1.0}
    details = {"rates": rates, "bins_play": played, "bins_demonstrations": shown, "times": times, "steps": total}
    interval = (min(rates[slowest]), max(rates[slowest]))
    return Measurement(float(np.median(rates[slowest])), interval, (context.seed,), repeats, conditions, details)


def _demonstrations(steps: int, seed: int) -> list[np.ndarray]:
    """Facts of as many steps of the scripted experts' episodes, all tasks alike."""
    from envs.scenes.experts import ScriptedExpert
    from envs.scenes.playroom import PlayroomVectorEnv

    env = PlayroomVectorEnv(144, max_steps=EPISODE)
    env.reset(seed=seed)
    acting = ScriptedExpert(env)
    rows = []
    for _ in range(-(-steps // env.num_envs)):
        rows.append(env.facts.astype(np.float32))
        env.step(acting.act())
    env.close()
    return list(np.stack(rows, axis=1))


def _covered(episodes: list[np.ndarray]) -> int:
    """How many different interactions there are: a thing that moves, by which thing, where (3 cm) and how it lies.

    For drawers, doors and buttons: which, and where along its way (1 cm); with which other things' states at the time
    (each slide open or not, each lamp lit or not).
    """
    from envs.scenes.facts import B_UP, B_V, BLOCK_STRIDE, BLOCKS
    from envs.scenes.scene import load

    scene = load(WORLD)
    blocks, slides, lamps = len(scene.blocks), len(scene.slides), len(scene.lamps)
    first = BLOCKS + BLOCK_STRIDE * blocks
    last = first + 3 * slides
    seen: set[tuple[int, ...]] = set()
    for facts in episodes:
        around = np.zeros(len(facts), np.int64)
        for k in range(slides):
            around = around * 2 + (facts[:, first + 3 * k] > 0.5 * scene.slides[k].travel)
        for k in range(lamps):
            around = around * 2 + (facts[:, last + 3 * k] > 0.5)
        for b in range(blocks):
            p = BLOCKS + BLOCK_STRIDE * b
            moving = np.linalg.norm(facts[:, p + B_V : p + B_V + 3], axis=1) > 0.02
            cells = np.floor(facts[moving, p : p + 3] / 0.03).astype(np.int64)
            lying = (facts[moving, p + B_UP] < 0.5).astype(np.int64)
            seen.update(map(tuple, np.column_stack([np.full(len(cells), b), cells, lying, around[moving]]).tolist()))
        for k in range(slides):
            moving = np.abs(facts[:, first + 3 * k + 1]) > 0.02
            cells = np.floor(facts[moving, first + 3 * k] / 0.01).astype(np.int64)
            seen.update(map(tuple, np.column_stack([np.full(len(cells), 100 + k), cells, around[moving]]).tolist()))
    return len(seen)
