r"""Training of the task model: planner demonstrations of depth 1 and 2 first, then GRPO on deeper tasks, as in SAGE.

*Supervised*: the embedded planner demonstrates tasks of one or two steps; the model learns the plan (and, with a small
weight, the goal) given what stands before. Each task is demonstrated a second time after a *detour*: some steps by
chance stand in the plan already, which are not learnt, and the planner goes on from there where two steps or fewer do.
So the model learns to follow what its plan has changed and to end when all is done, not after two steps. Some prompts
hold macros, one of which may be the plan itself: then the macro's name is the answer.

*GRPO*: g plans are sampled for each task, the symbolic world rewards them, R = success · (1 - c · steps said), and with
Â = (R - mean) / (std + ε) in the group the loss is

.. math:: -\frac1N \sum_{i,t} \min(\rho_{it} Â_i, \mathrm{clip}(\rho_{it}, 1-δ, 1+δ) Â_i) + w L_{supervised}

with ρ the ratio of the probabilities under the grammar's masks now and when sampled. Groups that all agree teach
nothing and are left out. How many literals tasks have is drawn in proportion to (1 - p) (p + 0.1), p the success so
far. Every few steps the tasks are *chains* of two: what solved the first is a macro in the second's prompt, and

    R1 + 1[second solved with the macro made in the first],    R2 + 1[second solved with a macro]

Some of a group's plans are not left to end by themselves (`embodied.language.task_plans.answer`): they go on, and are
cut where they first met the goal. What solves a task in more than two steps is shortened by the verifier, kept, and
replayed beside demonstrations; where all of a group fail, the longest plan is kept for a task that it would have solved
(hindsight). No planner has part in it.

*Gate*: now and then the model is measured on held-back tasks of depth 1 and 2. Where it has lost more than a point
against the supervised model, weights and moments go back to what they were at the last measurement that passed.

Chance depends on (seed, phase, step) alone, so that a training that was stopped goes on as if it never had been.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from embodied.data.durable import replace_file
from embodied.errors import UsageError
from embodied.evaluation.heldout import instructions
from embodied.language.symbolic_world import SymbolicWorld
from embodied.language.task_plans import Answers, Task, answer, flat, kept_as_macro, shortened, success_by_depth
from embodied.language.task_tokens import GOAL, MACROS, PAD, TOKENS, left_padded, plan_tokens, right_padded
from embodied.training.demonstrations import Demonstration, demonstrate, dressed
from embodied.training.groups import Segment, group_advantage
from embodied.training.symbolic_tasks import Tasks, heldout_tasks
from envs.goals import Goal
from policies.checkpoint import TRAINING, load_module, load_optimizer, module_arrays, optimizer_arrays, read_arrays
from policies.checkpoint import with_prefix as under
from policies.checkpoint import without_prefix as within
from policies.task_lm import TaskLM, TaskLMConfig, masked_log_probability

__all__ = ["BEFORE", "MODEL", "TaskLMSettings", "TaskLMTraining", "train_task_lm"]

DEMONSTRATE, SUPERVISE, REINFORCE, GATE = range(4)  # phases, for the seeds
TAUGHT = (1, 2)  # depths that are demonstrated
GATE_SEED = 20_261_150
STATE, DEMOS, LOG, MODEL, BEFORE = "settings.json", "demonstrations.json", "log.jsonl", "model", "supervised"


@dataclass(frozen=True)
class TaskLMSettings:
    """How much of what; the defaults are the claim's."""

    seed: int = 0
    width: int = 160
    heads: int = 5
    layers: int = 4
    precision: str = "bfloat16"
    demonstrations: int = 4000  # calls of the planner
    supervised: int = 1200  # updates
    batch: int = 64
    rate: float = 1e-3
    goal_weight: float = 0.1
    macros: float = 0.3  # share of prompts with a macro
    steps: int = 500  # of GRPO
    tasks: int = 16  # a step
    group: int = 8
    going_on: int = 4  # of a group: plans that go on until they meet the goal
    passes: int = 2
    rate_grpo: float = 3e-4
    clip: float = 0.2
    step_price: float = 0.03
    replay: float = 0.5
    kept: int = 2000  # own deep plans to replay
    chains_every: int = 4
    most_literals: int = 5
    gate_every: int = 25
    gate_tasks: int = 150  # a depth
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.going_on < self.group:
            raise UsageError(f"going_on = {self.going_on} must be at least 0 and less than group = {self.group}")
        if self.most_literals < 2:
            raise UsageError(f"most_literals = {self.most_literals} must be at least 2")


