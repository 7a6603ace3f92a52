"""A small server that speaks OpenAI's protocol and misbehaves on request: for tests of the engine that asks it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


class OddServer:
    """Answers "<model>: <question> -> <seed>". `faults` name what goes wrong with the first tries of every question."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.usage: dict[str, Any] | None = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        self.slow = 0.0
        self.finish = "stop"
        self.more = ""
        """what every answer ends with"""
        self.tries: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.at_once = self.most_at_once = 0
        self.loads: list[tuple[str, dict[str, Any]]] = []
        """adapters that it was told to load and unload, in order"""
        self.url = ""

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        question = f"{body['messages'][-1]['content']} -> {body.get('seed')}"
        number, self.tries[question] = self.tries[question], self.tries[question] + 1
        self.bodies.append(body)
        self.keys.add(request.headers.get("authorization", ""))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.slow * (1 + hash(question) % 3))  # answers come in another order than the asks
            fault = self.faults[number] if number < len(self.faults) else "none"
            return await self._faulty(fault, body, question)
        finally:
            self.at_once -= 1

    async def adapters(self, request: Request) -> Response:
        body = await request.json()
        self.loads.append((request.url.path.rpartition("/")[2], body))
        forgotten = "forgotten" in self.faults and request.url.path.endswith("unload_lora_adapter")
        return Response("done", 404 if forgotten else 200)

    async def _faulty(self, fault: str, body: dict[str, Any], question: str) -> Response:
        if fault == "hang":
            await asyncio.sleep(30)
        if fault in ("429", "500", "503", "401", "404"):
            headers = {"retry-after-ms": "10"} if fault == "429" else {}
            return JSONResponse({"error": {"message": f"fault {fault}"}}, int(fault), headers)
        if fault == "long":
            said = {"message": "This model's maximum context length is 64 tokens", "code": "context_length_exceeded"}
            return JSONResponse({"error": said}, 400)
        if fault in ("no room", "none left") and body["max_tokens"] > 14:
            prompt = {"no room": "50 in the messages", "none left": "70 in the messages"}[fault]
            asked = f"This model's maximum context length is 64 tokens. However, you requested 150 tokens ({prompt}, "
            return JSONResponse({"error": {"message": f"{asked}{body['max_tokens']} in the completion)."}}, 400)
        if fault == "not counted" and body["max_tokens"] > 14:
            least = f"your request has at least {64 - body['max_tokens'] + 1} input tokens"
            asked = f"This model's maximum context length is 64 tokens and {least}."
            return JSONResponse({"error": {"message": asked}}, 400)
        if fault == "echo":
            return JSONResponse({"error": {"message": f"cannot take {sorted(self.keys)}"}}, 400)
        if fault == "odd":
            return JSONResponse({"error": {"message": "temperature must be 1"}}, 400)
        if fault == "cut":
            return Response('{"id": "x", "choices": [{"ind', media_type="application/json")
        if fault == "empty":
            return JSONResponse({"id": "x", "object": "chat.completion", "choices": [], "usage": self.usage})
        found: dict[str, Any] = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"]}
        message = {"role": "assistant", "content": f"{body['model']}: {question}{self.more}"}
        ended = "error" if fault == "broken off" else self.finish
        found["choices"] = [{"index": 0, "message": message, "finish_reason": ended}]
        if self.usage is not None:
            found["usage"] = self.usage
        return Response(json.dumps(found), media_type="application/json")  # half a character is escaped


@contextmanager
def running() -> Iterator[OddServer]:
    odd = OddServer()
    routes = [Route("/v1/chat/completions", odd.answer, methods=["POST"])]
    for path in ("load_lora_adapter", "unload_lora_adapter"):
        routes.append(Route(f"/v1/{path}", odd.adapters, methods=["POST"]))
    app = Starlette(routes=routes)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    odd.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    yield odd
    server.should_exit = True
    server.force_exit = True
    thread.join(10)
