"""A run directory: found by name, read with its checksums, and compared with another of the same seed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from embodied import runs
from embodied.cli.config import save
from embodied.cli.schema import RunConfig
from embodied.core import Episode
from embodied.data.store import EpisodeStore, StoreError
from embodied.errors import ConfigError, MissingRunError
from embodied.skills.library import SkillLibrary


def episode(number: int) -> Episode:
    generator = np.random.default_rng(number)
    return Episode(
        observations=generator.normal(size=(4, 3)).astype(np.float32),
        actions=generator.normal(size=(3, 2)).astype(np.float32),
        rewards=np.zeros((3, 1), np.float32),
        terminations=np.array([False, False, True]),
        truncations=np.zeros(3, np.bool_),
        states=generator.normal(size=(1, 5)),
        state_steps=np.zeros(1, np.int64),
        success=True,
        goal="lit(lamp)",
        instruction="turn on the lamp",
        source="practice",
        policy="",
        env="Embodied/Tabletop-v0",
        seed=number,
        versions={"mujoco": "4.0.0"},
    )


def make_run(path: Path, *numbers: int) -> Path:
    SkillLibrary.open(path / runs.LIBRARY).close()
    with EpisodeStore.open(path / runs.EPISODES) as store:
        store.extend([episode(number) for number in numbers])
        store.commit()
    return path


def test_digests_are_equal_for_equal_runs_and_tell_order_and_content(tmp_path: Path):
    one, same, other = (make_run(tmp_path / name, *n) for name, n in (("a", (1, 2)), ("b", (1, 2)), ("c", (2, 1))))
    assert runs.digests(one) == runs.digests(same)
    assert runs.digests(one)["library"] == runs.digests(other)["library"]
    assert runs.digests(one)["episodes"] != runs.digests(other)["episodes"]


def test_a_flipped_bit_in_the_store_is_found(tmp_path: Path):
    run = make_run(tmp_path / "a", 1, 2)
    path = run / runs.EPISODES / "actions.bin"
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="checksum"):
        runs.digests(run)


def test_a_run_knows_its_configuration(tmp_path: Path):
    save(RunConfig(name="a", seed=7), tmp_path / runs.CONFIG)
    assert runs.config(tmp_path).seed == 7
    (tmp_path / runs.CONFIG).write_text("seed: many\n")
    with pytest.raises(ConfigError, match="seed"):
        runs.config(tmp_path)


def test_the_newest_run_is_found_when_none_is_named(tmp_path: Path):
    for age, name in ((50, "old"), (10, "new"), (90, "older")):
        path = make_run(tmp_path / name) / runs.LIBRARY
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age))
    (tmp_path / "no-run").mkdir()
    assert runs.find(out=tmp_path).name == "new"
    assert [path.name for path in runs.existing(tmp_path)] == ["new", "old", "older"]


def test_missing_or_damaged_heldout_results_say_what_to_do(tmp_path: Path):
    with pytest.raises(MissingRunError, match="let the run end"):
        runs.heldout(tmp_path)
    for damaged in ("{", '[{"method": "agent"}]', "3"):
        (tmp_path / runs.HELDOUT).write_text(damaged)
        with pytest.raises(MissingRunError, match="measure anew"):
            runs.heldout(tmp_path)
