// LossCurves: the loss of every head through both phases, and how often its first choice is right.

import { choice, clamp, count, el, fresh, onWidth, probability, recordWidget, slider, svg } from "../shared/prelude.js";
import { apart, axes, cells, hue, mark, nearest, path, sample, scale, short, shown, smooth, thinned, ticks } from "../shared/chart.js";

const ALONG = [["step", "steps"], ["tokens", "tokens"], ["seconds", "time"]];
const X_NAME = { step: "optimizer step", tokens: "training positions", seconds: "seconds of training" };
const LEFT = 46;
const MARGIN = 70; // right of the curves, for their names

// ---------------------------------------------------------------------------------------------
// From records to curves (pure)

/**
 * One run as curves: for each head the points [x, loss] of each phase with their smoothed losses,
 * and the looks at held-out text. x is the step, the positions seen, or the seconds since the start.
 * @param {object} log a LossLog
 * @param {string} along "step", "tokens" or "seconds"
 * @param {number} span of the smoothing
 */
export function curvesOf(log, along, span) {
  const xs = xOf(log.points, along);
  const phases = [1, 2].map((phase) => log.points.map((_, at) => at).filter((at) => log.points[at].phase === phase));
  const heads = Array.from({ length: log.heads }, (_, head) => {
    const smoothed = new Float64Array(log.points.length);
    for (const part of phases) {
      smooth(part.map((at) => log.points[at].loss[head]), span).forEach((value, place) => { smoothed[part[place]] = value; });
    }
    return { smoothed, raw: Float64Array.from(log.points, (point) => point.loss[head]) };
  });
  const steps = log.points.map((point) => point.step);
  const looks = log.validation.map((look) => {
    const at = nearest(steps, look.step);
    return { ...look, x: along === "seconds" ? (at < 0 ? 0 : xs[at]) : look[along] };
  });
  return { log, xs, steps, phases, heads, looks };
}

/** A log without the steep beginning: the first twentieth of its points, and looks before that. */
export function settled(log) {
  const points = log.points.slice(Math.floor(log.points.length / 20));
  const from = points[0]?.step ?? 0;
  return { ...log, points, validation: log.validation.filter((look) => look.step >= from) };
}

/** Where each point stands; time runs on where a resumed run's clock began anew. */
export function xOf(points, along) {
  if (along !== "seconds") return points.map((point) => point[along]);
  let before = 0;
  return points.map(({ seconds }, at) => {
    if (at && seconds < points[at - 1].seconds) before += points[at - 1].seconds;
    return before + seconds;
  });
}

/** Where phase 2 begins, between the last point of phase 1 and its own first; null if it does not. */
export function boundary({ xs, phases: [first, second] }) {
  if (!second.length) return null;
  return first.length ? (xs[first.at(-1)] + xs[second[0]]) / 2 : xs[second[0]];
}

