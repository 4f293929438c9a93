"""``embodied skills``: what was learnt and kept."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodied.cli.arguments import Arguments, Command
from embodied.cli.schema import SkillsConfig
from embodied.errors import UsageError

if TYPE_CHECKING:
    from embodied.core import Skill
    from embodied.skills.library import SkillLibrary

SHORT = 12  # characters of a version hash that are printed


def run(arguments: Arguments) -> int:
    """List, show, export, import, revoke …"""
    from embodied.cli.config import compose

    word, *rest = arguments.words or ("list",)
    COMMAND.one_of(word, tuple(_ACTIONS), "word")
    config = compose(SkillsConfig, arguments.overrides)
    action, least, most, usage = _ACTIONS[word]
    if not least <= len(rest) <= most:
        raise UsageError(f"embodied skills {usage}")
    for key in ("key", "data", "seed", "gate"):
        if key not in _KEYS.get(word, ()) and getattr(config, key) != getattr(SkillsConfig(), key):
            raise UsageError(f"{key}= says nothing to embodied skills {word}; leave it out")
    return action(Asked(config, rest, "json" in arguments.flags))


@dataclass(frozen=True)
class Asked:
    """What a word of the command is given: settings, further words, and whether JSON is wanted."""

    config: SkillsConfig
    words: Sequence[str] = ()
    as_json: bool = False

    @property
    def run_dir(self) -> Path:
        """The run directory that is meant; MissingRunError where there is none."""
        from embodied import runs

        return runs.find(self.config.run)


def list_skills(asked: Asked) -> int:
    """Every mastered goal with its interval, and how many of them are distinct."""
    from embodied import runs
    from embodied.skills.schema import STATUSES

    run_dir = asked.run_dir
    distinct, _ = runs.mastered(run_dir)
    with runs.library(run_dir) as library:
        goals = _goals(library)
        counts = Counter(row.status for row in library.standing())
        head, inside = library.head, len(library.at())
    versions = sum(counts.values())
    statuses = {status: counts[status] for status in STATUSES if counts[status]}
    if asked.as_json:
        found = {"run": str(run_dir), "mastered": distinct, "goals": goals, "versions": versions,
                 "statuses": statuses, "head": head.id, "in head": inside}  # fmt: skip
        print(json.dumps(found, indent=1))
        return 0
    width = max((len(row["goal"]) for row in goals), default=0)
    for row in goals:
        mark = "●" if row["goal"] in distinct else "○"
        rate = f"{row['rate']:4.0%} [{row['lower']:.2f}, {row['upper']:.2f}] of {row['n']}"
        print(f"{mark} {row['goal']:<{width}}  {rate}  {row['version'][:SHORT]}  {row['schema']}")
    print(f"{run_dir}: {len(distinct)} distinct goals mastered (●), {len(goals)} in all, {versions} versions")
    if statuses:
        print(", ".join(f"{count} {status}" for status, count in statuses.items()) + f"; head {head.id}: {inside}")
    return 0


def heads(asked: Asked) -> int:
    """Every change of the head: who put which versions in, and which left."""
    from embodied import runs

    with runs.library(asked.run_dir) as library:
        chain = library.heads()
    if asked.as_json:
        print(json.dumps([_plain(head) for head in chain], indent=1))
        return 0
    for head in chain:
        print(f"{head.id:>5}  {head.digest[:SHORT]}  by {head.principal}")
        for kind, table in head.changes.items():
            for family, versions in table.items():
                print(f"       {kind} {', '.join(v[:SHORT] for v in versions)}  {family}")
    print(f"{asked.run_dir}: {len(chain)} heads")
    return 0


def show(asked: Asked) -> int:
    """One skill version: what it is, where it comes from, and everything measured about it."""
    from embodied import runs
    from embodied.skills.statistics import wilson

    with runs.library(asked.run_dir) as library:
        skill = _find(library, asked.words[0])
        status = {row.goal: row.status for row in library.status(version=skill.version)}
        evidence = [_plain(row) for row in library.evidence(version=skill.version)]
        operators = [_plain(row) for row in library.operators(skill.schema)]
        place = str(library.artifact(skill)) if skill.artifact else "none"
        standing = library.standing([skill.version])[0].status
        decisions = [_plain(row) for row in library.gate_decisions(skill.version)]
        inside = skill.version in library.members(skill.schema)
    if asked.as_json:
        found = {"version": skill.version, "schema": skill.schema, "artifact": place, "parent": skill.parent,
                 "standing": standing, "in head": inside, "principal": skill.principal, "tainted": skill.tainted,
                 "facets": skill.facets, "provenance": dict(skill.provenance), "status": status, "evidence": evidence,
                 "operators": operators, "decisions": decisions}  # fmt: skip
        print(json.dumps(found, indent=1, default=str))
        return 0
    print(f"version   {skill.version}\nschema    {skill.schema}\nartifact  {place}")
    print(f"parent    {skill.parent or 'none'}\nround     {skill.created_round}")
    print(f"status    {standing}{', in the head' if inside else ''}{', tainted' if skill.tainted else ''}")
    print(f"from      {skill.principal}")
    for name, facet in skill.facets.items():
        print(f"{name:<9} {json.dumps(facet, ensure_ascii=False)}")
    for key, value in skill.provenance.items():
        print(f"          {key}: {value}")
    print("goals")
    for goal, state in status.items():
        print(f"  {goal}: {state}")
    print("evidence")
    for row in evidence:
        lower, upper = wilson(row["successes"], row["n"])
        share = f"{row['successes']}/{row['n']} [{float(lower):.2f}, {float(upper):.2f}]"
        judged = f"seed {row['seed']}, by {row['kind']}, {row['origin']}"
        print(f"  {row['goal']}: {row['purpose']} {share}, {judged}")
    if operators:
        print("operator (hits of trials)")
    for row in operators:
        print(f"  {row['role']} {row['literal']}: {row['hits']} of {row['trials']}")
    for row in decisions:
        print(f"decision  {row['verdict']} ({row['goal']}): {row['reason']}")
    return 0


def export(asked: Asked) -> int:
    """Write a pack of skills with their artifacts and evidence."""
    from embodied import runs
    from embodied.skills.packs import export_pack

    key = asked.config.key
    with runs.library(asked.run_dir) as library:
        named = [_find(library, word) for word in asked.words[1:]]
        skills = named or [entry.skill for entry in library.mastered()]
        path = export_pack(library, {skill.version for skill in skills}, asked.words[0], key=key or None)
    print(f"wrote {path}{', signed' if key else ''}")
    return 0


def import_(asked: Asked) -> int:
    """Read a pack into the run's library, quarantined: what is in it must prove itself here."""
    from embodied import runs
    from embodied.skills.library import SkillLibrary
    from embodied.skills.packs import import_pack

    with SkillLibrary.open(asked.run_dir / runs.LIBRARY) as library, library.edit() as tx:
        taken = import_pack(tx, asked.words[0])
    tainted = sum(skill.tainted for skill in taken)
    senders = ", ".join(sorted({skill.principal for skill in taken}))
    print(f"{len(taken)} skills taken into {asked.run_dir}, {tainted} of them tainted, from {senders}:")
    print(f"they count for nothing until they have proved themselves here: embodied skills prove run={asked.run_dir}")
    return 0


