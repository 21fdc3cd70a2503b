// What the two curve widgets share: scales, ticks, smoothing, paths, axes.

import { el, figures, svg } from "./prelude.js";

// ---------------------------------------------------------------------------------------------
// Numbers (pure)

/**
 * Round numbers that cover low…high, about `many` of them (steps of 1, 2 or 5 times a power of ten).
 * @returns {number[]}
 */
export function ticks(low, high, many = 5) {
  if (!(high > low)) return [low];
  const rough = (high - low) / Math.max(1, many);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((part) => part * power).find((size) => size >= rough * 0.999);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) found.push(Number((at * step).toPrecision(12)));
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
    for (const at of new Set([from, low, high, to - 1].sort((a, b) => a - b))) kept.push(points[at]);
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
 * low…high as far as there is room; in the order of `wanted`.
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
  return svg("svg", { width: 30, height: 12, viewBox: "0 0 30 12", class: "lk-ch-sample", "aria-hidden": "true", focusable: "false" },
    svg("path", { d: "M1 6H29", stroke: color, "stroke-width": 2, "stroke-dasharray": dashed ? "5 3" : undefined }),
    mark(n, 15, 6, { hollow, color }));
}

/**
 * A panel's axes: faint lines across at the y ticks, small ones at the x ticks, words on both.
 * @param {{x: Function, y: Function, left: number, right: number, top: number, bottom: number,
 *   xs: number[], ys: number[], xWords?: Function, yWords?: Function, xName?: string}} panel
 */
export function axes({ x, y, left, right, top, bottom, xs, ys, xWords = short, yWords = short, xName = null }) {
  const group = svg("g", { class: "lk-ch-axes" });
  for (const value of ys) {
    const at = Math.round(y(value)) + 0.5;
    group.append(svg("path", { d: `M${left} ${at}H${right}`, class: "lk-ch-grid" }),
      svg("text", { x: left - 7, y: at, dy: "0.32em", "text-anchor": "end" }, yWords(value)));
  }
  for (const value of xs) {
    const at = Math.round(x(value)) + 0.5;
    group.append(svg("path", { d: `M${at} ${bottom}v4`, class: "lk-ch-tick" }),
      svg("text", { x: at, y: bottom + 16, "text-anchor": "middle" }, xWords(value)));
  }
  group.append(svg("path", { d: `M${left} ${bottom + 0.5}H${right}`, class: "lk-ch-line" }));
  if (xName) group.append(svg("text", { x: (left + right) / 2, y: bottom + 33, "text-anchor": "middle" }, xName));
  return group;
}

/** A number for a read-out: three figures, or a dash where there is none. */
export const shown = (value) => (value === null || value === undefined ? "–" : figures(value));

/** A table cell or heading in a row. */
export const cells = (tag, values, attributes = {}) => values.map((value) => el(tag, attributes, value));
