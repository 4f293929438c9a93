"""Hydra's composition of a command's configuration, with errors a person can act on.

``compose(RunConfig, ["preset=quick", "seed=1"])`` reads ``configs/``, applies the overrides and gives the
dataclass. Nothing is written and the working directory stays as it is.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, TypeVar, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from embodied.cli import learners
from embodied.cli import schema as schemas
from embodied.cli.fields import Checked, leaves
from embodied.errors import ConfigError

C = TypeVar("C")
_GOAL = re.compile(r"(skill|goal|world\.\w+)=[^'\"\[{]*\(.*")
ROOTS = {
    schemas.RunConfig: "run",
    learners.TrainConfig: "train",
    schemas.DiscoverConfig: "discover",
}  # schemas with a YAML file of defaults
for _schema in (*Checked.__subclasses__(), *learners.TrainConfig.variants["policy"].values()):
    ConfigStore.instance().store(name=f"{_schema.__name__}_schema", node=_schema)
_any_learner = learners.TrainConfig(policy=learners.LearnerConfig())  # a node takes only subclasses of what it holds
ConfigStore.instance().store(name="TrainConfig_schema", node=_any_learner)


def config_dir() -> Path:
    """The folder of YAML files: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def choices(group: str) -> list[str]:
    """The names a configuration group offers, e.g. the presets."""
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


def groups(schema: type) -> dict[str, list[str]]:
    """Configuration groups of a command: group -> names. A group is of presets, or of variants of a nested schema."""
    if schema is schemas.RunConfig:
        return {"preset": choices("preset")}
    return {group: list(kinds) for group, kinds in _variants(schema).items()}


def compose(schema: type[C], overrides: list[str] | tuple[str, ...] = ()) -> C:
    """A command's configuration, ``key=value`` overrides applied. Raises ConfigError in one sentence."""
    parsed = [_parse(text) for text in overrides]
    offered, valid = groups(schema), _valid(schema, parsed)
    lines = {_line(override, offered, valid): override for override in parsed}
    values = [line for line, override in lines.items() if _is_anothers_group(override, offered)]
    name = ROOTS.get(schema, f"{schema.__name__}_schema")
    try:
        with initialize_config_dir(config_dir=str(config_dir()), version_base="1.3"):
            config = hydra_compose(name, overrides=[line for line in lines if line not in values])
        for line in values:
            OmegaConf.update(config, lines[line].key_or_group, lines[line].value())
        return cast("C", OmegaConf.to_object(config))
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(_sentence(valid, error)) from error


def save(config: Any, path: Path) -> None:
    """Write a configuration as YAML that ``load`` reads back to an equal one."""
    path.write_text(OmegaConf.to_yaml(OmegaConf.structured(config)), encoding="utf-8")


def load(schema: type[C], path: Path) -> C:
    """Read what ``save`` wrote. Raises ConfigError where the file does not fit the schema."""
    try:
        loaded = OmegaConf.load(path)
        return cast("C", OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), loaded)))
    except (OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"{path}: {_sentence(list(leaves(schema)), error)}") from error


def difference(old: Any, new: Any) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ -> (old, new), for two configurations of the same schema."""
    before, after = OmegaConf.structured(old), OmegaConf.structured(new)
    pairs = ((key, OmegaConf.select(before, key), OmegaConf.select(after, key)) for key in leaves(type(old)))
    return {key: (was, now) for key, was, now in pairs if was != now}


def _parse(text: str) -> Override:
    if _GOAL.fullmatch(text):  # a goal, which Hydra would take for a function
        key, _, value = text.partition("=")
        text = f"{key}='{value}'"
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ConfigError(f"cannot read {text!r}: write key=value, as in seed=1 or 'runs=[a,b]'") from error
    if override.is_add() or override.is_delete() or override.is_force_add():
        raise ConfigError(f"cannot read {text!r}: keys can be set (key=value) but not added or removed")
    if override.is_sweep_override():
        raise ConfigError(f"cannot read {text!r}: one value a key; call the command once for each value")
    return override


def _variants(schema: type) -> dict[str, dict[str, type]]:
    """Group -> name -> the nested schema that this choice brings."""
    return getattr(schema, "variants", {})


def _valid(schema: type, overrides: list[Override]) -> list[str]:
    """The keys a command takes, those of the chosen variants among them; a key that ends in a dot takes any below."""
    valid = [key + "." if default == {} else key for key, (_, default) in leaves(schema).items()]
    for group, kinds in _variants(schema).items():
        chosen = [str(override.value()) for override in overrides if override.key_or_group == group]
        if chosen and chosen[-1] in kinds:
            valid = [key for key in valid if not key.startswith(f"{group}.")]
            valid += leaves(kinds[chosen[-1]], f"{group}.")
    return valid


def _line(override: Override, offered: dict[str, list[str]], valid: list[str]) -> str:
    """The override as Hydra is to read it. Raises ConfigError for a key or a choice that there is not."""
    key, line = override.key_or_group, str(override.input_line)
    if key not in offered and key not in valid and f"{key}.backend" in valid:
        key, line = f"{key}.backend", line.replace("=", ".backend=", 1)  # language=openai for short
    if key in offered:
        if override.value() not in offered[key]:
            raise ConfigError(f"unknown {key} {override.value()!r}; choose one of: {', '.join(offered[key])}")
        return line
    if any(prefix.endswith(".") and key.startswith(prefix) for prefix in valid):
        return f"+{line}"  # Hydra's way to say that a mapping gets a new entry
    if key not in valid:
        raise ConfigError(_unknown(key, [*offered, *valid]))
    return line


def _is_anothers_group(override: Override, offered: dict[str, list[str]]) -> bool:
    """Whether Hydra would look for a file where this command has a plain value: another's group has the key's name."""
    return override.key_or_group not in offered and (config_dir() / override.key_or_group).is_dir()


def _unknown(key: str, valid: list[str]) -> str:
    shown = [name + "NAME" if name.endswith(".") else name for name in valid]
    close = difflib.get_close_matches(key, shown, n=1, cutoff=0.6)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"unknown key {key!r}{hint}; valid keys: {', '.join(shown)}"


def _sentence(valid: list[str], error: BaseException) -> str:
    """The innermost reason, as one line that names the key."""
    while isinstance(error, HydraException) and (inner := error.__cause__ or error.__context__):
        error = inner
    if isinstance(error, OmegaConfBaseException):
        key = error.full_key or str(error.key)
        if "not in" in str(error.msg):
            return _unknown(key, valid)
        return f"{key}: {str(error.msg).splitlines()[0]}"
    return " ".join(str(error).split())
