"""What a command looks like: words, ``key=value`` overrides, a few flags, and the help that teaches them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from keyword import iskeyword
from typing import Any

from embodied.cli.fields import leaves
from embodied.errors import UsageError

_OVERRIDE = re.compile(r"^[+~]*[A-Za-z_][\w./@]*=")


@dataclass(frozen=True)
class Arguments:
    """A parsed command line: plain words in order, overrides as typed, the flags given (without dashes)."""

    words: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    flags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Command:
    """One verb: how it is called, explained and run. ``run(arguments)`` gives the exit code."""

    name: str
    usage: str
    about: str
    run: Callable[[Arguments], int]
    schema: type
    examples: tuple[tuple[str, str], ...]
    words: dict[str, str] = field(default_factory=dict)
    flags: dict[str, str] = field(default_factory=dict)

    def parse(self, argv: list[str]) -> Arguments:
        """Sort the arguments. Raises UsageError for an option that the command does not have."""
        words, overrides, flags = [], [], set()
        for position, text in enumerate(argv):
            if text == "--":
                words.extend(argv[position + 1 :])
                break
            if text.startswith("-") and len(text) > 1:
                flags.add(self._flag(text))
            elif _OVERRIDE.match(text):
                key, _, value = text.partition("=")
                overrides.append(f"{key}_={value}" if iskeyword(key) else text)  # no field can be called "from"
            else:
                words.append(text)
        return Arguments(tuple(words), tuple(overrides), frozenset(flags))

    def _flag(self, text: str) -> str:
        name = text.lstrip("-")
        if name in self.flags and text == f"--{name}":
            return name
        key = name.split("=")[0].replace("-", "_")
        if key in leaves(self.schema):
            value = name.partition("=")[2] or "VALUE"
            raise UsageError(f"unknown option {text}: keys are written without dashes, as {key}={value}")
        valid = ", ".join(["--help", *(f"--{flag}" for flag in self.flags)])
        raise UsageError(f"embodied {self.name} has no option {text}; valid options: {valid}")

    def no_words(self, arguments: Arguments) -> None:
        """UsageError where there are plain words and the command takes none."""
        if arguments.words:
            word = arguments.words[0]
            raise UsageError(f"embodied {self.name} takes no word {word!r}, only key=value (--help lists the keys)")

    def one_of(self, word: str, valid: list[str] | tuple[str, ...], what: str) -> str:
        """``word`` if it is valid, else a UsageError that names the valid ones."""
        if word in valid:
            return word
        close = difflib.get_close_matches(word, valid, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise UsageError(f"unknown {what} {word!r}{hint}; valid: {', '.join(valid)}")

    def help(self, groups: dict[str, list[str]] | None = None) -> str:
        """The text of ``--help``: usage, meaning, examples, then every key with its default and meaning."""
        lines = [f"usage: {self.usage}", "", *self.about.strip().splitlines(), "", "examples:"]
        width = max(len(command) for command, _ in self.examples)
        lines += [f"  {command:<{width}}  {meaning}" for command, meaning in self.examples]
        flags = {f"--{name}": meaning for name, meaning in self.flags.items()}
        for title, entries in (("words:", self.words), ("options:", flags)):
            if entries:
                width = max(map(len, entries))
                lines += ["", title, *(f"  {key:<{width}}  {meaning}" for key, meaning in entries.items())]
        lines += ["", "keys (key=value, in any order; the value shown is the default):"]
        lines += self._keys(groups or {})
        return "\n".join(lines)

    def _keys(self, groups: dict[str, list[str]]) -> list[str]:
        rows = []
        for group, names in groups.items():
            first = "default" if "default" in names else names[0]
            rows.append((f"{group}={first}", f"values to start from: {', '.join(names)}"))
        for key, (item, default) in leaves(self.schema).items():
            admitted = item.metadata["choices"]
            meaning = item.metadata["meaning"] + (f" ({' | '.join(admitted)})" if admitted else "")
            rows.append((f"{key.rstrip('_')}={_shown(default)}", meaning))
        width = max(len(left) for left, _ in rows)
        return [f"  {left:<{width}}  {meaning}" for left, meaning in rows]


def _shown(value: Any) -> str:
    """A default as it would be typed."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:_}" if isinstance(value, int) and value >= 10_000 else str(value)
