// From a risk table to another decision: which samples count, what they weigh, the risks.
//
// Pure functions on plain arrays. What a student switches in the page goes through here, in this
// order: draws, columns, weights, losses, risks, orders of rows and columns.

import { lossRows } from "./utilities.js";

/** @typedef {{text: string, count: number, logprob: number?, tokens: number?}} Sample */
/** @typedef {Sample & {index: number}} Column a sample and its place in the list it is from */

/** Numbers on [0, 1) from a seed, by a linear congruence: enough to shuffle a list. */
export function generator(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  for (let round = 0; round < 8; round++) next(); // neighbouring seeds start alike
  return next;
}

/**
 * The draws behind a list of samples, one entry a draw, as indices into the list. A list with
 * counts has forgotten the order of its draws; draws are exchangeable, so a shuffled order (the
 * same each time) is as good, and its first n are n fair draws without replacement.
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
  if (weighting === "uniform") {
    return sorted.map((index) => ({ ...samples[index], count: 1, index }));
  }
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
export function weigh(columns, weighting, how = {}) {
  const { temperature = 1, power = 0, without = new Set() } = how;
  const kept = columns.filter((column) => !without.has(column.index));
  const length = (column) => Math.max(column.tokens ?? 1, 1) ** power;
  const exponent = (column) => column.logprob / (temperature * length(column));
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
  const off = total > 0 && Math.abs(total - 1) > 1e-9;
  return off ? weights.map((weight) => weight / total) : weights;
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
 * Coordinates of a matrix's rows and columns along its first pair of singular vectors, once the
 * means of rows and columns are taken off (by power iteration; the sign is fixed, so the result
 * does not hang on the start). Sorted by them, similar rows and similar columns come together.
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
  const centred = rows.map(
    (row, h) => row.map((value, r) => value - rowMeans[h] - columnMeans[r] + mean),
  );

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

// ---------------------------------------------------------------------------------------------
// What follows from the switches (pure but for the losses computed so far)

/**
 * The losses of one utility, as far as they are known: `row(h)` against all texts (null: to come),
 * `places(columns)` of columns among the texts, `step()` for one piece of the work that is left.
 */
export function lossStore(utility, hypotheses, texts) {
  const place = new Map(texts.map((text, index) => [text, index]));
  const work = lossRows(utility, hypotheses, texts);
  const rows = [];
  return {
    row: (h) => rows[h] ?? null,
    places: (columns) => columns.map((column) => place.get(column.text)),
    share: () => rows.length / hypotheses.length,
    /** Do one piece of work; false once all is done. */
    step() {
      const { value, done } = work.next();
      if (value) rows.push(value);
      return !done && rows.length < hypotheses.length;
    },
  };
}

/** The values at those places, in that order; null of null. */
export function gather(values, places) {
  if (!values) return null;
  const out = new Float64Array(places.length);
  for (let at = 0; at < out.length; at++) out[at] = values[places[at]];
  return out;
}

/** The evidence list that a switch names. */
export function evidenceOf(record, name) {
  if (name === "hypotheses") return record.hypotheses;
  if (name === "reference") return [{ text: record.reference, count: 1, logprob: 0, tokens: null }];
  return record.evidence;
}

/** Why a weighting cannot be had of these samples, or null. */
export function weightingProblem(samples, weighting) {
  if (weighting === "model" && samples.some((sample) => sample.logprob === null)) {
    return "the record has no log-probability for every sample";
  }
  return null;
}

/** Are the weights under these switches the ones that the record holds? */
export function weighsAsRecorded(record, switches) {
  const { weighting, temperature, length_power: power, samples, evidence } = switches;
  return evidence === "samples" && weighting === record.weighting && samples === 0
    && temperature === 1 && power === 0;
}

/**
 * The decision under the switches: columns, weights, losses by row (null: still to come), risks.
 * With nothing switched these are the record's own numbers.
 */
export function decision(record, switches, store) {
  const { utility, weighting, temperature, length_power: power, samples, evidence } = switches;
  const list = evidenceOf(record, evidence);
  const own = evidence === "samples";
  const drawn = draws(list, record.seed ?? 0);
  const used = samples > 0 ? Math.min(samples, drawn.length) : drawn.length;
  const without = new Set(own ? switches.left_out : []);
  const asRecorded = weighsAsRecorded(record, switches);

  const columns = asRecorded
    ? list.map((sample, index) => ({ ...sample, index }))
    : columnsOf(list, drawn.slice(0, used), weighting);
  const weights = asRecorded
    ? normalised(Float64Array.from(record.weights, (weight, r) => (without.has(r) ? 0 : weight)))
    : weigh(columns, weighting, { temperature, power, without });
  const recorded = own && utility === record.utility;
  const from = recorded ? columns.map((column) => column.index) : store.places(columns);
  const losses = record.hypotheses.map(
    (_, h) => gather(recorded ? record.loss[h] : store.row(h), from),
  );
  const untouched = asRecorded && recorded && !without.size;
  const risk = untouched ? record.risk : losses.map((row) => (row ? riskOf(row, weights) : NaN));
  const whole = losses.every(Boolean);
  return {
    columns, weights, losses, risk, whole, untouched, without,
    best: untouched ? record.best : argmin(risk), draws: drawn.length, used,
  };
}

/** The orders of rows and columns for a sort; `seriated()` gives their places by likeness. */
export function arrangement(record, made, sort, seriated = () => seriate(made.losses)) {
  const { columns, weights, losses, risk } = made;
  if (sort === "drawn") return asListed(losses.length, columns.length);
  if (sort === "similarity") {
    const place = seriated();
    return { rows: orderBy(place.rows), columns: orderBy(place.columns) };
  }
  if (sort === "probability") {
    const known = record.hypotheses.every((sample) => sample.logprob !== null);
    return {
      rows: orderBy(record.hypotheses.map((sample) => -(known ? sample.logprob : sample.count))),
      columns: orderBy(weights.map((weight) => -weight)),
    };
  }
  const mean = new Float64Array(columns.length);
  for (const row of losses) for (let r = 0; r < mean.length; r++) mean[r] += row[r];
  return { rows: orderBy(risk), columns: orderBy(mean) };
}

/** Rows and columns in the record's own order. */
export const asListed = (rows, columns) => ({
  rows: Array.from({ length: rows }, (_, at) => at),
  columns: Array.from({ length: columns }, (_, at) => at),
});

/** Where each item stands in an order. */
export function inverse(order) {
  const places = new Array(order.length);
  order.forEach((item, place) => { places[item] = place; });
  return places;
}
