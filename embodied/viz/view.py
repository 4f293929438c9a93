"""``embodied view``: a world looked at. In MuJoCo's own viewer where there is a screen, else as a video and a strip."""

from __future__ import annotations

import copy
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embodied.viz.acting import Show, ViewError, make_show
from envs.backends import probe
from envs.look import geom_rgba, shining

if TYPE_CHECKING:
    from embodied.cli.schema import ViewConfig

__all__ = ["View", "ViewError", "screen", "view"]

FOLDER = "videos"  # of the working directory: where videos go that are given no name
STEPS = 200  # control steps of a video of what has no length of its own
SHOTS, COLUMNS = 12, 4  # stills of the strip
FPS = 20  # of a world that does not say how often it is controlled
SUFFIXES = (".mp4", ".gif")
SPACE, RIGHT = 32, 262  # key codes of the viewer
KEYS = "space pauses, the right arrow steps while paused, double click and Ctrl+drag pushes a body"


@dataclass(frozen=True)
class View:
    """What was shown: ``how`` is "viewer" or "video", ``reason`` why, ``files`` what was written."""

    how: str
    reason: str
    who: str
    steps: int
    files: tuple[Path, ...] = ()


def view(config: ViewConfig, say: Callable[[str], None] = print) -> View:
    """Shows what happens in the world ``config.env`` when ``config.policy``, a skill or a recorded episode acts.

    With a screen and without ``config.out`` the viewer opens and stays until it is closed; else a video and a PNG strip
    are written. ``say`` is given one line before: which and why. Raises ViewError, and what `make_show` raises, for
    what cannot be shown, RenderError for a camera or backend, VideoError where no video can be written.
    """
    there, reason = screen()
    target = None if there and not config.out else _target(config)
    if config.out:
        reason = "out names a file"
    show = make_show(config)
    try:
        if target is None:
            say(f"{config.env}, {show.who}, in MuJoCo's viewer ({reason}): {KEYS}")
            return View("viewer", reason, show.who, _watch(show))
        steps = config.steps or show.steps or STEPS
        say(f"{config.env}, {show.who}, as a video ({reason}): {steps} control steps")
        files = _film(show, steps, target, config)
        for path in files:
            say(str(path))
        return View("video", reason, show.who, steps, files)
    finally:
        show.env.close()


def screen() -> tuple[bool, str]:
    """Whether a window can be opened here, and why or why not, in a few words."""
    if sys.platform == "darwin":
        from mujoco import viewer

        under = viewer._MJPYTHON is not None
        return under, "there is a screen" if under else "on macOS a window needs mjpython instead of python"
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False, "there is no screen: DISPLAY is not set"
    works, words = probe("glfw")  # in a child process: a window that cannot open would never come back
    return works, "there is a screen" if works else f"no window opens on this screen: {words}"


def _target(config: ViewConfig) -> Path:
    """The video's file."""
    from embodied.viz.video import VideoError, ffmpeg_works

    if config.out:
        path = Path(config.out)
        if path.suffix not in SUFFIXES:
            raise ViewError(f"out = {config.out!r} must end in {' or '.join(SUFFIXES)}")
        if path.suffix == ".mp4" and not ffmpeg_works():
            raise VideoError(f"no ffmpeg runs here, so {config.out} cannot be written; name a .gif instead")
        return path
    who = config.skill or (f"episode {config.episode}" if config.episode >= 0 else Path(config.policy).name)
    name = re.sub(r"[^a-z0-9]+", "-", f"{config.env} {who} seed{config.seed}".lower()).strip("-")
    return Path(FOLDER) / f"{name}{'.mp4' if ffmpeg_works() else '.gif'}"


