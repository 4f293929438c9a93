"""The report and the pictures in it: one valid file that loads nothing, whatever a run has to show so far."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from embodied.viz import video
from embodied.viz.markup import count_text, percent_text, time_text
from embodied.viz.plots import ticks
from embodied.viz.report import ReportData, render_report, write_report

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Checks that tags nest, and collects text, tags and attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words += data + " "


def frames(count: int = 12, height: int = 30, width: int = 41) -> np.ndarray:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (1, height, width, 3))
    return np.clip(noise + 4 * np.arange(count)[:, None, None, None], 0, 255).astype(np.uint8)


def full() -> ReportData:
    hashed = "ab12" * 16
    return ReportData(
        name="quick", preset="quick", seed=3, state="finished", started="09:14", written="09:28",
        versions={"mujoco": "4.0.0"}, renderer="rays", physics="dt 5 ms", environment_steps=2_512_000,
        step_budget=2_500_000, wall_seconds=812.0, episodes=31_862, gate=0.9,
        mastered=[{"steps": 40_000, "seconds": 20.0, "count": 1},
                  {"steps": 90_000, "seconds": 44.0, "count": 3}],
        curves=[
            {"skill": "open(drawer)",
             "points": [{"steps": 10_000 * i, "successes": 10 * i, "n": 64} for i in range(5)]},
            {"skill": "lit(lamp)", "points": [{"steps": 500, "successes": 1, "n": 64}]},
            {"skill": "holding(?a:block)"},
        ],
        goals=[
            {"goal": f"goal {i}", "text": "Do it.", "successes": 47 + i % 4, "n": 50, "status": "admitted",
             "evidence": "simulator", "steps": 40_000} for i in range(30)
        ] + [{"goal": "never tried"}],
        heldout=[
            {"method": method, "depth": depth, "successes": 61, "n": 100}
            for method in ("random", "agent", "oracle") for depth in (1, 2, 3)
        ],
        library=[{"schema": "open(drawer)", "version": hashed, "parent": "", "warm_start": "play policy",
                  "status": "admitted", "successes": 199, "n": 200}],
        decisions=[{"round": i, "goal": "lit(lamp)", "why": f"reason {i}", "result": "it passed",
                    "outcome": "mastered", "details": {"cost": "31 s"}} for i in range(20)],
        pictures=[video.picture(frames(), "Open the drawer.", True, "3.9 s"),
                  video.picture(frames(2), "Stack them.", False)],
    )  # fmt: skip


def test_a_full_report_is_valid_and_shows_every_part(tmp_path):
    path = write_report(tmp_path / "deep" / "report.html", full())
    page = Page(path.read_text(encoding="utf-8"))
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    for words in ("quick", "2.51 M", "14 min", "31.9 k", "taught itself 3 of 31 goals", "mujoco 4.0.0",
                  "dt 5 ms", "Open the drawer.", "✓ success", "✗ failure", "3.9 s", "goal 7", "94 %",
                  "99.5 %", "51 to 70 · n 100", "never tried", "not measured", "ab12ab12ab", "play policy",
                  "reason 19", "why", "11 more goals", "8 earlier decisions", "3 steps",
                  "not practised yet"):  # fmt: skip
        assert words in page.words, words
    assert "ab12ab12ab1" not in page.words
    assert page.words.index("agent ") < page.words.index("random ")
    assert page.tags.count("svg") == 1 + 2 + 3 and page.tags.count("figure") == 2
    assert page.words.index("reason 19") < page.words.index("reason 0 ")


@pytest.mark.parametrize("data", [full(), ReportData("fresh")], ids=["full", "fresh"])
def test_the_page_loads_nothing_and_runs_nothing(data):
    text = render_report(data)
    page = Page(text)
    assert "script" not in page.tags and not [a for a in page.attributes if a[1].startswith("on")]
    for _, name, value in page.attributes:
        if name in ("src", "href"):
            assert value.startswith("data:")
    assert not re.search(r"https?:|url\(|@import|//[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text))
    assert "default-src 'none'" in text


def test_a_run_that_just_began_says_what_is_missing():
    page = Page(render_report(ReportData("fresh")))
    for words in ("has not moved yet", "No goal is mastered yet", "No skill has been practised yet",
                  "none measured yet", "No goal has been measured yet", "Not measured yet",
                  "library is empty", "No decision", "No episode", "running"):  # fmt: skip
        assert words in page.words, words
    begun = ReportData("begun", environment_steps=250, step_budget=1000, wall_seconds=1.0)
    assert "running · 25 %" in Page(render_report(begun)).words


def test_text_is_escaped_everywhere():
    evil = "<img src=x onerror=alert(1)>\"'&"
    row = {"successes": 1, "n": 2, "status": evil}
    data = ReportData(
        name=evil, preset=evil, started=evil, written=evil, versions={evil: evil}, renderer=evil,
        physics=evil, environment_steps=10, mastered=[{"count": 1}],
        curves=[{"skill": evil, "points": [row]}],
        goals=[{"goal": evil, "text": evil, "evidence": evil, **row}], heldout=[{"method": evil, **row}],
        library=[{"schema": evil, "version": evil, "parent": evil, "warm_start": evil, **row}],
        decisions=[{"round": evil, "goal": evil, "why": evil, "result": evil, "outcome": evil,
                    "details": {evil: evil}}],
        pictures=[{"instruction": evil, "note": evil}],
    )  # fmt: skip
    page = Page(render_report(data))
    assert "img" not in page.tags and not [a for a in page.attributes if a[1] == "onerror"]
    assert page.words.count("<img src=x onerror=alert(1)>\"'&") >= 19


def test_size_and_same_data_same_bytes(tmp_path):
    data = full()
    first = write_report(tmp_path / "a.html", data).read_bytes()
    assert first == write_report(tmp_path / "b.html", data).read_bytes()
    data.pictures = []
    assert len(render_report(data).encode()) < 120_000


def test_numbers_never_round_to_a_certainty_that_was_not_measured():
    texts = [percent_text(rate) for rate in (0, 1e-5, 0.004, 0.5, 0.94, 0.995, 0.99999, 1)]
    assert texts == ["0 %", "0.1 %", "0.4 %", "50 %", "94 %", "99.5 %", "99.9 %", "100 %"]
    assert [time_text(s) for s in (0, 179, 812, 7500)] == ["0 s", "179 s", "14 min", "2 h 05"]
    assert [count_text(n) for n in (0, 9999, 45_600, 2_512_000)] == ["0", "9,999", "45.6 k", "2.51 M"]
    for high in (0.3, 1, 7, 96, 813, 2.5e6):
        axis = ticks(high)
        assert axis[0] == 0 and axis[-2] < high <= axis[-1] and 3 <= len(axis) <= 7


def test_wrong_data_is_refused_with_the_valid_choices():
    with pytest.raises(ValueError, match="running, finished, stopped"):
        render_report(ReportData("x", state="done"))
    with pytest.raises(ValueError, match="image/webp"):
        render_report(ReportData("x", pictures=[{"animation": b"1", "kind": "text/html"}]))


def test_strip_puts_frames_in_rows_with_captions():
    shots = frames(5)
    plain = video.strip(shots, columns=3)
    assert plain.shape == (2 * (30 + video.GAP) - video.GAP, 3 * (41 + video.GAP) - video.GAP, 3)
    assert (plain[:30, :41] == shots[0]).all() and (plain[34:64, 45:86] == shots[4]).all()
    captioned = video.strip(shots, columns=3, captions=["0.0 s", "a caption that is far too long → cut", "", "x", "é"])
    assert (captioned[:30, :41] == shots[0]).all()
    below = captioned[30:44].reshape(14, -1, 3)
    assert (below[:, :41] != video.PAPER).any() and (below[:, 90:131] == video.PAPER).all()
    assert (below[:, 41:45] == video.PAPER).all()
    for bad in (shots[0], shots.astype(float), shots[:0]):
        with pytest.raises(video.VideoError, match="uint8"):
            video.strip(bad)
    with pytest.raises(video.VideoError, match="give one each"):
        video.strip(shots, captions=["one"])


@pytest.mark.parametrize("webp", [True, False])
def test_animation_keeps_to_its_limit_and_its_duration(monkeypatch, webp):
    if webp and not video.features.check("webp"):
        pytest.skip("this Pillow has no WebP")
    monkeypatch.setattr(video.features, "check", lambda name: webp)
    shots = frames(24, 48, 48)
    whole, kind = video.animation(shots, fps=10)
    small, _ = video.animation(shots, fps=10, limit=len(whole) // 3)
    assert kind == ("image/webp" if webp else "image/gif") and len(small) <= len(whole) // 3
    for data in (whole, small):
        image = Image.open(io.BytesIO(data))
        duration = 0
        for i in range(getattr(image, "n_frames", 1)):
            image.seek(i)
            image.load()
            duration += image.info["duration"]
        assert duration == pytest.approx(2400 + 1000, abs=350)
    with pytest.raises(video.VideoError, match="do not fit"):
        video.animation(shots, limit=50)


def test_mp4_has_every_frame_and_needs_a_working_ffmpeg(tmp_path, monkeypatch):
    if video.ffmpeg_works():
        import imageio_ffmpeg

        path = video.write_mp4(tmp_path / "videos" / "a.mp4", frames(9), fps=20)
        count, seconds = imageio_ffmpeg.count_frames_and_secs(str(path))
        assert count == 9 and seconds == pytest.approx(9 / 20, abs=0.06)
        assert [p.name for p in path.parent.iterdir()] == ["a.mp4"]
    monkeypatch.setattr(video, "ffmpeg_works", lambda: False)
    with pytest.raises(video.VideoError, match="no ffmpeg"):
        video.write_mp4(tmp_path / "b.mp4", frames(3))
    video.write_png(tmp_path / "c.png", frames(1)[0])
    assert (np.asarray(Image.open(tmp_path / "c.png")) == frames(1)[0]).all()
