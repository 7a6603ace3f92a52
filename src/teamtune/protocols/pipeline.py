"""MALT's pipeline: generator, verifier, refiner; at training time as a tree.

The paper (Motwani et al., MALT) does not publish its prompts; these are ours: one line of system message a role, the
same for data generation, trained models and every baseline, as the paper asks (its appendix A.9).
"""

from __future__ import annotations

from teamtune.play import After, Play, ask
from teamtune.types import Agent, Ask, Message, Problem, Sampling, Turn, user

GENERATOR = "You are the generator. Solve the problem step by step."
VERIFIER = (
    "You are the verifier. Check the solution step by step, give your verdict, right or wrong, "
    "and the answer you believe in."
)
REFINER = "You are the refiner. Improve the solution with the help of the feedback."
NO_FEEDBACK = "There is no feedback. Improve the solution directly."

ROLES = {"generator": GENERATOR, "verifier": VERIFIER, "refiner": REFINER}


def seats(sampling: Sampling) -> tuple[Agent, ...]:
    """The three seats, untrained."""
    return tuple(Agent(name, system, sampling) for name, system in ROLES.items())


def generate(problem: Problem) -> tuple[Message, ...]:
    """What the generator is asked: the question and how to close the answer."""
    return (user(f"{problem.question}\n{problem.ending}"),)


def verify(problem: Problem, solution: str) -> tuple[Message, ...]:
    """What the verifier is asked: the question with the solution to check."""
    return (user(f"Problem: {problem.question}\n\nSolution:\n{solution}\n\n{problem.ending}"),)


def refine(problem: Problem, solution: str, feedback: str = NO_FEEDBACK) -> tuple[Message, ...]:
    """What the refiner is asked: question, solution and, where a verifier plays, its critique."""
    text = f"Problem: {problem.question}\n\nSolution:\n{solution}\n\nFeedback:\n{feedback}\n\n{problem.ending}"
    return (user(text),)


def pipeline(problem: Problem, width: int = 1, roles: str = "GVR") -> Play:
    """MALT's tree of width**3 answers; width 1 is one pass generator -> verifier -> refiner.

    `roles` "G", "GV" and "GR" leave roles out (MALT's ablation of fewer roles). Without a verifier the refiner is told
    that there is no feedback. Without a refiner the last role answers.
    """

    def verified(gen: Turn) -> Ask:
        return ask("verifier", verify(problem, gen.text), "verify", gen)

    def refined(gen: Turn, *critique: Turn) -> Ask:
        return ask("refiner", refine(problem, gen.text, *(ver.text for ver in critique)), "refine", gen, *critique)

    gens = [ask("generator", generate(problem), "generate")] * width
    below = [gen for gen in range(width) for _ in range(width)]
    if roles == "G":
        turns = yield gens
        return turns[0].index
    if roles == "GR":
        turns = yield [*gens, *(After((gen,), refined) for gen in below)]
        return turns[width].index
    vers = [After((gen,), verified) for gen in below]
    if roles == "GV":
        turns = yield [*gens, *vers]
        return turns[width].index
    refs = [After((gen, width + ver), refined) for ver, gen in enumerate(below) for _ in range(width)]
    turns = yield [*gens, *vers, *refs]
    return turns[width + width**2].index
