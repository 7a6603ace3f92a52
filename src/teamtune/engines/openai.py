"""Any server that speaks OpenAI's protocol as an engine: hosted models, `vllm serve`, SGLang, llama.cpp, Ollama.

engine = OpenaiEngine("house", Openai("http://127.0.0.1:8000/v1", names=("verifier=critic-7b",)))
engine.adopt(team)
engine.submit(0, ask, seed)             # on its way at once; poll() gives what has come back

Every seat has a model name: its own in `names`, else the base's; with `load_adapters` a vLLM server is told to load a
seat's adapter under a name of its own. What answers cost is kept in a ledger, a line an answer,

    {"model": "critic-7b", "prompt": 212, "answer": 97}

so that a cap on tokens or money holds over kills and restarts. Keys come from the environment and go nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import openai

from teamtune.adapters import check_adapter, zero_adapter
from teamtune.engines.chat import (
    Broken,
    asked,
    brief,
    completion_of,
    key_of,
    lacking,
    room_left,
    told,
    too_long,
    usage_of,
)
from teamtune.engines.ledger import Ledger
from teamtune.engines.spec import Openai
from teamtune.models import fingerprint
from teamtune.types import Agent, Ask, Completion, Sampling, Team, TeamtuneError

Waiting = tuple[bool, int, Future[Completion], Callable[[], Coroutine[Any, Any, Completion]]]
"""an ask that is not sent yet: whether it can wait, its number, where its answer goes, and how it is had"""


class OpenaiEngine:
    """Asks a server, many asks at a time.

    Raises TeamtuneError where the server does not answer after all retries, refuses an ask, or a cap is met; answers
    that are on their way by then are given out first, so that nothing that was paid for is lost.
    """

    def __init__(self, base: str, options: Openai, run: Path | None = None):
        self.options, self.base = options, options.model or base
        self.names = dict(name.split("=", 1) for name in options.names)
        self.ledger = Ledger(None if run is None else run / "spent.jsonl", options)
        self.run = run
        self.team: Team | None = None
        key = key_of(options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._client, self._waiting, self._workers = self._run(self._connected(key)).result()
        self._number = count()
        self._loaded: dict[str, str] = {}
        """the folders of the adapters that the server was told to load, by its names for them"""
        self._zero: tempfile.TemporaryDirectory[str] | None = None
        self._asked: dict[Future[Completion], int] = {}
        self._done: SimpleQueue[Future[Completion]] = SimpleQueue()
        """those of them that have ended, in that order; to look through all of them at every poll would take longer"""
        self._failed: BaseException | None = None
        self._called: dict[str, str] = {}
        """the server's names for the weights of the seats that were asked"""

    # ---- the engine's contract

    def adopt(self, team: Team) -> None:
        try:
            self._run(self._show(team)).result()
        except (openai.OpenAIError, TimeoutError) as error:
            raise told(error, self.options) from error
        self.team, self._called = team, {}

    def generate(self, asks: Sequence[Ask], seeds: Sequence[int]) -> list[Completion]:
        others, self._asked, self._done = (self._asked, self._done), {}, SimpleQueue()
        for place, (ask, seed) in enumerate(zip(asks, seeds, strict=True)):
            self.submit(place, ask, seed)
        done: dict[int, Completion] = {}
        while len(done) < len(asks):
            done |= dict(self.poll())
        self._asked, self._done = others
        return [done[place] for place in range(len(asks))]

    def submit(self, ticket: int, ask: Ask, seed: int) -> None:
        if self.team is None:
            raise TeamtuneError("the engine has no team yet; call adopt(team) first")
        agent, future = self.team[ask.agent], Future[Completion]()
        if agent.name not in self._called:  # a name stands for weights, which are read for it
            self._called[agent.name] = self._name(agent)
        work = partial(self._answer, self._called[agent.name], ask, agent.sampling, seed)
        self._asked[future] = ticket
        future.add_done_callback(self._done.put)
        # What reads earlier turns goes first: episodes that are under way end before others begin.
        place = (not ask.parents, next(self._number), future, work)
        self._loop.call_soon_threadsafe(self._waiting.put_nowait, place)

    def poll(self) -> list[tuple[int, Completion]]:
        """What has come back since, after at least one answer has; an error only when nothing else is on its way."""
        while self._asked:
            finished = [self._done.get()]
            while not self._done.empty():
                finished.append(self._done.get())
            answered = []
            for one in finished:
                ticket = self._asked.pop(one)
                self._failed = self._failed or one.exception()
                if one.exception() is None:
                    answered.append((ticket, one.result()))
            if answered:
                return answered
        if self._failed is not None:
            raise told(self._failed, self.options) from self._failed
        return []

    def close(self) -> None:
        """End all connections, and forget what is on its way."""
        if self._loop.is_closed():
            return
        if self._zero is not None:
            self._zero.cleanup()
        self._run(self._leave()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # ---- the server

    def _run(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _connected(
        self, key: str
    ) -> tuple[openai.AsyncOpenAI, asyncio.PriorityQueue[Waiting], list[asyncio.Task[None]]]:
        own = self.options
        url = own.base_url or None
        client = openai.AsyncOpenAI(api_key=key, base_url=url, timeout=own.timeout, max_retries=own.retries)
        waiting: asyncio.PriorityQueue[Waiting] = asyncio.PriorityQueue()
        return client, waiting, [asyncio.create_task(self._work(waiting)) for _ in range(own.at_once)]

    async def _work(self, waiting: asyncio.PriorityQueue[Waiting]) -> None:
        """Answer what waits, one ask after the other; so many of these are at work as asks are sent at once."""
        while True:
            _, _, future, work = await waiting.get()
            try:
                future.set_result(await work())
            except Exception as error:  # it is told where the answer is waited for
                future.set_exception(error)

    async def _leave(self) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        await self._client.close()

    def _name(self, agent: Agent) -> str:
        """The server's name for a seat's weights. Other weights have another, in the same folder too."""
        if agent.name in self.names:
            return self.names[agent.name]
        if agent.adapter is None:
            return self.base if self._zero is None else Path(self._zero.name).name
        if not self.options.load_adapters:
            raise TeamtuneError(
                f"seat {agent.name!r} has adapter {agent.adapter!r} and the server has no name for it; give "
                f"--engine.openai.names {agent.name}=NAME, or --engine.openai.load-adapters for a vLLM server"
            )
        return f"{agent.name}-{fingerprint(check_adapter(agent.adapter))}"

    async def _show(self, team: Team) -> None:
        """Have the server load what the team has and it has not, and then forget what it had from folders that are
        gone: training has newer ones."""
        own = {self._name(a): a.adapter for a in team.agents if a.adapter is not None and a.name not in self.names}
        new = {name: path for name, path in own.items() if name not in self._loaded}
        gone = [name for name, path in self._loaded.items() if name not in own and not Path(path).exists()]
        for name in gone if new else ():
            del self._loaded[name]
            await self._unload(name)
        for name, path in new.items():
            await self._load(name, path)
            self._loaded[name] = path
        if self._loaded and self._zero is None:
            # Beside adapters the base needs one of its own, of zeros (see engines/vllm.py), where the server sees it.
            if self.run is not None:
                self.run.mkdir(parents=True, exist_ok=True)
            self._zero = tempfile.TemporaryDirectory(prefix=".zero-", dir=self.run)
            folder = Path(self._zero.name)
            await self._load(folder.name, zero_adapter(Path(next(iter(own.values()))), folder))

    async def _load(self, name: str, adapter: str) -> None:
        """Have a vLLM server load an adapter (it needs VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora)."""
        path = check_adapter(adapter).absolute()
        try:
            await self._client.post("/load_lora_adapter", body={"lora_name": name, "lora_path": str(path)}, cast_to=str)
        except openai.APIStatusError as error:
            if "already been loaded" not in str(error):
                raise TeamtuneError(
                    f"the server at {self._client.base_url} does not load adapter {adapter!r} "
                    f"({brief(error, self.options)}); start "
                    "it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, --enable-lora and a --max-lora-rank that is enough"
                ) from error

    async def _unload(self, name: str) -> None:
        """Have a vLLM server forget an adapter. One that it has forgotten by itself is no error."""
        with suppress(openai.NotFoundError):
            await self._client.post("/unload_lora_adapter", body={"lora_name": name}, cast_to=str)

    async def _answer(self, name: str, ask: Ask, sampling: Sampling, seed: int) -> Completion:
        if self._failed is not None:
            raise self._failed  # what is not sent yet stays unsent
        async with asyncio.timeout(self.options.deadline):
            answer = await self._asked_again(name, ask, asked(ask, sampling, seed, self.options))
        if isinstance(answer, Completion):
            return answer
        self.ledger.add(name, usage_of(answer))
        return completion_of(answer, self.options)

    async def _asked_again(self, name: str, ask: Ask, body: dict[str, Any]) -> Any:
        """The server's answer. The client repeats what was refused or lost; what came back broken is repeated here, and
        counted as far as the server says what it took. Asking for a shorter answer is no repetition."""
        attempt = 0
        while True:
            self.ledger.check()
            try:
                answer = await self._client.chat.completions.create(model=name, **body)
                if (broken := lacking(answer)) is None:
                    return answer
                if (spent := usage_of(answer)) is not None:
                    self.ledger.add(name, spent)
                raise Broken(broken)
            except openai.BadRequestError as error:
                if not too_long(error):
                    raise
                left = room_left(error, body[self.options.limit])
                if not 0 < left < body[self.options.limit]:
                    return Completion("", "overflow", usage=(0, 0))
                body = {**body, self.options.limit: left}
            except (json.JSONDecodeError, openai.APIResponseValidationError, Broken) as error:
                if attempt == self.options.retries:
                    raise Broken(str(error)) from error
                await asyncio.sleep(min(8.0, 0.5 * 2**attempt))
                attempt += 1
