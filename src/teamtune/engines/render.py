"""Messages -> ids. The only caller of a chat template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError

from teamtune.types import Message, TeamtuneError


class Renderer:
    """Turns messages into the ids that a model of this tokenizer is asked with.

    Some templates (Gemma's) refuse a system message; for those its text goes in front of the first user message.
    """

    def __init__(self, tokenizer: Any, name: str):
        if not getattr(tokenizer, "chat_template", None):
            raise TeamtuneError(
                f"model {name!r} has no chat template; use an instruct model, "
                "or set tokenizer.chat_template and save the tokenizer"
            )
        self.tokenizer = tokenizer
        self.folds_system = False
        try:
            self._ids([Message("system", "a"), Message("user", "b")])
        except (TemplateError, ValueError):
            self.folds_system = True

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The ids that ask for the next assistant message."""
        return self._ids(folded(messages) if self.folds_system else messages)

    def _ids(self, messages: Sequence[Message]) -> list[int]:
        chat = [{"role": m.role, "content": m.content} for m in messages]
        ids = self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=True)
        return list(ids["input_ids"])


def folded(messages: Sequence[Message]) -> list[Message]:
    """The same conversation without a system message: its text opens the first user message."""
    if not messages or messages[0].role != "system":
        return list(messages)
    system, first, *rest = messages
    return [Message(first.role, f"{system.content}\n\n{first.content}"), *rest]


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """The ids that end a turn: those of the generation config and the tokenizer's own."""
    listed = model.generation_config.eos_token_id
    ids = set(listed if isinstance(listed, list) else [listed])
    ids.add(tokenizer.eos_token_id)
    return sorted(i for i in ids if i is not None)


def check_adapter(path: str) -> Path:
    """The adapter folder, if it is one."""
    folder = Path(path)
    if not (folder / "adapter_config.json").exists():
        raise TeamtuneError(f"no adapter in {path!r}: adapter_config.json is missing; train it, or mend the path")
    if not (folder / "adapter_model.safetensors").exists():
        raise TeamtuneError(f"adapter {path!r} has no adapter_model.safetensors; only safetensors are read")
    return folder
