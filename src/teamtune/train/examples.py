"""Training rows -> ids. What trains is the ids that were sampled; only turns without ids are tokenised here.

SFT row   -> Example(prompt=[2, 90, ...], answer=[33, 12, ..., 1])
pair row  -> Pair(chosen=Example(...), rejected=Example(...))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from teamtune.engines.render import Renderer
from teamtune.types import Message, Row


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and the answer to learn; the answer ends with the stop token where the turn ended by itself."""

    prompt: list[int]
    answer: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True, slots=True)
class Pair:
    chosen: Example
    rejected: Example

    def __len__(self) -> int:
        return max(len(self.chosen), len(self.rejected))


@dataclass(frozen=True, slots=True)
class Sampled:
    """An answer with the log-probability that each of its tokens was sampled with, and the advantage of each."""

    example: Example
    logprobs: list[float]
    advantages: list[float]
    temperature: float = 1.0
    """what the logits are divided by, here and where it was sampled"""
    reference: list[float] | None = None
    """log-probabilities under the frozen base, where the loss holds the policy to it"""
    where: str = ""
    """agent and turn, where clipped tokens are to be counted by them"""

    def __len__(self) -> int:
        return len(self.example)


@dataclass(frozen=True, slots=True)
class Valued:
    """An answer with what its tokens were thought to be worth, and what they should have been."""

    example: Example
    values: list[float]
    returns: list[float]

    def __len__(self) -> int:
        return len(self.example)


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer and whether it is right; the example's answer is its text alone, without the token that ends it."""

    example: Example
    right: bool

    def __len__(self) -> int:
        return len(self.example)


def example(row: Row, text: str, ids: Sequence[int] | None, renderer: Renderer, ended: bool = True) -> Example:
    """The ids of one answer, as sampled where they were kept; with the stop token where it `ended` by itself."""
    if row["prompt_ids"] is not None and ids is not None:
        return Example(list(row["prompt_ids"]), list(ids))
    tokenizer = renderer.tokenizer
    answer = tokenizer(text, add_special_tokens=False)["input_ids"]
    prompt = renderer.prompt([Message(m["role"], m["content"]) for m in row["messages"]])
    return Example(prompt, [*answer, *([renderer.closing] if ended else [])])


def sft_example(row: Row, renderer: Renderer) -> Example:
    """The ids of an SFT row."""
    return example(row, row["completion"], row["token_ids"], renderer)


def pair_example(row: Row, renderer: Renderer) -> Pair:
    """The ids of both sides of a preference row."""
    return Pair(
        example(row, row["chosen"], row["chosen_ids"], renderer),
        example(row, row["rejected"], row["rejected_ids"], renderer, row.get("rejected_ended", True)),
    )


def sampled_example(row: Row, renderer: Renderer) -> Sampled:
    """An advantage row; what was sampled is trained on as it was sampled, or not at all."""
    logprobs = list(row["logprobs"])
    return Sampled(sft_example(row, renderer), logprobs, [row["advantage"]] * len(logprobs))


def judged_example(row: Row, renderer: Renderer) -> Judged:
    """A scorer's row. Its ids are always made of its texts: a scorer may read answers that other models gave."""
    prompt = renderer.prompt([Message(m["role"], m["content"]) for m in row["messages"]])
    answer = renderer.tokenizer(row["completion"], add_special_tokens=False)["input_ids"]
    return Judged(Example(prompt, list(answer)), bool(row["right"]))


def padded(
    examples: Sequence[Example], pad: int, device: torch.device
) -> tuple[Int[Tensor, "rows length"], Bool[Tensor, "rows length"]]:
    """Ids padded on the right, and the mask of the answers' tokens."""
    longest = max(map(len, examples))
    ids = torch.full((len(examples), longest), pad)
    mask = torch.zeros(len(examples), longest, dtype=torch.bool)
    for row, one in enumerate(examples):
        ids[row, : len(one)] = torch.tensor([*one.prompt, *one.answer])
        mask[row, len(one.prompt) : len(one)] = True
    return ids.to(device), mask.to(device)
