"""The robot filmed at work: what happened on physics, drawn afterwards, and kept where the report finds it.

A film is an animation, a strip of stills and (where ffmpeg runs) an mp4 in the run's ``videos/``, with a JSON
file of the same name beside them that says what is seen: `film` writes them, `kept` reads them back.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from embodied import runs
from embodied.cli.schema import RenderConfig
from embodied.data.durable import replace_file
from embodied.planning.execute import Outcome, carry_out, watch
from embodied.training.rollouts import versions
from embodied.viz import video
from envs.constraints import impossible_reason
from envs.goals import Goal, Literal, parse_instruction, schema_of
from envs.playroom.scene import build_model
from envs.rendering import Renderer, make_renderer
from envs.vector import CONTROL_HZ, TabletopVectorEnv
from envs.vocabulary import ANYWHERE, PLACES

if TYPE_CHECKING:
    from embodied.repertoire import Repertoire

__all__ = ["FPS", "Recorder", "film", "kept", "somewhere", "subjects", "write_gif"]

EVERY = 2  # control steps a frame
FPS = CONTROL_HZ // EVERY
TAIL = 10  # control steps shown after the end
SKILLS, INSTRUCTIONS = 9, 3  # filmed at most
_FILES = ("animation", "strip")


@dataclass
class Recorder:
    """Sees every control step of `carry_out` and keeps what a renderer needs of every second one."""

    count: int = 0
    qpos: list[np.ndarray] = field(default_factory=list)  # float64[n, nq] a frame
    lit: list[dict[str, np.ndarray]] = field(default_factory=list)  # lamps → bool[n] a frame
    goals: list[list[str]] = field(default_factory=list)  # of the running skills, a frame

    def __call__(self, env: TabletopVectorEnv, goals: list[str]) -> None:
        if self.count % EVERY == 0:
            qpos, lit = watch(env)
            self.qpos.append(qpos)
            self.lit.append(lit)
            self.goals.append(goals)
        self.count += 1

    def frames(self, renderer: Renderer, slot: int, steps: int) -> tuple[np.ndarray, list[str]]:
        """Pictures uint8[T, h, w, 3] of a slot's first ``steps`` control steps, and what it did in each."""
        end = min(len(self.qpos), -(-(steps + TAIL) // EVERY))
        qpos = np.stack([q[slot] for q in self.qpos[:end]])
        lit = {lamp: np.array([on[lamp][slot] for on in self.lit[:end]]) for lamp in self.lit[0]}
        doing = [goals[slot] for goals in self.goals[:end]]
        return renderer.render(qpos, lit)[:, 0], [Goal.parse(goal).text() if goal else "" for goal in doing]


def somewhere(goal: Goal, rng: np.random.Generator) -> Goal:
    """The goal with a named place drawn for each ``anywhere``, so that it can be judged later on."""
    for literal in goal.literals:
        if ANYWHERE not in literal.args:
            continue
        for place in rng.permutation(list(PLACES)):
            named = Literal(literal.predicate, (literal.args[0], str(place)), literal.positive)
            stages = tuple(tuple(named if x == literal else x for x in stage) for stage in goal.stages)
            if impossible_reason(Goal(stages)) is None:
                return somewhere(Goal(stages), rng)
    return goal


def subjects(repertoire: Repertoire, seed: int) -> list[str]:
    """What is worth filming: held-out instructions made of mastered goals, then one goal of each skill."""
    from embodied.evaluation.heldout import instructions

    rng = np.random.default_rng(seed)
    asked = list(instructions())
    within = [q for q in asked if all(repertoire.allows(Goal.of(x)) for x in q.goal.literals)] or asked
    chosen = [within[i].text for i in sorted(rng.permutation(len(within))[:INSTRUCTIONS])]
    by_schema: dict[str, list[str]] = {}
    for text in sorted(repertoire.admitted):
        by_schema.setdefault(schema_of(Goal.parse(text)), []).append(text)
    by_schema = {schema: texts for schema, texts in by_schema.items() if schema in repertoire.actors}
    goals = [str(rng.choice(by_schema[schema])) for schema in sorted(by_schema)]
    return chosen + goals[:SKILLS]


def film(
    repertoire: Repertoire,
    run_dir: Path,
    seed: int,
    render: RenderConfig | None = None,
    instructions: Sequence[str | Goal] | None = None,
    threads: int = 0,
) -> list[dict[str, Any]]:
    """Films each instruction (English, or a goal; None: `subjects`) once and keeps the films in videos/.

    Earlier films of the run are replaced. Returns `ReportData.pictures`; what has no plan is not in them.
    """
    render = render or RenderConfig()
    asked = subjects(repertoire, seed) if instructions is None else list(instructions)
    if not asked or not repertoire.actors:
        return []
    rng = np.random.default_rng(seed)
    read = [x if isinstance(x, Goal) else parse_instruction(x) for x in asked]
    goals = [somewhere(goal, rng) for goal in read]
    texts = [x if isinstance(x, str) and "(" not in x else g.text() for x, g in zip(asked, goals, strict=True)]
    recorder = Recorder()
    with make_renderer(build_model(), render.width, render.height, backend=render.backend) as renderer:
        outcomes, _ = carry_out(goals, repertoire.actors, repertoire.planner(), seed, threads=threads, on_step=recorder)
        folder = run_dir / runs.VIDEOS
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("film-*"):
            old.unlink()
        pictures = []
        for slot, (text, outcome) in enumerate(zip(texts, outcomes, strict=True)):
            if not outcome.steps:
                continue
            frames, _ = recorder.frames(renderer, slot, outcome.steps)
            picture = video.picture(frames, text, outcome.success, _note(outcome), FPS)
            about = {"goal": outcome.goal, "seed": seed, "versions": versions()}
            about["renderer"] = renderer.describe()
            _keep(folder, f"film-{len(pictures):02d}", picture, frames, about)
            pictures.append(picture)
    return pictures


def kept(run_dir: Path) -> list[dict[str, Any]]:
    """The films in a run's videos/, in the order they were made; incomplete ones are left out.

    Each is an entry of `ReportData.pictures` with ``renderer``, how it was drawn.
    """
    found = []
    for path in sorted((run_dir / runs.VIDEOS).glob("film-*.json")):
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            entry |= {key: (path.parent / Path(entry[key]).name).read_bytes() for key in _FILES}
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it is being written, or was damaged: a report does without
        found.append(entry)
    return found


def write_gif(path: Path, frames: np.ndarray, fps: float = FPS) -> Path:
    """Writes an endless GIF of frames uint8[T, h, w, 3] at their full size; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [Image.fromarray(frame).quantize(128) for frame in frames]
    images[0].save(path, "GIF", save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0)
    return path


def _note(outcome: Outcome) -> str:
    many = len(outcome.options)
    skills = f", {many} skills" if many > 1 else ""
    again = f", planned anew {outcome.replans}×" if outcome.replans else ""
    return f"{outcome.steps / CONTROL_HZ:.1f} s{skills}{again}"


def _keep(folder: Path, name: str, picture: dict[str, Any], frames: np.ndarray, about: dict[str, Any]) -> None:
    """Writes a film's files, the one that describes them last."""
    suffix = picture["kind"].removeprefix("image/")
    replace_file(folder / f"{name}.{suffix}", picture["animation"])
    replace_file(folder / f"{name}.png", picture["strip"])
    if video.ffmpeg_works():
        video.write_mp4(folder / f"{name}.mp4", frames, FPS)
    entry = {k: v for k, v in picture.items() if k not in _FILES}
    entry |= about | {"animation": f"{name}.{suffix}", "strip": f"{name}.png"}
    replace_file(folder / f"{name}.json", (json.dumps(entry, indent=1, sort_keys=True) + "\n").encode())
