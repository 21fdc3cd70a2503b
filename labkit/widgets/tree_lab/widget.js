// TreeLab: build a candidate tree and see what it gains and costs.
import { button, clamp, count, duration, el, figures, icon, onWidth, percent, probability, recordWidget, reveal, sizeCanvas, slider, svg, token } from "../shared/prelude.js";
import { headColor } from "../shared/trace.js";

// ---------------------------------------------------------------------------------------------
// Trees: lists of paths, a path the ranks on the way to a node. Pure functions.

/** A path as text: its key, and its name ("1·2": head 1's first choice, then head 2's second). */
export function nameOf(path) {
  return path.map((rank) => rank + 1).join("·");
}

/** Paths by depth, then by rank. */
export function ordered(paths) {
  return [...paths].sort((a, b) => a.length - b.length || a.reduce((sum, rank, place) => sum || rank - b[place], 0));
}

/** Is `above` on the way to `path`, or `path` itself? */
export function leadsTo(above, path) {
  return above.length <= path.length && above.every((rank, place) => rank === path[place]);
}

/** The tree without that node and all below it. */
export function without(tree, path) {
  return tree.filter((other) => !leadsTo(path, other));
}

/** A head's ranks by falling acceptance. */
export function ranked(shares) {
  return shares.map((_, rank) => rank).sort((a, b) => shares[b] - shares[a] || a - b);
}

/** The best child that a node (`[]`: the root) does not have yet, or null. */
export function nextChild(study, tree, parent) {
  const shares = study.accept[parent.length];
  if (!shares) return null;
  const taken = new Set(tree.filter((path) => path.length === parent.length + 1 && leadsTo(parent, path)).map((path) => path.at(-1)));
  const rank = ranked(shares).find((each) => !taken.has(each));
  return rank === undefined ? null : [...parent, rank];
}

/** The chance that the whole path is accepted: what the node adds to the tokens of a step. */
export function gain(study, path) {
  return path.reduce((chance, rank, head) => chance * study.accept[head][rank], 1);
}

/** Expected tokens per step: the base model's own one, plus every node's gain. */
export function tokensPerStep(study, tree) {
  return tree.reduce((sum, path) => sum + gain(study, path), 1);
}

/** A check's time in plain steps, on straight lines between what was measured. */
export function verifyCost(study, nodes) {
  const high = study.verify.findIndex((point) => nodes <= point.nodes);
  if (high <= 0) return high === 0 ? study.verify[0].ratio : NaN;
  const [a, b] = [study.verify[high - 1], study.verify[high]];
  return a.ratio + ((nodes - a.nodes) / (b.nodes - a.nodes)) * (b.ratio - a.ratio);
}

/** The drafting's time in plain steps. */
export function draftCost(study, tree) {
  const deepest = Math.max(0, ...tree.map((path) => path.length));
  return study.draft_head.slice(0, deepest).reduce((sum, cost) => sum + cost, 0) + study.draft_node * tree.length;
}

/** A step's time in plain steps. */
export function stepCost(study, tree) {
  return draftCost(study, tree) + verifyCost(study, tree.length);
}

/** Predicted tokens per second over those without a draft. */
export function speedup(study, tree) {
  return tokensPerStep(study, tree) / stepCost(study, tree);
}

/** The largest tree whose check was measured. */
export function mostNodes(study) {
  return study.verify.at(-1).nodes;
}

/** Every node at most `depth` deep by falling gain, parents first: at most `most` of them. */
export function byGain(study, depth, most) {
  const orders = study.accept.map(ranked);
  const open = [];
  const push = (above, place) => {
    if (above.length >= depth || place >= orders[above.length].length) return;
    const path = [...above, orders[above.length][place]];
    open.push({ path, place, worth: gain(study, path) });
  };
  const found = [];
  push([], 0);
  while (open.length && found.length < most) {
    let best = 0;
    for (let index = 1; index < open.length; index += 1) if (open[index].worth > open[best].worth) best = index;
    const [{ path, place }] = open.splice(best, 1);
    found.push(path);
    push(path.slice(0, -1), place + 1);
    push(path, 0);
  }
  return found;
}

/**
 * For each number of nodes from 0 on, the tree of that size with the highest predicted speedup:
 * for each depth allowed, nodes by falling gain; the depths compared by speedup.
 */
