"""``embodied discover``: skills learnt without a task, put to the exam, and shown.

The folder holds ``discover.yaml`` (what was asked for), what learning goes on from (`training.discovery.Skills`),
``skills.json`` (the exam, with versions), the pictures and ``report.html``.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from embodied.cli.config import difference, load, save
from embodied.cli.schema import DiscoverConfig
from embodied.data.durable import replace_file
from embodied.errors import ConfigError, UsageError
from embodied.evaluation.skill_exam import BINS, sit
from embodied.progress import Progress
from embodied.training.discovery import (
    METHODS,
    STATE,
    DiscoverySettings,
    Skills,
    discover,
    make_skills,
    settings_of,
)
from embodied.training.episodes import seed_of
from embodied.training.rollouts import versions
from embodied.viz import discovery as pictures
from envs.scenes.scene import Scene
from envs.scenes.scene import load as load_scene

if TYPE_CHECKING:
    from embodied.cli.schema import RenderConfig

__all__ = ["ASKED", "SUMMARY", "folder_of", "is_discovery", "learn", "refresh", "settings_for", "show"]

ASKED, SUMMARY = "discover.yaml", "skills.json"
FREE = ("threads", "video", "render.backend", "render.width", "render.height", "out")  # what may differ, going on
EXAM = 1  # what the seed of the exam is for
