"""LeRobot v3: frames of all episodes in ``data/``, one row an episode in ``meta/episodes/``, tasks, statistics, videos.

A frame is an observation (``observation.state``), the action taken there, and what came of it (``next.reward``,
``next.done``, ``next.terminated``, ``next.truncated``): T frames for an episode of T steps. LeRobot has no row for the
observation after the last action and knows one reward. The last observation, simulator states and the steps they
precede, and all that is not an array are further columns of ``meta/episodes`` (``embodied/…``); reward terms are
``next.reward_terms``; ``meta/embodied.json`` tells environment and column names. Pictures, where asked for, are one
compressed video, for learning, not for getting the world back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embodied.core import Episode
from embodied.data.dataset import KEY, Dataset, DatasetError, episode_of, noted, reading, record, staged, told

LAYOUT = "a LeRobot v3 data set has meta/info.json, meta/tasks.parquet, meta/episodes/ and data/"
VERSION = "v3.0"
CHUNK = "chunk-{chunk_index:03d}/file-{file_index:03d}"
FILE = "chunk-000/file-000"
CAMERA = "observation.images.front"
ROWS = 20_000  # frames written together
Pictures = Callable[[Episode], Iterable[np.ndarray]]

_LAST = "each episode's last action is left out, as LeRobot keeps no observation after it"
_QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


# ---------------------------------------------------------------------------------------------------------- reading


def read(path: Path) -> Dataset:
    """The LeRobot data set in a directory."""
    with reading(path, LAYOUT):
        info = json.loads((path / "meta" / "info.json").read_bytes())
        if not str(info["codebase_version"]).startswith("v3."):
            raise DatasetError(f"it is of LeRobot's layout {info['codebase_version']}; {VERSION} is read here")
        ours = path / "meta" / f"{KEY}.json"
        extra = json.loads(ours.read_bytes()) if ours.is_file() else {}
        episodes = pa.concat_tables([pq.read_table(file) for file in _files(path / "meta" / "episodes")])
        features = info["features"]
        parts = [name for name in features if _is_state(name, features[name])]
        if not parts or "action" not in features:
            raise KeyError("action" if parts else "observation.state")
        tasks = _tasks(path)
    known = {"columns": _names(features, parts), "fps": float(info["fps"])}

    def load() -> Iterator[Episode]:
        with reading(path, LAYOUT):
            yield from _episodes(path, parts, episodes, tasks, extra)

    about = told(extra.get("about"))
    dataset = Dataset(f"lerobot:{path}", int(info["total_episodes"]), load, **(about or known))
    return dataset if about else noted(dataset, _LAST, "no environment, no simulator states and no physics are told")


def _files(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*/*.parquet"))
    if not found:
        raise KeyError(f"{folder.parent.name}/{folder.name}/*/*.parquet")
    return found


def _is_state(name: str, feature: dict[str, Any]) -> bool:
    """Whether a feature is an observation made of numbers, one vector a frame."""
    number = feature["dtype"].startswith(("float", "int", "bool"))
    return name.startswith("observation.") and number and len(feature["shape"]) == 1


def _names(features: dict[str, Any], parts: list[str]) -> tuple[str, ...]:
    """Names of the observation columns."""
    names: list[str] = []
    for part in parts:
        given, width = features[part].get("names"), features[part]["shape"][0]
        given = next(iter(given.values())) if isinstance(given, dict) and given else given
        plain = [part.removeprefix("observation.") + f"[{i}]" for i in range(width)]
        names += [str(name) for name in given] if isinstance(given, list) and len(given) == width else plain
    return tuple(names) if len(set(names)) == len(names) else ()


def _tasks(path: Path) -> list[str]:
    """Each task's text, in the order of task_index."""
    table = pq.read_table(path / "meta" / "tasks.parquet").to_pydict()
    texts = next(column for name, column in table.items() if name != "task_index")
    return [text for _, text in sorted(zip(table["task_index"], texts, strict=True))]


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    """A column as an array [rows] or [rows, width]."""
    if name not in table.column_names:
        raise KeyError(name)
    column = table[name].combine_chunks()
    if column.null_count:
        raise DatasetError(f"'{name}' has {column.null_count} missing values")
    if not pa.types.is_list(column.type) and not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy(zero_copy_only=False)
    flat = column.flatten().to_numpy(zero_copy_only=False)
    if len(flat) % max(1, len(column)):
        raise DatasetError(f"the rows of '{name}' have different lengths")
    return flat.reshape(len(column), -1)


