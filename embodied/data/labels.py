"""What a few windows of play did, in English: the only language that a policy from play learns from.

Windows are chosen at random, at most one in a hundred (a window for every step it could begin at). Who describes them
is hindsight: the simulator's predicates, judged on the change since the window's start as a task is judged, say which
of the scene's tasks came true and when, and the scene's words say it. A window in which none did has no label; one in
which two did has two. What behaviour ran is never looked at.

A label is a line of JSON beside the data set, its rows counted from its episode's first observation:

    {"episode": 17, "row start": 203, "row end": 241, "text": "pick up the red cube"}

One paraphrase of every task is never said in a label (`phrasings`), so that it can be asked for in the exam.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from embodied.data.batches import Labelled, Recorded
from embodied.data.dataset import DatasetError
from embodied.data.durable import replace_file
from envs.scenes.hindsight import came_true
from envs.scenes.scene import Scene
from policies.text import HashedWords

__all__ = ["SHARE", "Labels", "Phrasing", "described", "label_play", "phrasings", "read_labels", "write_labels"]

SHARE = 0.01  # of the windows that are described, at most
LONGEST = 64  # steps of a described window, at most
_KEYS = ("episode", "row start", "row end", "text")


@dataclass(frozen=True, eq=False)
class Labels:
    """m labels of flat, row-aligned episodes: start, end int64[m] (rows of the whole data; the text came true at
    ``end``), their texts, and how many windows were looked at for them.
    """

    start: np.ndarray
    end: np.ndarray
    texts: tuple[str, ...]
    windows: int

    def __len__(self) -> int:
        return len(self.texts)

    def covered(self) -> int:
        """How many different rows lie in a labelled window."""
        rows = np.concatenate([np.arange(a, b + 1) for a, b in zip(self.start, self.end, strict=True)])
        return len(np.unique(rows))


@dataclass(frozen=True)
class Phrasing:
    """A task's sentences: those that labels say, and the one held out (the canonical one where none could be)."""

    said: tuple[str, ...]
    held_out: str

    @property
    def unheard(self) -> bool:
        """Whether the held-out sentence is in no label."""
        return self.held_out not in self.said


def phrasings(scene: Scene, tasks: Sequence[str] | None = None) -> dict[str, Phrasing]:
    """Task → its sentences (of the scene's tasks unless others are named, which may be goals).

    Held out is the last sentence of which every word still stands in some sentence that is said, of this task or of
    another: new is how the words go together, since nothing could be known of new words.
    """
    names = list(scene.tasks) if tasks is None else list(tasks)
    said = {name: list(scene.vocabulary.paraphrases(scene.tasks.get(name, name))) for name in names}
    words = Counter(word for sentences in said.values() for text in sentences for word in _words(text))
    held = {}
    for name, sentences in said.items():
        held[name] = sentences[0]
        for text in reversed(sentences[:]):
            if len(sentences) > 1 and all(words[word] > 1 for word in _words(text)):
                held[name] = text
                sentences.remove(text)
                words.subtract(_words(text))
                break
    return {name: Phrasing(tuple(said[name]), held[name]) for name in names}


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def label_play(
    facts: np.ndarray,
    episode_ends: np.ndarray,
    scene: Scene,
    *,
    share: float = SHARE,
    longest: int = LONGEST,
    seed: int = 0,
) -> Labels:
    """Describes a share of the windows of play, chosen with ``seed``.

    facts float32[rows, NX], episode_ends int64[episodes]. Raises ValueError for a share beyond 1 % or none at all.
    """
    if not 0 < share <= SHARE or longest < 1:
        raise ValueError(f"share = {share} must lie in (0, {SHARE}], and longest = {longest} be at least 1 step")
    ends = np.asarray(episode_ends, np.int64)
    first = np.concatenate([[0], ends[:-1]])
    room = np.cumsum(ends - first - 1)  # windows by where they start, of all episodes so far
    rng = np.random.default_rng([seed, 23])
    chosen = np.sort(rng.choice(room[-1], int(share * room[-1]), replace=False))
    episode = np.searchsorted(room, chosen, side="right")
    start = chosen + episode  # an episode's last row starts no window
    end = np.minimum(start + longest, ends[episode] - 1)
    tasks = list(scene.tasks)
    when = came_true(facts, start, end, tasks, scene)
    window, task = np.nonzero(when >= 0)
    sentences = phrasings(scene)
    pick = rng.random(len(window))
    texts = []
    for t, u in zip(task.tolist(), pick.tolist(), strict=True):
        said = sentences[tasks[t]].said
        texts.append(said[int(u * len(said))])
    return Labels(start[window], when[window, task], tuple(texts), len(chosen))


