"""A scene as it is written: YAML in, checked dataclasses out, and every complaint with its line.

```yaml
name: two cubes
robot: builtin                # or a mapping: see `envs.scenes.robots`
objects:
  red: {type: box, size: [0.04, 0.04, 0.04], colour: [0.9, 0.2, 0.2], says: red block}
fixtures:
  drawer: {type: drawer, pos: [0.50, -0.37]}
places:
  left: [0.46, 0.20]
tasks:
  open drawer: open(drawer)
```

World frame: x forward from the robot's base, y to the robot's left, z up, metres; a part's ``pos`` is where it stands
on the table (x, y), its ``yaw`` turns it about the vertical, in degrees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

__all__ = ["Document", "Entry", "SceneError", "library", "read"]

_LIBRARY = Path(__file__).parent / "library"
_SECTIONS = (
    "name",
    "about",
    "objects",
    "fixtures",
    "cameras",
    "robot",
    "places",
    "area",
    "workspace",
    "table",
    "tasks",
    "timestep",
)


class SceneError(ValueError):
    """A scene can't be built; the sentence says what is wrong, in which line, and what would be valid."""


@dataclass(frozen=True)
class Entry:
    """A named part of a scene: its type, its values by key, and where they are written."""

    name: str
    type: str
    values: Mapping[str, Any]
    lines: Mapping[str, int]  # "" is the entry's own line
    source: str

    def wrong(self, what: str, key: str = "") -> SceneError:
        """The error to raise about this entry, with its line."""
        return SceneError(f"{self.source} line {self.lines.get(key, self.lines[''])}: {self.name}: {what}")

    def number(self, key: str, default: float | None = None, low: float = -math.inf, above: float = -math.inf) -> float:
        """A finite number at least ``low`` and greater than ``above``."""
        value = self.values.get(key, default)
        if not _finite(value) or value < low or value <= above:  # type: ignore[operator]
            bound = f" greater than {above:g}" if above > -math.inf else f" at least {low:g}" if low > -math.inf else ""
            raise self.wrong(f"{key} = {_shown(value)} must be a finite number{bound}", key)
        return float(value)  # type: ignore[arg-type]

    def vector(self, key: str, size: int, default: tuple[float, ...] | None = None, above: float = -math.inf):
        """A tuple of ``size`` finite numbers greater than ``above``."""
        value = self.values.get(key, default)
        if value is None:
            raise self.wrong(f"{key} is missing; {size} numbers are needed")
        right = isinstance(value, list | tuple) and len(value) == size
        if not right or not all(_finite(v) and v > above for v in value):
            bound = f" greater than {above:g}" if above > -math.inf else ""
            raise self.wrong(f"{key} = {_shown(value)} must be {size} finite numbers{bound}", key)
        return tuple(float(v) for v in value)

    def text(self, key: str, default: str | None = None) -> str:
        """A text; raises SceneError where there is none."""
        value = self.values.get(key, default)
        if not isinstance(value, str) or not value:
            raise self.wrong(f"{key} = {_shown(value)} must be a text", key)
        return value

    def only(self, *keys: str) -> None:
        """Refuses keys that this type of part does not have."""
        for key in self.values:
            if key not in keys:
                raise self.wrong(f"unknown key '{key}' of a {self.type}; valid: {', '.join(sorted(keys))}", key)


@dataclass(frozen=True)
class Document:
    """A scene's text, read: entries by section, and the values that stand alone."""

    name: str
    source: str
    folder: Path
    robot: Entry | None = None  # None: the built-in arm
    objects: tuple[Entry, ...] = ()
    fixtures: tuple[Entry, ...] = ()
    cameras: tuple[Entry, ...] = ()
    places: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    area: tuple[float, float, float, float] = (0.36, 0.0, 0.60, 0.22)  # low x, low y, high x, high y of block starts
    workspace: tuple[float, ...] = (0.30, -0.41, 0.014, 0.68, 0.38, 0.32)  # low x y z, high x y z of the tool
    table: tuple[float, float, float, float] | None = None  # its edges, as area; None: endless
    tasks: Mapping[str, str] = field(default_factory=dict)
    timestep: float = 0.01
    lines: Mapping[str, int] = field(default_factory=dict)


def library() -> dict[str, Path]:
    """The scenes that come with the package, by name."""
    return {path.stem: path for path in sorted(_LIBRARY.glob("*.yaml"))}


