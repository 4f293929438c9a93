"""`embodied discover`: what it leaves, going on, and one sentence for what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from embodied import cli, discovering
from embodied.cli.config import compose
from embodied.cli.schema import COMBINE, DISCOVERIES, SKILLS, DiscoverConfig
from embodied.training import discovery
from policies.discovery import METHODS

TINY = [
    "steps=320",
    "num_envs=4",
    "threads=1",
    "skill.updates=1",
    "library=false",
    "render.width=24",
    "render.height=18",
]
TINY += ["render.backend=rays"]


def test_the_names_offered_are_those_there_are():
    assert tuple(discovery.METHODS) == DISCOVERIES
    assert tuple(discovery.COMBINE) == COMBINE
    assert METHODS == SKILLS


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("method=slimm", ("slimm", "slim, metra")),
        ("blocs=2", ("'blocs'", "did you mean 'blocks'")),
        ("skill.cod_size=4", ("did you mean 'skill.code_size'",)),
        ("combine=max", ("max", "normalized_advantages", "lagrangian")),
        ("rewards=[]", ("rewards = []", "at least one")),
        ("rewards=[reach,reach]", ("reach, reach", "once")),
        ("rewards=[reech]", ("reech", "reach", "off_table")),
        ("weights.safty=1", ("safty", "safety")),
        ("weights.safety=-1", ("weights.safety", "-1", "at least 0")),
        ("scales.reach=inf", ("scales.reach", "inf", "finite")),
        ("weights.reach=0 weights.skill=0 weights.safety=0", ("all weights are zero",)),
        ("skill.code_size=3", ("code_size = 3", "position", "2 coordinates")),
        ("method=metra skill.discrete=true skill.code_size=1", ("code_size = 1", "at least 2")),
        ("skill.hidden=[]", ("skill.hidden = []",)),
        ("combine=lagrangian rewards=[reach,skill]", ("lagrangian", "reach, skill", "safety")),
        ("method=random steps=5", ("steps=5", "random")),
        ("blocks=0", ("blocks = 0", "at least 1")),
        ("blocks=5", ("blocks = 5", "4 objects")),
        ("env=discoverie", ("discoverie", "discovery", "playroom")),
        ("env=bare.yaml", ("blocks = 1", "0 objects")),
        ("fast", ("fast", "key=value")),
    ],
)
def test_what_cannot_be_is_one_sentence_and_leaves_nothing(
    override: str, words: tuple[str, ...], tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bare.yaml").write_text("name: bare\narea: [0.4, -0.1, 0.5, 0.1]\n", encoding="utf-8")
    assert cli.main(["discover", *override.split()]) in (1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert all(word in err for word in words), err
    assert [path.name for path in tmp_path.iterdir()] == ["bare.yaml"]


def test_a_discovery_goes_on_after_a_stop_and_ends_with_exam_pictures_and_page(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(discovery, "STRETCH", 1)
    out = Path("runs/discover/discovery-slim-2-seed0")
    command = ["discover", *TINY, "blocks=2", "weights.safety=0.5"]
    keep = discovery.Skills.save

    def stop(skills: discovery.Skills, folder: Path) -> None:
        keep(skills, folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(discovery.Skills, "save", stop)
        assert cli.main(command) == 130
    assert cli.main(["report", f"run={out}"]) == 0  # of what is there by now
    assert "unfinished · 50 %" in (out / "report.html").read_text(encoding="utf-8")
    capsys.readouterr()

    assert cli.main(command) == 0
    told = capsys.readouterr()
    assert "50% of 320 env steps" in told.out  # it went on
    assert "bins of 5 cm" in told.out
    assert told.err == ""
    summary = json.loads((out / "skills.json").read_text(encoding="utf-8"))
    assert (summary["method"], summary["steps"], summary["share"], summary["codes"]) == ("slim", 320, 1.0, 50)
    assert summary["settings"]["weights"] == {"safety": 0.5}
    assert {"embodied", "mujoco", "torch"} <= set(summary["versions"])
    assert 0 <= summary["exam"]["violation"]["any"] <= 1
    for name in ("coverage.png", "paths.png", "curves.png", "gallery.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 90
    assert len(list(out.glob("gallery.*"))) == 2
    text = (out / "report.html").read_text(encoding="utf-8")
    assert text.count("<img ") == 4
    assert "<script" not in text
    assert ">finished<" in text
    assert all(word in text for word in ("reach 1, skill 1, safety 0.5", "off_table", "href='gallery."))

    before = (out / "report.html").stat().st_mtime_ns
    assert cli.main(command) == 0
    assert "finished already" in capsys.readouterr().out
    assert (out / "report.html").stat().st_mtime_ns == before
    assert cli.main([*command, "seed=1", f"out={out}"]) == 2
    assert "seed (was 0, is 1)" in capsys.readouterr().err


def test_every_method_and_a_scene_of_the_library_get_as_far_as_settings(tmp_path: Path):
    for method in DISCOVERIES:
        settings = discovering.settings_for(compose(DiscoverConfig, [f"method={method}", "scales.skill=2"]))
        assert settings.skill.get("method", "position") == ("position" if method == "slim" else method)
        assert settings.rewards == (("reach", "skill", "safety") if method == "slim" else ("skill",))
        assert settings.steps == (0 if method == "random" else 480_000)
    mixed = ["skill.method=metra", "skill.hidden=[8]", "rewards=[skill,lift]", "env=playroom"]
    config = compose(DiscoverConfig, mixed)
    assert discovering.settings_for(config).skill == {"method": "metra", "hidden": (8,)}
    assert discovering.folder_of(config) == Path("runs/discover/playroom-slim-1-seed0")


def test_chance_in_a_scene_of_the_library_is_examined_without_a_film(tmp_path: Path, capsys):
    out = tmp_path / "chance"
    command = ["method=random", "env=playroom", "video=false", "num_envs=2", "threads=1", f"out={out}"]
    assert cli.main(["discover", *command]) == 0
    assert "Not filmed" in (out / "report.html").read_text(encoding="utf-8")
    assert not list(out.glob("gallery.*"))
    assert json.loads((out / "skills.json").read_text(encoding="utf-8"))["steps"] == 0
