"""What the schema of a command's configuration is made of: fields that say what they mean and what they admit."""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import Any

from embodied.errors import ConfigError

__all__ = ["Checked", "check", "leaves", "option"]


def option(
    default: Any,
    meaning: str,
    *,
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """A dataclass field, its one-line meaning, and what it admits: ``choices`` or ``low`` to ``high``."""
    metadata = {"meaning": meaning, "choices": choices, "low": low, "high": high}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class Checked:
    """Checks each field against its own metadata. Raises ConfigError naming the value and the valid ones."""

    prefix = ""  # how the keys of a nested configuration begin

    def __post_init__(self) -> None:
        for item in fields(self):
            check(self.prefix + item.name, item, getattr(self, item.name))


def check(key: str, item: Field[Any], value: Any) -> None:
    """One field's value against its metadata."""
    choices, low, high = (item.metadata.get(k) for k in ("choices", "low", "high"))
    if choices and value not in choices:
        raise ConfigError(f"{key} = {value!r} is not one of: {', '.join(choices)}")
    if low is None and high is None:
        return
    above = low is None or value >= low
    below = high is None or value <= high
    if not (above and below):
        bounds = f"at least {low}" if high is None else f"in [{low if low is not None else '-inf'}, {high}]"
        raise ConfigError(f"{key} = {value!r} must be {bounds}")


def leaves(schema: Any, prefix: str = "") -> dict[str, tuple[Field[Any], Any]]:
    """Dotted key -> (field, default) for every value of a schema (or of one made of it), in the order it is written."""
    default, found = schema() if isinstance(schema, type) else schema, {}
    for item in fields(schema):
        value = getattr(default, item.name)
        if is_dataclass(value):
            found.update(leaves(value, f"{prefix}{item.name}."))
        else:
            found[prefix + item.name] = (item, value)
    return found
