// TokenStepper: one generation, step by step.
import { button, choice, clamp, count, duration, el, icon, label, onWidth, paragraphs, percent, probability, recordWidget, reducedMotion, reveal, roving, running, select, shorten, sizeCanvas, spoken, svg, token, visible } from "../shared/prelude.js";
import { ROOT, acceptedPath, headColor, headsOf, originOfTokens, rejectedAt, tokensAfter } from "../shared/trace.js";

// ---------------------------------------------------------------------------------------------
// What to show: pure functions of the record

/**
 * The node worth looking at first in a step: the rejected one that ended the draft, else the last
 * accepted one, else (nothing drafted) the base model's own token, whose index is `nodes.length`.
 */
export function telling(step) {
  const depth = rejectedAt(step);
  if (depth) {
    const path = acceptedPath(step);
    const parent = path.length ? path.at(-1) : ROOT;
    return step.nodes.findIndex((node) => node.tested && !node.accepted && node.parent === parent);
  }
  const path = acceptedPath(step);
  return path.length ? path.at(-1) : step.nodes.length;
}

/** Does the step end in a token of the base model's own (it does not where the end was cut off)? */
export function hasOwnToken(step) {
  return step.committed.length > acceptedPath(step).length;
}

/** The next step after `from` at which a draft was rejected (by that head, 0: by any), or -1. */
export function nextRejection(steps, from, head = 0) {
  for (let index = from + 1; index < steps.length; index += 1) {
    const depth = rejectedAt(steps[index]);
    if (depth && (head === 0 || depth === head)) return index;
  }
  return -1;
}

/**
 * A place for every node of a step: columns by depth, leaves on rows of their own, a parent next to
 * its first child. The base model's own token is one more node, the first child of the accepted
 * path's end, so that it runs straight on and a rejected draft turns off; drafts keep their rank.
 * @returns {{places: Array<{index: number, parent: number, column: number, row: number}>, rows: number, columns: number}}
 *   in the order of `nodes`, the own token (index `nodes.length`) after them; the root is column 0.
 */
export function layoutTree(step) {
  const children = new Map([[ROOT, []]]);
  const add = (index, parent) => children.get(parent).push(index);
  const path = acceptedPath(step);
  const own = step.nodes.length;
  step.nodes.forEach((_, index) => children.set(index, []));
  if (hasOwnToken(step)) add(own, path.length ? path.at(-1) : ROOT);
  step.nodes.forEach((node, index) => add(index, node.parent));
  const places = [];
  let rows = 0;
  let columns = 0;
  const visit = (index, parent, column) => {
    columns = Math.max(columns, column);
    const below = children.get(index) ?? [];
    const row = below.length ? Math.min(...below.map((child) => visit(child, index, column + 1))) : rows++;
    if (index !== ROOT) places[index] = { index, parent, column, row };
    return row;
  };
  const rootRow = visit(ROOT, null, 0);
  return { places: places.filter(Boolean), rows: Math.max(rows, 1), columns, rootRow };
}

/** Marks of the strip: at least `least` pixels each, in as many lines as that takes. */
export function stripLayout(steps, width, { least = 4, most = 40 } = {}) {
  const perLine = Math.max(1, Math.min(steps, Math.floor(width / least)));
  const lines = Math.ceil(steps / perLine);
  const evenly = Math.ceil(steps / lines);
  return { perLine: evenly, lines, cell: Math.min(most, width / evenly) };
}

/** The state of a node in words and in the name of its style. */
export function stateOf(node) {
  return node.accepted ? "accepted" : node.tested ? "rejected" : "untested";
}

