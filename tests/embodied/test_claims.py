"""The claims ledger: what is met, what falls short, what was never measured, and what is said of it."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path

import pytest

from embodied import cli
from embodied.evaluation import claims, mastery
from embodied.evaluation.claims import Claim, ClaimError, Context, Measurement

HERE = "embodied.evaluation.claims"


@pytest.fixture
def claim(monkeypatch: pytest.MonkeyPatch) -> Claim:
    """A claim of this test alone, whose measurement is set with ``measures``."""
    made = Claim("test.x", "a thing is so", ">=", 0.75, "success", f"{HERE}:measured_here", "less", quick_target=0.5)
    monkeypatch.setattr(claims, "REGISTRY", {made.id: made})
    return made


def measures(monkeypatch: pytest.MonkeyPatch, measurement: Measurement) -> list[Context]:
    seen: list[Context] = []

    def measured_here(context: Context) -> Measurement:
        seen.append(context)
        return measurement

    monkeypatch.setattr(claims, "measured_here", measured_here, raising=False)
    return seen


def test_every_must_show_line_is_registered_with_a_function_that_exists():
    lines = [f"{issue}.{letter}" for issue in ("main", "world") for letter in "abcdefg"]
    lines += [f"play.{letter}" for letter in "abcdefgh"]
    lines += [f"slim.{letter}" for letter in "abcdef"]
    lines += [f"library.{letter}" for letter in "abcdefghi"]
    assert sorted(lines) == sorted(claims.REGISTRY)
    for claim in claims.REGISTRY.values():
        module, _, name = claim.measure.partition(":")
        assert callable(getattr(importlib.import_module(module), name))
        assert claim.command() == f"embodied claims run {claim.id}"


@pytest.mark.parametrize(
    ("measurement", "quick", "met"),
    [
        (Measurement(0.75), False, True),
        (Measurement(0.7499), False, False),
        (Measurement(0.6), True, True),
        (Measurement(0.9, conditions={"it ends": True, "a report is left": False}), False, False),
        (Measurement(math.nan), False, False),
    ],
)
def test_met_needs_the_target_and_every_condition(claim: Claim, measurement: Measurement, quick: bool, met: bool):
    assert claim.met(measurement, quick) is met


def test_a_measurement_is_kept_printed_last_and_listed(
    claim: Claim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    found = Measurement(0.8, (0.7, 0.9), (0, 1), 400, {"it ends": True}, {"rows": {"random": 0.1}})
    seen = measures(monkeypatch, found)
    where = f"results={tmp_path}"
    assert cli.main(["claims", where]) == 0
    assert "test.x: not measured" in capsys.readouterr().out
    assert cli.main(["claims", "run", claim.id, where, "seed=4", "seeds=2", "runs=[a]"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "test.x met, target >= 0.75 success: 0.8 [0.7, 0.9]"
    assert seen[0].seeds_or(1) == (4, 5)
    assert seen[0].runs == (Path("a"),)
    record = claims.recorded(tmp_path, claim.id)
    assert record is not None
    assert record.measurement == found
    assert record.versions["mujoco"][0].isdigit()
    assert cli.main(["claims", "--json", where]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["status"], row["figure"], row["interval"], row["seeds"]) == ("met", 0.8, [0.7, 0.9], [0, 1])
    assert row["date"] == record.date


def test_what_falls_short_exits_with_1_and_is_listed_as_not_met(
    claim: Claim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    measures(monkeypatch, Measurement(0.9, conditions={"a report is left": False}))
    where = f"results={tmp_path}"
    assert cli.main(["claims", "run", claim.id, where]) == 1
    assert "does not hold: a report is left" in capsys.readouterr().out
    assert cli.main(["claims", where]) == 0
    assert "✗ test.x: not met" in capsys.readouterr().out


def test_a_quick_measurement_never_stands_for_the_full_one(
    claim: Claim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    measures(monkeypatch, Measurement(0.6))
    assert cli.main(["claims", "run", claim.id, "--quick", f"results={tmp_path}"]) == 0
    assert claims.recorded(tmp_path, claim.id) is None
    capsys.readouterr()
    cli.main(["claims", f"results={tmp_path}"])
    out = capsys.readouterr().out
    assert "· test.x: not measured" in out
    assert "✓ test.x (quick): met" in out
    assert out.splitlines()[-1] == "0 of 1 claims met"


@pytest.mark.parametrize("content", ["{", "[]", '{"id": "test.x"}', '{"measurement": {"interval": null}}'])
def test_a_damaged_record_is_one_sentence(claim: Claim, tmp_path: Path, content: str):
    path = claims.path_of(tmp_path, claim.id, quick=False)
    path.write_text(content)
    with pytest.raises(ClaimError, match=r"test\.x\.json is not a claim's record"):
        claims.recorded(tmp_path, claim.id)
    assert cli.main(["claims", f"results={tmp_path}"]) == 1


def test_the_committed_records_fit_their_claims():
    top = Path(__file__).resolve().parents[2] / "docs" / "results"
    for claim in claims.REGISTRY.values():
        for quick in (False, True):
            record = claims.recorded(top, claim.id, quick)
            if record is not None:
                assert record.id == claim.id
                assert record.met is claim.met(record.measurement, quick)


def test_what_must_be_among_the_mastered_goals_is_found_through_implication():
    lacking = mastery.missing(["placed(red, left)", "lit(lamp) & open(drawer)", "on(blue, red)"])
    assert not {"red block placed at a given place", "lamp lit", "drawer open", "stacked"} & set(lacking)
    assert {"drawer closed", "blue block placed at a given place", "red block put in the drawer"} <= set(lacking)
    everything = [named[0] for named in mastery.REQUIRED.values()]
    assert mastery.missing(everything) == []
    assert mastery.distinct([*everything, "placed(red, right)", "touching(red)", "holding(blue)"]) == everything


def test_ablations_add_seeds_up_and_compare_with_the_best_other_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from embodied.evaluation import main_claims

    made: list[str] = []

    def live(context: Context, preset: str, seed: int, *overrides: str, label: str) -> Path:
        made.append(f"{label}{seed}")
        return Path(label, str(seed))

    monkeypatch.setattr(main_claims, "_live", live)
    size = {"full": 9, "uniform": 7, "no_play": 2, "no_gate": 8}
    monkeypatch.setattr(main_claims, "_judged", lambda run: ["goal"] * (size[str(run.parent)] - int(run.name)))
    first = main_claims.ablations(Context(True, tmp_path, tmp_path, say=lambda _: None))
    assert (first.figure, first.seeds, len(made)) == (1.0, (0,), 4)
    second = main_claims.ablations(Context(False, tmp_path, tmp_path, say=lambda _: None))
    assert (second.figure, second.seeds, second.details["best_other"]) == (1.0, (0, 1, 2), "no_gate")
    assert len(made) == 12


def test_what_could_not_be_measured_is_null_in_the_details(tmp_path: Path) -> None:
    details = {"rates": [0.5, float("nan")], "arms": {"a": float("inf"), "b": 1}}
    kept = claims.Record(
        id="main.a", quick=False, target=1.0, comparison=">=", met=False, date="2026-01-01", machine="m", command="c",
        versions={}, measurement=claims.Measurement(0.0, None, (0,), 1, {}, details),
    )  # fmt: skip
    kept.write(tmp_path / "main.a.json")
    found = claims.Record.read(tmp_path / "main.a.json").measurement.details
    assert found == {"rates": [0.5, None], "arms": {"a": None, "b": 1}}
