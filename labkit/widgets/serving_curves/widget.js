// ServingCurves: how long users wait, for the first token and for each one after it, as they grow.

import {
  choice, clamp, el, fresh, onWidth, recordWidget, select, svg,
} from "../shared/prelude.js";
import {
  axes, cells, checkbox, hue, line, logTicks, mark, nearest, path, readOutPlot, resize, sample,
  scale, seriesKeys, shown, stopMove, tellSlider, ticks, words,
} from "../shared/chart.js";
import { extent, gain, legible, pointsOf, seriesOf, spaced, value } from "./series.js";

const MEASURES = {
  ttft: { name: "TTFT: time to first token, ms", short: "TTFT" },
  tpot: { name: "TPOT: time per output token, ms", short: "TPOT" },
  itl: { name: "ITL: gap between outputs, ms", short: "ITL" },
  gain: { name: "Gain: vanilla’s time per token over this", short: "gain" },
};
const SECOND = ["tpot", "itl", "gain"].map((key) => [key, MEASURES[key].short]);
const FIGURES = [
  ["mean", "mean"], ["p50", "median"], ["p90", "90th percentile"], ["p99", "99th percentile"],
];
const BANDS = [["p90", "median to 90th"], ["p99", "median to 99th"], ["none", "none"]];
const GAP = 30; // between the panels
const LEFT = 50; // of a panel, for its numbers

