// From a risk table to another decision: which samples count, what they weigh, the risks, the order.
//
// Pure functions on plain arrays. What a student switches in the page goes through here, in this
// order: draws, columns, weights, risks, orders.

/** @typedef {{text: string, count: number, logprob: number?, tokens: number?}} Sample */
/** @typedef {Sample & {index: number}} Column a sample, and where it stands in the list it is from */

/** Random numbers on [0, 1) from a seed: enough to shuffle a list the same way each time. */
export function generator(seed) {
  let state = (seed ^ 0x9e3779b9) >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * The draws behind a list of samples, one entry a draw, as indices into the list. A list with counts
 * has forgotten the order of its draws; draws are exchangeable, so a shuffled order (the same each
 * time) is as good, and its first n are n fair draws without replacement.
 * @param {Sample[]} samples
 * @param {number} seed
 * @returns {number[]}
 */
export function draws(samples, seed) {
  const order = samples.flatMap((sample, index) => new Array(sample.count).fill(index));
  if (order.length === samples.length) return order;
  const random = generator(seed);
  for (let at = order.length - 1; at > 0; at--) {
    const other = Math.floor(random() * (at + 1));
    [order[at], order[other]] = [order[other], order[at]];
  }
  return order;
}

/**
 * The matrix's columns: every draw for uniform weights, the distinct texts with their counts for
 * all others, in the order of the list.
 * @param {Sample[]} samples
 * @param {number[]} drawn which draws count, as indices into samples
 * @param {string} weighting
 * @returns {Column[]}
 */
export function columnsOf(samples, drawn, weighting) {
  const sorted = [...drawn].sort((a, b) => a - b);
  if (weighting === "uniform") return sorted.map((index) => ({ ...samples[index], count: 1, index }));
  const distinct = new Map();
  for (const index of sorted) {
    const seen = distinct.get(samples[index].text);
    if (seen) {
      seen.count += 1;
      if ((samples[index].logprob ?? -Infinity) > (seen.logprob ?? -Infinity)) {
        seen.logprob = samples[index].logprob; // a text split into tokens otherwise: the likelier
        seen.tokens = samples[index].tokens;
      }
    } else distinct.set(samples[index].text, { ...samples[index], count: 1, index });
  }
  return [...distinct.values()];
}

/**
 * How much each column stands for of p(y|x), summing to 1. `model` is the softmax of
 * log p / (temperature · tokens^power); `uniform` columns are draws, so they all weigh the same.
 * @param {Column[]} columns
 * @param {string} weighting "uniform", "counts", "model" or "unique"
 * @param {{temperature?: number, power?: number, without?: Set<number>}} [how] `without` lists the
 *   indices of samples that are left out
 * @returns {Float64Array}
 */
export function weigh(columns, weighting, { temperature = 1, power = 0, without = new Set() } = {}) {
  const kept = columns.filter((column) => !without.has(column.index));
  const exponent = (column) => column.logprob / (temperature * Math.max(column.tokens ?? 1, 1) ** power);
  const top = weighting === "model" ? Math.max(...kept.map(exponent)) : 0;
  return normalised(Float64Array.from(columns, (column) => {
    if (without.has(column.index)) return 0;
    if (weighting === "model") return Math.exp(exponent(column) - top);
    return weighting === "counts" ? column.count : 1;
  }));
}

/** The weights divided by their sum; weights that already sum to 1 stay as they are. */
export function normalised(weights) {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return total > 0 && Math.abs(total - 1) > 1e-9 ? weights.map((weight) => weight / total) : weights;
}

/** The expected loss of one row. */
export function riskOf(losses, weights) {
  let risk = 0;
  for (let r = 0; r < weights.length; r++) risk += weights[r] * losses[r];
  return risk;
}

/** The first index of the smallest value, numbers that are not finite left aside; -1 if none is. */
export function argmin(values) {
  let best = -1;
  for (let at = 0; at < values.length; at++) {
    if (Number.isFinite(values[at]) && (best < 0 || values[at] < values[best])) best = at;
  }
  return best;
}

/** Indices 0…n-1 by ascending key; equal keys keep their order. */
export function orderBy(keys) {
  return Array.from(keys, (_, index) => index).sort((a, b) => keys[a] - keys[b] || a - b);
}

/**
 * Coordinates of a matrix's rows and columns along its first singular vectors: sorting by them
 * brings similar rows, and similar columns, next to each other (seriation by one dimension of
 * correspondence; the signs are fixed so that the result does not depend on the start).
 * @param {Float64Array[]} rows
 * @returns {{rows: Float64Array, columns: Float64Array}}
 */
export function seriate(rows) {
  const many = rows.length;
  const much = rows[0]?.length ?? 0;
  const rowMeans = rows.map((row) => row.reduce((sum, value) => sum + value, 0) / much);
  const columnMeans = new Float64Array(much);
  rows.forEach((row) => row.forEach((value, r) => { columnMeans[r] += value / many; }));
  const mean = rowMeans.reduce((sum, value) => sum + value, 0) / many;
  const centred = rows.map((row, h) => row.map((value, r) => value - rowMeans[h] - columnMeans[r] + mean));

  const random = generator(1);
  let right = Float64Array.from({ length: much }, () => random() - 0.5);
  let left = new Float64Array(many);
  for (let round = 0; round < 40; round++) {
    left = unit(Float64Array.from(centred, (row) => riskOf(row, right)));
    const next = new Float64Array(much);
    centred.forEach((row, h) => { for (let r = 0; r < much; r++) next[r] += left[h] * row[r]; });
    right = unit(next);
  }
  const sign = (left[argmin(left.map((value) => -Math.abs(value)))] ?? 0) > 0 ? 1 : -1;
  return { rows: left.map((value) => value * sign), columns: right.map((value) => -value * sign) };
}

function unit(vector) {
  const length = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
  return length > 0 ? vector.map((value) => value / length) : vector;
}
