"""Every command's configuration: a dataclass a command, one line of meaning a key.

The dataclasses are the schema (an unknown key is an error), the defaults (the preset ``default``), the source
of ``--help`` and what the Python functions take. Values are checked on construction, so a configuration built
in Python is held to the same rules as one typed on the command line.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from embodied.cli.fields import Checked, option
from embodied.errors import ConfigError

BACKENDS = (
    "auto",
    "egl",
    "osmesa",
    "glfw",
    "rays",
)  # those of envs.rendering, named here so that help is quick
FROM_PLAY = ("flow_bc", "gcbc", "beso", "act", "act_jepa", "latent_plans")  # `embodied.training.play_policies`


@dataclass
class GateConfig(Checked):
    """What a policy must prove before it becomes a skill."""

    prefix = "gate."
    screen: int = option(24, "fresh episodes of the first, cheap look at a candidate", low=1)
    n: int = option(200, "fresh episodes of the admission itself", low=1)
    confirm: int = option(200, "further fresh episodes, for the winner alone", low=1)
    threshold: float = option(0.8, "the Wilson 95 % lower bound to reach", low=0.0, high=1.0)


@dataclass
class RenderConfig(Checked):
    """How the robot is drawn."""

    prefix = "render."
    backend: str = option("auto", "auto: a GPU's GL where there is one, else rays", choices=BACKENDS)
    width: int = option(320, "pixels", low=16, high=4096)
    height: int = option(240, "pixels", low=16, high=4096)


# those of embodied.language.selection and embodied.language.roles, named here so that help is quick
LANGUAGES = ("grammar", "task_lm", "openai", "transformers", "replay")
ROLES = ("propose", "relabel", "judge", "plan", "analyse", "answer", "describe")


@dataclass
class BudgetConfig(Checked):
    """What a language backend may cost a run; 0 sets no limit."""

    prefix = "language.budget."
    requests: int = option(0, "requests to a server", low=0)
    tokens: int = option(0, "tokens, in and out", low=0)
    seconds: float = option(0.0, "seconds of waiting", low=0.0)
    money: float = option(0.0, "money, by the prices below", low=0.0)
    price_in: float = option(0.0, "price of a million tokens in", low=0.0)
    price_out: float = option(0.0, "price of a million tokens out", low=0.0)


@dataclass
class LanguageConfig(Checked):
    """Who speaks for the robot (`embodied.language`)."""

    prefix = "language."
    backend: str = option(
        "grammar", "grammar is embedded and needs nothing; language=NAME for short", choices=LANGUAGES
    )
    endpoint: str = option("", "openai: the base URL of any compatible server, as in http://127.0.0.1:8000/v1")
    model: str = option("", "openai: the model's name there; task_lm, transformers: a folder; replay: as recorded")
    key_variable: str = option("", "openai: the environment variable that holds the key; empty: no key")
    roles: list[str] = option(
        lambda: ["propose", "plan", "analyse", "answer", "describe"], f"what it is asked, of: {', '.join(ROLES)}"
    )
    leeway: float = option(0.3, "how far below the embedded proposer's best score a proposal may lie", low=0.0)
    timeout: float = option(60.0, "seconds for one answer, retries and repairs included", low=0.01, high=3_600.0)
    retries: int = option(2, "openai: further tries where the server is busy or fails", low=0, high=10)
    max_tokens: int = option(1_024, "the longest reply", low=1)
    temperature: float = option(0.0, "openai: 0 for the likeliest reply", low=0.0, high=2.0)
    seed: int = option(0, "openai: draws the reply, where the server heeds it", low=0)
    cassette: str = option("", "a file of recorded answers: written with a real backend, read by replay")
    budget: BudgetConfig = option(BudgetConfig, "")

    def __post_init__(self) -> None:
        super().__post_init__()
        wrong = [role for role in self.roles if role not in ROLES]
        if wrong or not self.roles:
            raise ConfigError(f"language.roles = {self.roles} must name at least one of: {', '.join(ROLES)}")
        if self.backend == "openai" and not (re.match(r"https?://[^/]", self.endpoint) and self.model):
            raise ConfigError(
                "language.backend = 'openai' needs language.endpoint (http:// or https://) and language.model, not "
                f"{self.endpoint!r} and {self.model!r}"
            )
        if self.backend == "replay" and not self.cassette:
            raise ConfigError("language.backend = 'replay' needs language.cassette, the file to answer from")


WITHOUT = ("operators", "relabeler", "regression", "proof", "skills")  # parts of the loop; see `RunConfig.without`
ONCE = 0.2  # what the Wilson lower bound of one success in one episode reaches


@dataclass
class RunConfig(Checked):
    """``embodied run``: one life, from an empty library to a repertoire."""

    name: str = option("default", "the run's folder below out; the same name continues the run")
    out: str = option("runs", "where runs are kept")
    seed: int = option(0, "same seed, same episodes and same library on one machine and thread count", low=0)
    steps: int = option(12_000_000, "environment steps of the whole life, play and practice together", low=1)
    num_envs: int = option(192, "simulations stepped together", low=1, high=65_536)
    threads: int = option(0, "physics and learning threads; 0 takes every core this process may use", low=0)
    proposer: str = option(
        "progress", "who chooses the next goal", choices=("progress", "uniform", "sec", "soar", "uncertainty")
    )
    starts: str = option("kept", "where practice begins: any kept state, or probed", choices=("kept", "disagreement"))
    cloning: str = option("relabelled", "what is cloned: all, or own successes", choices=("relabelled", "filtered"))
    rollback: bool = option(False, "take updates of practice back after which success fell significantly")
    play_steps: int = option(300_000, "environment steps of scripted play before the first goal", low=0)
    flow_updates: int = option(2_500, "gradient steps of the play policy", low=0)
    play_policy: str = option("flow_bc", f"what learns from play, one or several joined by +: {', '.join(FROM_PLAY)}")
    discover_steps: int = option(0, "environment steps of discovery without a task, after play; 0: none", low=0)
    practice_steps: int = option(400_000, "environment steps of practice a round", low=1)
    use_play: bool = option(True, "learn from play first; false starts practice from nothing")
    use_gate: bool = option(True, "admit only what is proved; false keeps whatever practice ends with")
    candidates: int = option(1, "the gate picks from: 1 practice's average; 2 and what it ended with", low=1, high=2)
    without: list[str] = option(list, f"parts left out (docs/open-ended.md), of: {', '.join(WITHOUT)}")
    gate: GateConfig = option(GateConfig, "")
    language: LanguageConfig = option(LanguageConfig, "")
    heldout_episodes: int = option(5, "episodes each held-out instruction at the end; 0: none", low=0)
    render: RenderConfig = option(RenderConfig, "")
    resume: bool = option(True, "continue the run of this name; false refuses to touch one that exists")

    def __post_init__(self) -> None:
        super().__post_init__()
        learners = self.play_policy.split("+")
        if not set(learners) <= set(FROM_PLAY) or len(set(learners)) < len(learners):
            raise ConfigError(
                f"play_policy = {self.play_policy!r} must be one or, joined by +, several of: {', '.join(FROM_PLAY)}"
            )
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ConfigError(f"name = {self.name!r} is no folder name: use letters, digits, . _ and -")
        wrong = [part for part in self.without if part not in WITHOUT]
        if wrong:
            raise ConfigError(f"without = [{', '.join(self.without)}] must name parts among: {', '.join(WITHOUT)}")

    @property
    def threshold(self) -> float:
        """The lower bound that evidence must reach: the gate's, where there is one."""
        if not self.use_gate:
            return 0.0
        return ONCE if "proof" in self.without else self.gate.threshold


