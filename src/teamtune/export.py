"""`teamtune export`: what agents would learn from, as files for other trainers and for hosted finetuning.

    teamtune export runs/malt --format openai-finetune --out files
    files/sft-rows/verifier.jsonl
      {"messages": [{"role": "system", ...}, {"role": "user", ...}, {"role": "assistant", "content": "..."}]}
    files/pairs/verifier.jsonl
      {"input": {"messages": [...]}, "preferred_output": [{"role": "assistant", ...}], "non_preferred_output": [...]}

One file an agent and table. trl: "prompt" and "completion", or "prompt", "chosen" and "rejected", as its SFT and DPO
trainers read them. chat-jsonl: "messages" with the answer last, or "messages", "chosen" and "rejected" as texts. What
is to be learned is the last answer alone; where an agent's own earlier ones stand before it, as in a debate,
openai-finetune gives those a "weight" of 0.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow.parquet as pq
import tyro

from teamtune.store import read_table
from teamtune.types import Row, TeamtuneError

Format = Literal["openai-finetune", "trl", "chat-jsonl"]
SFT, PAIRS = {"agent", "messages", "completion"}, {"agent", "messages", "chosen", "rejected"}


@dataclass(frozen=True)
class Export:
    """Write each agent's rows of a run as JSON lines."""

    run: Annotated[Path, tyro.conf.Positional]
    """folder of a run of malt or maft"""
    out: Path
    """a new folder for the files"""
    format: Format = "chat-jsonl"


def export(cfg: Export) -> Counter[str]:
    """Write the files; rows by file, relative to `out`. Raises TeamtuneError where there is nothing to write."""
    if cfg.out.exists() and any(cfg.out.iterdir()):
        raise TeamtuneError(f"{str(cfg.out)!r} holds something already; give another --out")
    counts: Counter[str] = Counter()
    for stage in tables_in(cfg.run):
        lines: dict[str, list[str]] = {}
        for row in read_table(cfg.run / stage).rows():
            lines.setdefault(row["agent"], []).append(json.dumps(exported(row, cfg.format), ensure_ascii=False))
        for agent, own in lines.items():
            file = cfg.out / stage / f"{agent}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(f"{line}\n" for line in own))
            counts[str(file.relative_to(cfg.out))] = len(own)
    if not counts:
        told = f"{str(cfg.run)!r} holds no rows to learn from"
        raise TeamtuneError(f"{told}; run malt or maft there, with --rows-only where nothing is to be trained")
    return counts


def tables_in(run: Path) -> list[str]:
    """The sealed stages of a run whose rows an agent learns from, by their columns."""
    if not (run / "config.json").exists():
        raise TeamtuneError(f"{str(run)!r} is no run folder: it holds no config.json")
    found = []
    for seal in sorted(run.rglob("DONE.json")):
        table = seal.parent / "rows.parquet"
        columns = set(pq.read_schema(table).names) if table.exists() else set()
        if (columns >= SFT and "advantage" not in columns) or columns >= PAIRS:
            found.append(str(seal.parent.relative_to(run)))
    return found


def exported(row: Row, format: Format) -> dict[str, Any]:
    """A row in another trainer's shape."""
    messages: list[Row] = [{"role": m["role"], "content": m["content"]} for m in row["messages"]]
    said = lambda text: [{"role": "assistant", "content": text}]  # noqa: E731
    if "chosen" in row:
        if format == "openai-finetune":
            preferred = {"preferred_output": said(row["chosen"]), "non_preferred_output": said(row["rejected"])}
            return {"input": {"messages": messages}, **preferred}
        if format == "trl":
            return {"prompt": messages, "chosen": said(row["chosen"]), "rejected": said(row["rejected"])}
        return {"messages": messages, "chosen": row["chosen"], "rejected": row["rejected"]}
    if format == "trl":
        return {"prompt": messages, "completion": said(row["completion"])}
    if format == "openai-finetune":
        messages = [m | ({"weight": 0} if m["role"] == "assistant" else {}) for m in messages]
    return {"messages": [*messages, *said(row["completion"])]}