export function bestTrees(study) {
  const most = mostNodes(study);
  const best = [[]];
  for (let depth = 1; depth <= study.accept.length; depth += 1) {
    const nodes = byGain(study, depth, most);
    for (let size = 1; size <= nodes.length; size += 1) {
      const tree = nodes.slice(0, size);
      if (!best[size] || speedup(study, tree) > speedup(study, best[size]) + 1e-12) best[size] = tree;
    }
  }
  return best.map(ordered);
}

/** The size of the fastest among those trees. */
export function fastest(study, trees) {
  return trees.reduce((best, tree, size) => (speedup(study, tree) > speedup(study, trees[best]) + 1e-12 ? size : best), 0);
}

/** The node whose addition, and the leaf whose loss, changes the tokens of a step the most / least. */
export function bestAddition(study, tree) {
  if (tree.length >= mostNodes(study)) return null;
  const open = [[], ...tree].map((path) => nextChild(study, tree, path)).filter(Boolean);
  return open.reduce((best, path) => (best && gain(study, best) >= gain(study, path) ? best : path), null);
}

/** The leaf that gains the least, or null. */
export function weakestLeaf(study, tree) {
  const leaves = tree.filter((path) => !tree.some((other) => other.length > path.length && leadsTo(path, other)));
  return leaves.reduce((worst, path) => (worst && gain(study, worst) <= gain(study, path) ? worst : path), null);
}

/**
 * Who sees whom in the one check of a tree: row and column 0 are the last committed token, the
 * others the nodes in order. A node sees that token, the nodes on its own path, and itself.
 * @returns {boolean[][]}
 */
export function attentionMask(tree) {
  const all = [[], ...tree];
  return all.map((row) => all.map((column) => leadsTo(column, row)));
}

/** Columns by depth, leaves on rows of their own, a parent next to its first child. */
export function layoutPaths(tree) {
  const places = new Map();
  let rows = 0;
  const visit = (path) => {
    const below = tree.filter((other) => other.length === path.length + 1 && leadsTo(path, other));
    const row = below.length ? Math.min(...below.map(visit)) : rows++;
    places.set(nameOf(path), { path, column: path.length, row });
    return row;
  };
  visit([]);
  return { places, rows };
}

/** Where an arrow key leads from a node (index in `tree`, -1 the root), or null. */
export function labMove(tree, from, key) {
  const layout = layoutPaths(tree);
  const here = from < 0 ? [] : tree[from];
  const index = (path) => (path.length ? tree.findIndex((other) => nameOf(other) === nameOf(path)) : -1);
  if (key === "ArrowLeft") return here.length ? index(here.slice(0, -1)) : null;
  if (key === "ArrowRight") {
    const child = tree.findIndex((path) => path.length === here.length + 1 && leadsTo(here, path));
    return child < 0 ? null : child;
  }
  if (key === "Home") return -1;
  if (key === "End") return tree.length ? tree.length - 1 : null;
  const column = [...layout.places.values()].filter((place) => place.column === here.length).sort((a, b) => a.row - b.row);
  const at = column.findIndex((place) => nameOf(place.path) === nameOf(here));
  const next = key === "ArrowUp" ? column[at - 1] : key === "ArrowDown" ? column[at + 1] : null;
  return next ? index(next.path) : null;
}

// ---------------------------------------------------------------------------------------------
// The view

export default recordWidget({ name: "TreeLab", kind: "treestudy", version: 1, most: 1, draw: drawLab });

const ORDINAL = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"];
const rankWords = (rank) => ORDINAL[rank] ?? `${rank + 1}th`;