def prove(asked: Asked) -> int:
    """Let imports prove themselves: what passes comes into the head, what fails stays in quarantine."""
    from rich.console import Console
    from rich.text import Text

    from embodied import runs
    from embodied.journal import Journal
    from embodied.language.selection import agent_of
    from embodied.training.proving import prove as proved
    from embodied.training.proving import waiting
    from embodied.training.rounds import Worker

    run_dir, console = asked.run_dir, Console()
    if runs.is_training(run_dir) or runs.is_discovery(run_dir):
        raise UsageError(f"{run_dir} practises no goals of the grammar; imports prove themselves in an embodied run")
    config = runs.config(run_dir)

    def say(line: str) -> None:
        console.print(Text(line), soft_wrap=True)

    journal = Journal.open(run_dir, config.gate.threshold if config.use_gate else 0.0)
    try:
        found = [_find(journal.library, word) for word in asked.words] or waiting(journal.library)
        worker = Worker(config, journal, agent_of(config.language, run_dir, say), lambda steps: None, say)
        proofs = [proved(worker, skill.version) for skill in found]
    finally:
        journal.close()
    if asked.as_json:
        print(json.dumps([_plain(proof) for proof in proofs], indent=1))
        return 0
    for proof in proofs:
        made = f"adopted as {proof.version[:SHORT]} for {', '.join(proof.goals)}" if proof.goals else "rejected"
        say(f"{proof.imported[:SHORT]} {proof.schema}: {made} ({proof.stage}): {proof.reason}")
    say(f"{run_dir}: {sum(bool(proof.goals) for proof in proofs)} of {len(proofs)} imports proved themselves")
    return 0