/** The values that a panel must span, or `otherwise` where there are none. */
export function spanned(values, otherwise) {
  let [low, high] = [Infinity, -Infinity];
  for (const list of values) {
    for (const value of list) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return low <= high ? [low, high] : otherwise;
}

/** A span of the smoothing that suits a run of that many points. */
export const usualSpan = (points) => Math.max(1, Math.round(points / 50));

/** All places that the read-out can stand at, in order: the points of all runs. */
export function stops(runs) {
  return [...new Set(runs.flatMap((run) => [...run.xs, ...run.looks.map((look) => look.x)]))].sort((a, b) => a - b);
}

/** What one run says at a place: its nearest point, and its last look until then. */
export function readOut(run, x) {
  const at = nearest(run.xs, x);
  const look = run.looks.filter((each) => each.x <= x + 1e-9).at(-1) ?? null;
  if (at < 0 && !look) return null;
  const point = at < 0 ? null : run.log.points[at];
  return {
    point, look,
    heads: run.heads.map(({ smoothed, raw }, head) => ({
      raw: at < 0 ? null : raw[at], smoothed: at < 0 ? null : smoothed[at],
      validation: look?.loss[head] ?? null, accept: look?.accept[head] ?? null,
    })),
  };
}

// ---------------------------------------------------------------------------------------------
// The view

function draw({ root, records, signal, listen, put, get }) {
  let logs = records;
  let runs = [];
  let stopsAll = [];
  let spots = {}; // the panels' scales, for the pointer
  let width = 600;
  const hidden = new Set(); // heads that are switched off

  const longest = () => Math.max(1, ...logs.map((log) => log.points.length));
  const spanMost = () => Math.max(2, Math.round(longest() / 4));
  const spanAt = (value) => Math.max(1, Math.round(spanMost() ** value)); // the slider's 0…1
  const spanNow = () => get("span") || usualSpan(longest());

  const title = el("p", { class: "lk-title" });
  const state = el("p", {});
  const picture = svg("svg", { class: "lk-ch-picture", "aria-hidden": "true" });
  const help = el("p", { class: "lk-ch-help", id: fresh("help") }, "Arrow keys move the read-out by a point, Page up and down by a twentieth of the run, Home and End to its ends.");
  const plot = el("div", {
    class: "lk-ch-plot", tabindex: "0", role: "slider", "aria-label": "Place of the read-out", "aria-describedby": help.id, "aria-valuemin": 0,
  }, picture);
  const table = el("div", { class: "lk-ch-readout" });
  const keys = el("div", { class: "lk-bar lk-ch-keys", role: "group", "aria-label": "Heads on show" });
  const controls = {
    span: slider("Smoothed over", { min: 0, max: 1, step: 0.01, value: 0, words: (value) => count(spanAt(value), "step"), input: (value) => put("span", spanAt(value)) }),
    along: choice("Along", ALONG, get("along"), (value) => put("along", value)),
    raw: checkbox("raw", get("raw"), (value) => put("raw", value)),
    start: checkbox("without the start", get("skip_start"), (value) => put("skip_start", value)),
    log: checkbox("log scale", get("log_scale"), (value) => put("log_scale", value)),
  };
  root.append(
    el("div", { class: "lk-ch-head" }, title, state),
    el("div", { class: "lk-bar lk-ch-controls" }, controls.span.field, controls.raw.field, controls.log.field, controls.start.field, controls.along.group),
    keys, plot, table, help,
  );

  function refresh() {
    runs = logs.map((log) => curvesOf(get("skip_start") ? settled(log) : log, get("along"), spanNow()));
    stopsAll = stops(runs);
    showWords();
    paint();
    showReadOut();
  }

  function showWords() {
    title.textContent = logs.map((log) => log.name).join(" against ");
    const last = logs[0].points.at(-1);
    state.textContent = [
      last ? `phase ${last.phase}, step ${last.step}, ${short(last.tokens)} positions, learning rate ${last.lr.toPrecision(3)}` : "no step yet",
      get("live"),
    ].filter(Boolean).join(" · ");
    controls.span.set(Math.log(spanNow()) / Math.log(spanMost()));
    controls.along.set(get("along"));
    controls.raw.set(get("raw"));
    controls.log.set(get("log_scale"));
    controls.start.set(get("skip_start"));
    const most = Math.max(...logs.map((log) => log.heads));
    if (keys.childElementCount !== most + (logs.length > 1 ? 1 : 0)) {
      keys.replaceChildren(...Array.from({ length: most }, (_, head) => headKey(head)), ...(logs.length > 1 ? [runKey()] : []));
    }
  }

  function headKey(head) {
    const node = el("button", { type: "button", class: "lk-button lk-ch-key", "aria-pressed": String(!hidden.has(head)), click: () => {
      if (hidden.has(head)) hidden.delete(head);
      else hidden.add(head);
      node.setAttribute("aria-pressed", String(!hidden.has(head)));
      paint();
      showReadOut();
    } }, sample(head), el("span", {}, `head ${head + 1}`));
    return node;
  }

  const runKey = () => el("span", { class: "lk-ch-runs" }, logs.map((log, run) => el("span", { class: "lk-ch-run" },
    sample(7, { dashed: run > 0, color: "var(--lk-ink-2)" }), log.name)));

  const heads = (run) => run.heads.map((curve, head) => ({ ...curve, head })).filter(({ head }) => !hidden.has(head));

  // ---- painting

  function paint() {
    const accepting = runs.some((run) => run.looks.length > 0);
    const right = width - (width > 480 ? MARGIN : 16);
    const tall = clamp(Math.round(width * 0.32), 180, 300);
    const top = 24;
    const middle = top + tall;
    const low = middle + 34;
    const bottom = accepting ? low + clamp(Math.round(width * 0.18), 110, 170) : middle;
    picture.setAttribute("width", width);
    picture.setAttribute("height", bottom + 40);
    picture.setAttribute("viewBox", `0 0 ${width} ${bottom + 40}`);

    const all = runs.flatMap((run) => run.xs);
    const domain = spanned([all, ...runs.map((run) => run.looks.map((look) => look.x))], [0, 1]);
    const x = scale(domain[0] < domain[1] ? domain : [domain[0], domain[0] + 1], [LEFT, right]);
    const losses = spanned(runs.flatMap((run) => heads(run).flatMap(({ smoothed, raw, head }) => [
      get("raw") ? raw : smoothed, run.looks.map((look) => look.loss[head])])), [0, 1]);
    const room = (losses[1] - losses[0]) * 0.04 || 0.1;
    const kind = get("log_scale") && losses[0] > 0 ? "log" : "linear";
    const y = kind === "log"
      ? scale([losses[0] / 1.04, losses[1] * 1.04], [middle, top], kind)
      : scale([Math.max(0, losses[0] - room), losses[1] + room], [middle, top]);
    const shares = spanned(runs.flatMap((run) => heads(run).map(({ head }) => run.looks.map((look) => look.accept[head]))), [0, 1]);
    const share = scale([0, Math.min(1, Math.max(0.1, shares[1] * 1.08))], [bottom, low]);

    const many = width > 700 ? 8 : 4;
    const common = { x, left: LEFT, right, xs: ticks(...x.domain, many), xWords: short };
    const ys = kind === "log" ? logTicks(...y.domain) : ticks(...y.domain, 6);
    picture.replaceChildren(
      ...bands(x, top, bottom, right),
      axes({ ...common, y, top, bottom: middle, ys, xs: accepting ? [] : common.xs, xName: accepting ? null : X_NAME[get("along")] }),
      heading("loss, nats", top - 10),
    );
    if (accepting) {
      picture.append(
        axes({ ...common, y: share, top: low, bottom, ys: ticks(...share.domain, 3), yWords: (value) => `${Math.round(value * 100)}%`, xName: X_NAME[get("along")] }),
        heading("first choices accepted, share", low - 10),
      );
    }
    runs.forEach((run, place) => paintRun(run, place, { x, y, share, right }));
    const cursor = svg("g", { class: "lk-ch-cursor" });
    picture.append(cursor);
    spots = { x, y, share, top, middle, low, bottom, right, cursor, accepting };
    moveCursor();
  }

  const heading = (words, y) => svg("text", { x: 0, y, class: "lk-ch-heading" }, words);

  /** Phase 2 lies on a tinted ground behind a line; both phases carry their names. */
  function bands(x, top, bottom, right) {
    const edges = runs.map(boundary);
    const out = [];
    if (edges[0] !== null) {
      const at = clamp(x(edges[0]), LEFT, right);
      out.push(svg("rect", { x: at, y: top, width: Math.max(0, right - at), height: bottom - top, class: "lk-lc-second" }));
    }
    edges.forEach((edge, run) => {
      if (edge === null || !runs[run].phases[0].length) return;
      out.push(svg("path", { d: `M${x(edge)} ${top}V${bottom}`, class: "lk-lc-edge", "stroke-dasharray": run ? "5 3" : undefined }));
    });
    const [first, second] = runs[0].phases;
    for (const [part, words] of [[first, "phase 1"], [second, "phase 2"]]) {
      if (!part.length) continue;
      const [from, to] = [part[0], part.at(-1)].map((at) => x(runs[0].xs[at]));
      if (to - from > 50 || first.length * second.length === 0) {
        out.push(svg("text", { x: (from + to) / 2, y: top - 4, "text-anchor": "middle", class: "lk-lc-phase" }, words));
      }
    }
    return out;
  }

  function paintRun(run, place, { x, y, share, right }) {
    const dashes = place ? "6 4" : undefined;
    const shown_ = heads(run);
    const group = svg("g", { "clip-path": null });
    const points = (values, part) => thinned(part.map((at) => [x(run.xs[at]), y(values[at])]));
    for (const { raw, smoothed, head } of shown_) {
      for (const part of run.phases) {
        if (!part.length) continue;
        if (get("raw")) group.append(svg("path", { d: path(points(raw, part)), class: "lk-lc-raw", stroke: hue(head) }));
        group.append(svg("path", { d: path(points(smoothed, part)), class: "lk-lc-smooth", stroke: hue(head), "stroke-dasharray": dashes }));
      }
      const looks = run.looks.map((look) => [x(look.x), share(look.accept[head])]);
      if (looks.length) group.append(svg("path", { d: path(looks), class: "lk-lc-smooth", stroke: hue(head), "stroke-dasharray": dashes }));
      const size = looks.length > 40 ? 2.4 : 3.6;
      for (const [at, look] of run.looks.entries()) {
        group.append(mark(head, x(look.x), y(look.loss[head]), { size, hollow: place > 0 }), mark(head, ...looks[at], { size, hollow: place > 0 }));
      }
    }
    picture.append(group);
    if (place === 0 && width > 480) nameCurves(run, shown_, { y, share, right });
  }

  /** The heads' names at the curves' ends, moved apart where they would touch. */
  function nameCurves(run, shown_, { y, share, right }) {
    const last = run.xs.length - 1;
    const name = (places, words) => apart(places, 13, -Infinity, Infinity).forEach((at, index) => {
      picture.append(svg("text", { x: right + 8, y: at, dy: "0.32em", class: "lk-ch-name", style: `fill: ${hue(shown_[index].head)}` }, words(shown_[index])));
    });
    if (last >= 0) name(shown_.map(({ smoothed }) => y(smoothed[last])), ({ head }) => `head ${head + 1}`);
    const look = run.looks.at(-1);
    if (look) name(shown_.map(({ head }) => share(look.accept[head])), ({ head }) => `${Math.round(100 * look.accept[head])}%`);
  }

  // ---- the read-out

  /** Where the read-out stands: the trait, or the end of the run while it is -1. */
  function place() {
    const at = get("at");
    if (!stopsAll.length) return null;
    return at < 0 ? stopsAll.at(-1) : stopsAll[nearest(stopsAll, at)];
  }

  function moveCursor() {
    const at = place();
    spots.cursor.replaceChildren();
    if (at === null) return;
    const { x, y, share, top, bottom } = spots;
    spots.cursor.append(svg("path", { d: `M${x(at)} ${top}V${bottom}`, class: "lk-ch-hair" }));
    runs.forEach((run, index) => {
      const said = readOut(run, at);
      if (!said?.point) return;
      const here = run.xs[nearest(run.xs, at)];
      for (const { head } of heads(run)) {
        spots.cursor.append(mark(head, x(here), y(said.heads[head].smoothed), { size: 4.5, hollow: index > 0 }));
        if (said.look) spots.cursor.append(mark(head, x(said.look.x), share(said.look.accept[head]), { size: 4.5, hollow: index > 0 }));
      }
    });
  }

  function showReadOut() {
    const at = place();
    const said = at === null ? [] : runs.map((run) => readOut(run, at));
    plot.setAttribute("aria-valuemax", Math.max(0, stopsAll.length - 1));
    plot.setAttribute("aria-valuenow", at === null ? 0 : nearest(stopsAll, at));
    plot.setAttribute("aria-valuetext", at === null ? "no step yet" : said.map((one, run) => (one ? spokenRun(one, run) : "")).join("; "));
    table.replaceChildren(...said.map((one, run) => (one ? runTable(one, run) : "")));
  }

  const where = ({ point }) => (point ? `phase ${point.phase}, step ${point.step}, ${short(point.tokens)} positions` : "before the first step");

  function spokenRun(said, run) {
    const losses = heads(runs[run]).map(({ head }) => {
      const { smoothed, accept } = said.heads[head];
      return `head ${head + 1} loss ${shown(smoothed)}${accept === null ? "" : `, accepted ${Math.round(100 * accept)}%`}`;
    });
    return `${logs.length > 1 ? `${logs[run].name}: ` : ""}${where(said)}: ${losses.join(", ")}`;
  }

  function runTable(said, run) {
    const rows = heads(runs[run]).map(({ head }) => {
      const { raw, smoothed, validation, accept } = said.heads[head];
      return el("tr", {}, el("th", { scope: "row" }, sample(head, { dashed: run > 0 }), `head ${head + 1}`),
        cells("td", [shown(smoothed), shown(raw), shown(validation), accept === null ? "–" : probability(accept)]));
    });
    const looked = said.look ? `, last look at step ${said.look.step}` : "";
    const pace = typeof said.look?.tokens_per_step === "number" ? `, ${shown(said.look.tokens_per_step)} tokens per step` : "";
    return el("table", { class: "lk-ch-table" },
      el("caption", {}, `${logs.length > 1 ? `${logs[run].name}: ` : ""}${where(said)}${looked}${pace}`),
      el("thead", {}, el("tr", {}, cells("th", ["head", "smoothed", "raw", "validation", "accepted"], { scope: "col" }))),
      el("tbody", {}, rows));
  }

  function goTo(index) {
    put("at", stopsAll[clamp(index, 0, stopsAll.length - 1)]);
  }

  plot.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || !stopsAll.length) return;
    const here = nearest(stopsAll, place());
    const leap = Math.max(1, Math.round(stopsAll.length / 20));
    const to = {
      ArrowLeft: here - 1, ArrowDown: here - 1, ArrowRight: here + 1, ArrowUp: here + 1,
      PageUp: here + leap, PageDown: here - leap, Home: 0, End: stopsAll.length - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    goTo(to);
  }, { signal });
  const point = (event) => {
    if (stopsAll.length) goTo(nearest(stopsAll, spots.x.back(event.clientX - picture.getBoundingClientRect().left)));
  };
  plot.addEventListener("pointermove", point, { signal });
  plot.addEventListener("pointerdown", point, { signal });

  for (const name of ["span", "raw", "log_scale", "skip_start", "along"]) listen(name, refresh);
  listen("live", showWords);
  listen("at", () => { moveCursor(); showReadOut(); });
  onWidth(plot, (room) => { width = room; if (runs.length) paint(); }, signal);
  refresh();
  return { update(next) { logs = next; refresh(); } };
}

/** 1, 2, 5 and 10 times the powers of ten within the span. */
export function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const part of [1, 2, 5]) {
      const value = Number((part * 10 ** power).toPrecision(3));
      if (value >= low && value <= high) found.push(value);
    }
  }
  return found;
}

function checkbox(words, value, change) {
  const input = el("input", { type: "checkbox", change: () => change(input.checked) });
  input.checked = value;
  return {
    field: el("label", { class: "lk-field" }, input, el("span", { class: "lk-label" }, words)),
    set: (next) => { input.checked = next; },
  };
}

export default recordWidget({ name: "LossCurves", kind: "losslog", version: 1, most: 2, draw });
