// ServingCurves: how long users wait, for the first token and for each one after it, as they grow.

import { choice, clamp, el, fresh, onWidth, recordWidget, select, svg } from "../shared/prelude.js";
import { axes, cells, hue, mark, nearest, path, sample, scale, short, shown, ticks } from "../shared/chart.js";

const MEASURES = {
  ttft: { name: "TTFT: time to first token, ms", short: "TTFT" },
  tpot: { name: "TPOT: time per output token, ms", short: "TPOT" },
  itl: { name: "ITL: gap between outputs, ms", short: "ITL" },
  gain: { name: "Gain: vanilla’s time per token over this", short: "gain" },
};
const FIGURES = [["mean", "mean"], ["p50", "median"], ["p90", "90th percentile"], ["p99", "99th percentile"]];
const BANDS = [["p90", "median to 90th"], ["p99", "median to 99th"], ["none", "none"]];

// ---------------------------------------------------------------------------------------------
// From the record to curves (pure)

/**
 * The log's series, in its own order: one a method and origin, rows by users (the last of equals).
 * @returns {Array<{method: string, origin: string, hue: number, rows: object[]}>}
 */
export function seriesOf(log) {
  const methods = [...new Set(log.rows.map((row) => row.method))];
  const found = new Map();
  for (const row of log.rows) {
    const key = `${row.method}\u0000${row.origin}`;
    if (!found.has(key)) found.set(key, { method: row.method, origin: row.origin, hue: methods.indexOf(row.method), rows: new Map() });
    found.get(key).rows.set(row.users, row);
  }
  return [...found.values()].map((series) => ({ ...series, rows: [...series.rows.values()].sort((a, b) => a.users - b.users) }));
}

/** How many times faster a method's row is than vanilla's under the same load; null if unknown. */
export function gain(log, row, measure = "tpot", figure = "mean") {
  if (row.method === "vanilla") return null;
  const plain = log.rows.findLast((each) => each.method === "vanilla" && each.origin === row.origin && each.users === row.users);
  const own = row[`${measure}_ms`][figure];
  return plain && own > 0 ? plain[`${measure}_ms`][figure] / own : null;
}

/** What a panel shows of a row; null where there is nothing to show. */
export function value(log, row, measure, figure) {
  return measure === "gain" ? gain(log, row, "tpot", figure) : row[`${measure}_ms`][figure];
}

/** A series' points on a panel, [users, value] each. */
export function pointsOf(log, series, measure, figure) {
  return series.rows.map((row) => [row.users, value(log, row, measure, figure)]).filter(([, each]) => each !== null);
}

/** The lowest value above nought and the highest of all points; [1, 1] where there is none. */
export function extent(lists) {
  const values = lists.flat().map(([, each]) => each);
  const above = values.filter((each) => each > 0);
  return above.length ? [Math.min(...above), Math.max(...above)] : [1, 1];
}

/**
 * Which labels can be written without touching one written before.
 * @param {Array<{x: number, y: number, width: number}>} labels centres, in order of importance
 * @param {number} height
 * @returns {boolean[]}
 */
export function legible(labels, height = 13) {
  const kept = [];
  return labels.map((label) => {
    const free = kept.every((other) => Math.abs(other.x - label.x) > (other.width + label.width) / 2 || Math.abs(other.y - label.y) > height);
    if (free) kept.push(label);
    return free;
  });
}

/** Powers of two over the span, and 1, 2, 5 times powers of ten for a logarithmic latency. */
export function decades(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const part of [1, 2, 5]) {
      const value = Number((part * 10 ** power).toPrecision(3));
      if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
    }
  }
  return found;
}

// ---------------------------------------------------------------------------------------------
// The view

