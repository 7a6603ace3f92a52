"""The house model's tokenizer and chat template: byte-level BPE with single digits.

"7 * 23 = 161"  ->  "7", " * ", "2", "3", " = ", "1", "6", "1"
chat            ->  "<|system|>You are ...<|end|><|user|>...<|end|><|assistant|>...<|end|>"
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIALS = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
# Digits stand alone; a word takes the space before it; a sign takes the spaces around it.
PIECES = r"\d| ?[^\W\d]+| ?[^\s\w]+ ?|\s+"


def train(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """A tokenizer of `size` ids; every byte has an id, so every text can be written."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        chat_template=TEMPLATE,
        padding_side="left",
    )