function drawLab(place) {
  const { root, signal, say, listen, put, get } = place;
  const study = place.records[0];
  const most = mostNodes(study);
  const trees = bestTrees(study);
  const top = fastest(study, trees);
  const tree = () => ordered(get("nodes"));

  const readout = makeReadout(study, trees, top);
  const canvas = makeTreeView(place, study, { choose, add, remove });
  const chart = makeChart(place, study, trees, (size) => take(size));
  const mask = makeMask(place);
  const told = el("p", { class: "tl-told" });

  const size = slider("Best tree of", { min: 0, max: trees.length - 1, value: 0, words: (many) => count(many, "node"), input: (many) => take(many) });
  const actions = {
    optimum: button("Fastest tree", { icon: "spark", key: "b", click: () => take(top) }),
    grow: button("Add the best node", { icon: "plus", key: "a", click: () => addPath(bestAddition(study, tree())) }),
    shrink: button("Drop the weakest", { icon: "minus", key: "d", click: () => { const leaf = weakestLeaf(study, tree()); if (leaf) drop(leaf); } }),
    chain: button("Chain", { click: () => set(study.accept.map((_, depth) => study.accept.slice(0, depth + 1).map((shares) => ranked(shares)[0])).slice(0, most), [], "A chain of each head's top choice.") }),
    clear: button("Clear", { icon: "reset", click: () => set([], [], "No draft: a plain step.") }),
  };
  const child = button("Add a child", { icon: "plus", key: "Enter", click: () => add(get("selected")) });
  const cut = button("Remove", { icon: "cross", key: "Delete", click: () => remove(get("selected")) });

  root.append(
    el("div", { class: "tl-title" }, el("p", { class: "lk-title" }, study.name, el("span", { class: "tl-on" }, " on "), study.base),
      el("p", { class: "tl-facts" }, `acceptance from ${study.places.toLocaleString("en")} places · a plain step takes ${duration(study.token_s)}`)),
    readout.node,
    el("div", { class: "lk-bar", role: "group", "aria-label": "Build the tree" }, actions.optimum, size.field, actions.grow, actions.shrink, actions.chain, actions.clear),
    el("div", { class: "tl-board" },
      el("div", { class: "tl-left" }, canvas.node, el("div", { class: "tl-under" }, told, el("span", { class: "lk-group" }, child, cut)), chart.node),
      el("div", { class: "tl-side" }, mask.node)));

  root.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.defaultPrevented || event.target.closest("input")) return;
    const action = { a: actions.grow, d: actions.shrink, b: actions.optimum }[event.key];
    if (!action) return;
    event.preventDefault();
    if (!action.disabled) action.click();
  }, { signal });

  function set(paths, selectedPath, words) {
    const next = ordered(paths);
    place.model.set("nodes", next);
    place.model.set("selected", selectedPath.length ? next.findIndex((path) => nameOf(path) === nameOf(selectedPath)) : -1);
    place.model.save_changes();
    say(`${words} ${spokenReadout(next)}`);
  }
  function spokenReadout(paths) {
    return `${count(paths.length, "node")}, ${tokensPerStep(study, paths).toFixed(2)} tokens a step, speedup ${speedup(study, paths).toFixed(2)}.`;
  }
  function take(many) {
    set(trees[many], [], `Best tree of ${count(many, "node")}.`);
  }
  function addPath(path) {
    if (path) set([...tree(), path], path, `Added: ${wordsOf(path)}.`);
    else say(tree().length >= most ? `The check of more than ${most} nodes was not measured.` : "There is nothing left to add here.");
  }
  function add(index) {
    const now = tree();
    addPath(now.length >= most ? null : nextChild(study, now, index < 0 ? [] : now[index]));
  }
  function drop(path) {
    const now = tree();
    const left = without(now, path);
    set(left, path.slice(0, -1), `Removed ${count(now.length - left.length, "node")}.`);
  }
  function remove(index) {
    if (index >= 0) drop(tree()[index]);
  }
  function choose(index) {
    put("selected", index);
  }
  function wordsOf(path) {
    return `head ${path.length}'s ${rankWords(path.at(-1))} choice${path.length > 1 ? ` after ${nameOf(path.slice(0, -1))}` : ""}`;
  }

  function show() {
    const now = tree();
    const selected = clamp(get("selected"), -1, now.length - 1);
    canvas.draw(now, selected);
    chart.draw(now);
    mask.draw(now, selected);
    readout.draw(now);
    size.set(now.length);
    const path = selected < 0 ? [] : now[selected];
    told.replaceChildren(...tell(now, path));
    child.disabled = now.length >= most || !nextChild(study, now, path);
    cut.disabled = selected < 0;
    actions.grow.disabled = !bestAddition(study, now);
    actions.shrink.disabled = now.length === 0;
    actions.clear.disabled = now.length === 0;
    actions.optimum.setAttribute("aria-pressed", String(now.map(nameOf).join() === trees[top].map(nameOf).join()));
  }
  function tell(now, path) {
    if (!path.length) return [el("strong", {}, "The last committed token. "), "Every draft starts after it."];
    const own = study.accept[path.length - 1][path.at(-1)];
    const rest = without(now, path);
    const change = speedup(study, now) / speedup(study, rest) - 1;
    const branch = now.length - rest.length > 1 ? "this branch" : "this node";
    const words = wordsOf(path);
    return [el("strong", {}, `Node ${nameOf(path)}: `), `${words}. Accepted in ${percent(own)} of the cases where it is tested; `,
      `the whole path in ${percent(gain(study, path))}, so it adds ${figures(gain(study, path), 2)} tokens a step. `,
      Math.abs(change) < 0.0005 ? `With ${branch} the tree is as fast as without.` : `With ${branch} the tree is ${figures(100 * Math.abs(change), 2)}% ${change > 0 ? "faster" : "slower"} than without.`];
  }

  listen("nodes", show);
  listen("selected", show);
  show();
  canvas.follow(show);
  return { theme: show };
}

