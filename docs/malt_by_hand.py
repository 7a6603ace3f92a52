"""MALT's data in one file, without the library: a tree, its values, labels, SFT rows and preference pairs.

    python docs/malt_by_hand.py

The three agents are scripted here: a generator that slips, a verifier that sometimes sees it, a refiner that sometimes
listens. In their place put a language model with three prompts, and train it on the rows at the end; that is MALT
(Motwani et al., 2024).
"""

import random
from itertools import product

WIDTH = 3  # children of every node: 3 + 9 + 27 turns a question, of which 27 answer it
THRESHOLD = 0.5  # a turn is positive if its value is strictly above this
ROLES = ("generator", "verifier", "refiner")


def speak(role: str, x: int, y: int, shown: tuple[str, ...], number: int) -> str:
    """What an agent says after reading the texts `shown`; `number` tells it from its siblings."""
    chance = random.Random(f"{role}/{x}/{y}/{shown}/{number}")
    careful = chance.random() < 0.5
    result = x * y if careful else x * y + chance.choice([-10, -1, 1, 10])
    if role == "verifier":
        agrees = shown[0].endswith(f" {result}")
        return f"Verdict: {'right' if agrees else 'wrong'}. Answer: {result}"
    if role == "refiner" and chance.random() < 0.7:  # takes the verifier's word for it
        result = int(shown[1].split()[-1])
    return f"{x} * {y} = {result}. Answer: {result}"


# ---- the tree --------------------------------------------------------------------------------------------------------


def grow(x: int, y: int) -> list[dict]:
    """All turns on one question, a level after the other, each with its parent and the texts it was shown."""
    tree: list[dict] = []
    level: list[int | None] = [None]
    for role in ROLES:
        here = []
        for parent in level:
            # A verifier reads the solution; a refiner reads the solution and the critique under which it hangs.
            shown = () if parent is None else (*tree[parent]["shown"], tree[parent]["text"])
            for number in range(WIDTH):
                here.append(len(tree))
                text = speak(role, x, y, shown, number)
                tree.append({"turn": len(tree), "agent": role, "parent": parent, "shown": shown, "text": text})
        level = here
    return tree


# ---- credit ----------------------------------------------------------------------------------------------------------


def label(tree: list[dict], answer: int) -> None:
    """Give every turn its value and its label.

    A refiner's turn is worth 1 if its answer is right, else 0. Any other turn is worth the mean of its children, which
    is the share of right answers below it. Whether a first solution was itself right plays no part.
    """
    for node in reversed(tree):  # children come after their parents, so from the end on all is ready
        children = [child["value"] for child in tree if child["parent"] == node["turn"]]
        right = float(node["text"].split()[-1] == str(answer))
        node["value"] = sum(children) / len(children) if children else right
        node["positive"] = node["value"] > THRESHOLD


# ---- rows to train on ------------------------------------------------------------------------------------------------


def sft_rows(tree: list[dict]) -> list[dict]:
    """The positive turns; of equal answers to the same texts, one."""
    rows, seen = [], set()
    for node in tree:
        key = (node["agent"], node["shown"], node["text"])
        if node["positive"] and key not in seen:
            seen.add(key)
            rows.append(
                {"agent": node["agent"], "turn": node["turn"], "shown": node["shown"], "completion": node["text"]}
            )
    return rows


def sibling_pairs(tree: list[dict]) -> list[dict]:
    """Every positive turn against every negative one under the same parent, so that both answered the same texts."""
    rows, seen = [], set()
    for good, bad in product(tree, tree):
        key = (good["agent"], good["shown"], good["text"], bad["text"])
        siblings = good["parent"] == bad["parent"]
        if not (siblings and good["positive"] and not bad["positive"]):
            continue
        if good["text"] == bad["text"] or key in seen:  # nothing to prefer, or known already
            continue
        seen.add(key)
        pair = {"chosen": good["text"], "rejected": bad["text"]}
        places = {"chosen_turn": good["turn"], "rejected_turn": bad["turn"]}
        rows.append({"agent": good["agent"], "shown": good["shown"], **pair, **places})
    return rows


if __name__ == "__main__":
    tree = grow(12, 23)
    label(tree, 12 * 23)
    for node in tree[: WIDTH + WIDTH**2]:
        print(f"{node['turn']:>2} {node['agent']:<9} {node['value']:.2f} {'+-'[not node['positive']]} {node['text']}")
    for role in ROLES:
        rows = [row for row in sft_rows(tree) if row["agent"] == role]
        pairs = [row for row in sibling_pairs(tree) if row["agent"] == role]
        # The generator is trained by SFT alone; verifier and refiner by SFT, then DPO from there.
        print(f"{role}: {len(rows)} SFT rows, {len(pairs)} pairs")
