"""The words of OpenAI's chat protocol: an ask as a request, an answer as a completion, an error as a sentence."""

from __future__ import annotations

import os
import re
from typing import Any

import openai

from teamtune.engines.spec import Openai, check_key
from teamtune.types import Ask, Completion, Finish, Sampling, TeamtuneError

FINISHES: dict[str | None, Finish] = {"stop": "stop", "length": "length", "content_filter": "withheld"}
FAILED = ("error", "abort", "aborted", "cancelled", "insufficient_system_resource")
"""reasons to end of servers that broke an answer off"""
CONTEXT = re.compile(r"context length is (\d+) tokens")
PROMPT = re.compile(r"(?P<least>at least )?(?P<count>\d+) (?:in the messages|input tokens)")
"""how servers tell what they have room for, and what a prompt takes of it (where they stop counting: "at least")"""


class Broken(Exception):
    """An answer that is no chat completion."""


def key_of(options: Openai) -> str:
    """The key, from the environment. A server of one's own may need none, where no variable is named."""
    check_key(options)
    key = os.environ.get(options.key_from, "")
    if not key and not options.base_url:
        raise TeamtuneError(
            f"{options.key_from} is not set in the environment; export a key, or give engine.openai.base_url"
        )
    return key or "none"


def asked(ask: Ask, sampling: Sampling, seed: int, options: Openai) -> dict[str, Any]:
    """The request for one ask."""
    extra: dict[str, Any] = {"top_k": sampling.top_k} if sampling.top_k else {}
    if options.ids or options.load_adapters:
        # A vLLM server, which takes what is left open from the model's generation config.
        extra = {"top_k": sampling.top_k or -1, "min_p": 0.0, "repetition_penalty": 1.0}
    if options.ids:
        extra["return_token_ids"] = True
    return {
        "messages": [{"role": m.role, "content": m.content} for m in ask.messages],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        options.limit: sampling.max_tokens,
        **({"seed": seed} if options.seeds else {}),
        **({"logprobs": True} if options.logprobs else {}),
        **({"extra_body": extra} if extra else {}),
    }


def lacking(answer: Any) -> str | None:
    """What the answer lacks of what every chat completion has; None where it has all."""
    if isinstance(answer, str) or not getattr(answer, "choices", None):
        return f"no choices in {str(answer)!r}"
    if getattr(answer.choices[0], "message", None) is None:
        return f"no message in {str(answer)!r}"
    if answer.choices[0].finish_reason in FAILED or getattr(answer.choices[0], "error", None):
        return f"an answer that was broken off, in {str(answer)!r}"
    return None


def completion_of(answer: Any, options: Openai) -> Completion:
    """What a chat completion tells. Raises TeamtuneError where ids or log-probabilities are asked for and missing."""
    choice = answer.choices[0]
    ids = prompt = logprobs = None
    if options.ids:
        ids, prompt = getattr(choice, "token_ids", None), getattr(answer, "prompt_token_ids", None)
        if ids is None or prompt is None:
            raise TeamtuneError("the server gives no token ids; leave engine.openai.ids out, or ask a vLLM server")
    if options.logprobs:
        told = None if choice.logprobs is None else choice.logprobs.content
        if told is None or (ids is not None and len(told) != len(ids)):
            raise TeamtuneError("the server gives no log-probability a token; leave engine.openai.logprobs out")
        logprobs = tuple(float(one.logprob) for one in told)
    tupled = lambda found: None if found is None else tuple(found)  # noqa: E731
    finish = FINISHES.get(choice.finish_reason, "stop")
    # Half of a character of two parts is no text: it can be neither stored nor sent on.
    text = (choice.message.content or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Completion(text, finish, tupled(prompt), tupled(ids), logprobs, usage_of(answer))


def usage_of(answer: Any) -> tuple[int, int] | None:
    """Tokens of prompt and answer as the server counts them; None where it does not tell both."""
    usage = getattr(answer, "usage", None)
    prompt, written = (getattr(usage, f"{name}_tokens", None) for name in ("prompt", "completion"))
    return (prompt, written) if isinstance(prompt, int) and isinstance(written, int) else None


def too_long(error: openai.BadRequestError) -> bool:
    """Whether a request was refused for the length of its prompt."""
    return error.code == "context_length_exceeded" or "context length" in str(error)


def room_left(error: openai.BadRequestError, asked: int) -> int:
    """Ids that an answer may have, where a server refused a prompt that fits with an answer of `asked` ids that does
    not, and says so; else 0. Others make such an answer shorter by themselves, as the embedded engine does.

    A server that counted no further than it had to tells next to nothing: half as many are tried.
    """
    whole, prompt = (found.search(str(error)) for found in (CONTEXT, PROMPT))
    if not whole or not prompt:
        return 0
    left = max(0, int(whole[1]) - int(prompt["count"]))
    return min(left, asked // 2) if prompt["least"] else left


def brief(error: BaseException, options: Openai) -> str:
    """What an error says, without the key: there are servers that repeat what they were sent."""
    said, key = str(error), os.environ.get(options.key_from)
    return " ".join((said.replace(key, "***") if key else said).split())[:300]


def told(error: BaseException, options: Openai) -> TeamtuneError:
    """A sentence on what went wrong at the server."""
    where = options.base_url or "the server"
    again = "the same command goes on from here"
    match error:
        case TeamtuneError():
            return error
        case TimeoutError():
            return TeamtuneError(f"{where} did not answer within {options.deadline:g} s, retries included; {again}")
        case Broken():
            return TeamtuneError(f"{where} answers with no chat completion ({brief(error, options)}); {again}")
        case openai.APITimeoutError():
            return TeamtuneError(f"{where} was silent for {options.timeout:g} s, {options.retries + 1} times; {again}")
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            return TeamtuneError(f"{where} refuses the key in {options.key_from}; {again}")
        case openai.NotFoundError():
            return TeamtuneError(
                f"{where} has no such model or path ({brief(error, options)}); mend the names or the base_url"
            )
        case openai.APIStatusError():
            return TeamtuneError(f"{where} refuses an ask: {brief(error, options)}; {again}")
        case openai.APIConnectionError():
            return TeamtuneError(f"{where} cannot be reached ({brief(error.__cause__ or error, options)}); {again}")
    return TeamtuneError(f"{where}: {brief(error, options) or type(error).__name__}; {again}")