/** One step in one or two sentences, as it would be told at the blackboard. */
export function tellStep(step) {
  const { nodes } = step;
  const path = acceptedPath(step);
  const own = hasOwnToken(step) ? `“${visible(step.committed.at(-1).text)}”` : "";
  if (!nodes.length) return own ? `Nothing was drafted; the base model chose ${own}.` : "Nothing was drafted.";
  const deep = Math.max(...nodes.map((node) => node.depth));
  const branched = nodes.length > deep;
  const whole = branched ? "a whole path was" : deep === 1 ? "it was" : "all were";
  const kept = path.length === 0 ? "none was" : path.length === deep ? whole : `${path.length} ${path.length === 1 ? "was" : "were"}`;
  const sentence = `${count(nodes.length, "token")} drafted${branched ? ` as a tree ${deep} deep` : ""}, ${kept} accepted`;
  if (step.ending === "replacement") return `${sentence}; the base model replaced the next with ${own}.`;
  if (step.ending === "bonus") return `${sentence}; ${own} came as a bonus.`;
  if (step.ending === "cut") return `${sentence}; the generation ended here.`;
  return own ? `${sentence}; the base model chose ${own}.` : `${sentence}.`;
}

/** What became of a node, and why, in one sentence. */
export function tellNode(step, index, greedy) {
  const { nodes } = step;
  if (index === ROOT) return "The last committed token: the draft starts after it.";
  if (index >= nodes.length) {
    return {
      replacement: "The base model's own token, in place of the rejected draft.",
      bonus: "A bonus: checking a path that is accepted to its end gives one more token for free.",
      plain: "The base model's own token; nothing was drafted in this step.",
    }[step.ending] ?? "The base model's own token.";
  }
  const node = nodes[index];
  if (!node.tested) {
    const above = node.parent === ROOT ? null : nodes[node.parent];
    if (above && !above.accepted) return above.tested ? "Never tested: the token before it was rejected." : "Never tested: neither was the token before it.";
    return "Never tested: another draft for this place had been accepted already.";
  }
  if (node.draw !== null && node.threshold !== null) {
    const test = `drawn ${probability(node.draw)}, accepted below min(1, p/q) = ${probability(node.threshold)}`;
    return `${node.accepted ? "Accepted" : "Rejected"}: ${test}.`;
  }
  if (greedy) return node.accepted ? "Accepted: it is the base model's most probable token here." : "Rejected: the base model's most probable token here is another.";
  return node.accepted ? "Accepted." : "Rejected.";
}

/** The models' views of the place where a node competed: after its parent. */
export function outlookFor(step, index) {
  const path = acceptedPath(step);
  const after = index === ROOT ? ROOT : index < step.nodes.length ? step.nodes[index].parent : path.length ? path.at(-1) : ROOT;
  return step.outlooks.find((outlook) => outlook.after === after) ?? null;
}

/** Where an arrow key leads in a laid-out tree; null if nowhere. */
export function treeMove(layout, from, key) {
  const all = [{ index: ROOT, parent: null, column: 0, row: layout.rootRow }, ...layout.places];
  const here = all.find((place) => place.index === from);
  if (!here) return null;
  if (key === "ArrowLeft") return here.parent;
  if (key === "ArrowRight") return all.find((place) => place.parent === from)?.index ?? null;
  const column = all.filter((place) => place.column === here.column).sort((a, b) => a.row - b.row);
  const at = column.indexOf(here);
  if (key === "ArrowUp") return column[at - 1]?.index ?? null;
  if (key === "ArrowDown") return column[at + 1]?.index ?? null;
  if (key === "Home") return ROOT;
  if (key === "End") return layout.places.at(-1)?.index ?? null;
  return null;
}

// ---------------------------------------------------------------------------------------------
// The view

const SPEEDS = [["2000", "½ ×"], ["1000", "1 ×"], ["500", "2 ×"], ["200", "5 ×"], ["50", "20 ×"]];
const SIGN = { accepted: "check", rejected: "cross" };

export default recordWidget({ name: "TokenStepper", kind: "trace", version: 1, most: 1, draw: drawStepper });

