"""Adapter skills in the library: kept with the hash of their base, loaded on it, refused on any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embodied.core import Skill
from embodied.skills.adapters import add_adapter_skill, load_adapter_skill
from embodied.skills.library import LibraryError, SkillLibrary
from policies.adapters import FlowAdapters, policy_hash
from policies.flow_bc import FlowBC, FlowBCConfig

GOAL = "open(drawer)"


def base_of(seed: int) -> FlowBC:
    return FlowBC(FlowBCConfig(feature_size=3, action_size=2, chunk=2, execute=2, hidden=(8,), seed=seed))


def test_an_adapter_skill_is_kept_and_acts_on_its_base(tmp_path: Path) -> None:
    base, features = base_of(0), np.ones((4, 3), np.float32)
    adapters = [FlowAdapters.over(base, rank=2, seed=seed) for seed in (1, 2)]
    for k, adapter in enumerate(adapters):  # as if they had learnt something
        adapter.load_arrays({name: a + 0.1 * (k + 1) for name, a in adapter.arrays().items()})
    both = FlowAdapters.composition(base, adapters, mode="score")
    both.save_pretrained(tmp_path / "both")
    adapters[0].save_pretrained(tmp_path / "one")
    base.save_pretrained(tmp_path / "base")
    with SkillLibrary.open(tmp_path / "library" / "library.sqlite") as library:
        with library.edit() as tx:
            with pytest.raises(LibraryError, match=r"which no skill of .* carries; add the base as a skill first"):
                add_adapter_skill(tx, GOAL, tmp_path / "both")
            tx.add_skill(GOAL, tmp_path / "base")
            kept = add_adapter_skill(tx, GOAL, tmp_path / "both", conditioning={"steps": 40})
            one = add_adapter_skill(tx, GOAL, tmp_path / "one")
        assert dict(kept.conditioning) == {
            "kind": "adapter", "base": policy_hash(base), "adapters": [policy_hash(a) for a in adapters],
            "mode": "score", "steps": 40,
        }  # fmt: skip
        assert one.conditioning["adapters"] == [policy_hash(adapters[0])]
        assert library.gc() == []  # the base stays as long as its own skill
        for skill, policy in ((kept, both), (one, adapters[0])):
            found = load_adapter_skill(library, library.skill(skill.version))
            expected = policy.predict(features, deterministic=True)[0]
            np.testing.assert_array_equal(found.predict(features, deterministic=True)[0], expected)
            assert np.abs(expected - base.predict(features, deterministic=True)[0]).max() > 1e-3


def test_what_is_no_adapter_skill_or_another_is_refused(tmp_path: Path) -> None:
    base, other = base_of(0), base_of(1)
    base.save_pretrained(tmp_path / "base")
    other.save_pretrained(tmp_path / "other")
    FlowAdapters.over(base, rank=2).save_pretrained(tmp_path / "one")
    with SkillLibrary.open(tmp_path / "library" / "library.sqlite") as library:
        with library.edit() as tx:
            plain = tx.add_skill(GOAL, tmp_path / "base")
            second = tx.add_skill(GOAL, tmp_path / "other")
            skill = add_adapter_skill(tx, GOAL, tmp_path / "one")
            with pytest.raises(LibraryError, match=r"holds no adapter skill: .* holds a 'flow-bc' policy"):
                add_adapter_skill(tx, GOAL, tmp_path / "base")
            with pytest.raises(LibraryError, match=r"holds no adapter skill: .* is not a policy directory"):
                add_adapter_skill(tx, GOAL, tmp_path / "nothing")
        with pytest.raises(LibraryError, match="has conditioning of kind None; an adapter skill's is 'adapter'"):
            load_adapter_skill(library, plain)
        lying = Skill(GOAL, skill.artifact, dict(skill.conditioning) | {"base": second.artifact})
        with pytest.raises(LibraryError, match=r"says base = .* its artifact .* one of them is not this skill's"):
            load_adapter_skill(library, lying)