function draw({ root, records: [log], signal, listen, put, get }) {
  const series = seriesOf(log);
  const loads = [...new Set(log.rows.map((row) => row.users))].sort((a, b) => a - b);
  const hidden = new Set(); // series that are switched off, by place
  const words = ({ method, origin }) => `${method}, ${origin}`;
  let width = 600;
  let panels = [];

  const picture = svg("svg", { class: "lk-ch-picture", "aria-hidden": "true" });
  const help = el("p", { class: "lk-ch-help", id: fresh("help") },
    "Arrow keys move the read-out to more or fewer users, Home and End to the ends. TTFT: from request to first output. TPOT: (end to end − TTFT) ÷ (tokens − 1). ITL: gaps between outputs, and under speculation one output can hold several tokens.");
  const plot = el("div", {
    class: "lk-ch-plot", tabindex: "0", role: "slider", "aria-label": "Concurrent users of the read-out", "aria-describedby": help.id,
  }, picture);
  const table = el("div", { class: "lk-ch-readout" });
  const scroll = el("div", { class: "lk-sc-scroll", role: "group", "aria-label": "Read-out" }, table);
  const controls = {
    gap: choice("Second panel", [["tpot", "TPOT"], ["itl", "ITL"], ["gain", "gain"]], get("gap"), (value) => put("gap", value)),
    line: select("Lines", FIGURES, get("line"), (value) => put("line", value)),
    band: select("Bands", BANDS, get("band"), (value) => put("band", value)),
    log: el("input", { type: "checkbox", change: () => put("log_scale", controls.log.checked) }),
  };
  const keys = el("div", { class: "lk-bar lk-ch-keys", role: "group", "aria-label": "Series on show" }, series.map((one, place) => {
    const node = el("button", { type: "button", class: "lk-button lk-ch-key", "aria-pressed": "true", click: () => {
      if (hidden.has(place)) hidden.delete(place);
      else hidden.add(place);
      node.setAttribute("aria-pressed", String(!hidden.has(place)));
      refresh();
    } }, sample(one.hue, { dashed: simulated(one) }), el("span", {}, words(one)));
    return node;
  }));
  root.append(
    el("div", { class: "lk-ch-head" }, el("p", { class: "lk-title" }, log.name), el("p", {}, `${log.base} on ${log.target}, up to ${log.max_new_tokens} new tokens`)),
    el("div", { class: "lk-bar lk-ch-controls" }, controls.gap.group, controls.line, controls.band,
      el("label", { class: "lk-field" }, controls.log, el("span", { class: "lk-label" }, "log scale"))),
    keys, plot, scroll, help,
  );

  const on = () => series.filter((_, place) => !hidden.has(place));
  const simulated = (one) => one.origin === "simulated";
  const banded = (measure) => get("band") !== "none" && measure !== "gain";

  function refresh() {
    controls.gap.set(get("gap"));
    controls.line.querySelector("select").value = get("line");
    controls.band.querySelector("select").value = get("band");
    controls.log.checked = get("log_scale");
    paint();
    showReadOut();
  }

  function paint() {
    const aside = width >= 640; // two panels beside each other, else one above the other
    const wide = aside ? (width - 30) / 2 : width;
    const tall = clamp(Math.round(wide * 0.62), 190, 330);
    const height = aside ? tall + 68 : 2 * (tall + 68) + 8;
    picture.setAttribute("width", width);
    picture.setAttribute("height", height);
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    picture.replaceChildren();
    panels = ["ttft", get("gap")].map((measure, place) => {
      const left = (aside ? place * (wide + 30) : 0) + 50;
      const top = 26 + (aside ? 0 : place * (tall + 76));
      return paintPanel(measure, { left, right: left + wide - 50 - 14, top, bottom: top + tall });
    });
    moveCursor();
  }

  function paintPanel(measure, { left, right, top, bottom }) {
    const some = on();
    const figures_ = banded(measure) ? [get("line"), "p50", get("band")] : [get("line")];
    const drawnPoints = some.flatMap((one) => figures_.map((figure) => pointsOf(log, one, measure, figure)));
    if (measure === "gain") drawnPoints.push([[1, 1]]); // where nothing is gained
    const [low, high] = extent(drawnPoints);
    const ends = loads.length > 1 ? [loads[0], loads.at(-1)] : [(loads[0] ?? 1) / 2, (loads[0] ?? 1) * 2];
    const x = scale(ends, [left + 10, right - 10], "log");
    const y = get("log_scale") ? scale([low / 1.25, high * 1.25], [bottom, top], "log") : scale([0, high * 1.1], [bottom, top]);
    const ys = get("log_scale") ? decades(...y.domain) : ticks(0, high * 1.1, 5);
    picture.append(
      axes({ x, y, left, right, top, bottom, xs: spaced(loads, x, 26), ys, xWords: String, yWords: short, xName: "concurrent users" }),
      svg("text", { x: left - 50, y: top - 12, class: "lk-ch-heading" }, MEASURES[measure].name),
    );
    const below = [...some].sort((a, b) => simulated(b) - simulated(a)); // what was measured lies on top
    const drawn = below.map((one) => {
      const points = pointsOf(log, one, measure, get("line"));
      return { ...one, users: points.map(([users]) => users), points: points.map(([users, each]) => [x(users), y(each)]) };
    });
    if (measure === "gain") picture.append(svg("path", { d: `M${left} ${y(1)}H${right}`, class: "lk-sc-even" }));
    if (banded(measure)) for (const one of drawn) paintBand(one, measure, x, y);
    for (const one of drawn) paintLine(one);
    writeUsers(drawn, top);
    const cursor = svg("g", {});
    picture.append(cursor);
    return { measure, x, y, top, bottom, left, right, cursor };
  }

  function paintBand(one, measure, x, y) {
    if (one.rows.length < 2) return;
    const edge = (figure) => pointsOf(log, one, measure, figure).map(([users, each]) => [x(users), y(each)]);
    picture.append(svg("path", {
      d: `${path(edge("p50"))}${path(edge(get("band")).reverse()).replace("M", "L")}Z`, class: "lk-sc-band", fill: hue(one.hue),
      opacity: one.origin === "measured" ? 0.16 : 0.09,
    }));
  }

  function paintLine({ points, hue: place, origin }) {
    const dashed = origin === "simulated";
    picture.append(svg("path", { d: path(points), class: "lk-sc-line", stroke: hue(place), "stroke-dasharray": dashed ? "6 4" : undefined }));
    for (const at of points) picture.append(mark(place, ...at, { size: 4, hollow: dashed }));
  }

  /** The users on the points, measured ones first, as far as they can be read. */
  function writeUsers(drawn, top) {
    const labels = [...drawn].reverse().flatMap((one) => (
      one.points.map(([x, y], at) => ({ x, y: Math.max(top + 4, y - 11), width: 4 + 7 * String(one.users[at]).length, users: one.users[at], hue: one.hue }))));
    const free = legible(labels);
    labels.forEach((label, at) => {
      if (!free[at]) return;
      picture.append(svg("text", { x: label.x, y: label.y, dy: "0.32em", "text-anchor": "middle", class: "lk-sc-users", style: `fill: ${hue(label.hue)}` }, String(label.users)));
    });
  }

  // ---- the read-out

  const load = () => loads[Math.max(0, nearest(loads, get("users")))];
  const here = () => on().map((one) => ({ one, row: one.rows.find((row) => row.users === load()) })).filter(({ row }) => row);

  function moveCursor() {
    for (const { x, y, top, bottom, cursor, measure } of panels) {
      if (!loads.length) return;
      cursor.replaceChildren(svg("path", { d: `M${x(load())} ${top}V${bottom}`, class: "lk-ch-hair" }),
        ...here().map(({ one, row }) => ({ one, at: value(log, row, measure, get("line")) })).filter(({ at }) => at !== null)
          .map(({ one, at }) => mark(one.hue, x(load()), y(at), { size: 5, hollow: simulated(one) })));
    }
  }

  function showReadOut() {
    const measure = get("gap") === "itl" ? "itl" : "tpot";
    const figure = get("line");
    const users = load();
    plot.setAttribute("aria-valuemin", loads[0] ?? 0);
    plot.setAttribute("aria-valuemax", loads.at(-1) ?? 0);
    plot.setAttribute("aria-valuenow", users ?? 0);
    plot.setAttribute("aria-valuetext", users === undefined ? "no rows" : `${users} users: ${here().map(({ one, row }) => {
      const faster = gain(log, row, measure, figure);
      return `${words(one)}, TTFT ${shown(row.ttft_ms[figure])}, ${MEASURES[measure].short} ${shown(row[`${measure}_ms`][figure])} milliseconds${faster === null ? "" : `, ${shown(faster)} times vanilla’s pace`}`;
    }).join("; ")}`);
    const name = FIGURES.find(([key]) => key === figure)[1];
    const head = ["series", `TTFT ${name}`, "90th", `${MEASURES[measure].short} ${name}`, "90th", "gain", "tokens a step", "tokens/s", "failed"];
    table.replaceChildren(el("table", { class: "lk-ch-table" },
      el("caption", {}, users === undefined ? "No rows in this log" : `${users} ${users === 1 ? "user" : "users at once"}, latencies in ms`),
      el("thead", {}, el("tr", {}, cells("th", head, { scope: "col" }))),
      el("tbody", {}, here().map(({ one, row }) => {
        const faster = gain(log, row, measure, figure);
        return el("tr", {}, el("th", { scope: "row" }, sample(one.hue, { dashed: simulated(one) }), words(one)),
          cells("td", [shown(row.ttft_ms[figure]), shown(row.ttft_ms.p90), shown(row[`${measure}_ms`][figure]), shown(row[`${measure}_ms`].p90),
            faster === null ? "–" : `${faster.toFixed(2)}×`, shown(row.tokens_per_step), shown(row.tokens_per_s), `${row.errors} of ${row.requests + row.errors}`]));
      }))));
    if (scroll.scrollWidth > scroll.clientWidth) scroll.setAttribute("tabindex", "0"); // to scroll by keys
    else scroll.removeAttribute("tabindex");
  }

  const goTo = (index) => { if (loads.length) put("users", loads[clamp(index, 0, loads.length - 1)]); };

  plot.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const at = nearest(loads, load());
    const to = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, PageUp: at + 1, PageDown: at - 1, Home: 0, End: loads.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    goTo(to);
  }, { signal });
  const point = (event) => {
    const box = picture.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    const panel = panels.find((each) => px >= each.left - 8 && px <= each.right + 8 && py >= each.top - 24 && py <= each.bottom + 40);
    if (panel) goTo(nearest(loads.map((users) => panel.x(users)), px));
  };
  plot.addEventListener("pointermove", point, { signal });
  plot.addEventListener("pointerdown", point, { signal });

  for (const name of ["gap", "line", "band", "log_scale"]) listen(name, refresh);
  listen("users", () => { moveCursor(); showReadOut(); });
  onWidth(plot, (room) => { width = room; refresh(); }, signal);
  refresh();
}

/** The values of which no two would be written closer than `gap` pixels, the first one kept. */
export function spaced(values, place, gap) {
  let last = -Infinity;
  return values.filter((value) => {
    if (place(value) - last < gap) return false;
    last = place(value);
    return true;
  });
}

export default recordWidget({ name: "ServingCurves", kind: "servinglog", version: 1, most: 1, draw });