def _episodes(
    path: Path, parts: list[str], episodes: pa.Table, tasks: list[str], extra: dict[str, Any]
) -> Iterator[Episode]:
    expected = 0
    for file in _files(path / "data"):
        table = pq.read_table(file)
        numbers = _numbers(table, "episode_index")
        cuts = np.flatnonzero(np.diff(numbers, prepend=-1, append=-1))
        for begin, end in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
            number = int(numbers[begin])
            if number != expected or number >= episodes.num_rows:
                raise DatasetError(f"episode {number} of {file.name} is out of order, or meta/episodes lacks it")
            row = episodes.slice(number, 1)
            if row["length"][0].as_py() != end - begin:
                raise DatasetError(
                    f"meta/episodes says {row['length'][0].as_py()} frames of episode {number}; there are {end - begin}"
                )
            yield _episode(table.slice(begin, end - begin), parts, row, tasks, extra)
            expected += 1
    if expected != episodes.num_rows:
        raise DatasetError(f"meta/episodes tells of {episodes.num_rows} episodes, but data/ holds {expected}")


def _episode(frames: pa.Table, parts: list[str], row: pa.Table, tasks: list[str], extra: dict[str, Any]) -> Episode:
    blocks = [_numbers(frames, part).reshape(frames.num_rows, -1) for part in parts if part in frames.column_names]
    before = np.concatenate(blocks, axis=1)
    actions = _numbers(frames, "action").reshape(frames.num_rows, -1)
    none = np.zeros(frames.num_rows)
    rewards = _numbers(frames, "next.reward") if "next.reward" in frames.column_names else none
    if extra:
        last = np.asarray(row[f"{KEY}/final_observation"][0].as_py(), np.float32)[None]
        terms = int(extra["reward_terms"])
        if terms != 1:
            rewards = _numbers(frames, "next.reward_terms") if terms else np.zeros((frames.num_rows, 0))
        steps = np.asarray(row[f"{KEY}/state_steps"][0].as_py(), np.int64)
        states = np.asarray(row[f"{KEY}/states"][0].as_py(), np.float64).reshape(len(steps), -1 if len(steps) else 0)
        ends = _numbers(frames, "next.terminated"), _numbers(frames, "next.truncated")
        text = row[f"{KEY}/record"][0].as_py()
        return episode_of(np.concatenate([before, last]), actions, rewards, *ends, text, states, steps)
    done = _numbers(frames, "next.done") if "next.done" in frames.column_names else none
    task = tasks[int(_numbers(frames, "task_index")[0])] if tasks else ""
    ends = done[:-1], none[:-1]
    return episode_of(before, actions[:-1], rewards[:-1], *ends, instruction=task)


# ---------------------------------------------------------------------------------------------------------- writing


