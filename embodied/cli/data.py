"""``embodied data``: recording play, and data sets of several formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodied.cli.arguments import Arguments, Command
from embodied.cli.schema import DataConfig
from embodied.errors import UsageError

if TYPE_CHECKING:
    from embodied.data.dataset import Dataset

_RECORD = (
    "env", "scene", "kind", "steps", "seed", "num_envs", "threads", "length", "states_every", "pictures", "camera",
    "out",
)  # fmt: skip
_KEYS = {  # which keys each word takes
    "record": _RECORD, "convert": ("from", "to", "validation", "pictures", "allow_mixed_physics"), "inspect": (),
    "stats": (), "replay": ("episode",),
}  # fmt: skip


def run(arguments: Arguments) -> int:
    """Record, convert, inspect, give statistics or replay."""
    from embodied.cli.config import compose

    if not arguments.words:
        raise UsageError(f"embodied data {'|'.join(_ACTIONS)}: name one; embodied data --help has examples")
    word, *rest = arguments.words
    COMMAND.one_of(word, tuple(_ACTIONS), "word")
    config = compose(DataConfig, arguments.overrides)
    for text in arguments.overrides:
        key = text.partition("=")[0].rstrip("_")
        if key not in _KEYS[word]:
            keys = ", ".join(_KEYS[word]) or "none"
            raise UsageError(f"embodied data {word} takes no key {key!r}; its keys are: {keys}")
    paths = 0 if word in ("record", "convert") else 1
    if len(rest) != paths:
        raise UsageError(f"embodied data {word} {'PATH' if paths else 'takes no further word, only key=value'}")
    return _ACTIONS[word](config, rest, "json" in arguments.flags)


def record(config: DataConfig, _: list[str], as_json: bool) -> int:
    """Play into a store."""
    from embodied.data.recording import Recording, begun
    from embodied.data.recording import record as play
    from embodied.progress import Progress

    if config.pictures is True:
        raise UsageError("say how large the pictures are: pictures=48 has 48 pixels a side")
    wanted = Recording(
        config.steps, config.kind, config.seed, config.scene, config.num_envs, config.length, config.states_every,
        int(config.pictures), config.camera,
    )  # fmt: skip
    out = Path(config.out)
    with Progress(wanted.total, start=begun(out, wanted)) as progress:
        progress.stage(f"{config.kind} play into {out}")
        steps = play(out, wanted, threads=config.threads, at=progress.at)
        progress.note(progress.line())
    found = {"store": config.out, "steps": steps} | ({"pictures": wanted.pictures} if wanted.pictures else {})
    seen = f", with pictures of {wanted.pictures}x{wanted.pictures}" if wanted.pictures else ""
    print(json.dumps(found) if as_json else f"{config.out} holds {steps:,} steps of {config.kind} play{seen}")
    return 0


def convert(config: DataConfig, _: list[str], as_json: bool) -> int:
    """From one format to another, whole or not at all."""
    from embodied.data import formats

    if not config.from_ or not config.to:
        raise UsageError("embodied data convert from=FORMAT:PATH to=FORMAT:PATH")
    if not isinstance(config.pictures, bool):
        raise UsageError(f"pictures={config.pictures} is a size, for record; convert draws videos with pictures=true")
    formats.place(config.to)
    dataset = formats.read(config.from_)
    pictures = None
    if config.pictures:
        from embodied.data import replaying

        env = replaying.environment(dataset)
        pictures = lambda episode: replaying.pictures(env, episode, dataset.source)  # noqa: E731
    formats.write(
        dataset,
        config.to,
        allow_mixed_physics=config.allow_mixed_physics,
        validation=config.validation,
        pictures=pictures,
    )
    if as_json:
        print(json.dumps({"from": dataset.source, "to": config.to, "episodes": dataset.count, "notes": dataset.notes}))
        return 0
    for note in dataset.notes:
        print(f"note: {note}")
    print(f"{dataset.count} episodes from {dataset.source} to {config.to}")
    return 0


def inspect(_: DataConfig, words: list[str], as_json: bool) -> int:
    """What a data set is. The exit code is 1 where something is wrong with it."""
    from embodied.data.summary import inspect as look

    found = look(_read(words[0]))
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        for key, value in found.items():
            _line(key, value)
    return 1 if found["problems"] else 0


def _line(key: str, value: Any) -> None:
    """One line, or one an entry of a list of sentences."""
    if key in ("notes", "problems"):
        for sentence in value or ["none"]:
            print(f"{key:<15} {sentence}")
        return
    if isinstance(value, dict):
        value = ", ".join(f"{name} {entry}" for name, entry in value.items())
    elif isinstance(value, list):
        value = f"{len(value)}: {', '.join(value)}" if value else "without names"
    elif isinstance(value, int):
        value = f"{value:,}"
    print(f"{key:<15} {value or 'not told'}")


def stats(_: DataConfig, words: list[str], as_json: bool) -> int:
    """Figures of every column."""
    from embodied.data.summary import statistics

    found = statistics(_read(words[0]))
    if as_json:
        print(json.dumps(found, indent=1))
        return 0
    print(f"{found['data set']}: {found['episodes']:,} episodes, {found['steps']:,} steps")
    width = max(len("length"), *map(len, found["columns"]))
    print(f"{'':<{width}}  {'mean':>11} {'std':>11} {'min':>11} {'max':>11}")
    for name, row in {"length": found["length"], **found["columns"]}.items():
        print(f"{name:<{width}}  " + " ".join(f"{row[key]:11.4g}" for key in ("mean", "std", "min", "max")))
    return 0


def replay(config: DataConfig, words: list[str], as_json: bool) -> int:
    """Takes an episode's actions anew. The exit code is 1 where something else comes of them."""
    from dataclasses import asdict
    from itertools import islice

    from embodied.data import replaying
    from embodied.data.dataset import DatasetError
    from embodied.training.rollouts import versions

    dataset = _read(words[0])
    if config.episode >= dataset.count:
        raise DatasetError(f"there is no episode {config.episode} in {dataset.source}; it holds {dataset.count}")
    episode = next(islice(dataset.load(), config.episode, None))
    env = replaying.environment(dataset)
    try:
        result = replaying.replay(env, episode, dataset.source)
    finally:
        env.close()
    here = versions()
    other = {
        key: f"{episode.versions.get(key, 'unknown')} recorded, {here[key]} here"
        for key in ("mujoco", "embodied")
        if episode.versions.get(key) != here[key]
    }
    if as_json:
        print(json.dumps({"episode": config.episode, "same": result.same, **asdict(result), "versions": other}))
        return 0 if result.same else 1
    for key, text in other.items():
        print(f"other version: {key} {text}")
    what = f"{result.states} states" + (f" and {result.steps + 1} observations" if result.facts else "")
    if result.same:
        print(f"episode {config.episode}: {result.steps} steps replayed; {what} are the same to the last bit")
        return 0
    where = f"after step {result.step} of {result.steps}, by {result.gap:.3g} in {result.what}"
    print(f"episode {config.episode} departs {where}")
    return 1