function draw({ root, records: [log], signal, listen, put, get }) {
  const series = seriesOf(log);
  const loads = [...new Set(log.rows.map((row) => row.users))].sort((a, b) => a - b);
  const hidden = new Set(); // places of the series that are switched off
  let width = 600;
  let panels = [];

  const simulated = (one) => one.origin === "simulated";
  const nameOf = ({ method, origin }) => `${method}, ${origin}`;
  const on = () => series.filter((_, place) => !hidden.has(place));
  const banded = (measure) => get("band") !== "none" && measure !== "gain";

  // ---- the parts of the page

  const picture = svg("svg", { class: "lk-ch-picture", "aria-hidden": "true" });
  const help = el("p", { class: "lk-ch-help", id: fresh("help") },
    "Arrow keys move the read-out to more or fewer users, Home and End to the ends. ",
    "TTFT: from request to first output. TPOT: (end to end − TTFT) ÷ (tokens − 1). ",
    "ITL: gaps between outputs, and under speculation one output can hold several tokens.");
  const plot = readOutPlot("Concurrent users of the read-out", picture, help);
  const table = el("div", { class: "lk-ch-readout" });
  const scroll = el("div", {
    class: "lk-sc-scroll", role: "group", "aria-label": "Read-out",
  }, table);
  const keys = el("div", {
    class: "lk-bar lk-ch-keys", role: "group", "aria-label": "Series on show",
  }, seriesKeys(series.map((one) => (
    { sample: sample(one.hue, { dashed: simulated(one) }), name: nameOf(one) })), hidden, refresh));
  const controls = {
    gap: choice("Second panel", SECOND, get("gap"), (key) => put("gap", key)),
    line: select("Lines", FIGURES, get("line"), (key) => put("line", key)),
    band: select("Bands", BANDS, get("band"), (key) => put("band", key)),
    log: checkbox("log scale", get("log_scale"), (next) => put("log_scale", next)),
  };
  root.append(
    el("div", { class: "lk-ch-head" }, el("p", { class: "lk-title" }, log.name),
      el("p", {}, `${log.base} on ${log.target}, up to ${log.max_new_tokens} new tokens`)),
    el("div", { class: "lk-bar lk-ch-controls" },
      controls.gap.group, controls.line, controls.band, controls.log.field),
    keys, plot, scroll, help,
  );

  function refresh() {
    controls.gap.set(get("gap"));
    controls.line.querySelector("select").value = get("line");
    controls.band.querySelector("select").value = get("band");
    controls.log.set(get("log_scale"));
    paint();
    showReadOut();
  }

  // ---- painting

  /** Two panels beside each other where there is room, else one above the other. */
  function paint() {
    const beside = width >= 640;
    const wide = beside ? (width - GAP) / 2 : width;
    const tall = clamp(Math.round(wide * 0.62), 190, 330);
    resize(picture, width, (beside ? 1 : 2) * (tall + 72));
    picture.replaceChildren();
    panels = ["ttft", get("gap")].map((measure, place) => {
      const left = LEFT + (beside ? place * (wide + GAP) : 0);
      const top = 26 + (beside ? 0 : place * (tall + 72));
      return paintPanel(measure, { left, right: left + wide - LEFT - 14, top, bottom: top + tall });
    });
    moveCursor();
  }

  function paintPanel(measure, frame) {
    const { left, right, top, bottom } = frame;
    const x = scaleUsers(left + 10, right - 10);
    const y = scaleLatency(measure, bottom, top);
    picture.append(
      axes({
        ...frame, x, y, xs: spaced(loads, x, 26), ys: y.ticks, xWords: String,
        xName: "concurrent users",
      }),
      words(left - LEFT, top - 12, MEASURES[measure].name, { class: "lk-ch-heading" }),
    );
    if (measure === "gain") {
      picture.append(line(`M${left} ${y(1)}H${right}`, { class: "lk-sc-even" }));
    }
    const below = [...on()].sort((a, b) => simulated(b) - simulated(a)); // measured ones on top
    const drawn = below.map((one) => ({ one, points: placed(one, measure, get("line"), x, y) }));
    if (banded(measure)) below.forEach((one) => paintBand(one, measure, x, y));
    drawn.forEach(paintLine);
    writeUsers([...drawn].reverse(), top);
    const cursor = svg("g", {});
    picture.append(cursor);
    return { ...frame, measure, x, y, cursor };
  }

  function scaleUsers(from, to) {
    const [fewest, most] = [loads[0] ?? 1, loads.at(-1) ?? 1];
    return scale(most > fewest ? [fewest, most] : [fewest / 2, fewest * 2], [from, to], "log");
  }

  /** The scale of a panel's values, with the ticks that suit it. */
  function scaleLatency(measure, from, to) {
    const figures = banded(measure) ? [get("line"), "p50", get("band")] : [get("line")];
    const all = on().flatMap((one) => figures.map((figure) => pointsOf(log, one, measure, figure)));
    if (measure === "gain") all.push([[1, 1]]); // where nothing is gained
    const [low, high] = extent(all);
    if (get("log_scale")) {
      const y = scale([low / 1.25, high * 1.25], [from, to], "log");
      return Object.assign(y, { ticks: logTicks(...y.domain) });
    }
    return Object.assign(scale([0, high * 1.1], [from, to]), { ticks: ticks(0, high * 1.1, 5) });
  }

  /** A series' points in pixels, with their users. */
  function placed(one, measure, figure, x, y) {
    return pointsOf(log, one, measure, figure).map(([users, each]) => (
      { users, at: [x(users), y(each)] }));
  }

  function paintBand(one, measure, x, y) {
    const edge = (figure) => placed(one, measure, figure, x, y).map(({ at }) => at);
    const back = path(edge(get("band")).reverse()).replace("M", "L");
    picture.append(svg("path", {
      d: `${path(edge("p50"))}${back}Z`, class: "lk-sc-band", fill: hue(one.hue),
      opacity: simulated(one) ? 0.09 : 0.16,
    }));
  }

  function paintLine({ one, points }) {
    const dashed = simulated(one);
    const through = path(points.map(({ at }) => at));
    picture.append(line(through, { class: "lk-sc-line", stroke: hue(one.hue), dashed }));
    for (const { at } of points) picture.append(mark(one.hue, ...at, { hollow: dashed }));
  }

  /** The users on the points, the first series first, as far as they can be read. */
  function writeUsers(drawn, top) {
    const labels = drawn.flatMap(({ one, points }) => points.map(({ users, at: [x, y] }) => ({
      x, y: Math.max(top + 4, y - 11), width: 4 + 7 * String(users).length, users, hue: one.hue,
    })));
    const free = legible(labels);
    labels.filter((_, at) => free[at]).forEach(({ x, y, users, hue: place }) => {
      picture.append(words(x, y, String(users), {
        dy: "0.32em", "text-anchor": "middle", class: "lk-sc-users", style: `fill: ${hue(place)}`,
      }));
    });
  }

  // ---- the read-out

  const load = () => loads[Math.max(0, nearest(loads, get("users")))];

  /** The series on show with their rows under the load of the read-out. */
  function rowsHere() {
    const rows = on().map((one) => ({ one, row: one.rows.find((each) => each.users === load()) }));
    return rows.filter(({ row }) => row);
  }

  function moveCursor() {
    for (const { x, y, top, bottom, cursor, measure } of panels) {
      cursor.replaceChildren();
      if (!loads.length) continue;
      cursor.append(line(`M${x(load())} ${top}V${bottom}`, { class: "lk-ch-hair" }));
      for (const { one, row } of rowsHere()) {
        const at = value(log, row, measure, get("line"));
        if (at === null) continue;
        cursor.append(mark(one.hue, x(load()), y(at), { size: 5, hollow: simulated(one) }));
      }
    }
  }

  function showReadOut() {
    const rows = rowsHere();
    const users = load();
    tellSlider(plot, {
      least: loads[0] ?? 0, most: loads.at(-1) ?? 0, now: users ?? 0,
      text: rows.length ? `${users} users: ${rows.map(spokenRow).join("; ")}` : "no rows",
    });
    table.replaceChildren(readOutTable(rows, users));
    if (scroll.scrollWidth > scroll.clientWidth) scroll.setAttribute("tabindex", "0"); // for keys
    else scroll.removeAttribute("tabindex");
  }

  /** The latency beside TTFT in the read-out: the second panel's; under a gain, time per token. */
  const beside = () => (get("gap") === "itl" ? "itl" : "tpot");

  function spokenRow({ one, row }) {
    const figure = get("line");
    const faster = gain(log, row, beside(), figure);
    return [
      nameOf(one), `TTFT ${shown(row.ttft_ms[figure])}`,
      `${MEASURES[beside()].short} ${shown(row[`${beside()}_ms`][figure])} milliseconds`,
      faster === null ? null : `${shown(faster)} times vanilla’s pace`,
    ].filter(Boolean).join(", ");
  }

  function readOutTable(rows, users) {
    const figure = get("line");
    const name = FIGURES.find(([key]) => key === figure)[1];
    const head = [
      "series", `TTFT ${name}`, "90th", `${MEASURES[beside()].short} ${name}`, "90th", "gain",
      "tokens a step", "tokens/s", "failed",
    ];
    const body = rows.map(({ one, row }) => {
      const faster = gain(log, row, beside(), figure);
      const latency = row[`${beside()}_ms`];
      return el("tr", {},
        el("th", { scope: "row" }, sample(one.hue, { dashed: simulated(one) }), nameOf(one)),
        cells("td", [
          shown(row.ttft_ms[figure]), shown(row.ttft_ms.p90), shown(latency[figure]),
          shown(latency.p90), faster === null ? "–" : `${faster.toFixed(2)}×`,
          shown(row.tokens_per_step), shown(row.tokens_per_s),
          `${row.errors} of ${row.requests + row.errors}`,
        ]));
    });
    const many = users === 1 ? "1 user" : `${users} users at once`;
    return el("table", { class: "lk-ch-table" },
      el("caption", {}, users === undefined ? "No rows in this log" : `${many}, latencies in ms`),
      el("thead", {}, el("tr", {}, cells("th", head, { scope: "col" }))),
      el("tbody", {}, body));
  }

  plot.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const to = stopMove(event.key, nearest(loads, load()), loads.length);
    if (to === null) return;
    event.preventDefault();
    put("users", loads[to]);
  }, { signal });
  for (const kind of ["pointermove", "pointerdown"]) {
    plot.addEventListener(kind, (event) => {
      const box = picture.getBoundingClientRect();
      const [px, py] = [event.clientX - box.left, event.clientY - box.top];
      const panel = panels.find(({ left, right, top, bottom }) => (
        px >= left - 8 && px <= right + 8 && py >= top - 24 && py <= bottom + 40));
      if (!panel || !loads.length) return;
      put("users", loads[nearest(loads.map((users) => panel.x(users)), px)]);
    }, { signal });
  }

  for (const name of ["gap", "line", "band", "log_scale"]) listen(name, refresh);
  listen("users", () => {
    moveCursor();
    showReadOut();
  });
  onWidth(plot, (room) => {
    width = room;
    refresh();
  }, signal);
  refresh();
}

export default recordWidget({
  name: "ServingCurves", kind: "servinglog", version: 1, most: 1, draw,
});
