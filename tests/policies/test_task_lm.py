"""The task model: shared prompts change nothing, samples keep to the masks, and it learns what is trivial."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from policies.checkpoint import CheckpointError, write_checkpoint
from policies.task_lm import PAD, TaskLM, TaskLMConfig, masked_log_probability

END, WORDS = 1, 8


class Countdown:
    """Rows that say so many words each, of those a mask allows, and then the end."""

    def __init__(self, lengths: list[int], allowed: list[int]) -> None:
        self._left = np.array(lengths)
        self._allowed = np.isin(np.arange(WORDS), allowed)

    @property
    def finished(self) -> np.ndarray:
        return self._left < 0

    def mask(self) -> np.ndarray:
        return np.where((self._left > 0)[:, None], self._allowed, np.arange(WORDS) == END)

    def take(self, tokens: np.ndarray) -> None:
        self._left = self._left - 1


@pytest.fixture(scope="module")
def model() -> TaskLM:
    return TaskLM(TaskLMConfig(WORDS, width=16, heads=2, layers=2, seed=3))


def test_a_shared_padded_prompt_gives_what_the_whole_sequence_gives(model: TaskLM):
    prompts = torch.tensor([[PAD, PAD, 3, 4], [5, 2, 3, 6]])
    said = torch.tensor([[2, 5, END], [7, 3, END], [4, 4, END], [6, 2, END]])
    together, own = model.logits(prompts, said)
    for row in range(4):
        prompt = prompts[row // 2][prompts[row // 2] != PAD]
        alone, _ = model.read(torch.cat([prompt, said[row]])[None])
        torch.testing.assert_close(together[row], alone[0, len(prompt) - 1 : -1], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(own[row // 2, -1], alone[0, len(prompt) - 1], atol=1e-5, rtol=1e-4)


def test_samples_keep_to_the_masks_and_report_their_probabilities(model: TaskLM):
    prompts = np.array([[PAD, 3, 4], [5, 2, 3]])
    generator = torch.Generator().manual_seed(0)
    found = model.sample(prompts, Countdown([1, 3, 2, 0], [2, 3, 6]), copies=2, generator=generator)
    assert found.tokens.shape == (4, 4)
    assert [int((row != PAD).sum()) for row in found.tokens] == [2, 4, 3, 1]
    assert set(found.tokens.ravel()) <= {PAD, END, 2, 3, 6}
    with torch.no_grad():
        logits, _ = model.logits(torch.from_numpy(prompts), torch.from_numpy(found.tokens))
    logs = masked_log_probability(logits, torch.from_numpy(found.masks))
    logs = logs.gather(2, torch.from_numpy(found.tokens)[..., None])[..., 0].numpy() * (found.tokens != PAD)
    np.testing.assert_allclose(logs, found.log_probabilities, atol=1e-5)
    again = model.sample(
        prompts, Countdown([1, 3, 2, 0], [2, 3, 6]), copies=2, generator=torch.Generator().manual_seed(0)
    )
    assert np.array_equal(again.tokens, found.tokens)


def test_the_likeliest_needs_no_chance_and_nothing_to_say_is_nothing(model: TaskLM):
    prompts = np.array([[3, 4]])
    one, two = (model.sample(prompts, Countdown([2], [2, 3]), temperature=0.0).tokens for _ in range(2))
    assert np.array_equal(one, two)
    assert model.sample(prompts, Countdown([-1], [2])).tokens.shape == (1, 0)


def test_it_learns_to_say_the_last_word_again():
    model = TaskLM(TaskLMConfig(WORDS, width=16, heads=2, layers=1, seed=0))
    rng = np.random.default_rng(0)
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    for _ in range(40):
        words = rng.integers(2, WORDS, (32, 3))
        given, wanted = torch.from_numpy(words), torch.from_numpy(np.stack([words[:, -1], np.full(32, END)], 1))
        loss = torch.nn.functional.cross_entropy(model.logits(given, wanted)[0].flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    words = rng.integers(2, WORDS, (64, 3))
    said = model.sample(words, Countdown([1] * 64, list(range(2, WORDS))), temperature=0.0).tokens
    assert (said[:, 0] == words[:, -1]).mean() > 0.95


def test_it_is_read_back_and_another_kind_is_refused(model: TaskLM, tmp_path: Path):
    model.save_pretrained(tmp_path / "model")
    again = TaskLM.from_pretrained(tmp_path / "model")
    assert again.config == model.config
    prompts = torch.tensor([[3, 4]])
    torch.testing.assert_close(again.read(prompts)[0], model.read(prompts)[0], rtol=0, atol=0)
    write_checkpoint(tmp_path / "other", "random", {}, {})
    with pytest.raises(CheckpointError, match="holds a 'random', not the expected 'task-lm'"):
        TaskLM.from_pretrained(tmp_path / "other")
    write_checkpoint(tmp_path / "odd", "task-lm", {"vocabulary": 8, "depth": 3}, {})
    with pytest.raises(CheckpointError, match="depth"):
        TaskLM.from_pretrained(tmp_path / "odd")


def test_sizes_are_checked_and_the_default_has_a_million_parameters():
    with pytest.raises(ValueError, match="width = 15"):
        TaskLMConfig(WORDS, width=15, heads=2)
    with pytest.raises(ValueError, match="float32, bfloat16"):
        TaskLMConfig(WORDS, precision="float16")
    with pytest.raises(ValueError, match="at least 1"):
        TaskLMConfig(WORDS, layers=0)
    assert 1_000_000 <= TaskLM(TaskLMConfig(40)).size <= 3_000_000
