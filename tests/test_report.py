"""Reports of whole, partial and hostile runs: the numbers they hold, and that the page is one inert file."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teamtune.credit.consensus import consensus
from teamtune.credit.tree import backup
from teamtune.curate.debate import debate_rows
from teamtune.curate.pairs import sibling_pairs
from teamtune.curate.sft import sft_rows
from teamtune.engines.scripted import Scripted
from teamtune.evaluate import transitions
from teamtune.play import ProtocolFn
from teamtune.protocols import debate as debating
from teamtune.protocols import exchange
from teamtune.protocols.pipeline import pipeline, seats
from teamtune.protocols.solo import solo
from teamtune.recipes.measures import round_rows
from teamtune.recipes.systems import Played, System, compare
from teamtune.report import print_comparison, show_run, write_report
from teamtune.reporting import discussion_sections, measures, names, sections, svg
from teamtune.reporting.facts import gather
from teamtune.reporting.page import embedded
from teamtune.reporting.trees import mix, quoted
from teamtune.rollout import Rollout, play_out
from teamtune.store import Run, Table
from teamtune.types import Ask, Problem, Row, Sampling, Team, TeamtuneError

EVIL = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> \u2028 & {{ 7 * 7 }}"
ROLES = ["generator", "verifier", "refiner"]
TEAM = Team("scripted-model", seats(Sampling()))


@dataclass(frozen=True)
class Malt:
    """The options that a report reads, under the recipe's name."""

    task: dict[str, Any] = field(default_factory=lambda: {"task": "sums", "level": "2", "train": 24, "test": 6})
    model: str = "scripted-model"
    width: int = 2
    rounds: int = 1
    train_seats: tuple[str, ...] = tuple(ROLES)
    dpo_generator: bool = False
    votes: int = 2
    baselines: str = "all"
    seed: int = 5


@dataclass(frozen=True)
class Baselines:
    votes: int = 2
    seed: int = 5


def problems(split: str, count: int) -> list[Problem]:
    return [
        Problem(f"{split}/{i}", f"What is {i} + 1?", str(i + 1), "End with: Answer: <number>") for i in range(count)
    ]


def answer(ask: Ask, seed: int) -> str:
    """Problem 0 is always right, problem 1 never, others by their seed; problem 3 says what no page should run."""
    asked = re.search(
        r"What is (\d+) \+ 1", ask.messages[-1].content if ask.tag != "round-2" else ask.messages[1].content
    )
    assert asked
    number = int(asked[1])
    right = {0: True, 1: False}.get(number, seed % 3 != 0)
    said = f"{EVIL} " if number == 3 else ""
    return f"{said}{ask.agent} works on it, {seed % 7} times.\nAnswer: {number + 1 if right else seed % 5 + 100}"


def play(folder: Path, split: str, count: int, team: Team, protocol: ProtocolFn, how: Rollout) -> list[Row]:
    return play_out(folder, problems(split, count), team, protocol, Scripted(answer), how)


def grade(turns: Sequence[Row]) -> list[Row]:
    rows = []
    for row in turns:
        parsed = row["text"].rpartition("Answer: ")[2]
        right = parsed == str(int(row["problem"].rpartition("/")[2]) + 1)
        place = {key: row[key] for key in ("problem", "take", "turn")}
        rows.append(place | {"parsed": parsed, "score": float(right)})
    return rows


def played(run: Run, name: str, team: Team, protocol: Any, takes: int) -> Played:
    turns = run.work(f"test/{name}/turns", play, "test", 6, team, protocol, Rollout(takes, 11))
    return Played(turns, run.stage(f"test/{name}/grades", grade, turns))


def adapter(folder: Path) -> None:
    (folder / "generator").mkdir()


