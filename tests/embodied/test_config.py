"""Configurations: presets, overrides, and what a mistake is answered with."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from embodied.cli import schema as schemas
from embodied.cli.config import choices, compose, config_dir, difference, load, save
from embodied.cli.fields import Checked, leaves
from embodied.cli.schema import ClaimsConfig, RunConfig
from embodied.errors import ConfigError


def test_the_default_preset_is_the_schemas_defaults():
    assert compose(RunConfig) == RunConfig()
    assert compose(RunConfig, ["preset=default"]) == RunConfig()


@pytest.mark.parametrize("preset", choices("preset"))
def test_every_preset_composes_under_its_own_name_and_within_the_default_budget(preset: str):
    config = compose(RunConfig, [f"preset={preset}"])
    assert config.name == preset
    assert config.play_steps < config.steps <= RunConfig().steps


def test_overrides_reach_nested_keys_and_win_over_the_preset():
    config = compose(RunConfig, ["gate.n=9", "preset=smoke", "seed=3", "use_play=false", "steps=20_000"])
    assert (config.gate.n, config.gate.confirm, config.seed, config.use_play) == (9, 8, 3, False)
    assert config.steps == 20_000
    assert compose(ClaimsConfig, ["runs=[a,b]"]).runs == ["a", "b"]


def test_a_typo_is_answered_with_the_valid_keys():
    with pytest.raises(ConfigError) as caught:
        compose(RunConfig, ["nun_envs=8"])
    message = str(caught.value)
    assert "'nun_envs'" in message
    assert "did you mean 'num_envs'" in message
    assert all(key in message for key in leaves(RunConfig))
    assert "\n" not in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed=abc", ("seed", "abc")),
        ("steps=2.5", ("steps", "2.5")),
        ("seed=null", ("seed",)),
        ("steps=${nothing}", ("steps", "nothing")),
        ("steps=0", ("steps", "at least 1")),
        ("gate.n=0", ("gate.n", "at least 1")),
        ("gate.threshold=nan", ("gate.threshold", "[0.0, 1.0]")),
        ("gate.size=1", ("gate.size", "gate.confirm")),
        ("render.backend=opengl", ("render.backend", "opengl", "auto, egl, osmesa, glfw, rays")),
        ("proposer=best", ("proposer", "best", "progress, uniform")),
        ("preset=fast", ("preset", "fast", "quick")),
        ("name=../elsewhere", ("name", "../elsewhere")),
        ("+extra=1", ("+extra=1",)),
        ("~seed", ("~seed",)),
        ("seed=1,2", ("seed=1,2", "once for each")),
        ("seed", ("seed", "key=value")),
        ('name="', ("key=value",)),
    ],
)
def test_a_bad_value_is_one_sentence_that_names_it(override: str, words: tuple[str, ...]):
    with pytest.raises(ConfigError) as caught:
        compose(RunConfig, [override])
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_a_typo_in_a_preset_file_names_the_valid_keys_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "preset").mkdir()
    (tmp_path / "run.yaml").write_text((config_dir() / "run.yaml").read_text())
    (tmp_path / "preset" / "default.yaml").write_text("# @package _global_\nstep: 5\n")
    monkeypatch.setattr("embodied.cli.config.config_dir", lambda: tmp_path)
    with pytest.raises(ConfigError, match=r"'step'.*valid keys: .*steps"):
        compose(RunConfig)


def test_a_configuration_made_in_python_is_held_to_the_same_rules():
    with pytest.raises(ConfigError, match=r"num_envs = 0 must be in \[1, 65536\]"):
        RunConfig(num_envs=0)


def test_what_is_saved_is_read_back_equal_and_damage_is_named(tmp_path: Path):
    path = tmp_path / "config.yaml"
    config = compose(RunConfig, ["preset=smoke", "seed=5", "render.width=32"])
    save(config, path)
    assert load(RunConfig, path) == config
    for damaged, named in (("sead: 5\n", "'sead'"), ("seed: [5\n", "parsing")):
        path.write_text(damaged)
        with pytest.raises(ConfigError, match=rf"config\.yaml.*{named}"):
            load(RunConfig, path)


def test_difference_names_the_keys_that_changed():
    old, new = RunConfig(), compose(RunConfig, ["seed=1", "gate.n=9"])
    assert difference(old, new) == {"seed": (0, 1), "gate.n": (200, 9)}


def test_composing_writes_nothing_and_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    compose(RunConfig, ["preset=quick"])
    assert Path.cwd() == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_the_renderers_offered_are_those_there_are():
    from envs.rendering import BACKENDS

    assert schemas.BACKENDS == BACKENDS


def test_every_key_says_what_it_means():
    for schema in Checked.__subclasses__():
        assert schema.__doc__
        assert all(item.metadata["meaning"] for item, _ in leaves(schema).values())
        assert {key.split(".")[0] for key in leaves(schema)} == {item.name for item in fields(schema)}