function drawStepper(place) {
  const { root, signal, say, listen, put, get } = place;
  const trace = place.records[0];
  const { steps } = trace;
  const last = steps.length - 1;
  const heads = headsOf(trace);
  const greedy = trace.temperature === 0;

  const title = el("div", { class: "ts-title" },
    el("p", { class: "lk-title" }, trace.method, " ", el("span", { class: "ts-on" }, "on "), trace.base),
    el("p", { class: "ts-facts" }, facts(trace)));
  if (!steps.length) {
    root.append(title, el("p", { class: "lk-running" }, running(trace.first.text)), el("p", {}, "This generation ended with its first token; there is no step to show."));
    return undefined;
  }

  const strip = makeStrip(place, trace, goto);
  const text = makeText(trace, goto);
  const tree = makeTree(place, trace, choose);
  const detail = makeDetail(trace, greedy);
  const told = el("p", { class: "ts-told" });
  const clock = el("p", { class: "ts-clock" });
  const player = makePlayer();

  const back = [
    button("First step", { icon: "first", hidden_label: true, key: "Home", click: () => goto(0) }),
    button("Previous step", { icon: "previous", hidden_label: true, key: "ArrowLeft", click: () => goto(get("step") - 1) }),
  ];
  const on = [
    button("Next step", { icon: "next", hidden_label: true, key: "ArrowRight", click: () => goto(get("step") + 1) }),
    button("Last step", { icon: "last", hidden_label: true, key: "End", click: () => goto(last) }),
  ];
  const jump = button("Next rejection", { icon: "skip", key: "n", click: jumpOn });
  const filter = choice("Head", [["0", "all"], ...heads.map((head) => [String(head.depth), headChip(head)])],
    String(get("head")), (value) => { put("head", Number(value)); });

  root.append(
    title, strip.node,
    el("div", { class: "lk-bar ts-controls", role: "group", "aria-label": "Move through the steps" },
      el("span", { class: "lk-group" }, back[0], back[1], player.button, on[0], on[1]), jump, player.speed,
      heads.length > 1 ? filter.group : null),
    el("div", { class: "ts-text" }, text.node),
    el("div", { class: "ts-step" },
      el("div", { class: "ts-left" }, el("div", { class: "ts-heading" }, told, clock), tree.node),
      detail.node));

  root.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.defaultPrevented) return;
    if (event.target.closest("input, select")) return;
    if (event.target.closest("[role=tree]") && event.key.toLowerCase() !== "n") return;
    const onButton = event.target.closest("button");
    const here = get("step");
    const line = event.target === strip.slider ? strip.perLine() : 10;
    const target = {
      ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: last, PageDown: here + 10, PageUp: here - 10,
      ArrowDown: event.target === strip.slider ? here + line : undefined,
      ArrowUp: event.target === strip.slider ? here - line : undefined,
    }[event.key];
    if (target !== undefined) goto(target);
    else if (event.key === "n" || event.key === "N") jumpOn();
    else if (event.key === " " && !onButton) player.toggle();
    else return;
    event.preventDefault();
  }, { signal });

  function goto(index) {
    const step = clamp(index, 0, last);
    if (step === get("step")) return;
    together = true; // one message to Python, one picture here
    place.model.set("step", step);
    place.model.set("selected", telling(steps[step]));
    place.model.save_changes();
    together = false;
    show();
  }
  function choose(node) {
    put("selected", node);
  }
  function jumpOn() {
    const found = nextRejection(steps, get("step"), get("head"));
    if (found >= 0) goto(found);
    else say(get("head") ? "No later rejection by this head." : "No later rejection.");
  }

  let shown = -1;
  let changed = 0;
  let together = false;
  function show() {
    if (together) return;
    const at = clamp(get("step"), 0, last);
    const step = steps[at];
    if (at !== shown) {
      shown = at;
      strip.move(at);
      text.move(at);
      told.replaceChildren(el("strong", {}, `Step ${at + 1} of ${steps.length}. `), tellStep(step));
      clock.replaceChildren(...timeParts(step));
      const now = performance.now();
      tree.draw(at, get("head"), now - changed > 400); // no arrival when steps follow fast
      changed = now;
      for (const each of back) each.disabled = at === 0;
      for (const each of on) each.disabled = at === last;
      jump.disabled = nextRejection(steps, at, get("head")) < 0;
      player.sync();
      const heard = document.activeElement === strip.slider; // the slider speaks for itself
      if (!get("playing") && !heard) say(`Step ${at + 1}. ${tellStep(step)}`);
    }
    const node = clamp(get("selected"), ROOT, step.nodes.length - (hasOwnToken(step) ? 0 : 1));
    tree.select(node);
    detail.draw(step, node);
  }
  function refilter() {
    const head = get("head");
    filter.set(String(head));
    root.style.setProperty("--ts-head", head ? `var(${headColor(head)})` : "");
    root.dataset.head = head || "";
    text.filter(head);
    strip.paint();
    tree.filter(head);
    jump.disabled = nextRejection(steps, get("step"), head) < 0;
  }

  function makePlayer() {
    let timer = 0;
    let pause = 1000;
    const node = button("Play", { icon: "play", hidden_label: true, key: "Space", click: toggle });
    const speed = select("Speed", SPEEDS, "1000", (value) => { pause = Number(value); sync(); });
    function toggle() {
      if (!get("playing") && get("step") >= last) goto(0);
      put("playing", !get("playing"));
    }
    function sync() {
      clearTimeout(timer);
      const playing = get("playing");
      if (playing && get("step") >= last) { put("playing", false); return; }
      const words = playing ? "Pause" : "Play";
      node.replaceChildren(icon(playing ? "pause" : "play"));
      node.setAttribute("aria-label", words);
      node.title = `${words} (Space)`;
      if (playing) timer = setTimeout(() => goto(get("step") + 1), pause);
    }
    signal.addEventListener("abort", () => clearTimeout(timer));
    return { button: node, speed, toggle, sync };
  }

  listen("step", show);
  listen("selected", show);
  listen("playing", player.sync);
  listen("head", refilter);
  show();
  refilter();
  tree.follow(() => {
    tree.draw(shown, get("head"));
    tree.select(get("selected"));
  });
  return { theme: () => strip.paint() };
}