def train(run: Run, prefix: str = "", count: int = 24) -> Table:
    turns = run.work(f"{prefix}turns", play, "train", count, TEAM, partial(pipeline, width=2), Rollout())
    values = run.stage(f"{prefix}values", backup, turns, run.stage(f"{prefix}grades", grade, turns))
    run.stage(f"{prefix}sft-rows", sft_rows, turns, values, ROLES)
    run.work(f"{prefix}sft", adapter)
    for step in range(3):
        run.log(f"{prefix}sft", step, **{"generator/loss": 0.9 - 0.1 * step, "refiner/loss": 0.5})
    pairs = run.stage(f"{prefix}pairs", sibling_pairs, turns, values, ROLES[1:])
    run.work(f"{prefix}dpo", adapter)
    run.log(f"{prefix}dpo", 0, **{"verifier/loss": 0.693, "verifier/margin": 0.0, "verifier/accuracy": 0.25})
    return pairs


def compared_systems(run: Run) -> list[System]:
    alone = played(run, "base-solo", TEAM, solo, 4)
    base = played(run, "base", TEAM, pipeline, 2)
    debaters = Team("scripted-model", debating.seats(Sampling(), 2))
    talked = played(run, "debate", debaters, partial(debating.debate, agents=2, rounds=2), 1)
    malt = played(run, "malt", TEAM, pipeline, 2)
    systems = [System("SA", alone), System("SA | MV@2", alone, 2), System("MA", base), System("Debate", talked, 1)]
    return [*systems, System("MALT + MV@2", malt, 2, {"generator": 70, "verifier": 7})]


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("report") / "sums-0"
    with Run(folder, Malt(), "teamtune malt --out sums-0") as run:
        train(run)
        run.stage("comparison", compare, compared_systems(run), against="MALT + MV@2")
    write_report(folder)
    return folder


