"""The episode store: what goes in comes out, and nothing that happens to the process or the disk breaks it
silently.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embodied
from embodied.core import EPISODE_ARRAYS, Episode, EpisodeError
from embodied.data import store as store_module
from embodied.data.store import BrokenEpisodeError, EpisodeStore, StoreError

ROOT = Path(embodied.__file__).parents[1]


def episode(seed: int, steps: int = 7, nx: int = 5, states: int = 2) -> Episode:
    rng = np.random.default_rng(seed)
    return Episode(
        observations=rng.normal(size=(steps + 1, nx)).astype(np.float32),
        actions=rng.normal(size=(steps, 4)).astype(np.float32),
        rewards=rng.normal(size=(steps, 3)).astype(np.float32),
        terminations=rng.random(steps) < 0.5,
        truncations=rng.random(steps) < 0.5,
        states=rng.normal(size=(states, 6)),
        state_steps=np.arange(states),
        success=bool(seed % 2),
        goal=f"goal {seed} — ü",
        instruction="tu es",
        source=("scripted-play", "practice")[seed % 2],
        policy="",
        env="Embodied/Tabletop-v0",
        seed=seed,
        versions={"mujoco": "4.0"},
    )  # fmt: skip


def same(a: Episode, b: Episode) -> bool:
    fields = ("success", "goal", "instruction", "source", "policy", "env", "seed", "versions")
    return a.hash() == b.hash() and all(getattr(a, f) == getattr(b, f) for f in fields)


@settings(max_examples=25, deadline=None)
@given(batches=st.lists(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 4)), max_size=4), max_size=4))
def test_what_goes_in_comes_out_before_and_after_reopening(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[int, int]]]
) -> None:
    directory = tmp_path_factory.mktemp("store")
    kept: list[Episode] = []
    with EpisodeStore.open(directory) as store:
        for batch in batches:
            new = [episode(len(kept) + i, steps, states=states) for i, (steps, states) in enumerate(batch)]
            assert store.extend(new) == range(len(kept), len(kept) + len(new))
            kept += new
        offsets = store.commit()
    for reopened in (EpisodeStore.open(directory, offsets), EpisodeStore.open(directory, readonly=True)):
        with reopened as store:
            assert len(store) == len(kept) and store.steps == sum(map(len, kept))
            assert all(same(store.get(i), e) for i, e in enumerate(kept))
            assert [e.seed for e in store.iterate("practice")] == [e.seed for e in kept if e.seed % 2]
            if kept:
                flat = np.concatenate([e.observations for e in kept])
                np.testing.assert_array_equal(store.observations, flat)
                assert store.episode_ends.tolist() == np.cumsum([len(e) + 1 for e in kept]).tolist()
                assert len(store.actions) == len(flat) and not store.actions[store.episode_ends - 1].any()
                assert same(store.get(-1), kept[-1])


@pytest.mark.parametrize("name, value", [("observations", np.nan), ("states", np.inf), ("rewards", np.nan)])
def test_broken_numbers_are_refused_by_name_and_nothing_of_the_batch_stays(
    tmp_path: Path, name: str, value: float
) -> None:
    broken = replace(episode(8), **{name: getattr(episode(8), name).copy()})
    getattr(broken, name)[1, 2] = value
    with EpisodeStore.open(tmp_path, columns=("a", "b", "red_z", "d", "e")) as store:
        store.append(episode(0))
        with pytest.raises(BrokenEpisodeError, match=f"episode 2 .*seed 8.*{value} in {name} column 2") as caught:
            store.extend([episode(1), broken])
        assert caught.value.position == 1 and len(store) == 1
        assert ("'red_z'" in str(caught.value)) == (name == "observations")
        store.append(episode(1))
    with EpisodeStore.open(tmp_path) as store:
        assert len(store) == 2 and same(store.get(1), episode(1))


def test_offsets_cut_off_what_came_after_the_commit(tmp_path: Path) -> None:
    with EpisodeStore.open(tmp_path) as store:
        store.extend([episode(0), episode(1)])
        offsets = store.commit()
    files = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with EpisodeStore.open(tmp_path) as store:
        store.extend([episode(7, steps=30), episode(8)])
    with EpisodeStore.open(tmp_path, offsets) as store:
        assert len(store) == 2
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == files
    with EpisodeStore.open(tmp_path, {}) as store:
        assert len(store) == 0 and store.observations.shape[0] == 0
        store.append(episode(3, nx=9))  # a store that lost everything may take another shape
        assert store.observations.shape == (8, 9)


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import embodied.data.store as module
from test_store import episode
write, calls = module.write_at, [0]
def half(file, offset, data):
    calls[0] += 1
    if calls[0] == int(sys.argv[2]):
        write(file, offset, bytes(data)[: len(bytes(data)) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    write(file, offset, data)
module.write_at = half
store = module.EpisodeStore.open(sys.argv[1])
for i in range(0, 100, 2):
    store.extend([episode(i), episode(i + 1)])
    print(len(store), flush=True)
"""


def run_child(script: str, *arguments: object) -> subprocess.Popen[str]:
    code = script.format(tests=str(Path(__file__).parent))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("call", [1, 8, 13, 16, 24])  # a batch takes 8 writes; every eighth is the index