function makeReadout(study, trees, top) {
  const names = [["tokens", "expected tokens per step"], ["cost", "cost of a step, in plain steps"], ["speed", "predicted speedup"], ["nodes", "nodes"]];
  const values = Object.fromEntries(names.map(([name]) => [name, el("span", { class: `tl-figure tl-${name}` })]));
  const node = el("div", { class: "tl-readout" }, names.map(([name, words]) => el("div", {}, el("span", { class: "lk-label" }, words), values[name])));
  let before = null;
  function draw(tree) {
    const now = { tokens: tokensPerStep(study, tree), cost: stepCost(study, tree), speed: speedup(study, tree), nodes: tree.length };
    const best = speedup(study, trees[top]);
    for (const [name] of names) {
      const change = before ? now[name] - before[name] : 0;
      const shown = name === "nodes" ? String(now[name]) : `${now[name].toFixed(2)}${name === "tokens" ? "" : " ×"}`;
      const sign = Math.abs(change) < (name === "nodes" ? 0.5 : 0.005) ? "" : `${change > 0 ? "+" : "−"}${name === "nodes" ? Math.abs(change) : Math.abs(change).toFixed(2)}`;
      values[name].replaceChildren(shown, el("small", {}, sign));
    }
    values.cost.append(el("span", { class: "tl-note" }, `draft ${draftCost(study, tree).toFixed(2)} + check ${verifyCost(study, tree.length).toFixed(2)}`));
    values.speed.append(el("span", { class: "tl-note" }, now.speed > best - 0.0005 ? "no tree is faster" : `the fastest tree: ${best.toFixed(2)} ×`));
    before = now;
  }
  return { node, draw };
}

// The tree, drawn left to right; every node has a handle that adds its next child.

const TALL = 30;
const STEP = 38;