def read(scene: str | Path) -> Document:
    """A scene of the library by its name, or of a YAML file by its path. Raises SceneError."""
    known = library()
    path = known.get(str(scene), Path(scene))
    if not path.is_file():
        raise SceneError(f"there is no scene '{scene}'; give a YAML file, or one of: {', '.join(known)}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SceneError(f"{path.name} is not a text: {error}") from error
    return parse(text, path.name, path.parent)


def parse(text: str, source: str = "scene", folder: Path | None = None) -> Document:
    """A scene from its YAML text; ``source`` names it in errors, ``folder`` is where its files are looked for."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise SceneError(f"{source}{where}: this is not YAML: {problem}") from error
    lines: dict[tuple[str, ...], int] = {}
    values = _plain(root, (), lines, source)
    if not isinstance(values, dict):
        raise SceneError(f"{source}: a scene is a mapping with the keys {', '.join(_SECTIONS)}")
    for key in values:
        if key not in _SECTIONS:
            raise SceneError(f"{source} line {lines[key,]}: unknown key '{key}'; valid: {', '.join(_SECTIONS)}")
    whole = Entry(source, "scene", values, {"": 1, **{k[0]: v for k, v in lines.items() if len(k) == 1}}, source)

    def section(key: str, what: str) -> dict[str, Any]:
        found = values.get(key) or {}
        if not isinstance(found, dict):
            raise whole.wrong(f"{key} must be a mapping from names to {what}", key)
        return found

    def entries(key: str) -> tuple[Entry, ...]:
        return tuple(_entry(name, part, (key, name), lines, source) for name, part in section(key, "parts").items())

    fields: dict[str, Any] = {}
    robot = values.get("robot", "builtin")
    if isinstance(robot, dict):
        fields["robot"] = Entry("robot", "robot", robot, {"": lines["robot",], **_below(lines, "robot")}, source)
    elif robot != "builtin":
        raise whole.wrong(
            f"robot = {_shown(robot)} must be builtin, or a mapping with a file, a tool and home", "robot"
        )
    for key, size in (("area", 4), ("workspace", 6), ("table", 4)):
        if key in values:
            fields[key] = whole.vector(key, size)
            if any(low >= high for low, high in zip(fields[key], fields[key][size // 2 :], strict=False)):
                raise whole.wrong(f"{key} = {values[key]} must be its low corner, then its high one", key)
    if "table" in fields:
        area, table = fields.get("area", Document.area), fields["table"]
        if any(edge > start for edge, start in zip(table[:2], area[:2], strict=True)) or any(
            edge < start for edge, start in zip(table[2:], area[2:], strict=True)
        ):
            what = f"table = {values['table']} must have the area {list(area)}, where objects begin, on it"
            raise whole.wrong(what, "table")
    if "timestep" in values:
        fields["timestep"] = whole.number("timestep", above=0.0)
    places = section("places", "[x, y]")
    spots = Entry("places", "places", places, {"": 1, **_below(lines, "places")}, source)
    tasks = section("tasks", "goals")
    for name, goal in tasks.items():
        if not isinstance(goal, str):
            raise SceneError(f"{source} line {lines['tasks', name]}: task '{name}' must be a goal such as open(drawer)")
    return Document(
        name=str(values.get("name", source)),
        source=source,
        folder=folder or Path(),
        objects=entries("objects"),
        fixtures=entries("fixtures"),
        cameras=entries("cameras"),
        places={name: (x, y) for name in places for x, y in [spots.vector(name, 2)]},
        tasks=tasks,
        lines={f"{key[0]}.{key[1]}": line for key, line in lines.items() if len(key) == 2},
        **fields,
    )


def _entry(name: str, part: Any, path: tuple[str, ...], lines: Mapping[tuple[str, ...], int], source: str) -> Entry:
    own = {"": lines[path], **{key[-1]: line for key, line in lines.items() if key[:-1] == path}}
    if not isinstance(part, dict) or not isinstance(part.get("type", "camera"), str):
        raise SceneError(f"{source} line {own['']}: {name} must be a mapping with a type, such as {{type: box}}")
    kind = part.get("type", "camera" if path[0] == "cameras" else "")
    if not kind:
        raise SceneError(f"{source} line {own['']}: {name} has no type")
    return Entry(str(name), kind, {k: v for k, v in part.items() if k != "type"}, own, source)


def _below(lines: Mapping[tuple[str, ...], int], section: str) -> dict[str, int]:
    return {key[1]: line for key, line in lines.items() if len(key) == 2 and key[0] == section}


def _plain(node: yaml.Node | None, path: tuple[str, ...], lines: dict[tuple[str, ...], int], source: str) -> Any:
    """A YAML node as plain values; notes the line of every path."""
    if node is None:
        return {}
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        out: dict[str, Any] = {}
        for key, value in node.value:
            name = str(key.value)
            if name in out:
                raise SceneError(f"{source} line {key.start_mark.line + 1}: '{name}' is there twice; names must differ")
            out[name] = _plain(value, (*path, name), lines, source)
            lines[(*path, name)] = key.start_mark.line + 1
        return out
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, str(i)), lines, source) for i, item in enumerate(node.value)]
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError) as error:  # a tag there is not, a date that never was
        raise SceneError(f"{source} line {lines[path]}: '{node.value}' can't be read") from error


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)