function facts(trace) {
  const tokens = tokensAfter(trace).at(-1);
  const seconds = trace.prefill_s + trace.steps.reduce((sum, step) => sum + step.draft_s + step.check_s + step.rest_s, 0);
  const perStep = trace.steps.length ? (tokens - 1) / trace.steps.length : 1;
  const parts = [
    trace.temperature === 0 ? "greedy" : `temperature ${trace.temperature}`,
    count(tokens, "token"), count(trace.steps.length, "step"), `${perStep.toFixed(2)} tokens a step`, duration(seconds),
  ];
  if (trace.ties) parts.push(count(trace.ties, "tie"));
  return parts.join(" · ");
}

function headChip(head) {
  return el("span", { class: "ts-chip", style: `--c: var(${headColor(head.depth)})` }, el("i", {}), head.name,
    el("small", {}, head.reached ? ` ${percent(head.passed / head.reached)}` : " –"));
}

function timeParts(step) {
  const parts = [["draft", step.draft_s], ["check", step.check_s], ["rest", step.rest_s]].filter(([, seconds]) => seconds > 0);
  return parts.flatMap(([name, seconds]) => [el("span", {}, `${name} `, el("b", {}, duration(seconds)))]);
}

// The strip: one mark a step, its height the tokens that the step committed.

