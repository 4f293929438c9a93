"""A model in a local folder, run by the ``transformers`` library (extra ``transformers``).

Nothing is ever downloaded: a name that is no folder is refused. Weights are read from safetensors alone and no code of
the folder is run.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from embodied.errors import UsageError
from embodied.language.base import LMRequest, LMResult, T, Usage
from embodied.language.dialogue import Said, converse
from embodied.language.prompts import with_schema, without_pictures

__all__ = ["TransformersModel", "load"]

Generate = Callable[[list[dict[str, Any]]], tuple[str, int, int]]
"""Chat messages -> text, and the tokens that went in and came out."""


class TransformersModel:
    """A causal language model; ``generate`` takes chat messages of text. See `load` for one from a folder."""

    def __init__(self, name: str, generate: Generate, max_tokens: int = 1024) -> None:
        self.name, self.generate, self.max_tokens = name, generate, max_tokens

    def complete(self, request: LMRequest[T]) -> LMResult[T]:
        """The model's checked reply, mended at most twice; LMError otherwise."""
        return converse(request, self._speak, self.name)

    def _speak(self, messages: list[dict[str, Any]], reply: type[BaseModel]) -> Said:
        began = time.monotonic()
        text, tokens_in, tokens_out = self.generate(with_schema(without_pictures(messages), reply))
        usage = Usage(1, tokens_in, tokens_out, time.monotonic() - began)
        return Said(text, usage, cut=tokens_out >= self.max_tokens)


def load(folder: str, max_tokens: int = 1024, library: Any = None) -> TransformersModel:
    """The model in a folder, greedy. Raises UsageError where there is no folder, library or model of use.

    ``library`` stands in for ``transformers`` in tests.
    """
    path = Path(folder)
    if not folder or not path.is_dir():
        raise UsageError(f"language.model = {folder!r} is no folder with a model; nothing is downloaded here")
    if library is None:
        try:
            library = importlib.import_module("transformers")
        except ImportError:
            raise UsageError(
                "language.backend=transformers needs its library: pip install 'embodied-repertoire[transformers]'"
            ) from None
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = library.AutoTokenizer.from_pretrained(str(path), **local)
        model = library.AutoModelForCausalLM.from_pretrained(str(path), use_safetensors=True, **local)
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} holds no model that can be read: {' '.join(str(error).split())[:200]}") from error

    def generate(messages: list[dict[str, Any]]) -> tuple[str, int, int]:
        tokens = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        asked = int(tokens["input_ids"].shape[1])
        written = model.generate(**tokens, max_new_tokens=max_tokens, do_sample=False)[0, asked:]
        return str(tokenizer.decode(written, skip_special_tokens=True)), asked, len(written)

    return TransformersModel(path.name, generate, max_tokens)
