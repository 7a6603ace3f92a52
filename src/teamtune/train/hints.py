"""Where a scorer's head begins that is told how much answers surprise the frozen base (`Scoring.surprise`).

Ours; the paper's scorer has no hints. A scorer reads the state that its base has after a token; what the base expected
there before it came is in another token's state, a layer too high to be seen. A large base learns a way round, a small
one does not (docs/log.md), though the sum of its own log-probabilities tells right answers from wrong ones well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from teamtune.train.examples import Judged
from teamtune.train.forward import batch_of, surprises
from teamtune.train.objective import Item
from teamtune.train.team import TeamModel

LEAST = 0.1
"""spread of a hint, in log(1 + nats)"""


def start_heads(model: TeamModel, micros: Iterable[Sequence[Item]]) -> None:
    """Set each head's part for hints to the logistic regression of right on them at the answers' last tokens, so that
    training begins where the hints alone get. micros: all answers to train on."""
    hints: dict[str, list[Tensor]] = {agent: [] for agent in model.agents}
    right: dict[str, list[float]] = {agent: [] for agent in model.agents}
    for micro in micros:
        judged = [item.data for item in micro if isinstance(item.data, Judged)]
        found = surprises(model, *batch_of(model, [one.example for one in judged]))
        for item, one, row in zip(micro, judged, found, strict=True):
            hints[item.agent].append(row[len(one) - 1])
            right[item.agent].append(float(one.right))
    for agent, rows in hints.items():
        weight, bias = logistic(torch.stack(rows), torch.tensor(right[agent], device=model.device))
        with torch.no_grad():
            model.heads[agent].weight[-len(weight) :] = weight
            model.heads[agent].bias.copy_(bias)


def logistic(
    rows: Float[Tensor, "rows columns"], right: Float[Tensor, " rows"], ridge: float = 1e-3
) -> tuple[Float[Tensor, " columns"], Float[Tensor, ""]]:
    """Weights and bias of the logistic regression of `right` on the columns.

    ridge: of the weights of standardised columns, so that the least is found even where all rows are told apart. A
    column that hardly varies keeps a spread of `LEAST`: last tokens are often all but certain, and the chance in their
    fifth decimal would get a weight of thousands, which decides alone about every answer that ends in any other way.
    """
    rows, right = rows.double(), right.double()
    mean, spread = rows.mean(0), rows.std(0, correction=0).clamp(min=LEAST)
    weight = torch.zeros(rows.shape[1], dtype=rows.dtype, device=rows.device, requires_grad=True)
    bias = torch.zeros((), dtype=rows.dtype, device=rows.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def cost() -> Tensor:
        optimizer.zero_grad()
        logits = (rows - mean) / spread @ weight + bias
        found = F.binary_cross_entropy_with_logits(logits, right) + ridge * (weight**2).sum()
        found.backward()
        return found

    optimizer.step(cost)
    weight = (weight / spread).detach()
    return weight.float(), (bias.detach() - mean @ weight).float()