function makeStrip({ root, signal, get }, trace, goto) {
  const { steps } = trace;
  const canvas = el("canvas", { "aria-hidden": "true" });
  const marker = el("div", { class: "ts-marker" });
  const slider = el("div", {
    class: "ts-strip", role: "slider", tabindex: 0, "aria-label": "Step", "aria-valuemin": 1, "aria-valuemax": steps.length,
    "aria-orientation": "horizontal",
  }, canvas, marker);
  const most = Math.max(...steps.map((step) => step.committed.length));
  const height = 40;
  let layout = stripLayout(steps.length, 300);
  let at = 0;

  function paint() {
    const { cell, perLine, lines } = layout;
    const context = sizeCanvas(canvas, Math.ceil(cell * perLine), lines * (height + 4));
    const ink = token(root, "--lk-base");
    const colors = Array.from({ length: 9 }, (_, depth) => token(root, headColor(depth)));
    const surface = token(root, "--lk-sunken");
    const head = get("head");
    const unit = (height - 8) / most;
    const gap = cell > 6 ? 2 : cell > 3 ? 1 : 0;
    steps.forEach((step, index) => {
      const left = (index % perLine) * cell;
      const foot = Math.floor(index / perLine) * (height + 4) + height;
      const path = acceptedPath(step).length;
      const wide = Math.max(1, cell - gap);
      step.committed.forEach((_, place) => {
        const depth = place < path ? place + 1 : 0;
        const top = foot - (place + 1) * unit;
        context.globalAlpha = head && depth !== head && !(depth === 0 && rejectedAt(step) === head) ? 0.18 : 1;
        context.fillStyle = depth ? colors[((depth - 1) % 8) + 1] : ink;
        context.fillRect(left, top, wide, unit - (unit > 5 ? 1 : 0.5));
        if (depth === 0 && step.ending !== "replacement" && wide > 3) {
          context.fillStyle = surface;
          context.fillRect(left + 1.2, top + 1.2, wide - 2.4, unit - (unit > 5 ? 1 : 0.5) - 2.4);
        }
      });
    });
    context.globalAlpha = 1;
  }
  function move(index) {
    at = index;
    const { cell, perLine } = layout;
    marker.style.width = `${Math.max(4, cell)}px`;
    marker.style.height = `${height + 4}px`;
    marker.style.transform = `translate(${(index % perLine) * cell - 1}px, ${Math.floor(index / perLine) * (height + 4)}px)`;
    slider.setAttribute("aria-valuenow", String(index + 1));
    const step = steps[index];
    slider.setAttribute("aria-valuetext", `${index + 1} of ${steps.length}. ${tellStep(step)}`);
  }
  onWidth(slider, (width) => { layout = stripLayout(steps.length, width); paint(); move(at); }, signal);
  const pick = (event) => {
    const box = canvas.getBoundingClientRect();
    const column = clamp(Math.floor((event.clientX - box.left) / layout.cell), 0, layout.perLine - 1);
    const line = clamp(Math.floor((event.clientY - box.top) / (height + 4)), 0, layout.lines - 1);
    goto(line * layout.perLine + column);
  };
  slider.addEventListener("pointerdown", (event) => { slider.setPointerCapture(event.pointerId); slider.focus(); pick(event); }, { signal });
  slider.addEventListener("pointermove", (event) => { if (slider.hasPointerCapture(event.pointerId)) pick(event); }, { signal });
  const legend = el("p", { class: "ts-legend" }, "One column a step, one block a token: ",
    el("span", { class: "ts-key ts-key-head" }), "drafted and accepted, ",
    el("span", { class: "ts-key ts-key-own" }), "the base model's after a rejection, ",
    el("span", { class: "ts-key ts-key-bonus" }), "its bonus.");
  return { node: el("div", {}, slider, legend), slider, paint, move, perLine: () => layout.perLine };
}

// The text so far: every token of the step in the colour of its head.

function makeText(trace, goto) {
  const tokens = originOfTokens(trace);
  const spans = tokens.map((each) => running(each.text, {
    class: each.depth ? "ts-drafted" : "ts-own", style: `--c: var(${headColor(each.depth)})`, "data-depth": each.depth, "data-step": each.step,
  }));
  const ends = tokensAfter(trace);
  const body = el("div", {
    class: "lk-running ts-running", tabindex: 0, role: "group", "aria-label": "The text so far", dir: "auto",
    click: (event) => {
      const step = Number(event.target.closest("[data-step]")?.dataset.step ?? -1);
      if (step >= 0) goto(step);
    },
  }, el("div", { class: "ts-prompt" }, running(trace.prompt)), paragraphs(spans, tokens.map((each) => each.text)));
  let seen = null;
  let from = 0;
  let to = 0;
  for (const span of spans) span.hidden = true;
  function move(step) {
    const end = ends[step + 1];
    for (let index = from; index < to; index += 1) spans[index].classList.remove("ts-now");
    if (seen === null) for (let index = 0; index < end; index += 1) spans[index].hidden = false;
    else if (end > seen) for (let index = seen; index < end; index += 1) spans[index].hidden = false;
    else for (let index = end; index < seen; index += 1) spans[index].hidden = true;
    [from, to, seen] = [ends[step], end, end];
    for (let index = from; index < to; index += 1) spans[index].classList.add("ts-now");
    body.scrollTop = body.scrollHeight;
  }
  function filter(head) {
    body.classList.toggle("ts-filtered", head > 0);
    spans.forEach((span, index) => span.classList.toggle("ts-match", tokens[index].depth === head));
  }
  return { node: body, move, filter };
}