# those of embodied.training.discovery and policies.discovery, named here so that help is quick
DISCOVERIES = ("slim", "metra", "lsd", "csd", "diayn", "dusdi", "rnd", "random")
COMBINE = ("normalized_advantages", "sum", "weighted_sum", "normalized_rewards", "lagrangian")
SKILLS = ("position", "lsd", "metra", "csd", "diayn", "dusdi", "rnd", "random")


@dataclass
class SkillConfig(Checked):
    """How skills are told apart (`policies.discovery.DiscoveryConfig`)."""

    prefix = "skill."
    method: str = option("auto", "the skill's reward; auto: the method's own", choices=("auto", *SKILLS))
    code_size: int = option(0, "numbers in a code; 0: two a block where the reward projects on it, else 16", low=0)
    discrete: bool = option(False, "codes are numbers of skills, and not directions")
    planar: bool = option(True, "where blocks are on the plane alone is looked at, and not how high")
    hidden: list[int] = option(lambda: [128, 128], "widths of the hidden layers of what is learnt about skills")
    learning_rate: float = option(1e-3, "step size of what is learnt about skills", low=0.0)
    buffer: int = option(200_000, "transitions it is learnt from", low=1)
    updates: int = option(32, "gradient steps for every rollout", low=0)
    batch: int = option(1024, "transitions in a gradient step", low=1)
    multiplier: float = option(30.0, "metra and csd: the multiplier at first", low=1e-6)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(f"skill.hidden = {self.hidden} must be widths, each at least 1, as in [128,128]")


