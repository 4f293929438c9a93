"""``embodied ask``: an instruction read, planned, carried out on physics, filmed, answered in plain words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.text import Text

from embodied import runs
from embodied.errors import UsageError
from envs.constraints import impossible_reason
from envs.goals import Goal, parse_instruction

if TYPE_CHECKING:
    from embodied.cli.schema import AskConfig
    from embodied.language.base import LanguageModel
    from embodied.planning.execute import Outcome
    from embodied.repertoire import Repertoire

__all__ = ["Answer", "AskError", "ask", "say", "show", "target_of"]

SUFFIXES = (".mp4", ".gif")
NONE = "none"
SHOTS, COLUMNS = 12, 4  # stills of the strip


class AskError(RuntimeError):
    """What was asked cannot be tried at all; the sentence says why."""


@dataclass(frozen=True)
class Answer:
    """What came of a request: ``text`` is one to three sentences, ``videos`` the files that show it."""

    success: bool
    text: str
    videos: tuple[Path, ...]
    outcome: Outcome


def ask(instruction: str, run_dir: Path, config: AskConfig, console: Console) -> Answer:
    """Carries the instruction out in one scene with a run's skills, prints the answer and gives it.

    Raises GoalError for what cannot be read, AskError for what cannot be or where no skill was learnt yet,
    UsageError, VideoError or RenderError for a video that cannot be made.
    """
    if runs.is_discovery(run_dir) or runs.is_training(run_dir):
        from embodied.asking_discovered import ask_discovered

        return ask_discovered(instruction, run_dir, config, console)
    goal = parse_instruction(instruction)
    reason = impossible_reason(goal)
    if reason:
        raise AskError(f"that is impossible because {reason}")
    target = target_of(config.video, run_dir, instruction, config.seed)
    repertoire = _repertoire(run_dir)

    from embodied.language.selection import agent_of
    from embodied.planning.execute import carry_out
    from embodied.viz.film import Recorder, somewhere
    from envs.playroom.scene import build_model
    from envs.rendering import make_renderer

    goal = somewhere(goal, np.random.default_rng(config.seed))
    recorder, videos = Recorder(), ()
    size = (config.render.width, config.render.height)
    with make_renderer(build_model(), *size, backend=config.render.backend) as renderer:
        (outcome,), _ = carry_out(
            [goal], repertoire.actors, repertoire.planner(), config.seed, replans=config.replans, threads=1,
            on_step=recorder,
        )  # fmt: skip
        if target is not None and outcome.steps:
            videos = show(target, *recorder.frames(renderer, 0, outcome.steps))
    told: list[str] = []
    agent = agent_of(config.language, run_dir, told.append)
    answer = Answer(outcome.success, say(instruction, outcome, agent), videos, outcome)
    for line in told:
        console.print(Text(line), soft_wrap=True)
    console.print(Text(answer.text), soft_wrap=True)
    for path in videos:
        console.print(Text(str(path)), soft_wrap=True)
    return answer


def say(instruction: str, outcome: Outcome, agent: LanguageModel | None = None) -> str:
    """What was planned, what was done, and whether it holds now: one to three plain sentences, by ``agent``.

    Where that is not the embedded grammar, what the simulator says of success is said before its words.
    """
    from embodied.language.base import LMRequest
    from embodied.language.grammar import GrammarModel
    from embodied.language.roles import AnswerReply, AnswerRequest
    from envs.vector import CONTROL_HZ

    message = AnswerRequest(
        instruction=instruction,
        goal=outcome.goal,
        success=outcome.success,
        holds=outcome.holds,
        done=tuple((option.goal, option.success) for option in outcome.options),
        seconds=outcome.steps / CONTROL_HZ,
        reason=outcome.reason,
    )
    embedded = GrammarModel()
    result = (agent or embedded).complete(LMRequest("answer", message, AnswerReply))
    said = result.value.text
    if result.backend != embedded.name:
        said = f"{'Done' if outcome.success else 'Not done'}, says the simulator. {result.backend} says: {said}"
    if not outcome.plans:
        return said
    steps = ", then ".join(Goal.parse(step).text() for step in outcome.plans[0])
    times = {1: "once", 2: "twice"}.get(outcome.replans, f"{outcome.replans} times")
    again = f", and planned anew {times}" if outcome.replans else ""
    return f"I planned to {steps}{again}. {said}"


def _repertoire(run_dir: Path) -> Repertoire:
    """The run's admitted skills; AskError where there is none."""
    from embodied.repertoire import Repertoire

    empty = f"{run_dir} has no skill yet, so it cannot act: let it live on, or name another run (run=DIR)"
    if not (run_dir / runs.LIBRARY).is_file():
        raise AskError(empty)
    with runs.library(run_dir) as library:
        last = library.last_round
        repertoire = Repertoire.load(library, {} if last is None else last.state.get("operators", {}))
    if not repertoire.actors:
        raise AskError(empty)
    return repertoire


def target_of(video: str, run_dir: Path, instruction: str, seed: int) -> Path | None:
    """The video's file, or None for no video; whether it can be written is found out here."""
    from embodied.viz.video import VideoError, ffmpeg_works

    if video == NONE:
        return None
    if not video:
        name = re.sub(r"[^a-z0-9]+", "-", instruction.lower()).strip("-")[:48].strip("-") or "request"
        suffix = ".mp4" if ffmpeg_works() else ".gif"
        return run_dir / runs.VIDEOS / f"ask-{name}-seed{seed}{suffix}"
    path = Path(video)
    if path.suffix not in SUFFIXES:
        raise UsageError(f"video = {video!r} must end in {' or '.join(SUFFIXES)}, be empty, or be {NONE}")
    if path.suffix == ".mp4" and not ffmpeg_works():
        raise VideoError(f"no ffmpeg runs here, so {video} cannot be written; name a .gif instead")
    return path


def show(target: Path, frames: np.ndarray, doing: list[str]) -> tuple[Path, ...]:
    """Writes the video and a strip of stills, each with what was being done; their paths."""
    from embodied.viz import video
    from embodied.viz.film import FPS, write_gif

    target.parent.mkdir(parents=True, exist_ok=True)
    written = video.write_mp4(target, frames, FPS) if target.suffix == ".mp4" else write_gif(target, frames)
    at = np.unique(np.linspace(0, len(frames) - 1, SHOTS).round().astype(int))
    strip = video.strip(frames[at], COLUMNS, [doing[i] for i in at])
    return written, video.write_png(target.with_suffix(".png"), strip)
