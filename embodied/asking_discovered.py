"""``embodied ask`` of skills from discovery or play: a cover of what is asked for, carried out and filmed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.text import Text

from embodied import runs
from embodied.asking import Answer, AskError, show, target_of
from envs.scenes.words import Vocabulary, WordError

if TYPE_CHECKING:
    from embodied.cli.schema import AskConfig
    from embodied.planning.execute import Outcome
    from envs.rendering import Renderer
    from envs.scenes.discovery import DiscoveryVectorEnv

__all__ = ["ask_discovered", "say"]


def ask_discovered(instruction: str, run_dir: Path, config: AskConfig, console: Console) -> Answer:
    """As `embodied.asking.ask`, with the skills of a discovery or of a training from play.

    Discovered skills that were not through the gate yet are put to it first. Raises AskError for what cannot be read or
    done, with what can be, UsageError, VideoError or RenderError for a video that cannot be made.
    """
    from embodied.planning.discovered import Options, perform, stages_of
    from embodied.training.discovered import keep_discovered, scene_of
    from envs.rendering import make_renderer
    from envs.vector import CONTROL_HZ

    target = target_of(config.video, run_dir, instruction, config.seed)
    if not (run_dir / runs.LIBRARY).is_file():
        if not runs.is_discovery(run_dir):
            raise AskError(
                f"{run_dir} has no skill yet: embodied skills gate run={run_dir} data=… makes some of its play"
            )
        keep_discovered(run_dir, say=lambda line: console.print(Text(line), soft_wrap=True))
    options = Options.load(run_dir)
    scene = scene_of(options.world)
    words = scene.vocabulary
    if not options.known:
        raise AskError(f"{run_dir} has no skill that passed the gate, so it cannot act: let it learn for longer")
    can = f"I can: {'; '.join(options.sentences(words))}"
    try:
        stages = stages_of(instruction, words)
    except WordError as error:
        raise AskError(f"{str(error).split('; I can:')[0]}; {can}") from error
    recorder, videos = _Recorder(words), ()
    outcome = perform(stages, options, config.seed, replans=config.replans, on_step=recorder)
    if not outcome.options and not outcome.success:
        raise AskError(f"{outcome.reason}; {can}")
    if target is not None and outcome.steps:
        size = (config.render.width, config.render.height)
        with make_renderer(scene.compiled(False), *size, backend=config.render.backend) as renderer:
            videos = show(target, recorder.frames(renderer), recorder.doing)
    answer = Answer(outcome.success, say(outcome, words, outcome.steps / CONTROL_HZ), videos, outcome)
    console.print(Text(answer.text), soft_wrap=True)
    for path in videos:
        console.print(Text(str(path)), soft_wrap=True)
    return answer


def say(outcome: Outcome, words: Vocabulary, seconds: float) -> str:
    """What was planned, what was done, and whether it holds now."""
    if not outcome.options:
        return "There was nothing to do: it is so already."
    planned = ", then ".join(words.describe(goal) for plan in outcome.plans[:1] for goal in plan)
    times = {0: "", 1: ", and planned anew once", 2: ", and planned anew twice"}
    again = times.get(outcome.replans, f", and planned anew {outcome.replans} times")
    count = len(outcome.options)
    took = f"It took {count} skill{'s' if count > 1 else ''} and {seconds:.1f} s."
    if outcome.success:
        return f"I planned to {planned}{again}. Done. {took}"
    open_terms = [term for term, holds in outcome.holds.items() if not holds]
    missing = f"; still open: {words.describe(open_terms[0])}" if open_terms else ""
    return f"I planned to {planned}{again}. I did not manage it: {outcome.reason}{missing}. {took}"


@dataclass
class _Recorder:
    """Sees every control step and keeps what a renderer needs of every second one."""

    words: Vocabulary
    count: int = 0
    qpos: list[np.ndarray] = field(default_factory=list)
    doing: list[str] = field(default_factory=list)

    def __call__(self, env: DiscoveryVectorEnv, goal: str) -> None:
        from embodied.viz.film import EVERY

        if self.count % EVERY == 0:
            self.qpos.append(env.simulation.qpos[0].copy())
            self.doing.append(self.words.describe(goal) if goal else "")
        self.count += 1

    def frames(self, renderer: Renderer) -> np.ndarray:
        """Pictures uint8[T, h, w, 3]."""
        return renderer.render(np.stack(self.qpos))[:, 0]