@dataclass
class DiscoverConfig(Checked):
    """``embodied discover``: skills that nobody asked for, told apart by what they do to blocks."""

    method: str = option("slim", "what is rewarded, and how it is added up", choices=DISCOVERIES)
    env: str = option("discovery", "a table with edges, or another scene of the library or a YAML file, with blocks")
    blocks: int = option(1, "how many of the scene's blocks are there", low=1)
    combine: str = option("normalized_advantages", "how rewards become one", choices=COMBINE)
    rewards: list[str] | None = option(
        None, "which there are: reach, skill, safety, grasp, lift, single costs; null: the method's own"
    )
    weights: dict[str, float] = option(dict, "factors of the rewards' advantages, one at a time: weights.safety=0.3")
    scales: dict[str, float] = option(dict, "factors of the rewards themselves, one at a time: scales.reach=10")
    skill: SkillConfig = option(SkillConfig, "")
    steps: int = option(480_000, "environment steps of the whole training", low=1)
    num_envs: int = option(128, "simulations stepped together", low=1, high=65_536)
    seed: int = option(0, "same seed, same skills on one machine and thread count", low=0)
    threads: int = option(0, "physics and learning threads; 0 takes every core this process may use", low=0)
    library: bool = option(True, "sort what was discovered by effect, and keep in a library what passes the gate")
    video: bool = option(True, "film twelve of the skills side by side at the end")
    render: RenderConfig = option(lambda: RenderConfig(width=160, height=120), "")
    out: str = option("", "the folder; empty: runs/discover/ENV-METHOD-BLOCKS-seedN; the same folder continues")

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.rewards
        if given is not None and (not given or len(set(given)) < len(given)):
            raise ConfigError(f"rewards = [{', '.join(given)}] must name at least one reward, and each of them once")
        for key in ("weights", "scales"):
            for name, value in getattr(self, key).items():
                if not 0 <= value < math.inf:
                    raise ConfigError(f"{key}.{name} = {value!r} must be a finite number, at least 0")


@dataclass
class AskConfig(Checked):
    """``embodied ask``: an instruction, carried out on physics."""

    run: str = option("", "the run directory whose skills are used; empty takes the newest in runs/")
    seed: int = option(0, "draws the scene", low=0)
    replans: int = option(2, "new plans after a step that failed", low=0)
    video: str = option("", "the video's file (.mp4 or .gif); empty: in the run's videos/; none: no video")
    language: LanguageConfig = option(LanguageConfig, "")
    render: RenderConfig = option(RenderConfig, "")


PLANS = ("prior", "shuffled", "posterior")  # posterior: recognised in the expert's way


TOLD = ("", "heard", "held_out", "another")  # those of embodied.evaluation.exams


@dataclass
class EvalConfig(Checked):
    """``embodied eval``: a run's skills and instructions, or a policy on any environment, on fresh episodes."""

    env: str = option("", "an environment to measure a policy on instead of a run: tabletop, metaworld/drawer-open …")
    policy: str = option("random", "with env: random, expert (where there is one) or a saved policy's directory")
    out: str = option("", "with env: the file of one JSON line an episode, the summary beside it; empty keeps none")
    run: str = option("", "the run directory to measure; empty takes the newest in runs/")
    what: str = option(
        "skills",
        "every goal of the library, or the held-out instructions",
        choices=("skills", "instructions"),
    )
    episodes: int = option(200, "fresh episodes a goal or environment (an instruction takes a fortieth of them)", low=1)
    seed: int = option(1_000, "draws the episodes; take one that no run has used", low=0)
    num_envs: int = option(100, "simulations stepped together, but in an exam", low=1, high=65_536)
    threads: int = option(0, "threads; 0 takes every core this process may use", low=0)
    exam: bool = option(False, "with env=playroom: the exam of goals given as states, for random and expert too")
    depth: int = option(1, "exam: how many tasks lie between start and goal", low=1, high=3)
    disturb: str = option("none", "exam: what happens on the way, once", choices=("none", "push", "move"))
    plan: str = option("prior", "exam: whose plans a latent_plans policy follows", choices=PLANS)
    told: str = option(
        "", "exam: a multi_context policy gets a sentence and no goal, as in the labels or new", choices=TOLD
    )


@dataclass
class SkillsConfig(Checked):
    """``embodied skills``: what was learnt and kept."""

    run: str = option("", "the run directory whose library is meant; empty takes the newest in runs/")
    data: str = option("", "gate: the play to look for skills in, as embodied train takes it (play:STEPS, store:PATH)")
    seed: int = option(0, "gate: same seed, same decisions", low=0)
    gate: GateConfig = option(GateConfig, "")
    key: str = option("", "the file of a private key that signs an exported pack; empty leaves it unsigned")


@dataclass
class ReportConfig(Checked):
    """``embodied report``: the run as one HTML file."""

    run: str = option("", "the run directory to report on; empty takes the newest in runs/")
    render: RenderConfig = option(RenderConfig, "")


