"""Who plans over a run's skills: the embedded planner, or a local model that is asked for every plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from embodied.language.base import LanguageModel, LMRequest
from embodied.language.roles import PlanReply, PlanRequest
from embodied.planning.execute import PlanFunction, Step
from envs.goals import Goal

if TYPE_CHECKING:
    from embodied.cli.schema import LanguageConfig
    from embodied.repertoire import Repertoire

__all__ = ["asked", "planner_of"]


def planner_of(config: LanguageConfig, repertoire: Repertoire) -> PlanFunction:
    """The planner a configuration asks for: ``task_lm`` where it has the role ``plan``, else the embedded one.

    A round plans hundreds of times; what answers over a network is left alone with that.
    """
    if config.backend != "task_lm" or "plan" not in config.roles:
        return repertoire.planner()
    from embodied.language.task_lm import TaskLanguageModel

    return asked(TaskLanguageModel.from_pretrained(config.model, repertoire.operators), repertoire)


def asked(agent: LanguageModel, repertoire: Repertoire, hear: Callable[[str], None] = lambda _: None) -> PlanFunction:
    """A planner that asks ``agent``, which knows the repertoire's operators, over what is admitted.

    ``hear`` is told of every plan why it is not the agent's own, or "".
    """
    from embodied.language.symbolic_world import SymbolicWorld
    from embodied.repertoire import anywhere

    allowed = tuple(map(str, SymbolicWorld(repertoire.operators, repertoire.allows).goals))

    def search(facts: Mapping[str, bool], rest: Goal, failed: Mapping[str, int]) -> list[Step] | str:
        message = PlanRequest(goal=str(rest), facts=dict(facts), allowed=allowed)
        result = agent.complete(LMRequest("plan", message, PlanReply))
        hear(result.degraded)
        if result.value.explanation:
            return result.value.explanation
        return [Step(repertoire.acts[anywhere(Goal.parse(step.goal))], step.goal) for step in result.value.steps]

    return search