class Page(HTMLParser):
    """What a browser would make of the page: its tags, and the contents of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "path", "circle", "br", "img", "link", "input"}:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif self.open and self.open[-1] != "style":
            self.text += data


def page_of(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def sets_of(page: Page) -> dict[str, Row]:
    return {one["key"]: one for one in json.loads(page.scripts[0])["sets"]}


# ---- the numbers


def test_markdown_holds_the_numbers(whole: Path) -> None:
    text = (whole / "report.md").read_text()
    for told in ("teamtune malt --out sums-0", "scripted-model", "seed 5", "sums, level 2", "test draws 11"):
        assert told in text
    for row in gather(whole)["comparison"]["rows"]:
        name = row["system"].replace("|", "\\|")
        line = next(line for line in text.splitlines() if line.replace("*", "").startswith(f"| {name} |"))
        assert f"{100 * row['accuracy']:.1f}" in line and f"{100 * row['se']:.1f}" in line
    assert "| **MALT + MV@2** |" in text
    assert "| value not above threshold |" in text and "| unanimous groups |" in text
    assert "| sft: generator | 3 | 0.900 → 0.700 |" in text
    assert "| dpo: verifier | 1 | 0.693 → 0.693 | 0.250 → 0.250 |" in text
    assert "± 0.74" in text and "uninformative" in text  # sqrt(ln(2 * 2 / 0.05) / (2 * 4))


def test_how_far_an_engine_is_from_training_is_a_column(whole: Path, tmp_path: Path) -> None:
    assert "Gap" not in (whole / "report.md").read_text()
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    (run / "turns" / "gaps.json").write_text('{"generator": 0.00012, "verifier": 0.34}')
    write_report(run)
    lines = (run / "report.md").read_text().splitlines()
    assert "| Stage | Rows | Seconds | State | Gap |" in lines
    ends = {line.split(" | ")[0]: line.split(" | ")[-1] for line in lines if line.startswith(("| turns |", "| sft |"))}
    assert ends == {"| turns": "0.34 |", "| sft": f"{sections.NONE} |"}


def test_counts_of_training_add_up_to_the_turns(whole: Path) -> None:
    facts = gather(whole)
    sft, pairs = facts["training"][0]["made"]
    assert [sum(counts.values()) for counts in sft["counts"].values()] == [24 * 2, 24 * 4, 24 * 8]
    for made, stage in ((sft, "sft-rows"), (pairs, "pairs")):
        rows = {agent: one["rows"] for agent, one in made["agents"].items()}
        assert sum(rows.values()) == next(row["rows"] for row in facts["stages"] if row["name"] == stage)
    spread = {row["agent"]: row for row in facts["training"][0]["values"]}
    assert [row["n"] for row in spread.values()] == [48, 96, 192]
    assert all(abs(sum(row["bins"]) - 1) < 1e-9 for row in spread.values())
    assert spread["refiner"]["bins"][1:5] == [0, 0, 0, 0]


def test_self_correction_agrees_with_the_accuracies(whole: Path) -> None:
    facts = gather(whole)
    roles = {row["agent"]: row["systems"] for row in facts["roles"]["rows"]}
    inside = {row["system"]: row for row in facts["moves"]["inside"]}
    assert set(inside) == {"base", "debate", "malt"} and inside["malt"]["n"] == 12
    for name in ("base", "malt"):
        row = inside[name]
        assert row["right->right"] + row["right->wrong"] == pytest.approx(roles["generator"][name].mean)
        assert row["right->right"] + row["wrong->right"] == pytest.approx(roles["refiner"][name].mean)
    trained = next(row for row in facts["comparison"]["rows"] if row["system"] == "MALT + MV@2")
    across = {row["system"]: row for row in facts["moves"]["across"]}
    assert across["malt"]["right->right"] + across["malt"]["wrong->right"] == pytest.approx(trained["accuracy"])
    assert list(facts["debates"][0]["rounds"]) == ["round-1", "round-2"]
    assert facts["roles"]["rows"][0]["gain"].diff == 0  # the same script and seeds before and after


def test_a_place_that_recipes_share_is_called_as_its_own_recipe_calls_it() -> None:
    table = {"played": {"turns": {"table": "key"}}}
    stages = [
        {"name": "test/team/turns", "state": "sealed", "key": "key", "inputs": {}},
        {"name": "comparison", "state": "sealed", "key": "", "inputs": {"systems": [{"name": "MAPoRL", **table}]}},
    ]
    assert names.names_of(stages, "Maporl", ["team"]) == {"team": "MAPoRL"}
    assert names.names_of(stages, "Evaluation", ["team"]) == {"team": "Evaluated team"}


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_moves_are_the_shares_of_the_transitions(pairs: list[tuple[bool, bool]]) -> None:
    found = measures.moves([(float(a), float(b)) for a, b in pairs])
    counts = transitions([a for a, _ in pairs], [b for _, b in pairs])
    assert found == {"n": len(pairs), **{name: pytest.approx(n / len(pairs)) for name, n in counts.items()}}


def test_a_tied_vote_moves_in_parts() -> None:
    found = measures.moves([(1.0, 0.5), (0.0, 0.5)])
    assert found and [found[name] for name in measures.MOVES] == [0.25, 0.25, 0.25, 0.25]
    assert measures.moves([]) is None


# ---- debates between generators and critics


@dataclass(frozen=True)
class Maft:
    """The options that a report reads, under the recipe's name."""

    task: dict[str, Any] = field(default_factory=lambda: {"task": "sums", "train": 12, "test": 6})
    model: str = "scripted-model"
    objective: str = "sft"
    iterations: int = 1
    baselines: tuple[str, ...] = ("majority", "debate", "single-ft", "union-ft")
    seed: int = 5


def debated(run: Run, place: str, split: str, speakers: Any) -> Played:
    team = Team("scripted-model", exchange.seats([name for names in speakers for name in names], Sampling()))
    protocol = partial(exchange.exchange, speakers=speakers, summary="none")
    turns = run.work(f"{place}/turns", play, split, 6, team, protocol, Rollout(1, 11))
    return Played(turns, run.stage(f"{place}/grades", grade, turns))