def _read(text: str) -> Dataset:
    from embodied.data import formats

    return formats.read(text)


_ACTIONS = {"record": record, "convert": convert, "inspect": inspect, "stats": stats, "replay": replay}

COMMAND = Command(
    name="data",
    usage="embodied data record | convert | inspect PATH | stats PATH | replay PATH [--json] [key=value ...]",
    about="""
Records scripted play, and takes data sets from one format to another: store (ours), minari, lerobot (v3),
robomimic and ogbench, written FORMAT:PATH. Environment, seeds and versions go along, and an episode that comes
back is the same to the bit. PATH alone is enough where what lies there tells the format.
""",
    run=run,
    schema=DataConfig,
    words={
        "record": "play into a store; the same command goes on after a kill, or with more steps",
        "convert": "from=FORMAT:PATH to=FORMAT:PATH, whole or not at all",
        "inspect": "what a data set is and holds, and what is wrong with it",
        "stats": "mean, deviation and bounds of every column, lengths of the episodes",
        "replay": "one episode's actions from its first state: is what was recorded reproduced to the bit",
    },
    flags={"json": "JSON instead of text"},
    examples=(
        ("embodied data record steps=100_000 out=data/play", "play, with the behaviours' labels apart from it"),
        ("embodied data record steps=100_000 pictures=48 out=data/seen", "and 48x48 pixels of every moment"),
        ("embodied data convert from=store:data/play to=lerobot:data/lerobot", "for another library"),
        ("embodied data convert from=minari:data/door-v2 to=store:data/door", "from another library"),
        ("embodied data inspect data/play", "environment, versions, columns, problems"),
        ("embodied data replay data/play episode=3", "does it happen again"),
    ),
)