// The candidate tree of the step.

const ROOT_WIDE = 64;

function makeTree({ root, signal, tip }, trace, choose) {
  const picture = svg("svg", { class: "ts-tree", role: "tree", "aria-label": "Candidate tree" });
  const holder = el("div", { class: "ts-scroll" }, picture);
  const greedy = trace.temperature === 0;
  const tokens = originOfTokens(trace);
  const ends = tokensAfter(trace);
  const names = headsOf(trace);
  let items = [];
  let layout = null;
  let step = null;
  let room = 600;

  function draw(at, head, fresh = false) {
    picture.classList.toggle("ts-fresh", fresh);
    step = trace.steps[at];
    const before = tokens[ends[at] - 1];
    layout = layoutTree(step);
    const dense = layout.rows > 7;
    const tall = dense ? 30 : 52;
    const rowGap = dense ? 6 : 12;
    const top = 26;
    const gap = room < 600 ? 20 : 30;
    const wide = Math.floor(clamp((room - ROOT_WIDE - 8) / Math.max(1, layout.columns) - gap, 90, 150));
    const x = (column) => (column === 0 ? 2 : 2 + ROOT_WIDE + gap + (column - 1) * (wide + gap));
    const y = (row) => top + row * (tall + rowGap);
    const width = x(layout.columns) + (layout.columns === 0 ? ROOT_WIDE : wide) + 4;
    const height = y(layout.rows - 1) + tall + 4;
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    picture.setAttribute("width", width);
    picture.setAttribute("height", height);
    const edges = svg("g", { class: "ts-edges", "aria-hidden": "true" });
    const titles = svg("g", { class: "ts-columns", "aria-hidden": "true" });
    const deepest = Math.max(0, ...step.nodes.map((node) => node.depth));
    for (let depth = 1; depth <= deepest; depth += 1) {
      titles.append(svg("text", { x: x(depth) + wide / 2, y: 13, "text-anchor": "middle", style: `fill: var(${headColor(depth)})` }, names[depth - 1]?.name ?? ""));
    }
    items = [rootItem(x(0), y(layout.rootRow), tall, before)];
    const byIndex = new Map(layout.places.map((each) => [each.index, each]));
    for (const each of layout.places) {
      const node = step.nodes[each.index];
      const state = node ? stateOf(node) : "own";
      const parent = byIndex.get(each.parent);
      const y0 = y(parent ? parent.row : layout.rootRow) + tall / 2;
      const y1 = y(each.row) + tall / 2;
      const x0 = parent ? x(parent.column) + wide : x(0) + ROOT_WIDE;
      const x1 = x(each.column);
      const bend = (x0 + x1) / 2;
      edges.append(svg("path", {
        class: `ts-edge ts-${state}`, style: `--c: var(${headColor(node ? node.depth : 0)})`, "data-depth": node ? node.depth : 0,
        d: y0 === y1 ? `M${x0} ${y0}H${x1}` : `M${x0} ${y0}C${bend} ${y0} ${bend} ${y1} ${x1} ${y1}`,
      }));
      items.push(item(each, node, state, x(each.column), y(each.row), wide, tall, dense));
    }
    picture.replaceChildren(titles, edges, ...items);
    filter(head);
  }

  function rootItem(left, top, tall, before) {
    return svg("g", {
      class: "ts-node ts-root", role: "treeitem", "aria-level": 1, "aria-label": `Root: the text so far, ending in ${spoken(before.text)}`, "aria-selected": "false",
      tabindex: -1, "data-index": ROOT, transform: `translate(${left} ${top})`,
    }, svg("rect", { class: "ts-box", x: 0, y: tall / 2 - 13, width: ROOT_WIDE, height: 26, rx: 13 }),
    svg("text", { class: "ts-word", x: ROOT_WIDE / 2, y: tall / 2 + 4, "text-anchor": "middle", direction: "ltr" }, "…", svg("tspan", { "unicode-bidi": "isolate" }, shorten(visible(before.text), 5))));
  }

  function item(each, node, state, left, top, wide, tall, dense) {
    const drafted = node ?? { text: step.committed.at(-1).text, p: null, q: null, depth: 0 };
    const siblings = layout.places.filter((other) => other.parent === each.parent);
    const group = svg("g", {
      class: `ts-node ts-${state} ts-${node ? "draft" : step.ending}`, role: "treeitem", tabindex: -1, "data-index": each.index, "data-depth": drafted.depth,
      "aria-level": each.column + 1, "aria-posinset": siblings.findIndex((other) => other.index === each.index) + 1, "aria-setsize": siblings.length,
      "aria-selected": "false", "aria-label": nodeWords(node, drafted, state),
      transform: `translate(${left} ${top})`, style: `--c: var(${headColor(drafted.depth)}); --d: ${each.column}`,
    }, svg("rect", { class: "ts-box", width: wide, height: tall, rx: 8 }));
    const middle = dense ? 16 : 15;
    if (SIGN[state] || !node) {
      group.append(svg("g", { class: "ts-sign", transform: `translate(7 ${middle - 7}) scale(.85)` }, ...icon(node ? SIGN[state] : step.ending === "bonus" ? "plus" : "reset").children));
    }
    const letters = Math.floor((wide - (SIGN[state] || !node ? 32 : 16)) / 7.9);
    group.append(svg("text", { class: "ts-word", x: SIGN[state] || !node ? 25 : 9, y: middle + 4, direction: "ltr" }, svg("tspan", { "unicode-bidi": "isolate" }, shorten(visible(drafted.text), letters))));
    if (node && node.p !== null) {
      const line = (value, y0, name) => svg("rect", { class: `ts-bar-${name}`, x: 8, y: y0, width: Math.max(1, value * (wide - 16)), height: 3, rx: 1 });
      if (dense) group.append(line(node.p, 21.5, "p"), line(node.q ?? 0, 25, "q"));
      else {
        const both = [`p ${probability(node.p)}`, node.q === null ? "" : `q ${probability(node.q)}`];
        const room = (wide - 18) / 6.6 > both.join(" ").length;  // letters; else leave out the noughts
        const [p, q] = room ? both : both.map((text) => text.replace("0.", "."));
        group.append(
          svg("text", { class: "ts-number", x: 9, y: 34 }, p),
          svg("text", { class: "ts-number", x: wide - 9, y: 34, "text-anchor": "end" }, q),
          line(node.p, 40, "p"), line(node.q ?? 0, 45, "q"));
      }
    } else if (!node && !dense) group.append(svg("text", { class: "ts-number", x: 9, y: 35 }, step.ending === "bonus" ? "bonus" : step.ending === "replacement" ? "replacement" : "base model"));
    return group;
  }

  function nodeWords(node, drafted, state) {
    if (!node) return `${step.ending === "plain" ? "Base model" : step.ending}: ${spoken(drafted.text)}`;
    const numbers = node.p === null ? "" : `, p ${probability(node.p)}, q ${probability(node.q)}`;
    return `${spoken(drafted.text)}, ${node.source}, ${state}${numbers}`;
  }

  function select(index) {
    for (const each of items) {
      const chosen = Number(each.dataset.index) === index;
      each.setAttribute("aria-selected", String(chosen));
      each.setAttribute("tabindex", chosen ? "0" : "-1");
      if (chosen) reveal(each, holder);
    }
  }
  function filter(head) {
    picture.classList.toggle("ts-filtered", head > 0);
    for (const each of picture.querySelectorAll("[data-depth]")) each.classList.toggle("ts-match", Number(each.dataset.depth) === head);
  }
  const itemAt = (target) => target.closest?.(".ts-node");
  picture.addEventListener("click", (event) => {
    const found = itemAt(event.target);
    if (found) { choose(Number(found.dataset.index)); found.focus({ preventScroll: true }); }
  }, { signal });
  picture.addEventListener("keydown", (event) => {
    const found = itemAt(event.target);
    if (!found || event.altKey || event.ctrlKey || event.metaKey) return;
    const next = treeMove(layout, Number(found.dataset.index), event.key);
    if (!["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) return;
    event.preventDefault();
    if (next === null) return;
    choose(next);
    items.find((each) => Number(each.dataset.index) === next)?.focus({ preventScroll: true });
  }, { signal });
  picture.addEventListener("pointerover", (event) => {
    const found = itemAt(event.target);
    if (!found) return tip.hide();
    const index = Number(found.dataset.index);
    const node = step.nodes[index];
    const words = node?.text ?? (index === ROOT ? null : step.committed.at(-1).text);
    return tip.show(found.getBoundingClientRect(), words === null ? "" : label(words), el("div", {}, tellNode(step, index, greedy)));
  }, { signal });
  picture.addEventListener("pointerleave", () => tip.hide(), { signal });
  function follow(redraw) {
    onWidth(holder, (width) => { room = width - 8; redraw(); }, signal);
  }
  return { node: holder, draw, select, filter, follow };
}

// What is known of the chosen node.

function makeDetail(trace, greedy) {
  const node = el("div", { class: "ts-detail", role: "group", "aria-label": "The chosen token" });
  function draw(step, index) {
    const drafted = step.nodes[index];
    const chosen = drafted ?? (index === ROOT ? null : step.committed.at(-1));
    const outlook = outlookFor(step, index);
    const depth = drafted ? drafted.depth : index === ROOT ? 1 : acceptedPath(step).length + 1;
    node.style.setProperty("--c", `var(${headColor(drafted ? drafted.depth : step.nodes.length ? depth : 0)})`);
    node.replaceChildren(
      el("p", { class: "ts-chosen" }, chosen ? [label(chosen.text, {}, 40), el("span", { class: "lk-label" }, ` token ${chosen.id}`)] : "…",
        el("span", { class: "ts-source" }, drafted ? drafted.source : index === ROOT ? "root" : step.ending === "plain" ? "base model" : step.ending)),
      el("p", {}, tellNode(step, index, greedy)),
      drafted && drafted.p !== null ? ruler(drafted) : "",
      outlook ? outlookTables(outlook, chosen) : el("p", { class: "lk-label ts-none" }, noOutlook(trace)));
  }
  return { node, draw };
}

function noOutlook(trace) {
  return trace.steps.some((step) => step.outlooks.length) ? "The models’ choices here were not computed: no draft was tested at this place." : "This trace was recorded without the models' other choices.";
}

/** p, q and the test on one ruler from 0 to 1. */
function ruler(node) {
  const at = (value) => `${(100 * value).toFixed(2)}%`;
  const row = (name, value, kind) => el("div", { class: "ts-rule" },
    el("span", {}, name), el("div", { class: "ts-track" }, el("div", { class: `ts-fill ts-fill-${kind}`, style: `width: ${at(value)}` })),
    el("span", { class: "lk-value" }, probability(value)));
  const rows = [row("p", node.p, "p")];
  if (node.q !== null) rows.push(row("q", node.q, "q"));
  if (node.threshold !== null && node.draw !== null) {
    rows.push(el("div", { class: "ts-rule" }, el("span", {}, "test"),
      el("div", { class: "ts-track ts-test" },
        el("div", { class: "ts-zone", style: `width: ${at(node.threshold)}` }),
        el("div", { class: `ts-draw ts-${stateOf(node)}`, style: `left: ${at(node.draw)}` })),
      el("span", { class: "lk-value" }, `${probability(node.draw)} ${node.draw < node.threshold ? "<" : "≥"} ${probability(node.threshold)}`)));
  }
  return el("div", { class: "ts-ruler" }, rows);
}

function outlookTables(outlook, chosen) {
  const table = (name, candidates, kind) => el("table", { class: `ts-outlook ts-outlook-${kind}` },
    el("caption", {}, name),
    el("tbody", {}, candidates.map((each) => el("tr", { class: chosen && each.id === chosen.id ? "ts-this" : undefined },
      el("th", { scope: "row" }, el("div", { class: "ts-share", style: `width: ${(100 * each.prob).toFixed(1)}%` }), label(each.text, {}, 16)),
      el("td", {}, probability(each.prob))))));
  return el("div", { class: "ts-outlooks" },
    table("Base model, p", outlook.base, "p"),
    outlook.drafter.length ? table("Drafter, q", outlook.drafter, "q") : "");
}
