"""Frames to files: mp4, PNG strips with captions, and small animations to put into a page.

Frames are ``uint8[T, h, w, 3]``, as ``envs.rendering`` draws them.
"""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features

from embodied.data.durable import replace_file

__all__ = ["VideoError", "animation", "ffmpeg_works", "picture", "png", "strip", "write_mp4", "write_png"]

Frames = NDArray[np.uint8]
ANIMATION_BYTES = 300_000  # largest animation that goes into a page
GAP, CAPTION = 4, 14  # pixels between the pictures of a strip, and below one for its caption
PAPER, INK = (27, 30, 29), (214, 218, 215)  # of a strip, dark as film: it stands on light and on dark pages


class VideoError(ValueError):
    """Frames can't be made into what was asked for; the sentence says why."""


@cache
def ffmpeg_works() -> bool:
    """Whether an ffmpeg is there and runs (asked once a process)."""
    try:
        import imageio_ffmpeg

        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-version"]
        return subprocess.run(command, capture_output=True, timeout=20, stdin=subprocess.DEVNULL).returncode == 0
    except (ImportError, RuntimeError, OSError, subprocess.TimeoutExpired):
        return False


def write_mp4(path: Path | str, frames: Frames, fps: int = 20) -> Path:
    """Writes H.264 at ``fps`` frames a second (the file appears when it is complete); returns its path.

    Odd sizes are padded by repeating the last row or column. VideoError where no ffmpeg runs here.
    """
    frames = _frames(frames)
    if not ffmpeg_works():
        raise VideoError("no ffmpeg runs here, so no mp4 can be written; PNG strips and animations need none")
    import imageio_ffmpeg

    path = Path(path)
    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.new.mp4")
    size = (frames.shape[2], frames.shape[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = imageio_ffmpeg.write_frames(
        str(temporary), size, fps=fps, codec="libx264", quality=6, macro_block_size=2,
        ffmpeg_log_level="error", output_params=["-preset", "fast", "-movflags", "+faststart"],
    )  # fmt: skip
    try:
        writer.send(None)
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
        writer.close()
        temporary.replace(path)
    except OSError as error:
        raise VideoError(f"ffmpeg stopped while it wrote {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def strip(frames: Frames, columns: int = 6, captions: Sequence[str] | None = None) -> Frames:
    """One picture uint8[H, W, 3] of all frames in rows of ``columns``, each with its caption below.

    Captions are cut where they are wider than a frame; characters outside Latin-1 become "?".
    """
    frames = _frames(frames)
    if columns < 1:
        raise VideoError(f"a strip can't have {columns} columns; at least 1 is needed")
    if captions is not None and len(captions) != len(frames):
        raise VideoError(f"{len(captions)} captions were given for {len(frames)} frames; give one each")
    count, height, width = frames.shape[:3]
    columns = min(columns, count)
    rows = -(-count // columns)
    below = CAPTION if captions is not None else 0
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + below + GAP) - GAP), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default_imagefont()
    for i, frame in enumerate(frames):
        x, y = (i % columns) * (width + GAP), (i // columns) * (height + below + GAP)
        sheet.paste(Image.fromarray(frame), (x, y))
        if captions is not None:
            text = captions[i].encode("latin-1", "replace").decode("latin-1")
            while text and font.getlength(text) > width:
                text = text[:-1]
            draw.text((x, y + height + 2), text, fill=INK, font=font)
    return np.asarray(sheet)


def png(image: Frames) -> bytes:
    """A picture uint8[h, w, 3] as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def write_png(path: Path | str, image: Frames) -> Path:
    """Writes a picture uint8[h, w, 3] as PNG, replacing an older file in one step."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, png(image))
    return path


def animation(frames: Frames, fps: float = 20.0, limit: int = ANIMATION_BYTES) -> tuple[bytes, str]:
    """An endless animation of at most ``limit`` bytes and its media type: WebP, or GIF if Pillow lacks it.

    What doesn't fit is encoded more coarsely, then with fewer frames, then smaller; the duration stays. The
    last frame stands still for a second. VideoError where even that doesn't fit.
    """
    frames = _frames(frames)
    webp = bool(features.check("webp"))
    kind = "image/webp" if webp else "image/gif"
    for shrink in (1, 2, 3):
        for skip in (1, 2, 4):
            for quality in (72, 50) if webp else (128, 48):
                if skip > 1 and len(frames) <= 2 * skip:
                    continue
                data = _encode(frames[::skip], 1000.0 * skip / fps, quality, shrink, webp)
                if len(data) <= limit:
                    return data, kind
    raise VideoError(f"{len(frames)} frames do not fit into {limit} bytes even at a third of their size")


def picture(
    frames: Frames, instruction: str, success: bool | None, note: str = "", fps: float = 20.0, shots: int = 5
) -> dict[str, Any]:
    """An entry of ``ReportData.pictures``: the frames as an animation and as a strip of ``shots`` stills."""
    frames = _frames(frames)
    data, kind = animation(frames, fps)
    at = np.unique(np.linspace(0, len(frames) - 1, shots).round().astype(int))
    half = frames[at][:, ::2, ::2] if frames.shape[2] > 160 else frames[at]
    stills = png(strip(half, columns=len(at)))
    entry = {"instruction": instruction, "success": success, "note": note}
    return entry | {"animation": data, "kind": kind, "strip": stills}


def _frames(frames: Frames) -> Frames:
    array = np.asarray(frames)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3 or array.size == 0:
        raise VideoError(f"frames must be uint8[T, h, w, 3] with T > 0, not {array.dtype}{list(array.shape)}")
    return array


def _encode(frames: Frames, milliseconds: float, quality: int, shrink: int, webp: bool) -> bytes:
    """``quality`` is WebP's (0 to 100), or a GIF's number of colours."""
    images = [Image.fromarray(frame) for frame in frames]
    if shrink > 1:
        size = (max(1, images[0].width // shrink), max(1, images[0].height // shrink))
        images = [image.resize(size, Image.Resampling.LANCZOS) for image in images]
    duration = [round(milliseconds)] * (len(images) - 1) + [round(milliseconds) + 1000]
    buffer = io.BytesIO()
    if webp:
        images[0].save(
            buffer, "WEBP", save_all=True, append_images=images[1:], duration=duration, loop=0,
            quality=quality, method=4,
        )  # fmt: skip
    else:
        coloured = [image.quantize(quality) for image in images]
        coloured[0].save(
            buffer, "GIF", save_all=True, append_images=coloured[1:], duration=duration, loop=0, optimize=True
        )
    return buffer.getvalue()