@pytest.fixture(scope="module")
def debates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of maft of two generators and two critics, and a single model in all of their places."""
    folder = tmp_path_factory.mktemp("debates") / "run"
    roles, single = exchange.by_roles(2, 2), exchange.by_one("solver", 2, 2)
    alone = exchange.by_one("generator-1", 1, 1)
    with Run(folder, Maft(), "teamtune maft") as run:
        held = debated(run, "iteration-1", "train", roles)
        for prefix, learner in (("", ""), ("union-ft/", "solver")):
            place = f"{prefix}iteration-1"
            credit = run.stage(f"{place}/credit", consensus, held.turns, held.grades)
            learners = {name: learner or name for group in roles for name in group}
            run.stage(f"{place}/sft-rows", debate_rows, held.turns, credit, learners)
        players = {"base-solo": alone, "base": roles, "single-ft-1": single, "iteration-1": roles}
        systems = [System(name, debated(run, f"test/{name}", "test", who), 1) for name, who in players.items()]
        for one in systems[1:]:
            run.stage(f"test/{one.name}/rounds", round_rows, one.played.turns, one.played.grades)
        debated(run, "transfer/other-2/iteration-1", "test", roles)
        run.stage("comparison", compare, systems, against="iteration-1")
    write_report(folder)
    return folder


def test_what_agents_of_a_debate_mend_is_what_its_flips_say(debates: Path) -> None:
    """The critic of a place goes on from the generator there, and all places may have one name."""
    facts = gather(debates)
    inside = {row["system"]: row for row in facts["moves"]["inside"]}
    assert list(inside) == ["base", "single-ft-1", "iteration-1"]
    for system in facts["team"]["systems"]:
        flips, row = system["rounds"][1]["flips"], inside[system["place"]]
        told = {"right->right": "kept right", "wrong->right": "corrected", "right->wrong": "lost"}
        assert {move: row[move] * 12 for move in told} == pytest.approx({m: flips[name] for m, name in told.items()})
        assert row["wrong->right"] and row["n"] == 12


def test_the_trained_team_of_a_debate_stands_beside_the_untrained_one(debates: Path) -> None:
    facts = gather(debates)
    accuracy = {row["system"]: row["accuracy"] for row in facts["comparison"]["rows"]}
    across = {row["system"]: row["right->right"] + row["wrong->right"] for row in facts["moves"]["across"]}
    assert across == pytest.approx({name: accuracy[name] for name in ("base", "iteration-1")})
    assert "| → MAFT, iteration 1 |" in (debates / "report.md").read_text()


def test_who_learns_from_the_turns_of_others_has_what_was_dropped_told_too(debates: Path) -> None:
    text = (debates / "report.md").read_text()
    own, others = (text.split(f"### SFT rows ({place})")[1].split("###")[0] for place in PLACES)
    lines = {line.split(" | ")[0].strip("| *"): line.split(" | ")[1:] for line in others.splitlines() if "|" in line}
    assert [cell.strip("| ") for cell in lines["Turns"]][-1] == "solver"
    sizes = [cell.strip("| ") for cell in lines["problems with SFT rows"]]
    assert set(sizes[:-1]) == {sections.NONE} and int(sizes[-1]) > 0
    told = [line for line in own.splitlines() if line.startswith("| last answer off the label |")]
    assert told and "last answer off the label" in lines


PLACES = ("iteration-1", "union-ft/iteration-1")


def test_answers_to_further_tasks_are_test_data(debates: Path) -> None:
    titles = {key: one["title"] for key, one in sets_of(page_of(debates)).items()}
    assert titles["transfer/other-2/iteration-1"] == "Test on other-2: MAFT, iteration 1"
    assert [key for key, title in titles.items() if title.startswith("Training")] == ["iteration-1/turns"]
    rounds = [one["round"] for one in gather(debates)["training"]]
    assert sorted(rounds) == sorted(PLACES)


# ---- the page


def test_page_is_one_inert_file(whole: Path) -> None:
    text = (whole / "report.html").read_text(encoding="utf-8")
    page = page_of(whole)
    assert page.open == []
    tags = [tag for tag, _ in page.tags]
    assert not {"link", "img", "iframe", "object", "base", "form"} & set(tags)
    for _, attributes in page.tags:
        assert "src" not in attributes and not any(name.startswith("on") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in text and "@import" not in text and "innerHTML" not in page.scripts[1]
    assert tags.count("svg") == 4  # accuracies, differences, two fits
    assert len(page.scripts) == 2 and len(text.encode()) < 3_000_000
    assert "MALT + MV@2 minus" in page.text and "SA | MV@2" in page.text


def test_texts_of_models_cannot_become_markup(whole: Path) -> None:
    text = (whole / "report.html").read_text(encoding="utf-8")
    assert "alert(1)" in text and "<script>alert" not in text and "<img" not in text
    shown = [
        turn for problem in sets_of(page_of(whole))["turns"]["problems"] for turn in problem["episodes"][0]["turns"]
    ]
    assert any(turn["text"].startswith(EVIL) for turn in shown)  # and still is told to the letter
    assert "49" not in re.findall(r"\{\{.*?\}\}", text)


def test_trees_of_many_problems_are_in_the_page(whole: Path) -> None:
    sets = sets_of(page_of(whole))
    assert list(sets) == ["turns", "test/malt", "test/debate", "test/base", "test/base-solo"]
    trees = {problem["id"]: problem for problem in sets["turns"]["problems"]}
    assert len(trees) == 24 and sets["turns"]["total"] == 24
    assert trees["train/0"]["right"] == trees["train/0"]["leaves"] == 8
    assert trees["train/1"]["right"] == 0 and trees["train/1"]["answer"] is None
    (episode,) = trees["train/0"]["episodes"]
    assert [turn["agent"] for turn in episode["turns"]] == ["generator"] * 2 + ["verifier"] * 4 + ["refiner"] * 8
    assert episode["turns"][0] | {"text": ""} == {
        **{"turn": 0, "agent": "generator", "tag": "generate", "parents": [], "text": "", "prompt": 0},
        **{"parsed": "1", "score": 1.0, "value": 1.0, "positive": True, "sft": True},
    }
    assert [len(one["episodes"]) for one in sets["test/malt"]["problems"]] == [2] * 6
    assert all(one["episodes"][0]["rounds"] for one in sets["test/debate"]["problems"])
    assert not any(one["episodes"][0]["rounds"] for one in sets["test/malt"]["problems"])


def test_pairs_are_marked_on_both_sides(whole: Path) -> None:
    trees = sets_of(page_of(whole))["turns"]["problems"]
    over = under = 0
    for problem in trees:
        turns = {turn["turn"]: turn for turn in problem["episodes"][0]["turns"]}
        for turn in turns.values():
            for _, other in turn.get("over", ()):
                assert [0, turn["turn"]] in turns[other]["under"] and turn["agent"] != "generator"
                assert turn["value"] > turns[other]["value"]
            over += len(turn.get("over", ()))
            under += len(turn.get("under", ()))
    assert over == under == sum(problem["pairs"] for problem in trees) == len(train_pairs(trees)) > 0


def train_pairs(trees: Sequence[Row]) -> set[tuple[str, int, int]]:
    turns = [(problem["id"], turn) for problem in trees for turn in problem["episodes"][0]["turns"]]
    return {(name, turn["turn"], other) for name, turn in turns for _, other in turn.get("over", ())}


def test_prompts_tell_the_texts_they_show_by_number(whole: Path) -> None:
    problem = sets_of(page_of(whole))["turns"]["problems"][2]
    turns = {turn["turn"]: turn for turn in problem["episodes"][0]["turns"]}
    assert len(problem["prompts"]) == 1 + 2 + 4  # one for all siblings
    for turn in turns.values():
        (_, system), (role, parts) = problem["prompts"][turn["prompt"]]
        assert system[0].startswith(f"You are the {turn['agent']}") and role == "user"
        assert [part for part in parts if isinstance(part, int)] == turn["parents"]
        told = "".join(turns[part]["text"] if isinstance(part, int) else part for part in parts)
        assert told.startswith(problem["question"].split("\n")[0]) or told.startswith("Problem: What is")


@given(st.lists(st.text("ab\n", max_size=4), max_size=4), st.text("ab\n", max_size=20))
def test_quoted_gives_the_content_back(texts: list[str], content: str) -> None:
    parts = quoted(content, list(enumerate(texts)))
    assert "".join(texts[part] if isinstance(part, int) else part for part in parts) == content


@given(st.lists(st.sampled_from("xyz"), max_size=30), st.integers(1, 12))
def test_mix_takes_evenly_from_every_kind(kinds: list[str], limit: int) -> None:
    names = [str(i) for i in range(len(kinds))]
    taken = mix(names, lambda name: kinds[int(name)], limit)
    assert taken == sorted(taken, key=int) and len(taken) == min(limit, len(names))
    have = {kind: [kinds[int(name)] for name in taken].count(kind) for kind in set(kinds)}
    for kind, count in have.items():
        assert count == kinds.count(kind) or count >= max(have.values()) - 1


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_embedded_data_comes_back_and_holds_no_markup(data: Any) -> None:
    text = embedded(data)
    assert json.loads(text) == data and not set("<>&") & set(text)


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_axis_covers_its_range(low: float, width: float) -> None:
    ticks = svg.axis(low, low + width)
    assert 2 <= len(ticks) <= 12 and ticks == sorted(set(ticks))
    slack = 1e-6 * max(1.0, abs(low), width)
    assert ticks[0] <= low + slack and ticks[-1] >= low + width - slack


def test_long_curves_are_thinned_to_means() -> None:
    points = svg.thinned([(float(i), float(i % 2)) for i in range(3200)])
    assert len(points) == svg.MOST_POINTS and {y for _, y in points} == {0.5}


def test_script_is_valid(whole: Path) -> None:
    """Where there is a JavaScript runtime, it parses the script."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here")
    script = page_of(whole).scripts[1]
    assert subprocess.run([node, "--check", "-"], input=script, text=True).returncode == 0


