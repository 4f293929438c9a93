"""The open-ended loop: propose → plan or practise → collect → relabel → learn → gate → library.

Read it as the table of contents. Every round is committed whole; a run that is killed goes on with the round it was in,
from seeds that depend on the run's seed and the round alone, so it ends as if it had never stopped.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from rich.console import Console

from embodied import runs
from embodied.cli.schema import RunConfig
from embodied.curriculum.proposer import Record
from embodied.data.durable import replace_file
from embodied.errors import UsageError
from embodied.evaluation.heldout import exam, instructions
from embodied.journal import Journal
from embodied.language.base import LanguageModel, LMRequest
from embodied.language.roles import Proposal, ProposeReply, ProposeRequest
from embodied.language.selection import agent_of
from embodied.language.skill_plans import planner_of
from embodied.progress import Progress, duration
from embodied.training.discovery_round import discovery_round
from embodied.training.families import repertoire_of, schemas
from embodied.training.rounds import COMPOSED, Worker, weak_links

__all__ = ["run"]

ENOUGH = 0.93  # lower bound above which a mastered goal is not practised further
PLAN_EVERY = 4  # rounds between compositions, once there is something to compose
MEND = 2  # the round after each composition in which what failed within plans is practised


def run(config: RunConfig, console: Console | None = None) -> Path:
    """Lives a run to its budget of environment steps (or continues it), examines it and writes its report.

    Returns the run's directory. Raises UsageError where the run exists with other settings.
    """
    console = console or Console()
    _threads(config.threads)
    directory = Path(config.out) / config.name
    _claim(directory, config)
    journal = Journal.open(directory, config.threshold)
    state = journal.state
    try:
        with Progress(config.steps, start=state.steps, console=console) as progress:
            agent = agent_of(config.language, directory, progress.note)
            worker = Worker(
                config,
                journal,
                agent,
                lambda steps: progress.advance(steps) if steps else progress.tick(),
                progress.stage,
            )
            while not state.finished:
                number, known = journal.round, len(journal.library.mastered())
                if number == 0 and config.use_play:
                    worker.play_round()
                elif number == int(config.use_play) and config.discover_steps:
                    discovery_round(worker)
                else:
                    goal, why, composed = _propose(agent, journal, config)
                    if goal is None or state.steps >= config.steps:
                        break
                    state.recent.append(goal)
                    if composed:
                        worker.plan_round([*composed], why)
                    else:
                        worker.practice_round(goal, why)
                journal.publish()
                progress.at(state.steps)
                _tell(progress, journal, number, known)
                _report(directory, progress)
        _finish(journal, config, console)
    finally:
        journal.close()
    return directory


def _propose(agent: LanguageModel, journal: Journal, config: RunConfig) -> tuple[str | None, str, list[str]]:
    """(goal, why, composed goals to carry out): what to do next. No goal: nothing is left to learn."""
    state = journal.state
    mastered = {m.goal: m for m in journal.library.mastered()}
    goals = [goal for found in schemas().values() for goal in found]
    records = [
        Record(
            goal,
            tuple((s, n) for s, n in state.history.get(goal, [])),
            "mastered" if goal in mastered else "open",
        )
        for goal in dict.fromkeys([*goals, *state.history])
        if goal in goals
    ]
    excluded = tuple(item.text for item in instructions())

    def ask(count: int, asked: list[Record]) -> tuple[Proposal, ...]:
        message = ProposeRequest(
            records=tuple(asked), excluded=excluded, recent=tuple(state.recent[-10:]), count=count,
            seed=config.seed * 100_003 + journal.round, mode=config.proposer,  # type: ignore[arg-type]
            gains=state.hard.get("paid", {}),
        )  # fmt: skip
        result = agent.complete(LMRequest("propose", message, ProposeReply))
        if not result.degraded:
            return result.value.proposals
        instead = f" Said by {result.backend}, as {result.degraded}"
        return tuple(p.model_copy(update={"reason": p.reason + instead}) for p in result.value.proposals)

    if len(mastered) >= 3 and journal.round % PLAN_EVERY == 0 and "skills" not in config.without:
        only = [record if record.goal in mastered else Record(record.goal, (), "frozen") for record in records]
        pairs = ask(COMPOSED, only)
        if pairs:
            texts = [pair.goal for pair in pairs]
            return texts[0], pairs[0].reason, (texts * COMPOSED)[:COMPOSED]
    still_open = any(record.status == "open" for record in records)
    failures = {goal: n for goal, n in weak_links(state.chained).items() if goal in mastered}
    weak = max(failures, key=lambda goal: (failures[goal], goal), default="")
    if weak and (not still_open or journal.round % PLAN_EVERY == MEND):
        s, n = state.chained[weak]
        return weak, f"Within plans it lately went well in {round(100 * s / n)} % of attempts.", []
    if still_open:
        found = ask(1, records)[0]
        return found.goal, found.reason, []
    weakest = min(mastered.values(), key=lambda m: (m.lower + 0.02 * state.recent[-8:].count(m.goal), m.goal))
    if weakest.lower >= ENOUGH:
        return None, "", []
    why = f"Everything single is mastered; this is the weakest ({weakest.successes} of {weakest.n})."
    return weakest.goal, why, []


def _finish(journal: Journal, config: RunConfig, console: Console) -> None:
    """The exam on held-out instructions, films, and the report."""
    from embodied.viz import gather

    state, directory = journal.state, journal.directory
    repertoire = repertoire_of(config, journal.library, state.operators)
    if config.heldout_episodes and not (directory / runs.HELDOUT).is_file():
        console.print("examining on the held-out instructions", highlight=False)
        from policies import load_policy

        play = load_policy(directory / state.play) if state.play else None
        result = exam(
            repertoire, play, config.seed + 500_000, config.heldout_episodes, threads=config.threads,
            planner=planner_of(config.language, repertoire),
        )  # fmt: skip
        replace_file(directory / runs.HELDOUT, (json.dumps(result, indent=1, sort_keys=True) + "\n").encode())
    if repertoire.actors and not gather.kept(directory):
        console.print("filming", highlight=False)
        gather.film(repertoire, directory, config.seed + 700_000, config.render)
    report = gather.write(directory, "finished")
    mastered = journal.library.mastered()
    console.print(
        f"{len(mastered)} goals mastered in {state.steps:,} steps and {duration(state.seconds)}. Report: {report}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def _report(directory: Path, progress: Progress) -> None:
    from embodied.viz import gather

    gather.write(directory, "running")
    progress.tick()


def _tell(progress: Progress, journal: Journal, number: int, known: int) -> None:
    """One line a round: what changed."""
    mastered = journal.library.mastered()
    gained = len(mastered) - known
    if gained > 0:
        progress.note(f"round {number}: {gained} more mastered, {len(mastered)} in all")


def _claim(directory: Path, config: RunConfig) -> None:
    """Takes the run's folder: a new one gets the configuration, an old one must have been made with it."""
    from embodied.cli.config import difference, save

    path = directory / runs.CONFIG
    if path.is_file():
        if not config.resume:
            raise UsageError(f"{directory} exists and resume=false; choose another name=")
        changed = difference(runs.config(directory), config)
        if changed:
            told = ", ".join(f"{key} was {old}, now {new}" for key, (old, new) in changed.items())
            raise UsageError(f"{directory} was made with other settings ({told}); choose another name=")
    else:
        directory.mkdir(parents=True, exist_ok=True)
        save(config, path)


def _threads(threads: int) -> None:
    """Sets the learner's threads; 0 takes every core this process may use."""
    import torch

    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    torch.set_float32_matmul_precision("medium")
