"""A robot that teaches itself: plays, discovers, practises, and keeps only what it can prove.

Importing this is cheap: torch, mujoco and the rest are imported by the rooms that need them.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

__version__ = "0.1.0"

DISTRIBUTION = "embodied-repertoire"  # the mark that each of the three packages carries in its __init__.py


def _check_neighbours() -> None:
    """Other distributions own the three packages' names too: say so at once, in one sentence.

    Marks are read from the source, so that nothing foreign is run and nothing heavy imported.
    """
    for name in ("envs", "policies"):
        spec = find_spec(name)
        origin = Path(spec.origin) if spec is not None and spec.origin else None
        if origin is None or f'DISTRIBUTION = "{DISTRIBUTION}"' not in origin.read_text("utf-8", "replace"):
            found = f"at {origin.parent} is another distribution's" if origin else "is missing"
            raise ImportError(
                f"the package {name!r} {found}: uninstall whatever else owns the name, or install "
                f"{DISTRIBUTION} into an environment of its own"
            )
    overlay = Path(__file__).with_name("core")
    if overlay.is_dir():  # it would be imported in place of our core.py
        raise ImportError(
            f"another distribution's package 'embodied' is installed over this one ({overlay} is not ours): "
            f"install {DISTRIBUTION} into an environment of its own"
        )


_check_neighbours()