# ---- runs that are not whole


def test_a_run_with_nothing_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Run(tmp_path / "new", Malt()) as run:
        md, html = write_report(run.path)
        print_comparison(run.path)
        show_run(run.path)
    assert "not finished: problems/train (missing), turns (missing), grades (missing)" in md.read_text()
    assert "no comparison in this run yet" in md.read_text()
    page = Page(html.read_text(encoding="utf-8"))
    assert page.open == [] and sets_of(page) == {}
    assert capsys.readouterr().out.splitlines()[0] == "This run holds no comparison of systems yet."


def test_a_run_killed_in_its_rollout(tmp_path: Path) -> None:
    def killed(folder: Path) -> None:
        play_out(folder, problems("train", 4), TEAM, pipeline, Scripted(answer, fail_at=9), Rollout())

    with Run(tmp_path / "r", Malt()) as run:
        (run.path / "turns").mkdir()
        with pytest.raises(RuntimeError, match="scripted failure"):
            killed(run.path / "turns")
        md, _ = write_report(run.path)
    assert "turns (unfinished, 8 lines logged)" in md.read_text()


@pytest.mark.parametrize(
    "gone", ["grades", "values", "pairs", "test/malt/turns", "test/base-solo/grades", "comparison"]
)
def test_a_stage_can_be_missing_or_unreadable(whole: Path, tmp_path: Path, gone: str) -> None:
    folder = tmp_path / "r"
    shutil.copytree(whole, folder)
    (folder / gone / "rows.parquet").write_bytes(b"PAR1 not really")
    assert f"{gone} (unreadable)" in write_report(folder)[0].read_text()
    shutil.rmtree(folder / gone)
    md, html = write_report(folder)
    assert f"{gone} (missing)" in md.read_text()
    assert len(sets_of(Page(html.read_text(encoding="utf-8")))["turns"]["problems"]) == 24