@dataclass
class _Progress:
    """Where a training stands, as JSON values."""

    supervised: int = 0
    steps: int = 0
    success: list[float] = field(default_factory=list)  # running, by number of literals
    floor: float = -1.0  # the supervised model's success at the gate
    undone: int = 0
    solved: list[list[Any]] = field(default_factory=list)  # facts, goal and steps of own deep plans, oldest first
    cpu: float = 0.0
    seconds: float = 0.0


class TaskLMTraining:
    """A model being trained in ``folder``, from its beginning or from where it was stopped.

    ``avoid`` are keys of tasks that are not to be trained on. UsageError where the folder's settings differ.
    """

    def __init__(
        self, world: SymbolicWorld, settings: TaskLMSettings, folder: Path, avoid: Sequence[Task] = (),
        say: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.world, self.settings, self.folder, self.say = world, settings, folder, say
        self._claim()
        frozen = frozenset(item.goal for item in instructions())
        self.gate = _gate(world, frozen, settings.gate_tasks)
        keys = frozenset(task.key for task in (*avoid, *(t for rows in self.gate.values() for t in rows)))
        self.tasks = Tasks(world, keys, frozen)
        self.model = TaskLM(
            TaskLMConfig(
                len(TOKENS), settings.width, settings.heads, settings.layers, settings.seed, settings.precision
            )
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), settings.rate, weight_decay=0.01, fused=True)
        self.progress = _Progress(success=[0.5] * settings.most_literals)
        self._good: dict[str, np.ndarray] = {}
        self._clock = (time.process_time(), time.monotonic())
        self._load()
        self.demonstrations = self._demonstrated()
        self.own = [Demonstration.from_json(row) for row in self.progress.solved]

    # supervised ------------------------------------------------------------------------------------------

    def supervise(self) -> None:
        """Learns from demonstrations, to the budget of updates."""
        s, p = self.settings, self.progress
        while p.supervised < s.supervised:
            rng = _rng(s.seed, SUPERVISE, p.supervised)
            for group in self.optimizer.param_groups:
                left = 1 - p.supervised / s.supervised
                group["lr"] = s.rate * min(1.0, (p.supervised + 1) / 50) * (0.05 + 0.95 * left)
            loss = self._supervised_loss(rng, s.batch)
            self._descend(loss)
            p.supervised += 1
            if p.supervised % 100 == 0 or p.supervised == s.supervised:
                self.note(phase="supervised", update=p.supervised, loss=float(loss.detach()))
            if p.supervised % 250 == 0 or p.supervised == s.supervised:
                self.save()
            if p.supervised == s.supervised:
                self.model.save_pretrained(self.folder / BEFORE)

    def _supervised_loss(self, rng: np.random.Generator, n: int, own: float = 0.0) -> torch.Tensor:
        """On n demonstrations; a share ``own`` of them are the model's own deep plans, where there are any."""
        prompts, plans, taken = [], [], []
        pools = [self.own if self.own and i < own * n else self.demonstrations for i in range(n)]
        for pool in pools:
            demo = pool[rng.integers(len(pool))]
            task, said = dressed(demo, self.demonstrations, self.tasks, rng, self.settings.macros)
            prompts.append(task.prompt())
            plans.append(plan_tokens([*demo.detour, *said]))
            taken.append(len(plan_tokens(demo.detour)) - 1)
        given = torch.from_numpy(left_padded(prompts))
        whole = torch.from_numpy(right_padded(plans))
        wanted = whole * (torch.arange(whole.shape[1]) >= torch.tensor(taken)[:, None])
        with self.model.autocast():
            logits, before = self.model.logits(given, whole)
        loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=PAD)
        if self.settings.goal_weight > 0:
            after = (given == GOAL).cumsum(1)[:, :-1] > 0
            target = torch.where(after, given[:, 1:], PAD)
            goal = F.cross_entropy(before[:, :-1].flatten(0, 1), target.flatten(), ignore_index=PAD)
            loss = loss + self.settings.goal_weight * goal
        return loss

    def _demonstrated(self) -> list[Demonstration]:
        path, s = self.folder / DEMOS, self.settings
        if not path.exists():
            found = demonstrate(self.tasks, _rng(s.seed, DEMONSTRATE, 0), s.demonstrations, max(TAUGHT))
            replace_file(path, json.dumps([demo.to_json() for demo in found]).encode())
            self.say(f"{len(found)} demonstrations")
        return [Demonstration.from_json(row) for row in json.loads(path.read_text(encoding="utf-8"))]

    # GRPO ------------------------------------------------------------------------------------------------

    def reinforce(self) -> None:
        """Improves by sampling and verifying, to the budget of steps."""
        s, p = self.settings, self.progress
        if p.steps == 0 and p.floor < 0:
            self.optimizer = torch.optim.AdamW(self.model.parameters(), s.rate_grpo, weight_decay=0.0, fused=True)
            self._pass_gate()
        while p.steps < s.steps:
            rng = _rng(s.seed, REINFORCE, p.steps)
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            for group in self.optimizer.param_groups:
                group["lr"] = s.rate_grpo * (0.1 + 0.9 * (1 - p.steps / s.steps))
            chained = s.chains_every > 0 and p.steps % s.chains_every == s.chains_every - 1
            segments = self._chained(rng, generator) if chained else self._single(rng, generator)
            self._improve(segments, rng)
            p.steps += 1
            if p.steps % s.gate_every == 0 or p.steps == s.steps:
                self._pass_gate()
                self.save()

    def _single(self, rng: np.random.Generator, generator: torch.Generator) -> list[tuple[Answers, np.ndarray]]:
        s, p = self.settings, self.progress
        chance = np.array([(1 - x) * (x + 0.1) for x in p.success[1:]])
        sizes = rng.choice(len(chance), size=s.tasks, p=chance / chance.sum()) + 2
        tasks = [self.tasks.task(rng, int(k)) for k in sizes]
        found = answer(self.model, self.world, tasks, s.group, 1.0, generator, s.going_on)
        own = found.success.reshape(-1, s.group)[:, : s.group - s.going_on]
        for k, rate in zip(sizes, own.mean(1), strict=True):
            p.success[k - 1] += 0.03 * (float(rate) - p.success[k - 1])
        self._remember(rng, tasks, found)
        return [(found, group_advantage(self._reward(found), s.group))]

    def _remember(self, rng: np.random.Generator, tasks: Sequence[Task], found: Answers) -> None:
        """Keeps a plan of each group that is deeper than what is demonstrated, shortened by the verifier.

        It is the shortest that solved the task, or else the longest, for a task that it would have solved.
        """
        group = self.settings.group
        for i, task in enumerate(tasks):
            rows = range(i * group, (i + 1) * group)
            plans = [flat(found.plans[j], task) for j in rows if found.success[j]]
            known = (task, min(plans, key=len)) if plans else None
            if known is None:
                known = self.tasks.hindsight(rng, task, max((flat(found.plans[j], task) for j in rows), key=len))
            if known is None:
                continue
            steps = shortened(self.world, *known)
            if len(steps) > max(TAUGHT):
                self.own.append(Demonstration(known[0], tuple(steps)))
                self.progress.solved.append(self.own[-1].to_json())
        surplus = max(0, len(self.own) - self.settings.kept)
        del self.progress.solved[:surplus], self.own[:surplus]

    def _chained(self, rng: np.random.Generator, generator: torch.Generator) -> list[tuple[Answers, np.ndarray]]:
        s = self.settings
        n = max(1, s.tasks // 2)
        chains = [self.tasks.chain(rng, (int(rng.integers(1, 3)), int(rng.integers(2, 5)))) for _ in range(n)]
        one = answer(self.model, self.world, [c.first for c in chains], s.group, 1.0, generator)
        seconds, made = [], []
        for i, plan in enumerate(one.plans):
            chain, name = chains[i // s.group], MACROS[rng.integers(len(MACROS))]
            steps = flat(plan, chain.first)
            keeps = bool(one.success[i]) and len(steps) > 1
            seconds.append(kept_as_macro(chain.second, steps, name) if keeps else chain.second)
            made.append(name if keeps else "")
        two = answer(self.model, self.world, seconds, 1, 1.0, generator)
        used = two.success & np.array([name in plan and bool(name) for name, plan in zip(made, two.plans, strict=True)])
        first = self._reward(one) + used
        second = self._reward(two) + (two.success & two.used_macro())
        return [(one, group_advantage(first, s.group)), (two, group_advantage(second, s.group))]

    def _reward(self, found: Answers) -> np.ndarray:
        return found.success * (1.0 - self.settings.step_price * found.decisions)

    def _improve(self, segments: list[tuple[Answers, np.ndarray]], rng: np.random.Generator) -> None:
        s = self.settings
        batches = [b for b in (Segment.of(found, advantage) for found, advantage in segments) if b is not None]
        if not batches:
            return
        said = sum(int((b.tokens != PAD).sum()) for b in batches)
        for _ in range(s.passes):
            loss = s.replay * self._supervised_loss(rng, s.batch // 2, 0.5) if s.replay > 0 else torch.zeros(())
            for b in batches:
                with self.model.autocast():
                    logits, _ = self.model.logits(b.prompts, b.tokens)
                now = masked_log_probability(logits, b.masks).gather(2, b.tokens[..., None])[..., 0]
                ratio = (now - b.before).exp()
                gain = torch.minimum(ratio * b.advantage, ratio.clamp(1 - s.clip, 1 + s.clip) * b.advantage)
                loss = loss - (gain * (b.tokens != PAD)).sum() / said
            self._descend(loss)

    def _pass_gate(self) -> None:
        """Measures depth 1 and 2, and goes back to the last good weights where too much was lost."""
        s, p = self.settings, self.progress
        by_depth = success_by_depth(self.model, self.world, self.gate)
        score = float(np.mean(list(by_depth.values())))
        undo = score < p.floor - s.tolerance
        if undo:
            p.undone += 1
            load_module(self.model, within("model", self._good))
            load_optimizer(self.optimizer, within("moments", self._good))
        else:
            p.floor = score if p.floor < 0 else p.floor
            self._good = self._arrays()
        self.note(phase="grpo", step=p.steps, gate=by_depth, undo=undo, success=[round(x, 3) for x in p.success])

    # keeping ---------------------------------------------------------------------------------------------

    def _descend(self, loss: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = under("model", module_arrays(self.model))
        return arrays | under("moments", optimizer_arrays(self.optimizer))

    def save(self) -> None:
        """Writes model, moments and where the training stands."""
        self._tick()
        arrays = under("now", under("moments", optimizer_arrays(self.optimizer))) | under("good", self._good)
        state = json.dumps(asdict(self.progress)).encode()
        arrays["progress"] = np.frombuffer(state, np.uint8)
        self.model.save_pretrained(self.folder / MODEL, arrays)

    def _load(self) -> None:
        if not (self.folder / MODEL).is_dir():
            return
        trained = TaskLM.from_pretrained(self.folder / MODEL)
        self.model.load_state_dict(trained.state_dict())
        arrays = read_arrays(self.folder / MODEL, TRAINING)
        self.progress = _Progress(**json.loads(arrays["progress"].tobytes()))
        if self.progress.floor >= 0:
            rate = self.settings.rate_grpo
            self.optimizer = torch.optim.AdamW(self.model.parameters(), rate, weight_decay=0.0, fused=True)
        load_optimizer(self.optimizer, within("moments", within("now", arrays)))
        self._good = within("good", arrays)

    def _claim(self) -> None:
        path, wanted = self.folder / STATE, asdict(self.settings)
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            changed = [key for key in wanted if kept.get(key) != wanted[key]]
            if changed:
                raise UsageError(
                    f"{self.folder} was trained with other settings ({changed[0]} was {kept.get(changed[0])}, now "
                    f"{wanted[changed[0]]}); choose another folder"
                )
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_file(path, json.dumps(wanted, indent=1).encode())

    def note(self, **row: Any) -> None:
        """A line of the log."""
        self._tick()
        row |= {"cpu": round(self.progress.cpu, 1), "seconds": round(self.progress.seconds, 1)}
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.say(", ".join(f"{key} {value}" for key, value in row.items()))

    def _tick(self) -> None:
        cpu, now = time.process_time(), time.monotonic()
        self.progress.cpu += cpu - self._clock[0]
        self.progress.seconds += now - self._clock[1]
        self._clock = (cpu, now)


def train_task_lm(
    world: SymbolicWorld, settings: TaskLMSettings, folder: str | Path, avoid: Sequence[Task] = (),
    say: Callable[[str], None] = lambda _: None,
) -> TaskLMTraining:  # fmt: skip
    """Trains a task model to the end of its budgets, or continues; ``folder``/model is then what is loaded."""
    training = TaskLMTraining(world, settings, Path(folder), avoid, say)
    training.supervise()
    training.reinforce()
    return training


def _gate(world: SymbolicWorld, frozen: frozenset[Goal], each: int) -> dict[int, list[Task]]:
    return heldout_tasks(Tasks(world, (), frozen), TAUGHT, each, GATE_SEED)


def _rng(seed: int, phase: int, step: int) -> np.random.Generator:
    return np.random.default_rng([seed, phase, step])
