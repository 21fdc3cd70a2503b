// What the two curve widgets share: scales, ticks, smoothing, paths, axes.

import { clamp, el, figures, svg } from "./prelude.js";

// ---------------------------------------------------------------------------------------------
// Numbers (pure)

/**
 * Round numbers within low…high, about `many` of them: steps of 1, 2 or 5 times a power of ten.
 * @returns {number[]}
 */
export function ticks(low, high, many = 5) {
  if (!(high > low)) return [low];
  const rough = (high - low) / Math.max(1, many);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((part) => part * power).find((size) => size >= rough * 0.999);
  const [first, last] = [Math.ceil(low / step - 1e-9), Math.floor(high / step + 1e-9)];
  return Array.from({ length: last - first + 1 }, (_, at) => (
    Number(((first + at) * step).toPrecision(12))));
}

/** 1, 2 and 5 times the powers of ten within low…high, for a logarithmic axis. */
export function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const part of [1, 2, 5]) {
      const value = Number((part * 10 ** power).toPrecision(3));
      if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
    }
  }
  return found;
}

/** A tick's words: thousands as k, millions as M. */
export function short(value) {
  const size = Math.abs(value);
  if (size >= 1e9) return `${Number((value / 1e9).toPrecision(3))}G`;
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`;
  return String(Number(value.toPrecision(6)));
}

/**
 * A scale from a domain onto pixels: call it for a place, `.back(pixel)` for a value. `kind` "log"
 * gives equal ratios equal room; its domain must be above nought.
 */
export function scale([low, high], [from, to], kind = "linear") {
  const bend = kind === "log" ? Math.log : (value) => value;
  const unbend = kind === "log" ? Math.exp : (value) => value;
  const span = bend(high) - bend(low) || 1;
  const place = (value) => from + ((bend(value) - bend(low)) / span) * (to - from);
  place.back = (pixel) => unbend(bend(low) + ((pixel - from) / (to - from)) * span);
  place.domain = [low, high];
  return place;
}

/**
 * An exponential average over about `span` values, unbiased from the first one on: the weights
 * 1, a, a², … with a = 1 - 1/span, normalised over what has been seen.
 * @param {ArrayLike<number>} values
 * @param {number} span
 * @returns {Float64Array}
 */
export function smooth(values, span) {
  const keep = 1 - 1 / Math.max(1, span);
  const out = new Float64Array(values.length);
  let total = 0;
  let weight = 0;
  for (let at = 0; at < values.length; at++) {
    total = keep * total + values[at];
    weight = keep * weight + 1;
    out[at] = total / weight;
  }
  return out;
}

/**
 * A curve with no more points than can be seen: in each pixel column its first, lowest, highest and
 * last point, in their own order.
 * @param {Array<[number, number]>} points in pixels, x ascending
 * @returns {Array<[number, number]>}
 */
export function thinned(points) {
  const kept = [];
  for (let from = 0; from < points.length;) {
    let to = from;
    let low = from;
    let high = from;
    const column = Math.floor(points[from][0]);
    for (; to < points.length && Math.floor(points[to][0]) === column; to++) {
      if (points[to][1] < points[low][1]) low = to;
      if (points[to][1] > points[high][1]) high = to;
    }
    const telling = new Set([from, low, high, to - 1].sort((a, b) => a - b));
    for (const at of telling) kept.push(points[at]);
    from = to;
  }
  return kept;
}

/** An SVG path through the points. */
export function path(points) {
  return points.map(([x, y], at) => `${at ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

/**
 * Places for labels that want to stand at `wanted` but not within `gap` of each other, kept within
 * low…high while there is room; in the order of `wanted`.
 */
export function apart(wanted, gap, low, high) {
  const order = wanted.map((_, at) => at).sort((a, b) => wanted[a] - wanted[b]);
  const out = [...wanted];
  let floor = low;
  for (const at of order) {
    out[at] = Math.max(wanted[at], floor);
    floor = out[at] + gap;
  }
  let ceiling = high;
  for (const at of [...order].reverse()) {
    out[at] = Math.min(out[at], ceiling);
    ceiling = out[at] - gap;
  }
  return out;
}

/** The index of the value nearest to `wanted` in an ascending list; -1 if it is empty. */
export function nearest(ascending, wanted) {
  let [low, high] = [0, ascending.length - 1];
  if (high < 0) return -1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (ascending[middle] < wanted) low = middle;
    else high = middle;
  }
  return wanted - ascending[low] <= ascending[high] - wanted ? low : high;
}

// ---------------------------------------------------------------------------------------------
// Drawing

/** The colour of the n-th series, from 0, as a value for CSS. */
export const hue = (n) => `var(--lk-c${(n % 8) + 1})`;

const SHAPES = [
  (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`,
  (r) => `M${-r} ${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
  (r) => `M0 ${-1.2 * r}L${1.15 * r} ${0.9 * r}H${-1.15 * r}z`,
  (r) => `M0 ${-1.35 * r}L${1.35 * r} 0L0 ${1.35 * r}L${-1.35 * r} 0z`,
  (r) => `M0 ${1.2 * r}L${1.15 * r} ${-0.9 * r}H${-1.15 * r}z`,
  (r) => `M${-r} ${-r}L${r} ${r}M${r} ${-r}L${-r} ${r}`,
  (r) => `M0 ${-1.3 * r}V${1.3 * r}M${-1.3 * r} 0H${1.3 * r}`,
  (r) => `M${-1.3 * r} ${-0.5 * r}h${2.6 * r}v${r}h${-2.6 * r}z`,
];

/** The mark of the n-th series at a point: full, or hollow. */
export function mark(n, x, y, { size = 4, hollow = false, color = hue(n), ...rest } = {}) {
  return svg("path", {
    d: SHAPES[n % SHAPES.length](size), transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`,
    fill: hollow ? "var(--lk-surface)" : color, stroke: hollow ? color : "var(--lk-surface)",
    "stroke-width": hollow ? 1.8 : 1.2, ...rest,
  });
}

/** A key's sample: a piece of line in the series' stroke with its mark on it. */
export function sample(n, { dashed = false, hollow = dashed, color = hue(n) } = {}) {
  const room = { width: 30, height: 12, viewBox: "0 0 30 12" };
  return svg("svg", { ...room, class: "lk-ch-sample", "aria-hidden": "true", focusable: "false" },
    line("M1 6H29", { stroke: color, "stroke-width": 2, dashed }),
    mark(n, 15, 6, { hollow, color }));
}

/** A stroke along an SVG path, dashed or whole. */
export function line(d, { dashed = false, ...rest } = {}) {
  return svg("path", { d, fill: "none", "stroke-dasharray": dashed ? "6 4" : undefined, ...rest });
}

/** Give a picture its size in pixels. */
export function resize(picture, width, height) {
  const size = { width, height, viewBox: `0 0 ${width} ${height}` };
  for (const [name, value] of Object.entries(size)) picture.setAttribute(name, value);
}

/** Words at a point of the picture. */
export function words(x, y, text, attributes = {}) {
  return svg("text", { x, y, ...attributes }, text);
}

/**
 * A panel's axes: faint lines across at the y ticks, small ones at the x ticks, words on both.
 * @param {{x: Function, y: Function, left: number, right: number, top: number, bottom: number,
 *   xs: number[], ys: number[], xWords?: Function, yWords?: Function, xName?: string}} panel
 */
export function axes(panel) {
  const { x, y, left, right, bottom, xs, ys, xWords = short, yWords = short, xName = null } = panel;
  const group = svg("g", { class: "lk-ch-axes" });
  for (const value of ys) {
    const at = Math.round(y(value)) + 0.5;
    group.append(line(`M${left} ${at}H${right}`, { class: "lk-ch-grid" }),
      words(left - 7, at, yWords(value), { dy: "0.32em", "text-anchor": "end" }));
  }
  for (const value of xs) {
    const at = Math.round(x(value)) + 0.5;
    group.append(line(`M${at} ${bottom}v4`, { class: "lk-ch-tick" }),
      words(at, bottom + 16, xWords(value), { "text-anchor": "middle" }));
  }
  group.append(line(`M${left} ${bottom + 0.5}H${right}`, { class: "lk-ch-line" }));
  const middle = (left + right) / 2;
  if (xName) group.append(words(middle, bottom + 33, xName, { "text-anchor": "middle" }));
  return group;
}

/** A number for a read-out: three figures, or a dash where there is none. */
export const shown = (value) => (value === null || value === undefined ? "–" : figures(value));

/** A table cell or heading in a row. */
export function cells(tag, values, attributes = {}) {
  return values.map((value) => el(tag, attributes, value));
}

/**
 * Buttons that put series on show and take them off.
 * @param {Array<{sample: Node, name: string}>} series
 * @param {Set<number>} hidden the places of those that are off; kept up to date
 * @param {() => void} changed
 */
export function seriesKeys(series, hidden, changed) {
  return series.map(({ sample: picture, name }, place) => {
    const node = el("button", { type: "button", class: "lk-button lk-ch-key", click: toggle },
      picture, el("span", {}, name));
    const show = () => node.setAttribute("aria-pressed", String(!hidden.has(place)));
    function toggle() {
      if (!hidden.delete(place)) hidden.add(place);
      show();
      changed();
    }
    show();
    return node;
  });
}

/** Where a key leads a read-out among `many` stops, `leap` at a time by page; null if nowhere. */
export function stopMove(key, here, many, leap = 1) {
  const to = {
    ArrowLeft: here - 1, ArrowDown: here - 1, ArrowRight: here + 1, ArrowUp: here + 1,
    PageDown: here - leap, PageUp: here + leap, Home: 0, End: many - 1,
  }[key];
  return to === undefined || !many ? null : clamp(to, 0, many - 1);
}

/**
 * A picture with a read-out: one tab stop, a slider to screen readers, moved by keys.
 * @param {string} name what the slider sets
 * @param {Element} picture
 * @param {Element} help
 */
export function readOutPlot(name, picture, help) {
  return el("div", {
    class: "lk-ch-plot", tabindex: "0", role: "slider", "aria-label": name,
    "aria-describedby": help.id,
  }, picture);
}

/** Tell screen readers the read-out's place and its values. */
export function tellSlider(plot, { least, most, now, text }) {
  const told = { valuemin: least, valuemax: most, valuenow: now, valuetext: text };
  for (const [key, value] of Object.entries(told)) plot.setAttribute(`aria-${key}`, value);
}

/** A labelled checkbox. @returns {{field: HTMLElement, set: (value: boolean) => void}} */
export function checkbox(name, value, change) {
  const input = el("input", { type: "checkbox", change: () => change(input.checked) });
  input.checked = value;
  return {
    field: el("label", { class: "lk-field" }, input, el("span", { class: "lk-label" }, name)),
    set: (next) => { input.checked = next; },
  };
}
