"""Recording scripted play into an episode store, so that a killed recording goes on to the same result.

Play is recorded in *blocks*: all slots start anew under the block's own seed and play one episode's length. A block
depends on nothing before it; it is in the store whole, or it is made again. What ``dataset.json`` says of the last
commit decides: bytes past its offsets are forgotten. So a recording that was killed, or is asked for more steps later,
equals one that was never interrupted.

Which behaviour ran at a step is never in the store: ``labels.bin`` has a row for each of its rows, ``labels.json`` says
what they mean. They are for analysis; what learns does not read them. Pictures, where they are asked for, lie beside
the store too (`embodied.data.pictures`): a block's are drawn when it has been played, and written before its episodes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from embodied.core import Episode
from embodied.data.dataset import CONTROL_HZ, Dataset, DatasetError
from embodied.data.durable import replace_file
from embodied.data.formats.store import ABOUT
from embodied.data.pictures import CAMERA, PICTURES, SMALLEST, Eyes, tell_pictures
from embodied.data.store import EpisodeStore
from embodied.training.episodes import seed_of
from embodied.training.rollouts import versions
from envs.scenes.play import BEHAVIOURS, ScenePlay, play_env

__all__ = ["ENV", "LABELS", "Recording", "begun", "record"]

ENV = "Embodied/Playroom-v0"
LABELS, MEANING = "labels.bin", "labels.json"
LARGEST = 512  # pixels a side of a picture: 10,000 steps of them are 8 GB
NO_LABEL = -1  # in the row of an episode's last observation
_MEANING = {
    "dtype": "int8", "columns": ["behaviour", "object"], "behaviours": list(BEHAVIOURS),
    "rows": "those of the store; -1 where an episode's last observation is",
}  # fmt: skip


@dataclass(frozen=True)
class Recording:
    """What play is recorded: the same recording, the same bytes.

    steps in all (rounded up to whole steps of ``num_envs`` slots); length: steps after which a slot starts over;
    states_every: steps between two simulator states kept of an episode, the first of which is its start. pictures:
    pixels a side of the picture that ``camera`` takes of every row, 0 for none. DatasetError for others.
    """

    steps: int = 100_000
    kind: str = "correlated"
    seed: int = 0
    scene: str = "playroom"
    num_envs: int = 128
    length: int = 500
    states_every: int = 100
    pictures: int = 0
    camera: str = CAMERA

    def __post_init__(self) -> None:
        if self.pictures and not SMALLEST <= self.pictures <= LARGEST:
            raise DatasetError(
                f"pictures = {self.pictures} must be 0, for none, or {SMALLEST} to {LARGEST} pixels a side"
            )

    @property
    def kwargs(self) -> dict[str, Any]:
        """The environment's arguments."""
        return {"scene": self.scene, "max_steps": 1 << 40, "terminate_on_success": False, "free_starts": True}

    @property
    def blocks(self) -> list[int]:
        """Steps of each slot in each block."""
        full, rest = divmod(-(-self.steps // self.num_envs), self.length)
        return [self.length] * full + [rest] * (rest > 0)

    @property
    def total(self) -> int:
        """Steps of all slots together."""
        return sum(self.blocks) * self.num_envs


def record(
    directory: Path, recording: Recording, *, threads: int = 0, at: Callable[[int], None] = lambda steps: None
) -> int:
    """Records into a new or begun store; the number of steps it then holds. ``at`` is told the steps so far.

    DatasetError where the store there holds something else, or was recorded with other arguments, code or physics.
    """
    done = _progress(directory, recording)
    if done["lengths"] == recording.blocks:
        return recording.total
    held = sum(done["lengths"]) * recording.num_envs
    if held > recording.total:
        raise DatasetError(f"{directory} holds {held} steps already, more than the {recording.total} asked for")
    env = play_env(recording.num_envs, recording.scene, threads)
    directory.mkdir(parents=True, exist_ok=True)
    _forget(directory, done)
    replace_file(directory / MEANING, json.dumps(_MEANING, indent=1).encode())  # the mark of a recording, so first
    try:
        with EpisodeStore.open(directory, done["offsets"], columns=env.columns, verify=False) as store:
            recorder = _Recorder(directory, recording, store, env, done["whole"])
            if recording.pictures:
                image = recording.pictures, recording.pictures
                with closing(Eyes(env, image, recording.camera, threads)) as recorder.eyes:
                    tell_pictures(directory, image, recording.camera)
                    recorder.run(at)
            else:
                recorder.run(at)
    finally:
        env.close()
    return recording.total


def begun(directory: Path, recording: Recording) -> int:
    """Steps that are there already and are not made again. DatasetError as `record`."""
    done = _progress(directory, recording)
    if done["lengths"] == recording.blocks:
        return recording.total
    return sum(done["lengths"][: done["whole"]]) * recording.num_envs


def _said(recording: Recording) -> dict[str, Any]:
    """The recording, ready for JSON; of a scene's file its content too."""
    path = Path(recording.scene)
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    said = asdict(recording) | {"scene_sha256": digest}
    size, camera = said.pop("pictures"), said.pop("camera")
    return said | ({"pictures": f"{size} from {camera}"} if size else {})


def _forget(directory: Path, done: dict[str, Any]) -> None:
    """Takes back the last block's mark where the block is not whole: it is made again, longer."""
    if len(done["lengths"]) > done["whole"]:
        found = json.loads((directory / ABOUT).read_bytes())
        found["progress"]["lengths"] = done["lengths"][: done["whole"]]
        found["episodes"] = done["offsets"]["episodes"]
        replace_file(directory / ABOUT, json.dumps(found, indent=1).encode())


def _progress(directory: Path, recording: Recording) -> dict[str, Any]:
    """How far the recording there is: lengths of its blocks, the number of whole ones, offsets at their end."""
    path = directory / ABOUT
    if not path.is_file():
        if directory.exists() and not (directory / MEANING).is_file() and any(directory.iterdir()):
            raise DatasetError(f"{directory} is not empty and holds no recording; name another place")
        return {"lengths": [], "whole": 0, "offsets": {}}
    try:
        found = json.loads(path.read_bytes())
        was = found.get("recording")
        made_with, progress = found["about"]["versions"], found.get("progress", {})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path} is damaged ({error!r}); delete {directory} and record again") from error
    if not was or not progress:
        raise DatasetError(f"{directory} holds a data set that was not recorded here; name another place")
    was, now = ({"pictures": "none"} | said for said in (was, _said(recording)))
    odd = [f"{key}={was.get(key)}, not {now[key]}" for key in now if key != "steps" and was.get(key) != now[key]]
    if odd:
        raise DatasetError(f"{directory} was recorded with {'; '.join(odd)}; ask for the same, or name another place")
    here = versions()
    other = [
        f"{key} {made_with.get(key)}, not {here[key]}"
        for key in ("mujoco", "embodied")
        if made_with.get(key) != here[key]
    ]
    if other:
        raise DatasetError(
            f"{directory} was recorded with {'; '.join(other)}: one store holds one physics; name another"
        )
    return progress


class _Recorder:
    """The rest of a recording."""

    def __init__(self, directory: Path, recording: Recording, store: EpisodeStore, env: Any, whole: int) -> None:
        self.directory, self.recording, self.store, self.env, self.block = directory, recording, store, env, whole
        self.offsets = store.offsets()  # at the end of the last whole block
        self.versions = versions()
        self.eyes: Eyes | None = None

    def run(self, at: Callable[[int], None]) -> None:
        """Plays the blocks that are missing."""
        r = self.recording
        each = 3 * r.pictures**2
        with ExitStack() as files:
            labels = files.enter_context(self._beside(LABELS, 2))
            pictures = files.enter_context(self._beside(PICTURES, each)) if self.eyes else None
            for block in range(self.block, len(r.blocks)):
                before = sum(r.blocks[:block]) * r.num_envs
                pieces = self._play(block, lambda steps, before=before: at(before + steps))
                rows = len(self.store.observations)
                if pictures:
                    _append(pictures, each * rows, map(self._pictures, pieces))
                _append(labels, 2 * rows, map(_labels, pieces))
                self.store.extend(self._episode(piece) for piece in pieces)
                self.store.commit()
                if r.blocks[block] == r.length:
                    self.block, self.offsets = block + 1, self.store.offsets()
                self._seal(block + 1)

    def _beside(self, name: str, each: int) -> BinaryIO:
        """A file beside the store that has ``each`` bytes a row of it."""
        path, rows = self.directory / name, len(self.store.observations)
        size = path.stat().st_size if path.is_file() else 0
        if size < each * rows:
            raise DatasetError(
                f"{path} holds {size // each} rows where the store has {rows}; restore it, or record anew"
            )
        return path.open("r+b" if path.is_file() else "w+b")

    def _pictures(self, pieces: list[dict[str, Any]]) -> bytes:
        """An episode's rows of `PICTURES`."""
        assert self.eyes is not None
        qpos, facts = (np.concatenate([*(p[k][:-1] for p in pieces), pieces[-1][k][-1:]]) for k in ("qpos", "facts"))
        return self.eyes.see(qpos, facts).tobytes()

    def _play(self, block: int, at: Callable[[int], None]) -> list[list[dict[str, Any]]]:
        """A block's episodes, each in pieces of ``states_every`` steps, ordered by slot."""
        r = self.recording
        play = ScenePlay(self.env, seed_of(r.seed, block), r.kind, max_episode=r.length)
        found: dict[tuple[int, int], list[dict[str, Any]]] = {}
        left, done = r.blocks[block], 0
        while left > 0:
            steps = min(left, r.states_every)
            for piece in play.collect(steps * r.num_envs, poses=r.pictures > 0):
                found.setdefault((piece["slot"], piece["episode"]), []).append(piece)
            left, done = left - steps, done + steps
            at(done * r.num_envs)
        return [found[key] for key in sorted(found)]

    def _episode(self, pieces: list[dict[str, Any]]) -> Episode:
        actions = np.concatenate([piece["actions"] for piece in pieces])
        facts = [piece["facts"][:-1] for piece in pieces] + [pieces[-1]["facts"][-1:]]
        ends = np.zeros((2, len(actions)), np.bool_)
        ends[0 if pieces[-1]["lost"] else 1, -1] = True  # a block was lost, or time was up
        return Episode(
            observations=np.concatenate(facts), actions=actions, rewards=np.zeros((len(actions), 0), np.float32),
            terminations=ends[0], truncations=ends[1], states=np.stack([piece["state"] for piece in pieces]),
            state_steps=np.array([piece["step"] for piece in pieces], np.int64), success=False, goal="", instruction="",
            source=pieces[0]["source"], policy="", env=ENV, seed=int(pieces[0]["seed"]), versions=self.versions,
        )  # fmt: skip

    def _seal(self, blocks: int) -> None:
        """Writes how far the recording is."""
        store, r = self.store, self.recording
        about = Dataset(
            str(self.directory), len(store), lambda: iter([store.get(0)]), ENV, r.kwargs, store.columns, CONTROL_HZ
        )
        progress = {"lengths": r.blocks[:blocks], "whole": self.block, "offsets": self.offsets}
        said = {"about": about.about(), "episodes": len(store), "recording": _said(r), "progress": progress}
        replace_file(self.directory / ABOUT, json.dumps(said, indent=1).encode())


def _append(file: BinaryIO, end: int, parts: Iterable[bytes]) -> None:
    """Puts parts where the file's committed ``end`` is, durably; what lay there is forgotten."""
    file.truncate(end)
    file.seek(end)
    for part in parts:
        file.write(part)
    file.flush()
    os.fsync(file.fileno())


def _labels(pieces: list[dict[str, Any]]) -> bytes:
    """An episode's rows of `LABELS`."""
    return b"".join(piece["labels"].tobytes() for piece in pieces) + np.full(2, NO_LABEL, np.int8).tobytes()