def write(
    dataset: Dataset, path: Path, episodes: Iterable[Episode] | None = None, pictures: Pictures | None = None
) -> None:
    """The data set, or the episodes given in its stead, as a LeRobot data set in a new directory.

    ``pictures`` gives an episode's T pictures uint8[h, w, 3]; they become the video of `CAMERA`.
    """
    fps = int(dataset.fps)
    if fps != dataset.fps or fps < 1:
        raise DatasetError(f"LeRobot counts whole frames a second; this data set has {dataset.fps:g}")
    tasks: dict[str, int] = {}
    about: list[dict[str, Any]] = []
    features: dict[str, Any] = {}
    terms = 1
    with staged(path) as place:
        for folder in (f"data/{FILE}", f"meta/episodes/{FILE}", f"videos/{CAMERA}/{FILE}" if pictures else ""):
            (place / folder).parent.mkdir(parents=True, exist_ok=True)
        video = _Video(place / "videos" / CAMERA / f"{FILE}.mp4", fps) if pictures else None
        frames = _Frames(place / "data" / f"{FILE}.parquet")
        try:
            for episode in dataset.load() if episodes is None else episodes:
                task = tasks.setdefault(episode.instruction or episode.goal or "play", len(tasks))
                begin = frames.total
                columns = _columns(episode, len(about), begin, task, fps)
                features = features or _features(columns, dataset)
                terms = episode.rewards.shape[1]
                frames.add(columns)
                row = _row(episode, len(about), begin, list(tasks)[task], columns)
                if pictures and video:
                    row |= video.add(pictures(episode), len(episode))
                about.append(row)
        finally:
            frames.close()
            if video:
                video.close()
        stats = frames.stats()
        if video:
            features[CAMERA] = video.feature()
            stats[CAMERA] = video.stats()
        info = {
            "codebase_version": VERSION, "robot_type": dataset.env or None, "total_episodes": len(about),
            "total_frames": frames.total, "total_tasks": len(tasks), "chunks_size": 1000,
            "data_files_size_in_mb": 100, "video_files_size_in_mb": 200, "fps": fps,
            "splits": {"train": f"0:{len(about)}"}, "data_path": f"data/{CHUNK}.parquet",
            "video_path": f"videos/{{video_key}}/{CHUNK}.mp4" if video else None, "features": features,
        }  # fmt: skip
        told_once = {"about": dataset.about(), "reward_terms": terms}
        for name, content in (("info", info), ("stats", stats), (KEY, told_once)):
            (place / "meta" / f"{name}.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        pq.write_table(pa.Table.from_pylist(about), place / "meta" / "episodes" / f"{FILE}.parquet")
        pq.write_table(_task_table(list(tasks)), place / "meta" / "tasks.parquet")


def _columns(episode: Episode, number: int, begin: int, task: int, fps: int) -> dict[str, np.ndarray]:
    """The frames of an episode: feature -> array [T] or [T, width]."""
    steps = len(episode)
    frame = np.arange(steps)
    columns = {
        "observation.state": episode.observations[:-1], "action": episode.actions,
        "next.reward": episode.rewards.sum(axis=1), "next.done": episode.terminations | episode.truncations,
        "next.terminated": episode.terminations, "next.truncated": episode.truncations,
    }  # fmt: skip
    if episode.rewards.shape[1] > 1:
        columns["next.reward_terms"] = episode.rewards
    return columns | {
        "timestamp": (frame / fps).astype(np.float32), "frame_index": frame,
        "episode_index": np.full(steps, number), "index": begin + frame, "task_index": np.full(steps, task),
    }  # fmt: skip


def _features(columns: dict[str, np.ndarray], dataset: Dataset) -> dict[str, Any]:
    """What info.json says of the columns."""
    features = {}
    for name, array in columns.items():
        width = array.shape[1] if array.ndim == 2 else 1
        features[name] = {"dtype": str(array.dtype), "shape": [width], "names": None}
    if dataset.columns:
        features["observation.state"]["names"] = list(dataset.columns)
    return features


def _row(episode: Episode, number: int, begin: int, task: str, columns: dict[str, np.ndarray]) -> dict[str, Any]:
    """What meta/episodes says of an episode."""
    row: dict[str, Any] = {
        "episode_index": number, "tasks": [task], "length": len(episode), "dataset_from_index": begin,
        "dataset_to_index": begin + len(episode), "data/chunk_index": 0, "data/file_index": 0,
        "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0, f"{KEY}/record": record(episode),
        f"{KEY}/final_observation": episode.observations[-1], f"{KEY}/states": episode.states.reshape(-1),
        f"{KEY}/state_steps": episode.state_steps,
    }  # fmt: skip
    for name, array in columns.items():
        row |= {f"stats/{name}/{what}": value for what, value in _stats(array).items()}
    return row


def _stats(array: np.ndarray) -> dict[str, Any]:
    """Minimum, maximum, mean, deviation and quantiles of each column of an array [rows] or [rows, width]."""
    block = array.reshape(len(array), -1).astype(np.float64)
    found = {"min": block.min(0), "max": block.max(0), "mean": block.mean(0), "std": block.std(0)}
    found |= dict(zip(_QUANTILES, np.quantile(block, list(_QUANTILES.values()), axis=0), strict=True))
    return {name: value.tolist() for name, value in found.items()} | {"count": [len(block)]}


def _task_table(texts: list[str]) -> pa.Table:
    """Task numbers, with the texts as what pandas calls the index."""
    table = pa.table({"task_index": pa.array(range(len(texts)), pa.int64()), "__index_level_0__": texts})
    number = {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"}
    index = {"name": None, "field_name": "__index_level_0__", "pandas_type": "unicode", "numpy_type": "object"}
    meaning = {
        "index_columns": ["__index_level_0__"], "column_indexes": [], "pandas_version": "2.0.0",
        "columns": [number | {"metadata": None}, index | {"metadata": None}],
    }  # fmt: skip
    return table.replace_schema_metadata({b"pandas": json.dumps(meaning).encode()})


class _Frames:
    """The file of all frames, written some thousands at a time."""

    def __init__(self, path: Path) -> None:
        self.path, self.total, self._waiting, self._held = path, 0, [], 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, columns: dict[str, np.ndarray]) -> None:
        arrays = {}
        for name, array in columns.items():
            values = pa.array(np.ascontiguousarray(array).reshape(-1))
            wide = array.ndim == 2 and array.shape[1] > 1
            arrays[name] = pa.FixedSizeListArray.from_arrays(values, array.shape[1]) if wide else values
        self._waiting.append(pa.table(arrays))
        added = self._waiting[-1].num_rows
        self.total, self._held = self.total + added, self._held + added
        if self._held >= ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            table = pa.concat_tables(self._waiting)
            self._writer = self._writer or pq.ParquetWriter(self.path, table.schema)
            self._writer.write_table(table)
            self._waiting, self._held = [], 0

    def close(self) -> None:
        self._flush()
        if self._writer:
            self._writer.close()

    def stats(self) -> dict[str, dict[str, Any]]:
        """Statistics of each feature over all frames."""
        names = pq.read_schema(self.path).names
        return {name: _stats(_numbers(pq.read_table(self.path, columns=[name]), name)) for name in names}


class _Video:
    """All episodes' pictures as one mp4; the statistics are of every tenth picture, channels in [0, 1]."""

    def __init__(self, path: Path, fps: int) -> None:
        from embodied.viz.video import ffmpeg_works

        if not ffmpeg_works():
            raise DatasetError("no ffmpeg runs here, so no pictures can be written; leave them out")
        self.path, self.fps, self.frames, self._seen = path, fps, 0, []
        self.shape: tuple[int, ...] = ()
        self._writer: Any = None

    def add(self, pictures: Iterable[np.ndarray], steps: int) -> dict[str, Any]:
        """Appends an episode's pictures; its columns of meta/episodes."""
        begin = self.frames
        for picture in pictures:
            if self.frames % 10 == 0:
                self._seen.append(picture.reshape(-1, 3)[::17] / 255.0)
            picture = np.pad(picture, ((0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)), mode="edge")
            self._writer = self._writer or self._open(picture.shape)
            self._writer.send(np.ascontiguousarray(picture))
            self.frames += 1
        if self.frames - begin != steps:
            raise DatasetError(f"{self.frames - begin} pictures were drawn for an episode of {steps} steps")
        return {
            f"videos/{CAMERA}/chunk_index": 0, f"videos/{CAMERA}/file_index": 0,
            f"videos/{CAMERA}/from_timestamp": begin / self.fps,
            f"videos/{CAMERA}/to_timestamp": self.frames / self.fps,
        }  # fmt: skip

    def _open(self, shape: tuple[int, ...]) -> Any:
        import imageio_ffmpeg

        self.shape = shape
        writer = imageio_ffmpeg.write_frames(
            str(self.path), shape[1::-1], fps=self.fps, codec="libx264", quality=6, macro_block_size=2,
            ffmpeg_log_level="error", output_params=["-preset", "fast", "-movflags", "+faststart"],
        )  # fmt: skip
        writer.send(None)
        return writer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def feature(self) -> dict[str, Any]:
        """What info.json says of the video."""
        height, width, _ = self.shape
        about = {
            "video.height": height, "video.width": width, "video.codec": "h264", "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False, "video.fps": self.fps, "video.channels": 3, "has_audio": False,
        }  # fmt: skip
        return {"dtype": "video", "shape": list(self.shape), "names": ["height", "width", "channels"], "info": about}

    def stats(self) -> dict[str, Any]:
        """Statistics of each channel, in the shape [3, 1, 1]."""
        found = _stats(np.concatenate(self._seen))
        return {name: value if name == "count" else [[[v]] for v in value] for name, value in found.items()}
