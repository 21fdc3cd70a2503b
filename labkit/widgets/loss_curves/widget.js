// LossCurves: the loss of every head through both phases, and how often its first choice is right.

import {
  choice, clamp, count, el, fresh, onWidth, percent, probability, recordWidget, slider, svg,
} from "../shared/prelude.js";
import {
  apart, axes, cells, checkbox, hue, line, logTicks, mark, nearest, path, readOutPlot, resize,
  sample, scale, seriesKeys, short, shown, stopMove, tellSlider, thinned, ticks, words,
} from "../shared/chart.js";
import { boundary, curvesOf, readOut, settled, spanned, stops, usualSpan } from "./curves.js";

const ALONG = [["step", "steps"], ["tokens", "tokens"], ["seconds", "time"]];
const X_NAME = {
  step: "optimizer step", tokens: "training positions", seconds: "seconds of training",
};
const LEFT = 46;
const RIGHT = 70; // room for the names of the curves

function draw({ root, records, signal, listen, put, get }) {
  let logs = records;
  let runs = []; // the logs as curves
  let places = []; // where the read-out can stand
  let spots = {}; // the panels' scales and the cursor in them
  let width = 600;
  const hidden = new Set(); // heads that are switched off

  const longest = () => Math.max(1, ...logs.map((log) => log.points.length));
  const spanMost = () => Math.max(2, Math.round(longest() / 4));
  const spanAt = (value) => Math.max(1, Math.round(spanMost() ** value)); // the slider's 0…1
  const spanNow = () => get("span") || usualSpan(longest());
  const several = () => logs.length > 1;
  const named = (run) => (several() ? `${logs[run].name}: ` : "");
  const headsOf = (run) => run.heads
    .map((curve, head) => ({ ...curve, head })).filter(({ head }) => !hidden.has(head));

  // ---- the parts of the page

  const title = el("p", { class: "lk-title" });
  const state = el("p", {});
  const picture = svg("svg", { class: "lk-ch-picture", "aria-hidden": "true" });
  const help = el("p", { class: "lk-ch-help", id: fresh("help") },
    "Arrow keys move the read-out by a point, Page up and down by a twentieth of the run, ",
    "Home and End to its ends.");
  const plot = readOutPlot("Place of the read-out", picture, help);
  const table = el("div", { class: "lk-ch-readout" });
  const keys = el("div", {
    class: "lk-bar lk-ch-keys", role: "group", "aria-label": "Heads on show",
  });
  const controls = {
    span: slider("Smoothed over", {
      min: 0, max: 1, step: 0.01, value: 0,
      words: (value) => count(spanAt(value), "step"), input: (value) => put("span", spanAt(value)),
    }),
    raw: checkbox("raw", get("raw"), (value) => put("raw", value)),
    log: checkbox("log scale", get("log_scale"), (value) => put("log_scale", value)),
    start: checkbox("without the start", get("skip_start"), (value) => put("skip_start", value)),
    along: choice("Along", ALONG, get("along"), (value) => put("along", value)),
  };
  root.append(
    el("div", { class: "lk-ch-head" }, title, state),
    el("div", { class: "lk-bar lk-ch-controls" }, controls.span.field, controls.raw.field,
      controls.log.field, controls.start.field, controls.along.group),
    keys, plot, table, help,
  );

  function refresh() {
    const shownLogs = get("skip_start") ? logs.map(settled) : logs;
    runs = shownLogs.map((log) => curvesOf(log, get("along"), spanNow()));
    places = stops(runs);
    showWords();
    paint();
    showReadOut();
  }

  function showWords() {
    title.textContent = logs.map((log) => log.name).join(" against ");
    const last = logs[0].points.at(-1);
    const reached = last
      ? `${pointName(last)}, learning rate ${last.lr.toPrecision(3)}` : "no step yet";
    state.textContent = [reached, get("live")].filter(Boolean).join(" · ");
    controls.span.set(Math.log(spanNow()) / Math.log(spanMost()));
    controls.along.set(get("along"));
    controls.raw.set(get("raw"));
    controls.log.set(get("log_scale"));
    controls.start.set(get("skip_start"));
    showKeys();
  }

  /** The heads' buttons and the runs' strokes, made anew only where their number has changed. */
  function showKeys() {
    const most = Math.max(...logs.map((log) => log.heads));
    if (keys.childElementCount === most + (several() ? 1 : 0)) return;
    const heads = Array.from({ length: most }, (_, head) => (
      { sample: sample(head), name: `head ${head + 1}` }));
    keys.replaceChildren(...seriesKeys(heads, hidden, () => {
      paint();
      showReadOut();
    }));
    if (several()) keys.append(el("span", { class: "lk-ch-runs" }, logs.map(runKey)));
  }

  const runKey = (log, run) => el("span", { class: "lk-ch-run" },
    sample(7, { dashed: run > 0, color: "var(--lk-ink-2)" }), log.name);

  // ---- painting

  function paint() {
    const accepting = runs.some((run) => run.looks.length > 0);
    const right = width - (width > 480 ? RIGHT : 16);
    const top = 24;
    const middle = top + clamp(Math.round(width * 0.32), 180, 300);
    const low = middle + 34;
    const bottom = accepting ? low + clamp(Math.round(width * 0.18), 110, 170) : middle;
    resize(picture, width, bottom + 40);

    const x = scaleX(right);
    const y = scaleLoss(middle, top);
    const share = scaleShare(bottom, low);
    const common = { x, left: LEFT, right, xs: ticks(...x.domain, width > 700 ? 8 : 4) };
    const xName = X_NAME[get("along")];
    const losses = { ...common, y, bottom: middle, ys: y.ticks };
    picture.replaceChildren(...phases(x, top, bottom, right));
    if (accepting) {
      picture.append(
        axes({ ...losses, xs: [] }),
        axes({ ...common, y: share, bottom, ys: share.ticks, yWords: percent, xName }),
        heading("first choices accepted, share", low - 10),
      );
    } else picture.append(axes({ ...losses, xName }));
    picture.append(heading("loss, nats", top - 10));
    runs.forEach((run, place) => paintRun(run, place, { x, y, share }));
    if (width > 480) nameCurves(runs[0], { y, share, right });
    const cursor = svg("g", {});
    picture.append(cursor);
    spots = { x, y, share, top, bottom, cursor };
    moveCursor();
  }

  function scaleX(right) {
    const values = runs.flatMap((run) => [run.xs, run.looks.map((look) => look.x)]);
    const [first, last] = spanned(values, [0, 1]);
    return scale([first, Math.max(last, first + 1)], [LEFT, right]);
  }

  /** The losses' scale, with the ticks that suit it: it spans what is drawn on it. */
  function scaleLoss(from, to) {
    const [low, high] = spanned(runs.flatMap((run) => headsOf(run).flatMap((curve) => [
      get("raw") ? curve.raw : curve.smoothed, run.looks.map((look) => look.loss[curve.head]),
    ])), [0, 1]);
    if (get("log_scale") && low > 0) {
      const y = scale([low / 1.04, high * 1.04], [from, to], "log");
      return Object.assign(y, { ticks: logTicks(...y.domain) });
    }
    const room = (high - low) * 0.04 || 0.1;
    const y = scale([Math.max(0, low - room), high + room], [from, to]);
    return Object.assign(y, { ticks: ticks(...y.domain, 6) });
  }

  function scaleShare(from, to) {
    const shares = runs.flatMap((run) => headsOf(run).map(
      ({ head }) => run.looks.map((look) => look.accept[head])));
    const y = scale([0, clamp(spanned(shares, [0, 1])[1] * 1.08, 0.1, 1)], [from, to]);
    return Object.assign(y, { ticks: ticks(...y.domain, 3) });
  }

  const heading = (text, y) => words(0, y, text, { class: "lk-ch-heading" });

  /** Phase 2 lies on a tinted ground behind a line; both phases carry their names. */
  function phases(x, top, bottom, right) {
    const edges = runs.map(boundary);
    const out = [];
    if (edges[0] !== null) {
      const at = clamp(x(edges[0]), LEFT, right);
      out.push(svg("rect", {
        x: at, y: top, width: right - at, height: bottom - top, class: "lk-lc-second",
      }));
    }
    edges.forEach((edge, run) => {
      if (edge === null || !runs[run].phases[0].length) return;
      out.push(line(`M${x(edge)} ${top}V${bottom}`, { class: "lk-lc-edge", dashed: run > 0 }));
    });
    runs[0].phases.forEach((part, phase) => {
      if (!part.length) return;
      const [from, to] = [part[0], part.at(-1)].map((at) => x(runs[0].xs[at]));
      const alone = part.length === runs[0].xs.length;
      if (to - from < 50 && !alone) return; // no room for its name
      out.push(words((from + to) / 2, top - 4, `phase ${phase + 1}`, {
        "text-anchor": "middle", class: "lk-lc-phase",
      }));
    });
    return out;
  }

  function paintRun(run, place, { x, y, share }) {
    const dashed = place > 0;
    const size = run.looks.length > 40 ? 2.4 : 3.6;
    for (const { raw, smoothed, head } of headsOf(run)) {
      const stroke = hue(head);
      const points = (values, part) => part.map((at) => [x(run.xs[at]), y(values[at])]);
      const curve = (values, part) => path(thinned(points(values, part)));
      for (const part of run.phases.filter((each) => each.length)) {
        if (get("raw")) picture.append(line(curve(raw, part), { class: "lk-lc-raw", stroke }));
        picture.append(line(curve(smoothed, part), { class: "lk-lc-smooth", stroke, dashed }));
      }
      const shares = run.looks.map((look) => [x(look.x), share(look.accept[head])]);
      picture.append(line(path(shares), { class: "lk-lc-smooth", stroke, dashed }));
      const losses = run.looks.map((look) => [x(look.x), y(look.loss[head])]);
      for (const at of [...losses, ...shares]) {
        picture.append(mark(head, ...at, { size, hollow: dashed }));
      }
    }
  }

  /** The heads' names at the first run's ends, moved apart where they would touch. */
  function nameCurves(run, { y, share, right }) {
    const heads = headsOf(run);
    const name = (ends, nameOf) => apart(ends, 13, -Infinity, Infinity).forEach((at, index) => {
      const { head } = heads[index];
      picture.append(words(right + 8, at, nameOf(head), {
        dy: "0.32em", class: "lk-ch-name", style: `fill: ${hue(head)}`,
      }));
    });
    const losses = run.xs.length ? heads.map(({ smoothed }) => y(smoothed.at(-1))) : [];
    name(losses, (head) => `head ${head + 1}`);
    const accept = run.looks.at(-1)?.accept;
    const shares = accept ? heads.map(({ head }) => share(accept[head])) : [];
    name(shares, (head) => percent(accept[head]));
  }

  // ---- the read-out

  /** Its place: the trait's, or the end of the run while that is below zero. */
  function here() {
    if (!places.length) return null;
    return get("at") < 0 ? places.at(-1) : places[nearest(places, get("at"))];
  }

  function moveCursor() {
    const at = here();
    const { x, y, share, top, bottom, cursor } = spots;
    cursor.replaceChildren();
    if (at === null) return;
    cursor.append(line(`M${x(at)} ${top}V${bottom}`, { class: "lk-ch-hair" }));
    runs.forEach((run, place) => {
      const said = readOut(run, at);
      const look = { size: 4.5, hollow: place > 0 };
      for (const { head } of headsOf(run)) {
        const { smoothed, accept } = said?.heads[head] ?? {};
        if (said?.point) {
          const stop = run.xs[nearest(run.xs, at)];
          cursor.append(mark(head, x(stop), y(smoothed), look));
        }
        if (said?.look) cursor.append(mark(head, x(said.look.x), share(accept), look));
      }
    });
  }

  function showReadOut() {
    const at = here();
    const said = at === null ? [] : runs.map((run) => readOut(run, at));
    tellSlider(plot, {
      least: 0, most: Math.max(0, places.length - 1), now: Math.max(0, nearest(places, at ?? 0)),
      text: said.map((one, run) => (one ? spokenRun(one, run) : "")).join("; ") || "no step yet",
    });
    table.replaceChildren(...said.map((one, run) => (one ? runTable(one, run) : "")));
  }

  function spokenRun(said, run) {
    const losses = headsOf(runs[run]).map(({ head }) => {
      const { smoothed, accept } = said.heads[head];
      const accepted = accept === null ? "" : `, accepted ${percent(accept)}`;
      return `head ${head + 1} loss ${shown(smoothed)}${accepted}`;
    });
    return `${named(run)}${pointName(said.point)}: ${losses.join(", ")}`;
  }

  function runTable(said, run) {
    const rows = headsOf(runs[run]).map(({ head }) => {
      const { raw, smoothed, validation, accept } = said.heads[head];
      const values = [shown(smoothed), shown(raw), shown(validation), probability(accept)];
      return el("tr", {},
        el("th", { scope: "row" }, sample(head, { dashed: run > 0 }), `head ${head + 1}`),
        cells("td", values));
    });
    const { look } = said;
    const pace = look?.tokens_per_step ?? null;
    const caption = [
      `${named(run)}${pointName(said.point)}`, look && `last look at step ${look.step}`,
      pace === null ? null : `${shown(pace)} tokens per step`,
    ].filter(Boolean).join(", ");
    const names = ["head", "smoothed", "raw", "validation", "accepted"];
    return el("table", { class: "lk-ch-table" }, el("caption", {}, caption),
      el("thead", {}, el("tr", {}, cells("th", names, { scope: "col" }))), el("tbody", {}, rows));
  }

  plot.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const leap = Math.max(1, Math.round(places.length / 20));
    const to = stopMove(event.key, nearest(places, here() ?? 0), places.length, leap);
    if (to === null) return;
    event.preventDefault();
    put("at", places[to]);
  }, { signal });
  for (const kind of ["pointermove", "pointerdown"]) {
    plot.addEventListener(kind, (event) => {
      const pixel = event.clientX - picture.getBoundingClientRect().left;
      if (places.length) put("at", places[nearest(places, spots.x.back(pixel))]);
    }, { signal });
  }

  for (const name of ["span", "raw", "log_scale", "skip_start"]) listen(name, refresh);
  listen("along", () => {
    put("at", -1); // its old place meant something else
    refresh();
  });
  listen("live", showWords);
  listen("at", () => {
    moveCursor();
    showReadOut();
  });
  onWidth(plot, (room) => {
    width = room;
    if (runs.length) paint();
  }, signal);
  refresh();
  return {
    update(next) {
      logs = next;
      refresh();
    },
  };
}

/** A place in the training, in words. */
function pointName(point) {
  if (!point) return "before the first step";
  return `phase ${point.phase}, step ${point.step}, ${short(point.tokens)} positions`;
}

export default recordWidget({ name: "LossCurves", kind: "losslog", version: 1, most: 2, draw });
