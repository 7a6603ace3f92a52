"""A process that compares mathematical answers, one JSON line in, one out. Run by `workers.py`, never by hand.

    in    {"gold": "\\frac{1}{2}", "answer": "0.5"}
    out   {"equal": true, "reason": "0.5 and 1/2 are equal"}

It may hang or grow: symbolic algebra does. So each comparison has a limit of processor time, whose signal ends the
process, and the process a limit of memory. (Where a system has neither, the parent's clock remains.)
"""

from __future__ import annotations

import json
import logging
import signal
import sys

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify


def limit_memory(megabytes: int) -> None:
    """Let allocations beyond the limit fail (POSIX)."""
    try:
        import resource
    except ImportError:  # no such limits on Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))


def start_clock(seconds: float) -> None:
    """End the process after so much processor time, even within a single step of C code; 0 stops the clock."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def parsed(text: str) -> list:
    """The readings of an answer in LaTeX or plain notation, as sympy expressions; empty where it has none."""
    return parse(
        f"\\boxed{{{text}}}",
        extraction_config=(LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()),
        parsing_timeout=0,  # the clock here is a better one
    )


def compare(gold: str, answer: str) -> tuple[bool, str]:
    """Whether two answers are the same, whichever is called gold, and why."""
    one, other = parsed(gold), parsed(answer)
    if not one or not other:
        return False, "not readable as mathematics"
    equal = verify(one, other, timeout_seconds=0) or verify(other, one, timeout_seconds=0)
    return bool(equal), f"{str(other[0])[:80]} {'equals' if equal else 'is not'} {str(one[0])[:80]}"


def main(seconds: float, megabytes: int) -> None:
    logging.disable(logging.CRITICAL)
    compare("1", "\\frac{1}{2}")  # what is loaded at first need is loaded now, outside the clock
    limit_memory(megabytes)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        start_clock(seconds)
        try:
            equal, reason = compare(asked["gold"], asked["answer"])
        except MemoryError:
            equal, reason = False, "took too much memory"
        except RecursionError:
            equal, reason = False, "nested too deeply"
        except Exception as error:  # whatever a parser of any text may raise: the answer is not readable
            equal, reason = False, f"not readable as mathematics ({type(error).__name__})"
        start_clock(0)
        print(json.dumps({"equal": equal, "reason": reason}), flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
