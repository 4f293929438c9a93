"""A policy on disk: a directory of `config.json` and safetensors files, and nothing that is pickled.

    config.json             {"format", "type", "config", "sha256": {file: hex digest}}
    model.safetensors       what `predict` needs
    training.safetensors    what continuing to learn needs besides (only in a training checkpoint)

A directory is written beside its destination and then renamed into place, so a reader finds the old
checkpoint or the new one and never a mixture. The digests turn every truncation or flipped bit into one
clear `CheckpointError`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

if TYPE_CHECKING:
    import torch

FORMAT = 1
CONFIG = "config.json"
MODEL = "model.safetensors"
TRAINING = "training.safetensors"

Arrays = dict[str, np.ndarray]


class CheckpointError(RuntimeError):
    """A policy directory is missing, incomplete, corrupt, or of another kind than asked for."""


@dataclass(frozen=True)
class Header:
    """The contents of `config.json`."""

    type: str
    config: dict[str, Any]
    sha256: dict[str, str]


def write_checkpoint(
    directory: str | Path, kind: str, config: Mapping[str, Any], model: Arrays, training: Arrays | None = None
) -> None:
    """Write a checkpoint atomically; an older checkpoint at `directory` is replaced.

    Raises CheckpointError where `directory` is a file or holds anything that is not a checkpoint's.
    """
    files = {MODEL: _serialise(model)}
    if training is not None:
        files[TRAINING] = _serialise(training)
    header = {
        "format": FORMAT,
        "type": kind,
        "config": dict(config),
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    files[CONFIG] = (json.dumps(header, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
    _replace_directory(Path(directory), files)


def read_header(directory: str | Path) -> Header:
    """Parse `config.json`; CheckpointError where it is missing, damaged or of an unknown format."""
    path = Path(directory) / CONFIG
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{directory} is not a policy directory: it has no {CONFIG}.") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is truncated or corrupt: {error}.") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else None
        raise CheckpointError(f"{path} has format {found!r}; this version reads format {FORMAT}.")
    kind, config, digests = document.get("type"), document.get("config"), document.get("sha256")
    if not (isinstance(kind, str) and isinstance(config, dict) and isinstance(digests, dict)):
        raise CheckpointError(f"{path} lacks one of its entries: type, config, sha256.")
    return Header(kind, config, digests)


def read_arrays(directory: str | Path, name: str = MODEL) -> Arrays:
    """The arrays of one safetensors file, verified against its digest in `config.json`."""
    return _deserialise(_read_verified(Path(directory), name, read_header(directory)), directory, name)


def content_hash(directory: str | Path) -> str:
    """Hex sha256 that names a policy by what decides its actions: type, configuration and weights.

    Training state does not count, so a policy keeps its name when it is saved with or without it. The
    weights' digest is recomputed: a damaged directory raises CheckpointError and gets no name.
    """
    header = read_header(directory)
    _read_verified(Path(directory), MODEL, header)
    return _identity(header.type, header.config, header.sha256[MODEL])


def hash_of(kind: str, config: Mapping[str, Any], model: Arrays) -> str:
    """The `content_hash` of what `write_checkpoint` would write of them, without writing it."""
    return _identity(kind, json.loads(json.dumps(dict(config))), hashlib.sha256(_serialise(model)).hexdigest())


def _identity(kind: str, config: Mapping[str, Any], model: str) -> str:
    identity = {"type": kind, "config": config, "model": model}
    return hashlib.sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def module_arrays(module: torch.nn.Module) -> Arrays:
    """A module's parameters and buffers as arrays (copies)."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in module.state_dict().items()}


def load_module(module: torch.nn.Module, arrays: Arrays) -> None:
    """Copy arrays into a module in place; CheckpointError naming the first that does not fit."""
    import torch

    own = module.state_dict()
    if own.keys() != arrays.keys():
        difference = sorted(own.keys() ^ arrays.keys())
        raise CheckpointError(f"The stored weights do not fit this policy: {difference[0]!r} is in only one of them.")
    with torch.no_grad():
        for name, tensor in own.items():
            if tuple(tensor.shape) != arrays[name].shape:
                raise CheckpointError(
                    f"The stored weights do not fit this policy: {name!r} has shape {arrays[name].shape}, "
                    f"expected {tuple(tensor.shape)}."
                )
            tensor.copy_(torch.from_numpy(arrays[name]))


def optimizer_arrays(optimizer: torch.optim.Optimizer) -> Arrays:
    """Adam's step counts and moments as arrays named "parameter index/entry", and each group's rate."""
    state = optimizer.state_dict()
    arrays = {
        f"{index}/{entry}": tensor.detach().cpu().numpy().copy()
        for index, entries in state["state"].items()
        for entry, tensor in entries.items()
    }
    arrays["lr"] = np.array([group["lr"] for group in state["param_groups"]], np.float64)
    return arrays


def load_optimizer(optimizer: torch.optim.Optimizer, arrays: Arrays) -> None:
    """Restore what `optimizer_arrays` gave; learning continues bit for bit as if never interrupted."""
    import torch

    state = optimizer.state_dict()
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for name, array in arrays.items():
        if name != "lr":
            index, _, entry = name.partition("/")
            entries.setdefault(int(index), {})[entry] = torch.from_numpy(array.copy())
    for group, rate in zip(state["param_groups"], arrays["lr"], strict=True):
        group["lr"] = float(rate)
    optimizer.load_state_dict({"state": entries, "param_groups": state["param_groups"]})


def with_prefix(prefix: str, arrays: Arrays) -> Arrays:
    """The same arrays under names that begin with "prefix/"."""
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def without_prefix(prefix: str, arrays: Arrays) -> Arrays:
    """Those arrays whose names begin with "prefix/", the prefix taken off."""
    start = prefix + "/"
    return {name[len(start) :]: array for name, array in arrays.items() if name.startswith(start)}


def _serialise(arrays: Arrays) -> bytes:
    return safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in arrays.items()})


def _deserialise(data: bytes, directory: str | Path, name: str) -> Arrays:
    try:
        return safetensors.numpy.load(data)
    except SafetensorError as error:
        raise CheckpointError(f"{name} in {directory} is not a safetensors file: {error}.") from None


def _read_verified(directory: Path, name: str, header: Header) -> bytes:
    if name not in header.sha256:
        held = ", ".join(sorted(header.sha256)) or "nothing"
        raise CheckpointError(f"The checkpoint {directory} holds no {name}; it holds {held}.")
    try:
        data = (directory / name).read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{name} is missing from the checkpoint {directory}.") from None
    if hashlib.sha256(data).hexdigest() != header.sha256[name]:
        raise CheckpointError(f"{name} in {directory} is truncated or corrupt: its sha256 differs from {CONFIG}'s.")
    return data


def _replace_directory(target: Path, files: Mapping[str, bytes]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and (
        not target.is_dir() or {entry.name for entry in target.iterdir()} - {CONFIG, MODEL, TRAINING}
    ):
        raise CheckpointError(f"{target} exists and is not a policy directory; choose another directory.")
    token = uuid.uuid4().hex[:12]
    staged, retired = (target.with_name(f".{target.name}.{token}.{role}") for role in ("new", "old"))
    try:
        staged.mkdir()
        for name, data in files.items():
            with open(staged / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if target.exists():
            target.rename(retired)
        try:
            staged.rename(target)
        except OSError:
            if retired.exists():
                retired.rename(target)
            raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)