def _film(show: Show, steps: int, target: Path, config: ViewConfig) -> tuple[Path, Path]:
    """Lets ``steps`` control steps happen and writes the video and a strip of stills beside it."""
    from embodied.viz import video
    from embodied.viz.film import write_gif

    fps = int(show.env.metadata.get("render_fps", FPS))
    simulation = getattr(show.env, "simulation", None)
    frames, lit, goals = [_frame(show, simulation)], [show.lit], [show.goal]
    for _ in range(steps):
        show.step()
        frames.append(_frame(show, simulation))
        lit.append(show.lit)
        goals.append(show.goal)
    if simulation is not None:
        from envs.rendering import make_renderer

        size, camera = (config.render.width, config.render.height), config.camera
        with make_renderer(simulation.model, *size, camera, config.render.backend) as renderer:
            lamps = {name: np.concatenate([on[name] for on in lit]) for name in lit[0]}
            pictures = renderer.render(np.stack(frames), lamps)[:, 0]
    else:
        pictures = np.stack(frames)
    target.parent.mkdir(parents=True, exist_ok=True)
    written = video.write_mp4(target, pictures, fps) if target.suffix == ".mp4" else write_gif(target, pictures, fps)
    at = np.unique(np.linspace(0, len(pictures) - 1, SHOTS).round().astype(int))
    captions = [f"{i / fps:.1f} s  {goals[i]}" for i in at]
    strip = video.strip(pictures[at], COLUMNS, captions)
    return written, video.write_png(target.with_suffix(".png"), strip)


def _frame(show: Show, simulation: Any) -> np.ndarray:
    """What a picture of now needs: joint positions [nq], or of a world without a simulation of ours the picture."""
    if simulation is not None:
        return simulation.qpos[0].copy()
    pictures = show.env.render()
    if pictures is None:
        raise ViewError("this world gives no pictures")
    return np.asarray(pictures[0])


def _watch(show: Show) -> int:
    """Runs the world in MuJoCo's passive viewer until its window is closed; the control steps taken."""
    import mujoco
    from mujoco import viewer

    if not hasattr(show.env, "simulation"):
        raise ViewError("this world has no MuJoCo model for the viewer; out=FILE.mp4 writes a video")
    simulation: Any = show.env.simulation  # type: ignore[attr-defined]
    model = copy.copy(simulation.model)  # its lamps change colour
    data, dark = mujoco.MjData(model), geom_rgba(model)
    force = simulation.batch.bind("xfrc_applied")
    period = 1.0 / float(show.env.metadata.get("render_fps", FPS))
    taken, paused, wanted = 0, False, 0

    def key(code: int) -> None:
        nonlocal paused, wanted
        if code == SPACE:
            paused = not paused
        elif code == RIGHT and paused:
            wanted += 1

    data.qpos[:] = simulation.qpos[0]
    with viewer.launch_passive(model, data, key_callback=key) as window:
        while window.is_running():
            begin = time.monotonic()
            with window.lock():
                data.xfrc_applied[:] = 0.0
                mujoco.mjv_applyPerturbPose(model, data, window.perturb, int(paused))
                if paused and window.perturb.active:  # a body that is dragged while the world stands still
                    simulation.qpos[0] = data.qpos
                mujoco.mjv_applyPerturbForce(model, data, window.perturb)
                force[0] = data.xfrc_applied.reshape(force[0].shape)
            if not paused or wanted:
                wanted = max(0, wanted - 1) if paused else 0
                show.step()
                taken += 1
            with window.lock():
                data.qpos[:], data.qvel[:] = simulation.qpos[0], simulation.qvel[0]
                data.time = float(np.ravel(simulation.time[0])[0])
                _light(show, model, dark)
                mujoco.mj_forward(model, data)
            window.sync()
            time.sleep(max(0.0, period - (time.monotonic() - begin)))
    return taken


def _light(show: Show, model: Any, dark: np.ndarray) -> None:
    """Gives the lamps of the viewer's model the colours of now; `dark` [ngeom, 4] are those without light."""
    for name, on in show.lit.items():
        geom = model.geom(name).id
        model.geom_rgba[geom, :3] = shining(dark[geom, :3]) if on[0] else dark[geom, :3]
