from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from policies import REGISTRY, Policy, load_policy, policy_class
from policies.checkpoint import CheckpointError, content_hash, read_arrays
from policies.flow_bc import FlowBC, FlowBCConfig
from policies.multi_critic_ppo import MultiCriticPPO, MultiCriticPPOConfig
from policies.random import RandomPolicy


def flow(seed: int = 0) -> FlowBC:
    return FlowBC(FlowBCConfig(feature_size=3, action_size=2, chunk=2, execute=2, hidden=(8,), seed=seed))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    flow().save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


def test_a_checkpoint_is_two_readable_files_and_its_kind_finds_the_class(saved):
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    assert [path.name for path in saved.parent.iterdir()] == ["policy"]
    header = json.loads((saved / "config.json").read_text())
    assert header["type"] == "flow-bc" and header["config"]["chunk"] == 2
    assert isinstance(load_policy(saved), FlowBC) and isinstance(Policy.from_pretrained(saved), FlowBC)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors"])
def test_damaged_weights_give_one_clear_error(tmp_path, name, damage):
    flow().save_training(tmp_path / "policy")
    path = tmp_path / "policy" / name
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-1] ^= 1
    path.write_bytes(data[: {"truncate": len(data) // 2, "flip": len(data), "empty": 0}[damage]])
    with pytest.raises(CheckpointError, match=rf"^{name} in .* is truncated or corrupt") as caught:
        FlowBC.load_training(tmp_path / "policy")
    assert caught.value.__cause__ is None and "\n" not in str(caught.value)


def test_every_other_fault_names_itself(saved, tmp_path):
    with pytest.raises(CheckpointError, match="is not a policy directory"):
        load_policy(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"holds no training\.safetensors; it holds model\.safetensors"):
        FlowBC.load_training(saved)
    with pytest.raises(CheckpointError, match="'flow-bc' policy, not the expected 'multi-critic-ppo'"):
        MultiCriticPPO.from_pretrained(saved)
    config = saved / "config.json"
    text = config.read_text()
    for old, new, message in (
        ("flow-bc", "nonsense", "unknown type 'nonsense'; valid types: act, act-jepa, flow-bc"),
        ('"chunk"', '"chnk"', "Unknown entry 'chnk' for FlowBCConfig; valid entries: feature_size"),
        ('"chunk": 2', '"chunk": 3', "'body.0.weight' has shape"),
        ('"format": 1', '"format": 2', "has format 2; this version reads format 1"),
        ('"sha256"', '"sha"', "lacks one of its entries"),
        (text, text[:40], "is truncated or corrupt"),
    ):
        config.write_text(text.replace(old, new))
        with pytest.raises(CheckpointError, match=message):
            load_policy(saved)
    config.write_text(text)
    (saved / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        load_policy(saved)


def test_the_content_hash_names_what_acts(tmp_path):
    policy = flow()
    policy.save_pretrained(tmp_path / "a")
    policy.save_training(tmp_path / "b")
    load_policy(tmp_path / "a").save_pretrained(tmp_path / "c")
    flow(seed=1).save_pretrained(tmp_path / "d")
    names = [content_hash(tmp_path / name) for name in "abcd"]
    assert names[0] == names[1] == names[2] != names[3] and len(names[0]) == 64
    model = tmp_path / "a" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="truncated or corrupt"):
        content_hash(tmp_path / "a")


def test_an_interrupted_save_leaves_the_old_checkpoint(saved, monkeypatch):
    before = content_hash(saved)

    def fail(descriptor: int) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="no space left"):
            flow(seed=1).save_pretrained(saved)
    assert content_hash(saved) == before
    flow(seed=1).save_pretrained(saved)
    assert content_hash(saved) != before
    assert [path.name for path in saved.parent.iterdir()] == ["policy"]


def test_a_directory_of_something_else_is_never_replaced(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="choose another directory"):
        flow().save_pretrained(tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_random_actions_are_uniform_and_repeatable(tmp_path):
    policy = RandomPolicy(observation_size=3, action_size=4, seed=1)
    observation = np.zeros((5000, 3), np.float32)
    first, state = policy.predict(observation)
    assert state is None and first.shape == (5000, 4) and first.dtype == np.float32
    assert np.abs(first).max() <= 1 and abs(first.mean()) < 0.02 and abs(first.var() - 1 / 3) < 0.02
    policy.save_pretrained(tmp_path / "random")
    assert read_arrays(tmp_path / "random") == {}
    np.testing.assert_array_equal(load_policy(tmp_path / "random").predict(observation)[0], first)


def test_naming_policies_imports_no_learning_library():
    code = (
        "import sys, policies, policies.random\n"
        "policies.policy_class('random'), policies.load_policy\n"
        "assert policies.DISTRIBUTION == 'embodied-repertoire'\n"
        "sys.exit(bool({'torch', 'stable_baselines3'} & set(sys.modules)))"
    )
    root = Path(sys.modules["policies"].__file__ or "").parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_every_registered_kind_is_what_it_says():
    for key in set(REGISTRY) - {"sb3"}:
        assert policy_class(key).registry_key == key
    with pytest.raises(ValueError, match="Unknown policy type 'x'; valid types: act, act-jepa, flow-bc, gciql"):
        policy_class("x")


def test_weights_beside_a_reward_head_too_few_are_refused(tmp_path):
    policy = MultiCriticPPO(MultiCriticPPOConfig(2, 1, ("a", "b"), hidden=(4,), critic_hidden=(4,)))
    policy.save_pretrained(tmp_path / "policy")
    config = tmp_path / "policy" / "config.json"
    changed = json.loads(config.read_text())
    changed["config"]["reward_names"] = ["a"]
    config.write_text(json.dumps(changed))
    with pytest.raises(CheckpointError, match="weights has 2 entries; expected 1 or 1"):
        load_policy(tmp_path / "policy")