def test_baselines_and_unknown_recipes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Run(tmp_path / "b", Baselines()) as run:
        systems = [System("SA", played(run, "base-solo", TEAM, solo, 4))]
        systems.append(System("MA", played(run, "base", TEAM, pipeline, 2)))
        run.stage("comparison", compare, systems, against="SA")
        md, html = write_report(run.path)
        print_comparison(run.path)
    assert "| **SA** |" in md.read_text() and "test/debate/turns (missing)" in md.read_text()
    assert set(sets_of(Page(html.read_text(encoding="utf-8")))) == {"test/base", "test/base-solo"}
    assert "SA minus the line" in capsys.readouterr().out
    with Run(tmp_path / "u", {"anything": 1}) as run:
        assert "This run holds no stage yet." in write_report(run.path)[0].read_text()


def test_rounds_are_told_apart(tmp_path: Path) -> None:
    with Run(tmp_path / "r", Malt(rounds=2)) as run:
        train(run, "round-1/", count=5)
        run.work("round-2/turns", play, "train", 5, TEAM, partial(pipeline, width=2), Rollout())
        md, html = write_report(run.path)
    text = md.read_text()
    assert "### SFT rows (round-1)" in text and "round-2/grades (missing)" in text
    assert "| round-1/sft: generator |" in text
    assert list(sets_of(Page(html.read_text(encoding="utf-8")))) == ["round-1/turns", "round-2/turns"]