function makeTreeView({ root, signal, tip }, study, { choose, add, remove }) {
  const picture = svg("svg", { class: "tl-tree", role: "tree", "aria-label": "Candidate tree" });
  const holder = el("div", { class: "tl-scroll" }, picture);
  let room = 500;
  let tree = [];
  let items = [];

  function draw(now, selected) {
    const hadFocus = picture.contains(document.activeElement);
    tree = now;
    const { places, rows } = layoutPaths(tree);
    const columns = study.accept.length;
    const gap = room < 560 ? 28 : 34;
    const wide = Math.floor(clamp((room - 76) / columns - gap, 70, 118));
    const rootWide = 44;
    const left = (column) => (column === 0 ? 2 : 2 + rootWide + gap + (column - 1) * (wide + gap));
    const right = (column) => left(column) + (column === 0 ? rootWide : wide);
    const y = (row) => 24 + row * STEP;
    const width = right(columns) + 24;
    const height = y(Math.max(0, rows - 1)) + TALL + 6;
    for (const [name, value] of [["viewBox", `0 0 ${width} ${height}`], ["width", width], ["height", height]]) picture.setAttribute(name, value);
    const titles = svg("g", { class: "tl-columns", "aria-hidden": "true" });
    for (let depth = 1; depth <= columns; depth += 1) titles.append(svg("text", { x: left(depth) + wide / 2, y: 12, "text-anchor": "middle", style: `fill: var(${headColor(depth)})` }, `head ${depth}`));
    const edges = svg("g", { class: "tl-edges", "aria-hidden": "true" });
    const handles = svg("g", { "aria-hidden": "true" });
    items = [];
    const mark = ({ path, column, row }, index) => {
      const chosen = index === selected;
      const own = path.length ? study.accept[path.length - 1][path.at(-1)] : 1;
      const worth = gain(study, path);
      const siblings = path.length ? tree.filter((other) => other.length === path.length && leadsTo(path.slice(0, -1), other)) : [path];
      const item = svg("g", {
        class: `tl-node ${path.length ? "" : "tl-root"}`, role: "treeitem", tabindex: chosen ? 0 : -1, "data-index": index,
        "aria-level": column + 1, "aria-setsize": siblings.length, "aria-posinset": siblings.indexOf(path) + 1, "aria-selected": String(chosen),
        "aria-label": path.length ? `${nameOf(path)}: head ${path.length}, rank ${path.at(-1) + 1}, accepted ${probability(own)}, whole path ${probability(worth)}` : "Root: the last committed token",
        transform: `translate(${left(column)} ${y(row)})`, style: `--c: var(${headColor(column)}); --w: ${Math.round(100 * Math.sqrt(worth))}%`,
      }, svg("rect", { class: "tl-box", width: right(column) - left(column), height: TALL, rx: path.length ? 7 : 15 }));
      if (path.length) {
        item.append(
          svg("text", { class: "tl-rank", x: 8, y: 16 }, `#${path.at(-1) + 1}`),
          svg("text", { class: "tl-share", x: wide - 8, y: 16, "text-anchor": "end" }, probability(own)),
          svg("rect", { class: "tl-under-bar", x: 8, y: 22, width: wide - 16, height: 3, rx: 1.5 }),
          svg("rect", { class: "tl-bar", x: 8, y: 22, width: Math.max(1, worth * (wide - 16)), height: 3, rx: 1.5 }));
        const above = places.get(nameOf(path.slice(0, -1)));
        const [x0, x1, y0, y1] = [right(above.column), left(column), y(above.row) + TALL / 2, y(row) + TALL / 2];
        const bend = x1 - 14;
        edges.append(svg("path", { class: "tl-edge", style: `--c: var(${headColor(column)}); --s: ${(1 + 4 * worth).toFixed(2)}`, d: y0 === y1 ? `M${x0} ${y0}H${x1}` : `M${x0} ${y0}H${x0 + 4}C${bend} ${y0} ${x0 + 4} ${y1} ${x1} ${y1}` }));
      } else item.append(svg("text", { x: rootWide / 2, y: 19, "text-anchor": "middle" }, "text"));
      if (tree.length < mostNodes(study) && nextChild(study, tree, path)) {
        const handle = svg("g", { class: "tl-handle", "data-index": index, transform: `translate(${right(column) + 11} ${y(row) + TALL / 2})` },
          svg("circle", { class: "tl-reach", r: 12 }), svg("circle", { class: "tl-ring", r: 7 }), svg("path", { d: "M-3 0H3M0 -3V3" }));
        handles.append(handle);
      }
      items.push(item);
    };
    mark(places.get(""), -1);
    tree.forEach((path, index) => mark(places.get(nameOf(path)), index));
    picture.replaceChildren(titles, edges, ...items, handles);
    const chosen = items.find((item) => Number(item.dataset.index) === selected);
    if (hadFocus) chosen?.focus({ preventScroll: true });
    if (chosen) reveal(chosen, holder, 24);
  }
  const indexAt = (target) => target.closest?.("[data-index]");
  picture.addEventListener("click", (event) => {
    const found = indexAt(event.target);
    if (!found) return;
    tip.hide();
    const index = Number(found.dataset.index);
    if (found.classList.contains("tl-handle")) add(index);
    else choose(index);
    picture.querySelector("[tabindex='0']")?.focus({ preventScroll: true });
  }, { signal });
  picture.addEventListener("keydown", (event) => {
    const found = indexAt(event.target);
    if (!found || event.altKey || event.ctrlKey || event.metaKey) return;
    const index = Number(found.dataset.index);
    if (event.key === "Enter" || event.key === "+") add(index);
    else if (event.key === "Delete" || event.key === "Backspace" || event.key === "-") remove(index);
    else if (["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) {
      const next = labMove(tree, index, event.key);
      if (next !== null) {
        choose(next);
        items.find((item) => Number(item.dataset.index) === next)?.focus({ preventScroll: true });
      }
    } else return;
    event.preventDefault();
  }, { signal });
  picture.addEventListener("pointerover", (event) => {
    const handle = event.target.closest?.(".tl-handle");
    if (!handle) return tip.hide();
    const path = nextChild(study, tree, Number(handle.dataset.index) < 0 ? [] : tree[Number(handle.dataset.index)]);
    const change = speedup(study, [...tree, path]) - speedup(study, tree);
    return tip.show(handle.getBoundingClientRect(), `Add ${nameOf(path)}: +${figures(gain(study, path), 2)} tokens a step, speedup ${change < 0 ? "−" : "+"}${Math.abs(change).toFixed(3)}`);
  }, { signal });
  picture.addEventListener("pointerleave", () => tip.hide(), { signal });
  const follow = (redraw) => onWidth(holder, (width) => { room = width - 6; redraw(); }, signal);
  return { node: holder, draw, follow };
}

// What the best tree of each size would give, and what this tree gives.

function makeChart({ signal }, study, trees, take) {
  const picture = svg("svg", { class: "tl-chart", role: "img" });
  const holder = el("div", { class: "tl-plot" }, el("p", { class: "lk-subtitle" }, "The best tree of each size"), picture);
  const sizes = trees.map((_, size) => size);
  const curves = [
    ["tokens", "tokens per step", (tree) => tokensPerStep(study, tree)],
    ["cost", "cost of a step", (tree) => stepCost(study, tree)],
    ["speed", "speedup", (tree) => speedup(study, tree)],
  ].map(([name, words, value]) => ({ name, words, value, points: trees.map(value) }));
  const height = 200;
  let width = 320;
  let tree = [];

  function draw(now) {
    tree = now;
    const [left, right, top, foot] = [30, 12, 8, 30];
    const tallest = Math.max(2, ...curves.flatMap(({ points, value }) => [...points, value(tree)])) * 1.06;
    const x = (size) => left + (size / Math.max(1, sizes.length - 1)) * (width - left - right);
    const y = (value) => height - foot - (value / tallest) * (height - top - foot);
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    picture.setAttribute("width", width);
    picture.setAttribute("height", height);
    picture.setAttribute("aria-label", `Tokens per step, cost and speedup against nodes. This tree: ${count(tree.length, "node")}, speedup ${speedup(study, tree).toFixed(2)}.`);
    const stride = tallest > 6 ? 2 : 1;
    const rules = [];
    for (let value = 0; value <= tallest; value += stride) {
      rules.push(svg("path", { class: `tl-rule${value === 1 ? " tl-one" : ""}`, d: `M${left} ${y(value)}H${width - right}` }),
        svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, String(value)));
    }
    const ticks = tickSizes(sizes.length - 1).map((size) => svg("text", { x: x(size), y: height - foot + 15, "text-anchor": "middle" }, String(size)));
    const lines = curves.map(({ name, points }) => svg("path", { class: `tl-line tl-line-${name}`, d: `M${points.map((value, size) => `${x(size).toFixed(1)} ${y(value).toFixed(1)}`).join("L")}` }));
    const dots = curves.map(({ name, value }) => mark(name, x(tree.length), y(value(tree))));
    const reach = svg("rect", { class: "tl-reach", x: left, y: top, width: Math.max(0, width - left - right), height: height - top - foot });
    picture.replaceChildren(...rules, ...ticks, svg("text", { x: width - right, y: height - 2, "text-anchor": "end" }, "nodes"),
      svg("path", { class: "tl-here", d: `M${x(tree.length)} ${top}V${height - foot}` }), ...lines, ...dots, reach);
  }
  const mark = (name, x, y) => (name === "tokens" ? svg("circle", { class: `tl-dot tl-dot-${name}`, cx: x, cy: y, r: 4.5 })
    : name === "cost" ? svg("rect", { class: `tl-dot tl-dot-${name}`, x: x - 4, y: y - 4, width: 8, height: 8 })
      : svg("path", { class: `tl-dot tl-dot-${name}`, d: `M${x} ${y - 6}l6 6l-6 6l-6 -6z` }));
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    const share = (event.clientX - box.left - 30) / Math.max(1, width - 42);
    take(clamp(Math.round(share * (sizes.length - 1)), 0, sizes.length - 1));
  }, { signal });
  holder.append(el("p", { class: "tl-legend" }, curves.map(({ name, words }) => el("span", {}, svg("svg", { width: 26, height: 12, "aria-hidden": "true" },
    svg("path", { class: `tl-line tl-line-${name}`, d: "M0 6H26" }), mark(name, 13, 6)), words))));
  onWidth(holder, (wide) => { width = Math.min(wide, 720); draw(tree); }, signal);
  return { node: holder, draw };
}