def test_kill_in_the_middle_of_a_write_loses_only_that_batch(tmp_path: Path, call: int) -> None:
    with run_child(KILLED, tmp_path, call) as child:
        printed = child.communicate()[0].split()
    assert child.returncode == -signal.SIGKILL
    whole = int(printed[-1]) if printed else 0
    with EpisodeStore.open(tmp_path) as store:
        survivors = len(store)  # a half-written index may hold the first of the batch's two episodes
        assert whole <= survivors <= whole + 1
        assert all(same(store.get(i), episode(i)) for i in range(survivors))
        store.append(episode(survivors))
    with EpisodeStore.open(tmp_path, readonly=True) as store:
        assert same(store.get(-1), episode(survivors))


def test_kill_from_outside_at_any_moment(tmp_path: Path) -> None:
    with run_child(KILLED, tmp_path, 0) as child:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.004)
        child.kill()
    with EpisodeStore.open(tmp_path) as store:
        assert len(store) >= 2 and all(same(e, episode(i)) for i, e in enumerate(store.iterate()))


@pytest.mark.parametrize("name", [*EPISODE_ARRAYS, "index"])
def test_a_flipped_bit_or_a_cut_file_is_one_clear_error(tmp_path: Path, name: str) -> None:
    with EpisodeStore.open(tmp_path) as store:
        store.extend([episode(0), episode(1)])
        offsets = store.commit()
    path = tmp_path / ("index.jsonl" if name == "index" else f"{name}.bin")
    whole = path.read_bytes()
    path.write_bytes(whole[:20] + bytes([whole[20] ^ 4]) + whole[21:] if len(whole) > 20 else b"\x07" + whole[1:])
    with pytest.raises(StoreError, match=r"line 1 of .* damaged" if name == "index" else f"{name} of episode"):
        EpisodeStore.open(tmp_path)
    path.write_bytes(whole[:-3])
    with pytest.raises(StoreError, match="was cut short"):
        EpisodeStore.open(tmp_path, offsets)
    path.write_bytes(whole)
    (tmp_path / "layout.json").write_text("{")
    with pytest.raises(StoreError, match=r"layout\.json is missing or damaged"):
        EpisodeStore.open(tmp_path)


def test_misuse_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no episode store"):
        EpisodeStore.open(tmp_path / "nowhere", readonly=True)
    with EpisodeStore.open(tmp_path, columns=list("abcde")) as store:
        store.append(episode(0))
        offsets = store.commit()
        with pytest.raises(StoreError, match=r"episode 1 .* 6 columns of observations"):
            store.append(episode(1, nx=6))
        with pytest.raises(StoreError, match="another process is writing"):
            EpisodeStore.open(tmp_path)
        with (
            EpisodeStore.open(tmp_path, readonly=True) as reader,
            pytest.raises(StoreError, match="read-only"),
        ):
            reader.append(episode(1))
        with pytest.raises(StoreError, match=r"unknown episode source .*scripted-play, practice"):
            store.indices("dreams")
        with pytest.raises(StoreError, match="no episode 4"):
            store.get(4)
        store.append(episode(1))
    with pytest.raises(StoreError, match="difference: e, x"):
        EpisodeStore.open(tmp_path, columns=list("abcdx"))
    with pytest.raises(StoreError, match="belong to another store"):
        EpisodeStore.open(tmp_path, {**offsets, "actions": 3})
    with pytest.raises(StoreError, match="what commit"):
        EpisodeStore.open(tmp_path, {"index": 3})
    with pytest.raises(EpisodeError, match="actions are float64"):
        replace(episode(0), actions=np.zeros((7, 4)))
    with pytest.raises(EpisodeError, match="must be float32 with 2 dimensions and 7 rows"):
        replace(episode(0), rewards=np.zeros((6, 4), np.float32))


def test_a_full_disk_stores_nothing_and_the_store_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EpisodeStore.open(tmp_path) as store:
        store.append(episode(0))
        write = store_module.write_at

        def full(file: object, offset: int, data: bytes) -> None:
            write(file, offset, data[: len(data) // 2])  # type: ignore[arg-type]
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(store_module, "write_at", full)
        with pytest.raises(StoreError, match=r"took none of 1 new episodes: .*No space"):
            store.append(episode(1, steps=50))
        monkeypatch.undo()
        store.append(episode(1))
    with EpisodeStore.open(tmp_path) as store:
        assert len(store) == 2 and same(store.get(1), episode(1))


def test_the_hash_is_of_arrays_goal_and_seed_but_not_of_versions() -> None:
    base = episode(0)
    assert replace(base, versions={}, instruction="x").hash() == base.hash()
    changed = base.actions.copy()
    changed[0, 0] += 1
    others = {
        replace(base, seed=1).hash(),
        replace(base, goal="x").hash(),
        replace(base, actions=changed).hash(),
    }
    assert len(others | {base.hash()}) == 4


def test_a_quarter_of_a_million_steps_in_two_seconds(tmp_path: Path) -> None:
    batch = [episode(i, steps=100, nx=60, states=3) for i in range(250)]
    best = np.inf
    for attempt in range(3):
        with EpisodeStore.open(tmp_path / str(attempt)) as store:
            began = time.perf_counter()
            for _ in range(10):
                store.extend(batch)
            best = min(best, time.perf_counter() - began)
            assert store.steps == 250_000
        if best < 2.0:
            return
    assert best < 2.0