def write_labels(path: Path, labels: Labels, episode_ends: np.ndarray) -> None:
    """Writes labels as lines of JSON, the first of which says how many windows were looked at."""
    ends = np.asarray(episode_ends, np.int64)
    episode = np.searchsorted(ends, labels.start, side="right")
    first = np.concatenate([[0], ends[:-1]])[episode]
    lines = [json.dumps({"windows": labels.windows, "annotator": "simulator predicates in hindsight"})]
    for e, a, b, text in zip(episode, labels.start - first, labels.end - first, labels.texts, strict=True):
        lines.append(json.dumps(dict(zip(_KEYS, (int(e), int(a), int(b), text), strict=True))))
    replace_file(path, ("\n".join(lines) + "\n").encode())


def read_labels(path: Path, episode_ends: np.ndarray) -> Labels:
    """Labels of the data with these episodes. DatasetError, naming the line, for one that does not fit, or for none."""
    ends = np.asarray(episode_ends, np.int64)
    first = np.concatenate([[0], ends[:-1]])
    start, end, texts = [], [], []
    windows = 0
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} holds no labels that can be read: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        found = _line(path, number, line)
        if "windows" in found and "text" not in found:
            windows = int(found["windows"])
            continue
        e, a, b, text = _entry(path, number, found)
        length = int(ends[e] - first[e]) if 0 <= e < len(ends) else 0
        if not 0 <= a < b < length:
            raise DatasetError(
                f"{path} line {number}: rows {a} to {b} of episode {e} are not there; the data has {len(ends)} "
                f"episodes, this one {length} rows"
            )
        start.append(first[e] + a)
        end.append(first[e] + b)
        texts.append(text)
    if not texts:
        raise DatasetError(f"{path} holds no label; write one with at least one described window")
    return Labels(np.array(start, np.int64), np.array(end, np.int64), tuple(texts), windows or len(texts))


def _line(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise DatasetError(f"{path} line {number} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise DatasetError(f"{path} line {number} is not an object with {', '.join(_KEYS)}")
    return found


def _entry(path: Path, number: int, found: Mapping[str, Any]) -> tuple[int, int, int, str]:
    try:
        e, a, b, text = (found[key] for key in _KEYS)
    except KeyError as error:
        raise DatasetError(f"{path} line {number} lacks {error}; a label has {', '.join(_KEYS)}") from None
    if any(type(value) is not int for value in (e, a, b)) or not isinstance(text, str) or not text.strip():
        raise DatasetError(f"{path} line {number}: {', '.join(_KEYS[:3])} must be whole numbers and the text not empty")
    return e, a, b, text


def described(
    play: Recorded, scene: Scene, path: Path, *, share: float = SHARE, seed: int = 0
) -> tuple[Recorded, Labels]:
    """Play with a share of its windows described, for learners that are told; the labels are kept at ``path``, and read
    from there where they are.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = label_play(play.observations, play.episode_ends, scene, share=share, seed=seed)
        if not len(found):
            raise DatasetError(
                f"no task of the scene came true in the {found.windows} windows looked at; record more play"
            )
        write_labels(path, found, play.episode_ends)
    labels = read_labels(path, play.episode_ends)
    labelled = Labelled(labels.start, labels.end, HashedWords().encode(labels.texts))
    about = play.about | {"labels": hashlib.sha256(path.read_bytes()).hexdigest()}
    return replace(play, labelled=labelled, about=about), labels
