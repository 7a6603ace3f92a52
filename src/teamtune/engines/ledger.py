"""What a run has spent at servers: every answer's tokens, kept over kills, and the cap that they may not pass."""

from __future__ import annotations

from pathlib import Path

from teamtune.engines.spec import Openai
from teamtune.jsonl import Log
from teamtune.types import TeamtuneError

MILLION = 1_000_000


class Ledger:
    """Tokens of prompts and answers since the run began. `path` None keeps them in memory alone."""

    def __init__(self, path: Path | None, options: Openai):
        self.log = None if path is None else Log(path)
        self.options = options
        self.prompt = self.answer = 0
        self.told = True
        """the server says what answers cost"""
        for row in self.log.read() if self.log is not None else ():
            self.prompt, self.answer = self.prompt + row["prompt"], self.answer + row["answer"]

    @property
    def money(self) -> float:
        """What the tokens cost at the prices in the options."""
        return (self.prompt * self.options.price_prompt + self.answer * self.options.price_answer) / MILLION

    def check(self) -> None:
        """Raises TeamtuneError where a cap is met, or cannot hold."""
        own = self.options
        if not self.told and (own.most_tokens or own.most_money):
            raise TeamtuneError("the server does not tell what answers cost, so that no cap can hold; leave it out")
        if own.most_tokens and self.prompt + self.answer >= own.most_tokens:
            raise TeamtuneError(
                f"{self.prompt + self.answer:,} tokens are spent of engine.openai.most_tokens {own.most_tokens:,}; "
                "raise it, and the same command goes on from here"
            )
        if own.most_money and self.money >= own.most_money:
            raise TeamtuneError(
                f"{self.money:.2f} are spent of engine.openai.most_money {own.most_money:.2f}; raise it, and the same "
                "command goes on from here"
            )

    def add(self, model: str, usage: tuple[int, int] | None) -> None:
        """Enter an answer's tokens of prompt and answer, if the server says what it took."""
        if usage is None:
            self.told = False
            return
        prompt, answer = usage
        self.prompt, self.answer = self.prompt + prompt, self.answer + answer
        if self.log is not None:
            self.log.append([{"model": model, "prompt": prompt, "answer": answer}])