def test_a_page_of_long_texts_holds_fewer_problems(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("teamtune.reporting.viewer.MOST_BYTES", 1000)
    viewer = gather(whole)["viewer"]
    assert viewer["shortened"] and len(viewer["sets"][0]["problems"]) == 20
    assert all(len(one["problems"]) == 2 for one in viewer["sets"][1:])


def test_a_torn_metrics_line_is_left_alone(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    shutil.copytree(whole, folder)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "sft", "st')
    before = (folder / "metrics.jsonl").read_bytes()
    assert gather(folder)["curves"] == gather(whole)["curves"]
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_no_run_folder_is_one_clear_sentence(tmp_path: Path) -> None:
    for function in (write_report, show_run, print_comparison):
        with pytest.raises(TeamtuneError, match=r"is no run folder: it holds no config\.json"):
            function(tmp_path)
    (tmp_path / "config.json").write_text("[1")
    with pytest.raises(TeamtuneError, match=r"config\.json is corrupt"):
        write_report(tmp_path)


def test_show_and_comparison_print_what_there_is(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_run(whole)
    out = capsys.readouterr().out
    for told in ("teamtune malt --out sums-0", "scripted-model", "test/malt/grades", "sealed", "verifier: groups 48"):
        assert told in " ".join(out.split())
    print_comparison(whole)
    compared = capsys.readouterr().out
    assert compared.strip() in out
    assert "MALT + MV@2" in compared and "SA | MV@2" in compared and "Difference" in compared


def test_reports_need_no_torch(whole: Path) -> None:
    code = "import sys; from teamtune.report import *; write_report(sys.argv[1]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(whole)]).returncode == 0


def test_the_same_run_gives_the_same_report(whole: Path) -> None:
    before = [path.read_bytes() for path in write_report(whole)]
    assert [path.read_bytes() for path in write_report(whole)] == before


def test_shares_of_all_updates_are_of_answers_where_discussions_end_early():
    """Two updates of fifty came to turn 2, one answer and three: all of the first was penalised, none of the others."""
    lines = [{"stage": "ppo", "step": n, "kl_weight": 0.0, "agent-1-turn-1/reward": 1.0} for n in range(50)]
    for line in lines:
        line |= {"agent-1-turn-1/discussions": 4.0, "agent-1-turn-1/penalty: too short": 0.0}
    for n, share, count in ((3, 1.0, 1.0), (7, 0.0, 3.0)):
        lines[n] |= {"agent-1-turn-2/reward": 1.0, "agent-1-turn-2/discussions": count}
        lines[n] |= {"agent-1-turn-2/penalty: too short": share}
    told = next(t for t in discussion_sections.learning(lines)["tables"] if "of all updates" in t["title"])
    assert told["columns"] == ["Agent and turn", "penalty: too short"]
    assert told["rows"] == [["agent-1-turn-1", "0.0"], ["agent-1-turn-2", "25.0"]]