def revoke(asked: Asked) -> int:
    """Say that a version must not be used any more, and why."""
    from embodied import runs
    from embodied.skills.library import SkillLibrary

    with SkillLibrary.open(asked.run_dir / runs.LIBRARY) as library:
        skill = _find(library, asked.words[0])
        with library.edit() as tx:
            tx.revoke(skill.version, " ".join(asked.words[1:]))
    print(f"{skill.version[:SHORT]} {skill.schema} is revoked in {asked.run_dir}")
    return 0


def trust(asked: Asked) -> int:
    """Take packs signed with a key as coming from somebody who is trusted."""
    from embodied import runs
    from embodied.skills.library import SkillLibrary

    name, key = asked.words
    with SkillLibrary.open(asked.run_dir / runs.LIBRARY) as library, library.edit() as tx:
        tx.add_principal(name, public_key=key, trust="trusted")
    print(f"packs signed with {key[:SHORT]}… are trusted in {asked.run_dir} as from {name}")
    return 0


def make_key(asked: Asked) -> int:
    """Make a private key to sign packs with; prints the public one."""
    from embodied.skills.signing import new_key

    path = asked.words[0]
    print(f"public key {new_key(path)}\nthe private key is in {path}: keep it to yourself")
    return 0


def gate(asked: Asked) -> int:
    """Look for skills in play, and keep those that a policy learnt from it proves on fresh starts."""
    from rich.console import Console
    from rich.text import Text

    from embodied import runs
    from embodied.data.recorded import load_recorded
    from embodied.skills.gate import GateConfig
    from embodied.training.played import keep_played
    from envs.scenes.scene import load

    run_dir, config = asked.run_dir, asked.config
    if not runs.is_training(run_dir):
        raise UsageError(
            f"{run_dir} is no training from play; embodied train policy=latent_plans data=play:STEPS is one"
        )
    if not config.data:
        raise UsageError("data= is needed: the play to look for skills in, as in data=play:1_000_000 or store:PATH")
    console = Console()
    play = load_recorded(config.data, seed=config.seed, console=console)
    goals = keep_played(
        run_dir, play, gate=GateConfig(**vars(config.gate)), seed=config.seed,
        say=lambda line: console.print(Text(line), soft_wrap=True),
    )  # fmt: skip
    words = load(str(play.about["scene"])).vocabulary
    console.print(Text(f"{len(goals)} skills kept in {run_dir}"), soft_wrap=True)
    if goals:
        console.print(Text(f'try: embodied ask "{words.describe(goals[0])}" run={run_dir}'), soft_wrap=True)
    return 0


