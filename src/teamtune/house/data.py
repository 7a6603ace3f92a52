"""Documents -> ids with a mask of what is learned -> batches of equal length classes.

ids   [2, 90, 311, ..., 4, 33, 12, ..., 1]
mask  [0,  0,   0, ..., 0,  1,  1, ..., 1]     1 on what an assistant wrote, its end token included
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from teamtune.house.corpus import document

Example = tuple[list[int], list[int]]
WINDOW = 8192  # documents that are sorted by length together
ROUND = 16  # lengths are padded to a multiple of this


def encode(tokenizer: PreTrainedTokenizerFast, seed: int, indices: range) -> list[Example]:
    """The documents that (seed, indices) name, as ids and masks; the same text as the chat template makes."""
    role = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("system", "user", "assistant")}
    end = tokenizer.eos_token_id
    documents = [document(seed, i) for i in indices]
    texts = [message.content for d in documents for message in d.messages]
    parts = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
    examples: list[Example] = []
    for d in documents:
        ids: list[int] = []
        mask: list[int] = []
        for message in d.messages:
            part = [*next(parts), end]
            ids += [role[message.role], *part]
            mask += [0, *[int(message.role == "assistant")] * len(part)]
        examples.append((ids, mask))
    return examples


Batch = tuple[Int[Tensor, "rows length"], Int[Tensor, "rows length"]]


def batches(tokenizer: PreTrainedTokenizerFast, seed: int, tokens: int, longest: int) -> Iterator[Batch]:
    """Endless batches of about `tokens` ids: (ids, labels), labels -100 where nothing is learned.

    Documents longer than `longest` are left out (the model's card counts them).
    """
    pad: Any = tokenizer.pad_token_id
    for window in count():
        examples = encode(tokenizer, seed, range(window * WINDOW, (window + 1) * WINDOW))
        examples = sorted((e for e in examples if len(e[0]) <= longest), key=lambda e: len(e[0]))
        groups: list[list[Example]] = []
        group: list[Example] = []
        for example in examples:
            length = -(-len(example[0]) // ROUND) * ROUND
            if group and (len(group) + 1) * length > tokens:
                groups.append(group)
                group = []
            group.append(example)
        # The rest of a window is a small batch; it is left out rather than given a full step.
        random.Random(f"batches/{seed}/{window}").shuffle(groups)
        for full in groups:
            length = -(-max(len(ids) for ids, _ in full) // ROUND) * ROUND
            ids = torch.full((len(full), length), pad)
            labels = torch.full((len(full), length), -100)
            for row, (tokens_, mask) in enumerate(full):
                ids[row, : len(tokens_)] = torch.tensor(tokens_)
                labels[row, : len(tokens_)] = torch.where(torch.tensor(mask) == 1, torch.tensor(tokens_), -100)
            yield ids, labels
