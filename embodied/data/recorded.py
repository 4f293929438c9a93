"""Recorded episodes as learners take them: a data set of any format, flat, with the features that suit it.

Facts of our own scenes are learnt from as goals of a scene (`envs.scenes.goal_states`), anything else as present and
goal side by side. A store is mapped and not read into memory; the numbers of other formats are.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
from rich.console import Console

from embodied.data import formats
from embodied.data.batches import Concatenated, Encoder, Recorded
from embodied.data.columns import block_of, bounds_of
from embodied.data.dataset import Dataset, DatasetError, checked
from embodied.data.pictures import HOW, SMALLEST, Pixels, mapped_pictures
from embodied.data.recording import ENV, Recording, begun, record
from embodied.data.store import EpisodeStore
from embodied.progress import Progress

__all__ = ["ENCODERS", "PLAY", "load_recorded", "play_store"]

ENCODERS = ("state", "pixels", "blind")

PLAY = Path("runs", "data")  # where play is kept that was asked for by its length alone
_OGBENCH = re.compile(r"((?:cube|scene|puzzle)[a-z0-9-]*)-v0")  # their name of the world of one of their files


def load_recorded(
    text: str,
    *,
    seed: int = 0,
    threads: int = 0,
    allow_mixed_physics: bool = False,
    console: Console | None = None,
    encoder: str = "state",
) -> Recorded:
    """The episodes of ``play:STEPS``, ``FORMAT:PATH`` or a path, without those that the data set keeps for validation.

    Play is recorded once, under ``seed``. ``about`` of the result has env (as ``embodied eval`` takes it), scene,
    episodes, steps, versions and a digest of the numbers. ``encoder`` of `ENCODERS`: pixels learns from the pictures of
    a store, blind from none in their place. DatasetError or StoreError, in one sentence, for what cannot be read, holds
    NaN, has no pictures, has episodes of several widths or of several versions of the physics.
    """
    if encoder not in ENCODERS:
        raise DatasetError(f"unknown encoder '{encoder}'; valid: {', '.join(ENCODERS)}")
    if text.startswith("play:"):
        if encoder != "state":
            raise DatasetError(f"'{text}' is played without pictures; record play by {HOW}, and learn from data=PLACE")
        text = f"store:{play_store(text, seed, threads, console)}"
    dataset = formats.read(text)
    if formats.found(text)[0] == "store":
        for _ in checked(dataset, allow_mixed_physics):
            pass
        with EpisodeStore.open(dataset.source.partition(":")[2], readonly=True, verify=False) as store:
            observations, actions, ends = store.observations, store.actions, store.episode_ends
        kept = np.setdiff1d(np.arange(dataset.count), dataset.valid) if dataset.valid else None
    else:
        valid = set(dataset.valid)
        episodes = [e for i, e in enumerate(checked(dataset, allow_mixed_physics)) if i not in valid]
        if not episodes:
            raise DatasetError(f"{dataset.source} keeps every episode for validation; there is none to learn from")
        observations, actions = (block_of(k, episodes, bounds_of(k, episodes)) for k in ("observations", "actions"))
        ends, kept = bounds_of("observations", episodes)[1:], None
    if not actions.shape[1]:
        raise DatasetError(f"{dataset.source} holds no actions; there is nothing to learn from")
    features, scene = _encoder(dataset, observations)
    about = _about(dataset, observations, actions, ends) | ({"scene": scene} if scene else {})
    if encoder == "state":
        return Recorded(observations, actions, ends, features, kept, about=about)
    from envs.scenes.scene import load

    form, _, place = dataset.source.partition(":")
    if form != "store" or not scene:
        raise DatasetError(f"{dataset.source} holds no pictures of a scene; play is recorded with them by {HOW}")
    pictures, camera = mapped_pictures(Path(place), len(observations))
    sizes = pictures.shape[1:3]
    if min(sizes) < SMALLEST:
        raise DatasetError(f"{place} has pictures of {sizes[1]}x{sizes[0]}; {SMALLEST} pixels a side are the least")
    few = pictures[:: max(1, len(pictures) // 1_000)]
    about["pictures"] = f"{sizes[1]}x{sizes[0]} {hashlib.sha256(np.ascontiguousarray(few).data).hexdigest()}"
    seeing = Pixels(load(scene), sizes, camera, encoder == "blind")
    return Recorded(observations, actions, ends, seeing, kept, about=about, pictures=pictures)


def play_store(text: str, seed: int, threads: int = 0, console: Console | None = None) -> Path:
    """The store of ``play:STEPS`` of the playroom, recorded, or what is missing of it, where it is not there yet."""
    steps = text.partition(":")[2].replace("_", "")
    if not steps.isdecimal() or int(steps) < 1:
        raise DatasetError(f"'{text}' is not play:STEPS with environment steps above 0, as in play:200_000")
    recording = Recording(int(steps), seed=seed)
    path = PLAY / f"playroom-{steps}-seed{seed}"
    start = begun(path, recording)
    if start < recording.total:
        with Progress(recording.total, start=start, console=console or Console(quiet=True)) as progress:
            progress.stage(f"play into {path}")
            record(path, recording, threads=threads, at=progress.at)
    return path


def _encoder(dataset: Dataset, observations: np.ndarray) -> tuple[Encoder, str]:
    """What makes features of the data, and the scene it is of, "" where its observations are no facts of a scene."""
    if dataset.env == ENV:
        from envs.scenes.facts import columns
        from envs.scenes.goal_states import GoalStates
        from envs.scenes.scene import load

        name = str(dataset.kwargs.get("scene", "playroom"))
        scene = load(name)
        if observations.shape[1] == columns(len(scene.blocks), len(scene.slides), len(scene.lamps)):
            return GoalStates(scene), name
    return Concatenated.of(observations), ""


def _about(dataset: Dataset, observations: np.ndarray, actions: np.ndarray, ends: np.ndarray) -> dict[str, object]:
    digest = hashlib.sha256()
    for array in (observations, actions, ends):
        digest.update(np.ascontiguousarray(array).data)
    theirs = _OGBENCH.fullmatch(dataset.env)
    return {
        "env": f"ogbench/{theirs[1]}" if theirs else dataset.env,
        "episodes": len(ends),
        "steps": int(ends[-1]) - len(ends),
        "versions": dict(dataset.first().versions),
        "sha256": digest.hexdigest(),
    }