def _goals(library: SkillLibrary) -> list[dict[str, Any]]:
    from embodied.skills.statistics import wilson

    rows = []
    for entry in library.mastered():
        lower, upper = wilson(entry.successes, entry.n)
        rows.append({
            "goal": entry.goal, "schema": entry.skill.schema, "version": entry.skill.version, "n": entry.n,
            "successes": entry.successes, "rate": entry.successes / entry.n, "lower": float(lower),
            "upper": float(upper),
        })  # fmt: skip
    return rows


def _find(library: SkillLibrary, word: str) -> Skill:
    """The skill meant by the beginning of a version hash, or by a mastered goal."""
    entries = library.mastered()
    for entry in entries:
        if entry.goal == word:
            return entry.skill
    fitting = [skill for skill in library.skills() if skill.version.startswith(word)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UsageError(f"{len(fitting)} versions begin with {word!r}; write more of the hash")
    goals = ", ".join(entry.goal for entry in entries) or "none"
    raise UsageError(f"no skill {word!r}: name the beginning of a version hash, or a mastered goal ({goals})")


def _plain(row: object) -> dict[str, Any]:
    return dict(vars(row))


_ACTIONS: dict[str, tuple[Callable[[Asked], int], int, int, str]] = {
    "list": (list_skills, 0, 0, "list takes no further word"),
    "show": (show, 1, 1, "show SKILL, where SKILL is the beginning of a version hash or a mastered goal"),
    "export": (export, 1, 1_000, "export FILE [SKILL ...]"),
    "import": (import_, 1, 1, "import FILE"),
    "prove": (prove, 0, 1_000, "prove [SKILL ...]"),
    "gate": (gate, 0, 0, "gate takes no further word, but data=PLAY"),
    "heads": (heads, 0, 0, "heads takes no further word"),
    "revoke": (revoke, 2, 1_000, "revoke SKILL REASON ..."),
    "key": (make_key, 1, 1, "key FILE, where FILE does not exist yet"),
    "trust": (trust, 2, 2, "trust NAME PUBLICKEY"),
}
_KEYS = {"export": ("key",), "gate": ("data", "seed", "gate")}  # the keys that say something to a word, beside run=

COMMAND = Command(
    name="skills",
    usage="embodied skills [list | show SKILL | heads | export FILE [SKILL ...] | import FILE | prove [SKILL ...] "
    "| revoke SKILL REASON | key FILE | trust NAME PUBLICKEY | gate] [--json] [run=DIR]",
    about="""
The skill library of a run: what it mastered, with Wilson 95 % intervals on fresh confirmation episodes, and
where each skill comes from. An exported pack carries policies and evidence; what is imported counts for
nothing until it has proved itself here, and a pack whose content does not match its hashes is refused.

A training from recorded play has no library until ``gate`` makes one: the play is cut where it changes its mind, what
came true in the pieces are the candidates, and what the policy proves of them is kept, with operators and names.
""",
    run=run,
    schema=SkillsConfig,
    words={
        "list": "every mastered goal (the default)",
        "show": "everything known about one skill",
        "export": "write skills, or all that master a goal, to a pack",
        "import": "take a pack's skills in, quarantined",
        "prove": "let imports prove themselves: static checks, consensus, gate",
        "heads": "every change of which versions are in use",
        "revoke": "say that a version must not be used any more, and why",
        "key": "make a private key to sign packs with (key=FILE)",
        "trust": "say whose signed packs are not tainted",
        "gate": "keep what a policy learnt from play can do",
    },
    flags={"json": "JSON instead of text"},
    examples=(
        ("embodied skills list", "of the newest run"),
        ('embodied skills show "open(drawer)" run=runs/quick', "the skill that opens the drawer"),
        ("embodied skills export drawer.pack 3fa2", "the version whose hash begins so"),
        ("embodied skills import drawer.pack run=runs/second", "into another life"),
        ("embodied skills prove run=runs/second", "what was imported there"),
        ("embodied skills gate run=runs/plans data=play:1_000_000", "what a training from play can do"),
        ("embodied skills export drawer.pack key=me.key", "signed"),
    ),
)
