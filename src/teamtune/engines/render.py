"""Asks -> ids. The only caller of a chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError

from teamtune.types import Agent, Ask, Completion, Message, Sampling, TeamtuneError

MARK = "MARK"
DATED = (
    "{%- macro strftime_now(form) -%}"
    "{{ {'%d %B %Y': '26 July 2024', '%Y-%m-%d': '2024-07-26'}.get(form, '26 Jul 2024') }}"
    "{%- endmacro -%}"
)
"""before a template that writes the day's date into prompts (Llama 3.2's, SmolLM3's): with the same one always, the one
that Llama's template itself falls back on, a run that goes on tomorrow asks what it asked today"""


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
        own = tokenizer.chat_template
        self.template: str | None = DATED + own if isinstance(own, str) and "strftime_now" in own else None
        self.folds_system = False
        try:
            self._ids([Message("system", "a"), Message("user", "b")])
        except (TemplateError, ValueError):
            self.folds_system = True
            try:
                self._ids([Message("user", "b")])
            except (TemplateError, ValueError) as error:
                raise TeamtuneError(f"the chat template of model {name!r} is broken ({error}); mend it") from error
        self._check_round_trip(name)

    def _check_round_trip(self, name: str) -> None:
        """What is said must come back from the ids, in order: a template may drop a turn, a tokenizer words."""
        said = [Message("user", "one"), Message("assistant", "two"), Message("user", "three")]
        text, place = self.tokenizer.decode(self._ids(said)), 0
        for message in said:
            place = text.find(message.content, place)
            if place < 0:
                raise TeamtuneError(
                    f"the chat template of model {name!r} loses what is said: {message.content!r} of a conversation of "
                    f"{len(said)} messages is not in {text!r}; mend the template, or take another model"
                )

    @property
    def closing(self) -> int:
        """The id with which the template closes an assistant's turn (<|im_end|>, <end_of_turn>, ...), else the eos."""
        chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": MARK}]
        text = self.tokenizer.apply_chat_template(chat, tokenize=False, chat_template=self.template)
        after = self.tokenizer(text.rpartition(MARK)[2], add_special_tokens=False)["input_ids"]
        special = {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}
        return after[0] if after and after[0] in special else self.tokenizer.eos_token_id

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The ids that ask for the next assistant message."""
        return self._ids(folded(messages) if self.folds_system else messages)

    def _ids(self, messages: Sequence[Message]) -> list[int]:
        chat = [{"role": m.role, "content": m.content} for m in messages]
        ids = self.tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, tokenize=True, return_dict=True, chat_template=self.template
        )
        return list(ids["input_ids"])


def folded(messages: Sequence[Message]) -> list[Message]:
    """The same conversation without a system message: its text opens the first user message."""
    if not messages or messages[0].role != "system":
        return list(messages)
    system, first, *rest = messages
    return [Message(first.role, f"{system.content}\n\n{first.content}"), *rest]


@dataclass(frozen=True, slots=True)
class Request:
    """One ask, ready to generate."""

    place: int
    adapter: str
    prompt: tuple[int, ...]
    limit: int
    """most ids of the answer; 0 where the prompt fills the context"""
    sampling: Sampling
    seed: int


def request_of(
    place: int, ask: Ask, agent: Agent, adapter: str, renderer: Renderer, context: int, seed: int
) -> Request:
    """An ask to an agent whose weights an engine knows as `adapter`, in a model of so many positions."""
    prompt = renderer.prompt(ask.messages)
    limit = min(agent.sampling.max_tokens, max(0, context - len(prompt)))
    return Request(place, adapter, tuple(prompt), limit, agent.sampling, seed)


def completion_of(
    request: Request, ids: Sequence[int], logprobs: Sequence[float], stops: Sequence[int], tokenizer: Any
) -> Completion:
    """What the sampled ids say; the id that stopped them is no part of the text."""
    stopped = bool(ids) and ids[-1] in stops
    text = tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=True)
    return Completion(text, "stop" if stopped else "length", request.prompt, tuple(ids), tuple(logprobs))


def stop_ids(listed: int | Sequence[int] | None, renderer: Renderer) -> list[int]:
    """The ids that end a turn: the template's own, those listed in the generation config, and the tokenizer's."""
    several = [listed] if listed is None or isinstance(listed, int) else [*listed]
    ids = {*several, renderer.tokenizer.eos_token_id, renderer.closing}
    return sorted(i for i in ids if i is not None)