/** A few round numbers of nodes for the axis. */
export function tickSizes(most) {
  const stride = [1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 128, 200, 256, 500].find((each) => most / each <= 6) ?? 1000;
  return Array.from({ length: Math.floor(most / stride) + 1 }, (_, index) => index * stride);
}

// The attention mask of the one check.

function makeMask({ root, signal, tip }) {
  const canvas = el("canvas", { role: "img" });
  const words = el("p", { class: "tl-sees" });
  const holder = el("div", { class: "tl-mask" }, el("p", { class: "lk-subtitle" }, "Attention mask of the check"), canvas, words);
  let tree = [];
  let selected = -1;
  let room = 300;
  let cell = 10;

  function draw(now, index) {
    tree = now;
    selected = index;
    const mask = attentionMask(tree);
    const many = mask.length;
    cell = clamp(Math.floor((Math.min(room, 340) - 44) / many), 3, 24);
    const lead = 40;
    const side = many * cell;
    const context = sizeCanvas(canvas, lead + side + 2, side + 2);
    const colors = Array.from({ length: 9 }, (_, depth) => token(root, headColor(depth)));
    const ink = token(root, "--lk-ink");
    const gap = cell > 6 ? 1 : 0;
    context.fillStyle = token(root, "--lk-sunken");
    context.fillRect(lead, 0, side, side);
    mask.forEach((row, down) => {
      context.fillStyle = token(root, "--lk-base");
      context.globalAlpha = 0.55;
      context.fillRect(0, down * cell, lead - 6, cell - gap);
      context.globalAlpha = 1;
      row.forEach((sees, across) => {
        if (!sees) return;
        const depth = across === 0 ? 0 : tree[across - 1].length;
        context.fillStyle = colors[depth === 0 ? 0 : ((depth - 1) % 8) + 1];
        context.fillRect(lead + across * cell, down * cell, cell - gap, cell - gap);
      });
    });
    context.strokeStyle = ink;
    context.lineWidth = 2;
    context.strokeRect(1, (selected + 1) * cell + (gap ? 0 : -0.5), lead + side - 1, Math.max(3, cell - gap));
    const path = selected < 0 ? [] : tree[selected];
    const above = path.slice(0, -1).map((_, depth) => nameOf(path.slice(0, depth + 1)));
    const seen = path.length ? ["the text", "the last committed token", ...above.map((name) => `node ${name}`), "itself"] : ["the text", "itself"];
    words.textContent = `Framed row: ${path.length ? `node ${nameOf(path)}` : "the last committed token"}, at position +${path.length}, sees ${seen.slice(0, -1).join(", ")} and ${seen.at(-1)}. Each row is a token, its marks are what it sees; the bars on the left are the text before.`;
    canvas.setAttribute("aria-label", `Attention mask, ${many} by ${many}. ${words.textContent}`);
  }
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const [down, across] = [Math.floor((event.clientY - box.top) / cell), Math.floor((event.clientX - box.left - 40) / cell)];
    if (down < 0 || down > tree.length || across > tree.length) return tip.hide();
    const name = (index) => (index === 0 ? "the last committed token" : `node ${nameOf(tree[index - 1])}`);
    const [row, column] = [down === 0 ? [] : tree[down - 1], across <= 0 ? [] : tree[across - 1]];
    const words = across < 0 ? `${name(down)} sees the text before` : `${name(down)} ${leadsTo(column, row) ? "sees" : "does not see"} ${across === down ? "itself" : name(across)}`;
    return tip.show({ left: event.clientX, width: 0, top: event.clientY, bottom: event.clientY + 12 }, words);
  }, { signal });
  canvas.addEventListener("pointerleave", () => tip.hide(), { signal });
  onWidth(holder, (width) => { room = width; draw(tree, selected); }, signal);
  return { node: holder, draw };
}