@dataclass
class DoctorConfig(Checked):
    """``embodied doctor``: is this machine ready, and how fast is it."""

    seconds: float = option(5.0, "length of the throughput check; 0 leaves it out", low=0.0, high=600.0)
    num_envs: int = option(128, "simulations stepped together in it", low=1, high=65_536)
    threads: int = option(0, "threads; 0 takes every core this process may use", low=0)
    language: LanguageConfig = option(LanguageConfig, "")


@dataclass
class ViewConfig(Checked):
    """``embodied view``: a world, and what acts in it, looked at."""

    env: str = option("tabletop", "the world: a native one, or suite/task")
    policy: str = option("random", "who acts: random, script (the world's own), or the directory of a saved policy")
    skill: str = option("", "a goal or kind of goal that run's library masters, instead of a policy")
    episode: int = option(-1, "the number of one of run's recorded episodes, instead; -1: none", low=-1)
    run: str = option("", "the run directory of skill and episode; empty takes the newest in runs/")
    goal: str = option("", "the goal, where the world takes goals; empty: its own, or the skill's")
    seed: int = option(0, "draws the scene, and random actions", low=0)
    steps: int = option(0, "control steps of a video; 0: the episode's, or 200", low=0)
    out: str = option("", "the video's file (.mp4 or .gif); empty: the viewer, or without a screen one in videos/")
    camera: str = option("", "the video's camera; empty: front, or the first")
    render: RenderConfig = option(RenderConfig, "")


@dataclass
class BenchConfig(Checked):
    """``embodied bench``: speed against what the machine can do at all."""

    env: str = option("tabletop", "a native world, by its name")
    seconds: float = option(5.0, "length of each timed window", low=0.1, high=600.0)
    repeats: int = option(5, "timed windows; the median counts", low=1)
    num_envs: int = option(128, "sim: simulations stepped together", low=1, high=65_536)
    threads: int = option(0, "sim: threads; 0 takes every core this process may use", low=0)
    size: int = option(84, "render: pixels a side of a picture", low=1, high=4096)


@dataclass
class DataConfig(Checked):
    """``embodied data``: recording play, and data sets of several formats."""

    env: str = option("playroom", "record: the world that is played in", choices=("playroom",))
    scene: str = option("playroom", "record: a scene of the library, or a YAML file")
    kind: str = option("correlated", "record: how behaviours follow each other", choices=("correlated", "markov"))
    steps: int = option(100_000, "record: environment steps in all; asking for more later goes on", low=1)
    seed: int = option(0, "record: draws starts and behaviours", low=0)
    num_envs: int = option(128, "record: simulations stepped together", low=1, high=65_536)
    threads: int = option(0, "record: physics threads; 0 takes every core this process may use", low=0)
    length: int = option(500, "record: steps of an episode", low=1)
    states_every: int = option(100, "record: steps from one kept simulator state of an episode to the next", low=1)
    out: str = option("data/play", "record: the store's directory")
    from_: str = option("", "convert: FORMAT:PATH to read")
    to: str = option("", "convert: FORMAT:PATH to write; nothing is ever overwritten")
    validation: float = option(
        0.1, "convert: share of episodes for validation, where formats name one", low=0, high=0.9
    )
    pictures: bool | int = option(
        False, "record: pixels a side of a picture kept of every moment; convert: true draws videos, for lerobot"
    )
    camera: str = option("front", "record: which camera of the scene takes the pictures")
    allow_mixed_physics: bool = option(False, "convert: take episodes of several versions of the physics together")
    episode: int = option(0, "replay: the episode's number", low=0)


@dataclass
class ClaimsConfig(Checked):
    """``embodied claims``: what is claimed, what was measured, and measuring it anew."""

    results: str = option("docs/results", "where the measurements are kept, one small JSON file each")
    out: str = option("runs/claims", "where the runs made for a measurement are kept")
    runs: list[str] = option(list, "finished runs to measure instead of making new ones")
    seed: int = option(0, "the first seed", low=0)
    seeds: int = option(0, "how many seeds; 0 takes the claim's own number", low=0)


@dataclass
class LearnerConfig(Checked):
    """What every learner of ``embodied train`` has: a name on the command line, and how it is called where it is made.

    ``recorded`` says that it learns from recorded episodes and not by acting.
    """

    name: ClassVar[str] = ""
    algorithm: ClassVar[str] = ""
    recorded: ClassVar[bool] = False
    hindsight: ClassVar[tuple[str, ...]] = ()  # fields that are arguments of hindsight replay
    apart: ClassVar[tuple[str, ...]] = ("net_arch", "normalise")  # fields that are no argument of the constructor
    prefix = "policy."

    def settings(self) -> dict[str, Any]:
        """The arguments of the algorithm's constructor."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name not in self.apart}
