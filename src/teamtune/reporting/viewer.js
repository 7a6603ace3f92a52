"use strict";
// The tree viewer. Texts of models reach the page by textContent alone, never as HTML.
(() => {
  const at = (id) => document.getElementById(id);
  const { sets } = JSON.parse(at("data").textContent);
  if (!sets.length) return;

  const FILTERS = [
    ["All", () => true],
    ["Has pairs", (p) => p.pairs > 0],
    ["All right", (p) => p.leaves > 0 && p.right === p.leaves],
    ["All wrong", (p) => p.leaves > 0 && p.right === 0],
    ["Mixed", (p) => p.right > 0 && p.right < p.leaves],
  ];
  const now = { set: sets[0], filter: 0, problem: null, folded: false };

  /** An element with a class, children (strings become text), and listeners or attributes. */
  function el(tag, name, children = [], attributes = {}) {
    const node = document.createElement(tag);
    if (name) node.className = name;
    for (const [key, value] of Object.entries(attributes)) {
      if (typeof value === "function") node.addEventListener(key, value);
      else node.setAttribute(key, value);
    }
    node.append(...[].concat(children).filter((child) => child !== null && child !== ""));
    return node;
  }

  const graded = (turn) => turn.score !== undefined;
  const side = (turn) => (graded(turn) ? (turn.score === 1 ? "right" : "wrong") : "");
  const sign = (turn) => (graded(turn) ? (turn.score === 1 ? "✓" : "✗") : "·");
  const anchor = (take, turn) => `turn-${take}-${turn}`;
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  function jump(take, turn) {
    const card = at(anchor(take, turn));
    if (!card) return;
    document.querySelectorAll(".flash").forEach((node) => node.classList.remove("flash"));
    card.classList.add("flash");
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "center", behavior: calm.matches ? "auto" : "smooth" });
  }

  const link = (take, turn, told) =>
    el("button", "jump", told ?? `#${turn}`, { type: "button", click: () => jump(take, turn) });

  // ---- one turn

  function pairBadge(name, told, others, take) {
    const links = others.flatMap(([t, i]) => [" ", link(t, i, t === take ? `#${i}` : `pass ${t + 1} #${i}`)]);
    return el("span", `badge ${name}`, [told, ...links]);
  }

  function promptOf(turn, problem, episode) {
    const texts = new Map(episode.turns.map((one) => [one.turn, one.text]));
    const shown = problem.prompts[turn.prompt].map(([role, parts]) => {
      const pieces = parts.map((part) =>
        typeof part === "string" ? part : el("q", "", texts.get(part), { title: `text of turn #${part}` }));
      return [el("div", "", role), el("pre", "text", pieces)];
    });
    const fold = el("details", "prompt", el("summary", "", "prompt"));
    // A page has hundreds of prompts; each is built when it is first opened.
    fold.addEventListener("toggle", () => fold.childElementCount === 1 && fold.append(...shown.flat()));
    return fold;
  }

  function card(turn, problem, episode) {
    const bar = el("p", "bar", [
      el("b", "", turn.agent),
      el("span", "soft number", `#${turn.turn}`),
      graded(turn) ? el("span", `verdict ${side(turn)}`, `${sign(turn)} ${turn.parsed ?? "no answer"}`) : null,
      turn.likely !== undefined ? el("span", "number", `score ${turn.likely.toFixed(3)}`) : null,
      turn.value !== undefined
        ? el("span", "number", [`value ${turn.value.toFixed(2)} `, el("b", "", turn.positive ? "+" : "−")],
            { title: turn.positive ? "positive: above the threshold" : "negative: not above the threshold" })
        : null,
      turn.sft ? el("span", "badge sft", "SFT", { title: "among the SFT rows" }) : null,
      turn.over ? pairBadge("chosen", "▲ chosen over", turn.over, episode.take) : null,
      turn.under ? pairBadge("rejected", "▽ rejected for", turn.under, episode.take) : null,
      turn.cut ? el("span", "soft", "cut off at the token limit") : null,
    ]);
    return el("div", `turn ${side(turn)}`, [bar, el("pre", "text", turn.text), promptOf(turn, problem, episode)],
      { id: anchor(episode.take, turn.turn), tabindex: "-1", role: "group",
        "aria-label": `${turn.agent}, turn ${turn.turn}, ${side(turn) || "not graded"}` });
  }

  // ---- an episode: a tree, or rounds in which everybody reads everybody

  function childrenOf(episode) {
    const below = new Map();
    for (const turn of episode.turns) {
      const above = turn.parents.length ? turn.parents[turn.parents.length - 1] : null;
      below.set(above, [...(below.get(above) ?? []), turn]);
    }
    return (turn) => below.get(turn === null ? null : turn.turn) ?? [];
  }

  function branch(turn, kids, problem, episode, depth) {
    const below = kids(turn);
    const node = el("div", depth ? "" : "root", card(turn, problem, episode));
    if (below.length) {
      const name = depth === 0 && below.length > 1 ? "kids columns" : "kids";
      node.append(el("div", name, below.map((child) => branch(child, kids, problem, episode, depth + 1))));
    }
    return node;
  }

  /** The tree at a glance: a cell a turn, children below; each leads to its turn. */
  function mapOf(episode, kids) {
    const cell = (turn) => {
      const valued = kids(turn).length && turn.value !== undefined;
      const told = valued ? turn.value.toFixed(2) : sign(turn);
      const kind = valued ? (turn.positive ? "right" : "wrong") : side(turn); // what came of it, above the leaves
      const pair = turn.over || turn.under ? " pair" : "";
      const value = valued ? `value ${told}, ${turn.positive ? "positive" : "negative"}, itself ` : "";
      const label = `${turn.agent} #${turn.turn}: ${value}${side(turn) || "not graded"}`;
      const button = el("button", `cell ${kind}${pair}`, told,
        { type: "button", title: label, "aria-label": label, click: () => jump(episode.take, turn.turn) });
      const below = kids(turn);
      return el("div", "", [button, below.length ? el("div", "below", below.map(cell)) : null]);
    };
    return el("div", "map", kids(null).map(cell), { role: "group", "aria-label": "The tree at a glance: values above, leaves below" });
  }

  function rounds(episode, problem) {
    const tags = [...new Set(episode.turns.map((turn) => turn.tag))];
    return tags.map((tag) => el("div", "root", [
      el("p", "bar", el("b", "", tag)),
      el("div", "kids columns",
        episode.turns.filter((turn) => turn.tag === tag).map((turn) => card(turn, problem, episode))),
    ]));
  }

  function showEpisode(episode, problem) {
    const kids = childrenOf(episode);
    const many = problem.episodes.length > 1;
    const node = el("section", "episode", many ? el("h4", "", `Pass ${episode.take + 1}`) : []);
    if (episode.rounds) node.append(...rounds(episode, problem));
    else {
      if (kids(null).length > 1) node.append(mapOf(episode, kids));
      node.append(...kids(null).map((turn) => branch(turn, kids, problem, episode, 0)));
    }
    return node;
  }

  // ---- the problem and the list of problems

  function showProblem() {
    const place = at("problem");
    const problem = now.problem;
    if (!problem) return place.replaceChildren(el("p", "soft", "No problem passes this filter."));
    const told = [
      problem.id,
      problem.leaves ? `${problem.right} of ${problem.leaves} ${problem.leaves > 1 ? "leaves" : "leaf"} right` : "not graded",
      problem.pairs ? `${problem.pairs} preference pairs` : null,
      problem.answer !== null ? `right answer ${problem.answer}` : "no turn found the right answer",
    ].filter((part) => part !== null);
    const fold = el("button", "", now.folded ? "Show full texts" : "Fold long texts", {
      type: "button", click: () => { now.folded = !now.folded; showProblem(); } });
    const chains = problem.episodes.length > 1 && problem.episodes.every((one) => !one.rounds);
    place.classList.toggle("folded", now.folded);
    place.replaceChildren(
      el("h3", "", problem.question),
      el("p", "tools", [told.join(" · "), fold]),
      el("div", chains ? "passes" : "", problem.episodes.map((one) => showEpisode(one, problem))));
  }

  function choose(problem, focus) {
    now.problem = problem;
    for (const button of at("list").querySelectorAll("button")) {
      const mine = problem && button.dataset.id === problem.id;
      button.setAttribute("aria-current", String(Boolean(mine)));
      button.tabIndex = mine ? 0 : -1;
      if (mine && focus) button.focus();
    }
    showProblem();
    if (problem && focus !== undefined)
      history.replaceState(null, "", `#trees/${encodeURIComponent(now.set.key)}/${encodeURIComponent(problem.id)}`);
  }

  function showList(id) {
    const problems = now.set.problems.filter(FILTERS[now.filter][1]);
    const entry = (problem) => el("li", "", el("button", "", [
      el("span", "ask", problem.question),
      el("span", "share", [
        problem.leaves ? el("span", "gauge", el("i", "", [], { style: `width:${(100 * problem.right) / problem.leaves}%` })) : null,
        problem.leaves ? `${problem.right}/${problem.leaves} right` : "",
        problem.pairs ? ` · ${problem.pairs} pairs` : "",
      ]),
    ], { type: "button", "data-id": problem.id, click: () => choose(problem, true) }));
    at("list").replaceChildren(...problems.map(entry));
    at("count").textContent = `${problems.length} problems. Arrow keys go through them.`;
    choose(problems.find((problem) => problem.id === id) ?? problems[0] ?? null);
  }

  at("list").addEventListener("keydown", (event) => {
    const buttons = [...at("list").querySelectorAll("button")];
    const here = buttons.indexOf(document.activeElement);
    const to = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (to === undefined || here < 0) return;
    event.preventDefault();
    buttons[Math.min(Math.max(to, 0), buttons.length - 1)].click();
  });

  function showFilters() {
    const useful = FILTERS.map(([, keeps]) => now.set.problems.filter(keeps).length);
    if (!useful[now.filter]) now.filter = 0;
    at("filter").replaceChildren(el("legend", "hide", "Filter problems"), ...FILTERS.flatMap(([told], index) =>
      useful[index] ? el("button", "", `${told} ${useful[index]}`, {
        type: "button", "aria-pressed": String(index === now.filter),
        click: () => { now.filter = index; showFilters(); showList(now.problem?.id);
          at("filter").querySelector("[aria-pressed=true]").focus(); },
      }) : []));
  }

  function openSet(set, id) {
    now.set = set;
    at("set").value = set.key;
    showFilters();
    showList(id);
  }

  function fromHash() {
    const [, key, id] = location.hash.split("/").map(decodeURIComponent);
    openSet(sets.find((one) => one.key === key) ?? now.set, id ?? now.problem?.id);
  }

  at("set").append(...sets.map((set) => el("option", "", `${set.title} (${set.problems.length} of ${set.total})`, { value: set.key })));
  at("set").addEventListener("change", () => openSet(sets.find((one) => one.key === at("set").value), now.problem?.id));
  addEventListener("hashchange", () => location.hash.startsWith("#trees/") && fromHash());
  at("viewer").hidden = false;
  fromHash();
  if (location.hash.startsWith("#trees/")) at("trees").scrollIntoView();
})();
