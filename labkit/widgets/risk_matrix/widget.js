// RiskMatrix: the loss of each hypothesis against each evidence sample, and what it decides.

import {
  button, choice, clamp, count, el, figures, fresh, graphemes, label, onWidth, recordWidget, running,
  select, shorten, sizeCanvas, slider, spoken, token, visible,
} from "../shared/prelude.js";
import { argmin, columnsOf, draws, normalised, orderBy, riskOf, seriate, weigh } from "./decide.js";
import {
  UTILITIES, characters, keptUnits, locate, longestMatches, lossRows, marked, pairCounts, tokenize13a,
} from "./utilities.js";

const WEIGHTINGS = [
  ["uniform", "each draw"], ["counts", "counts"], ["model", "model"], ["unique", "each text"],
];
const SORTS = [
  ["risk", "risk"], ["probability", "probability"], ["similarity", "similarity"], ["drawn", "as drawn"],
];
const SWITCHES = [
  "utility", "weighting", "temperature", "length_power", "samples", "evidence", "sort", "left_out",
];
const SLICE_MS = 8; // of a frame's 16, what computing losses may take

// ---------------------------------------------------------------------------------------------
// Colours and places (pure)

/** From alike to unlike on a light page; a dark page has it the other way round. */
const RAMP = ["#1d1a4d", "#26508f", "#3d87a8", "#83b9ad", "#d5dcb6", "#fdf8e4"];

const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

/** 256 colours along the ramp. @returns {number[][]} red, green, blue of each */
export function ramp(theme) {
  const stops = (theme === "dark" ? [...RAMP].reverse() : RAMP).map(channels);
  return Array.from({ length: 256 }, (_, step) => {
    const place = (step / 255) * (stops.length - 1);
    const low = Math.min(Math.floor(place), stops.length - 2);
    return stops[low].map((value, part) => Math.round(value + (place - low) * (stops[low + 1][part] - value)));
  });
}

/** The tenths around the losses: what the colours span. @returns {[number, number]} */
export function spanOf(rows) {
  let low = 1;
  let high = 0;
  for (const row of rows) {
    if (!row) continue;
    for (let r = 0; r < row.length; r++) {
      if (row[r] < low) low = row[r];
      if (row[r] > high) high = row[r];
    }
  }
  if (low > high) return [0, 1];
  low = Math.floor(low * 10 + 1e-9) / 10;
  return [low, Math.max(low + 0.1, Math.ceil(high * 10 - 1e-9) / 10)];
}

/**
 * Where everything goes on the canvas, in CSS pixels.
 * @param {number} width of the canvas
 * @param {number} rows
 * @param {number} columns
 */
export function geometry(width, rows, columns) {
  const rowHeight = Math.max(1, Math.min(22, 460 / rows));
  const labels = width >= 560 && rowHeight >= 13 ? Math.round(Math.min(230, width * 0.28)) : 14;
  const margin = width >= 480 ? 104 : 64;
  const room = Math.max(20, width - labels - margin - 12);
  const columnWidth = Math.min(56, room / columns);
  return {
    left: labels, top: 46, rowHeight, columnWidth,
    heatWidth: columnWidth * columns, heatHeight: rowHeight * rows,
    risk: labels + columnWidth * columns + 12, riskWidth: margin - 8,
    height: 46 + rowHeight * rows + 20,
    lines: rowHeight >= 7 && columnWidth >= 7,
    numbers: rowHeight >= 15 && columnWidth >= 30,
    labelled: labels > 14,
  };
}

/** Where a key leads from a place in the matrix; null if the key means nothing here. */
export function cellMove(key, [row, column], rows, columns) {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], PageUp: [-10, 0], PageDown: [10, 0] }[key];
  if (step) return [clamp(row + step[0], 0, rows - 1), clamp(column + step[1], 0, columns - 1)];
  if (key === "Home") return [row, 0];
  if (key === "End") return [row, columns - 1];
  return null;
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
export function weighsAsRecorded(record, { weighting, temperature, length_power: power, samples, evidence }) {
  return evidence === "samples" && weighting === record.weighting && samples === 0 && temperature === 1 && power === 0;
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
  const losses = record.hypotheses.map((_, h) => gather(recorded ? record.loss[h] : store.row(h), from));
  const untouched = asRecorded && recorded && !without.size;
  const risk = untouched ? record.risk : losses.map((row) => (row ? riskOf(row, weights) : NaN));
  const whole = losses.every(Boolean);
  return {
    columns, weights, losses, risk, whole, untouched, without,
    best: untouched ? record.best : argmin(risk), draws: drawn.length, used,
  };
}

/** The order of rows and columns that a sort asks for; `seriated()` gives the places by likeness. */
export function arrangement(record, made, sort, seriated = () => seriate(made.losses)) {
  const { columns, weights, losses, risk } = made;
  if (sort === "drawn") return { rows: orderBy(risk.map(() => 0)), columns: orderBy(columns.map(() => 0)) };
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

// ---------------------------------------------------------------------------------------------
// The view

function draw({ root, records: [record], signal, tip, say, listen, put, get }) {
  const hypotheses = record.hypotheses;
  const texts = [...new Set([...record.evidence, ...hypotheses].map((sample) => sample.text)
    .concat(record.reference === null ? [] : [record.reference]))];
  const stores = new Map();
  let switches = {};
  let made = null; // the decision under the switches
  let order = { rows: [], columns: [] };
  let places = { rows: [], columns: [] }; // where each row and column stands in the order
  let likeness = {}; // the last seriation, and of what
  let shape = null; // geometry on the canvas
  let width = 600; // of the canvas, in CSS pixels
  let frame = 0;
  let panelFrame = 0;
  const colours = { theme: null };

  // ---- the parts of the page

  const source = el("p", { class: "lk-rm-source", dir: "auto" }, el("span", { class: "lk-label" }, "Source "), running(record.source));
  const winner = el("p", { class: "lk-rm-winner", dir: "auto" });
  const facts = el("p", { class: "lk-rm-facts" });
  const status = el("p", { class: "lk-rm-status", "aria-live": "off" });
  const canvas = el("canvas", { class: "lk-rm-canvas", "aria-hidden": "true" });
  const overlay = el("canvas", { class: "lk-rm-overlay", "aria-hidden": "true" });
  const help = el("p", { class: "lk-rm-help", id: fresh("help") },
    "Arrow keys move the cell, Page up and down by ten rows, Home and End to a row’s ends; ",
    el("kbd", {}, "b"), " goes to the best row, ", el("kbd", {}, "x"), " leaves the sample out or takes it back.");
  const cell = el("div", { role: "gridcell", id: fresh("cell"), class: "lk-unseen", "aria-selected": "true" });
  const line = el("div", { role: "row", class: "lk-unseen" }, cell);
  const grid = el("div", {
    role: "grid", tabindex: "0", class: "lk-rm-grid", "aria-label": "Losses", "aria-describedby": help.id,
    "aria-activedescendant": cell.id,
  }, canvas, overlay, line);
  const legend = el("div", { class: "lk-rm-legend", "aria-hidden": "true" });
  const caption = el("p", { class: "lk-rm-caption" });
  const panel = el("div", { class: "lk-rm-panel" });

  // ---- the switches

  const known = Object.entries(UTILITIES).map(([key, { name }]) => [key, `1 − ${name}${key === record.utility ? " (recorded)" : ""}`]);
  const utilities = record.utility in UTILITIES ? known : [[record.utility, `1 − ${record.utility} (recorded)`], ...known];
  const sources = [["samples", `${record.evidence.length} samples`], ["hypotheses", "the hypotheses"]]
    .concat(record.reference === null ? [] : [["reference", "the reference (oracle)"]]);
  const controls = {
    utility: select("Loss", utilities, get("utility"), (value) => put("utility", value)),
    weighting: choice("Weights", WEIGHTINGS, get("weighting"), (value) => put("weighting", value)),
    temperature: slider("Temperature", {
      min: -1, max: 1.5, step: 0.05, value: Math.log10(get("temperature")),
      words: (value) => figures(10 ** value, 2), input: (value) => put("temperature", Number((10 ** value).toPrecision(3))),
    }),
    samples: slider("Draws", {
      min: 1, max: 1, value: 1, words: (value) => String(value),
      input: (value) => put("samples", value === made.draws ? 0 : value),
    }),
    evidence: select("Evidence", sources, get("evidence"), (value) => put("evidence", value)),
    sort: select("Sorted by", SORTS, get("sort"), (value) => put("sort", value)),
  };
  const perToken = el("input", { type: "checkbox", change: () => put("length_power", perToken.checked ? 1 : 0) });
  const perTokenField = el("label", { class: "lk-field" }, perToken, el("span", { class: "lk-label" }, "log p per token"));
  const reset = button("As recorded", { icon: "reset", click: () => {
    const own = {
      utility: record.utility, weighting: record.weighting, temperature: 1, length_power: 0, samples: 0,
      evidence: "samples", left_out: [],
    };
    for (const [trait, value] of Object.entries(own)) put(trait, value);
    say("Back to what was recorded.");
  } });

  root.append(
    el("div", { class: "lk-rm-head" }, source, winner, facts),
    el("div", { class: "lk-bar lk-rm-controls" }, controls.utility, controls.weighting.group,
      controls.temperature.field, perTokenField, controls.samples.field, controls.evidence, controls.sort, reset),
    el("div", { class: "lk-rm-body" },
      el("div", { class: "lk-rm-matrix" }, grid, el("div", { class: "lk-bar" }, legend, status), caption, help),
      panel),
  );

  // ---- from switches to numbers

  /** What the traits say, as far as this record can follow it. */
  function readSwitches() {
    const next = Object.fromEntries(SWITCHES.map((name) => [name, get(name)]));
    if (!utilities.some(([key]) => key === next.utility)) next.utility = record.utility;
    if (!sources.some(([key]) => key === next.evidence)) next.evidence = "samples";
    if (!(next.utility in UTILITIES) && next.evidence !== "samples") next.evidence = "samples";
    const problem = weighsAsRecorded(record, next) ? null : weightingProblem(evidenceOf(record, next.evidence), next.weighting);
    return problem ? { ...next, weighting: "counts", note: `counts as weights: ${problem}` } : next;
  }

  function storeFor({ utility, evidence }) {
    if (utility === record.utility && evidence === "samples") return null;
    if (!stores.has(utility)) {
      stores.set(utility, lossStore(utility, hypotheses.map((sample) => sample.text), texts));
    }
    return stores.get(utility);
  }

  function refresh() {
    switches = readSwitches();
    made = decision(record, switches, storeFor(switches));
    if (made.whole) arrange();
    else if (order.rows.length !== hypotheses.length || order.columns.length !== made.columns.length) {
      order = { rows: orderBy(made.risk.map(() => 0)), columns: orderBy(made.columns.map(() => 0)) };
    }
    showControls();
    fit();
    if (made.whole) settle();
    else if (!frame) frame = requestAnimationFrame(work);
  }

  function arrange() {
    order = arrangement(record, made, switches.sort, () => {
      const columns = made.columns.map((column) => column.index).join();
      const key = `${switches.utility} ${switches.evidence} ${columns}`; // weights do not matter to it
      if (likeness.key !== key) likeness = { key, place: seriate(made.losses) };
      return likeness.place;
    });
    places = { rows: inverse(order.rows), columns: inverse(order.columns) };
  }

  /** Compute losses for a slice of this frame, paint what there is, and come again. */
  function work() {
    frame = 0;
    const store = storeFor(switches);
    if (!store) return;
    const until = performance.now() + SLICE_MS;
    let more = true;
    while (more && performance.now() < until) more = store.step();
    if (more) {
      made = decision(record, switches, store);
      paint();
      status.textContent = `computing ${UTILITIES[switches.utility].name}: ${Math.floor(100 * store.share())}%`;
      frame = requestAnimationFrame(work);
    } else refresh();
  }
  signal.addEventListener("abort", () => [frame, panelFrame].forEach((each) => cancelAnimationFrame(each)));

  /** All losses are known: say what was decided. */
  function settle() {
    status.textContent = made.untouched ? "as recorded" : switches.note ?? "recomputed in this page";
    put("best", made.best);
    showDecision();
    showCell();
  }

  /** The texts come a frame after the matrix, and once for many keys: it must not wait for them. */
  function showPanel() {
    cancelAnimationFrame(panelFrame);
    panelFrame = requestAnimationFrame(() => { if (made.whole) panel.replaceChildren(...cellPanel(...selected())); });
  }

  // ---- the selected cell: traits name it in the record's order, the page in the order on show

  function selected() {
    const [row, index] = get("selected");
    const column = made.columns.findIndex((each) => each.index === index);
    return [clamp(row, 0, hypotheses.length - 1), Math.max(0, column)];
  }

  function choose(row, column, speak = true) {
    put("selected", [row, made.columns[column].index]);
    if (speak) say(cell.getAttribute("aria-label"));
  }

  function toggle(column) {
    if (switches.evidence !== "samples") return;
    const { index } = made.columns[column];
    const next = made.without.has(index)
      ? switches.left_out.filter((each) => each !== index)
      : [...switches.left_out, index].sort((a, b) => a - b);
    if (next.length >= made.columns.length) say("At least one sample stays.");
    else put("left_out", next);
  }

  // ---- words

  const times = (sample) => (sample.count > 1 ? `, drawn ${sample.count} times` : "");

  function showDecision() {
    const best = hypotheses[made.best];
    winner.replaceChildren(el("span", { class: "lk-rm-star", "aria-hidden": "true" }, "◆ "), running(best.text));
    const frequent = argmin(hypotheses.map((sample) => -sample.count));
    const more = [];
    if (frequent !== made.best && hypotheses[frequent].count > 1) {
      more.push(`most frequent: hypothesis ${frequent} (${hypotheses[frequent].count} times), risk ${made.risk[frequent].toFixed(4)}`);
    }
    if (record.best !== made.best) more.push(`the record decided for hypothesis ${record.best}`);
    facts.textContent = [
      `Lowest risk of ${hypotheses.length}: ${made.risk[made.best].toFixed(4)}, hypothesis ${made.best}${times(best)}`, ...more,
    ].join(" · ");
  }

  function cellLabel(row, column) {
    const sample = made.columns[column];
    const loss = made.losses[row]?.[column];
    return [
      `Hypothesis ${row}, place ${places.rows[row] + 1} of ${hypotheses.length}`,
      row === made.best ? "lowest risk" : null,
      `risk ${made.risk[row].toFixed(4)}`, spoken(hypotheses[row].text),
      `evidence ${sample.index}`, made.without.has(sample.index) ? "left out" : `weight ${figures(made.weights[column])}`,
      spoken(sample.text), `loss ${loss === undefined ? "to come" : loss.toFixed(4)}`,
    ].filter(Boolean).join(", ");
  }

  function showCell() {
    const [row, column] = selected();
    grid.setAttribute("aria-rowcount", hypotheses.length);
    grid.setAttribute("aria-colcount", made.columns.length);
    line.setAttribute("aria-rowindex", places.rows[row] + 1);
    cell.setAttribute("aria-colindex", places.columns[column] + 1);
    cell.setAttribute("aria-label", cellLabel(row, column));
    showPanel();
    paintOverlay();
  }

  /** The two texts of a cell, what they share, and how that makes the loss. */
  function cellPanel(row, column) {
    const [one, other] = [hypotheses[row], made.columns[column]];
    const { utility } = switches;
    const loss = made.losses[row][column];
    const byCharacter = utility === "chrf" || utility === "chrf++";
    const most = UTILITIES[utility]?.parts?.[0][1] ?? 4;
    const cut = byCharacter ? characters : tokenize13a;
    const units = [cut(one.text), cut(other.text)];
    const marks = utility === "edit" ? keptUnits(...units, most) : longestMatches(...units, most);
    const text = (sample, side, title, facts_) => el("div", { class: "lk-rm-text" },
      el("p", { class: "lk-subtitle" }, title), el("p", { class: "lk-running", dir: "auto" }, markedText(sample.text, units[side], marks[side])),
      el("p", { class: "lk-rm-small" }, facts_));
    const logprob = (sample) => (sample.logprob === null ? "" : `, log p ${sample.logprob.toFixed(2).replace("-", "−")}`);
    const left = made.without.has(other.index);
    return [
      el("div", { class: "lk-rm-loss" }, el("span", { class: "lk-rm-swatch", style: `background: ${css(loss)}` }),
        el("strong", {}, loss.toFixed(4)), el("span", {}, ` loss × ${figures(made.weights[column])} weight = ${figures(loss * made.weights[column])} of the risk`)),
      el("div", { class: "lk-rm-texts" },
        text(one, 0, `Hypothesis ${row}${row === made.best ? " ◆" : ""}`, `risk ${made.risk[row].toFixed(4)}${times(one)}${logprob(one)}`),
        text(other, 1, evidenceTitle(other), `weight ${figures(made.weights[column])}${times(other)}${logprob(other)}`)),
      marksLegend(utility, most, byCharacter ? "characters" : "words"),
      UTILITIES[utility]?.parts ? countsTable(utility, one.text, other.text) : null,
      switches.evidence === "samples"
        ? button(left ? "Take this sample back" : "Leave this sample out", { icon: left ? "plus" : "cross", key: "x", click: () => toggle(selected()[1]) })
        : null,
    ].filter(Boolean);
  }

  function evidenceTitle(sample) {
    if (switches.evidence === "reference") return "The reference";
    return switches.evidence === "hypotheses" ? `Hypothesis ${sample.index} as evidence` : `Evidence ${sample.index}`;
  }

  // ---- the controls as the switches stand

  function showControls() {
    const model = switches.weighting === "model";
    controls.utility.querySelector("select").value = switches.utility;
    controls.evidence.querySelector("select").value = switches.evidence;
    controls.sort.querySelector("select").value = switches.sort;
    controls.weighting.set(switches.weighting);
    controls.temperature.field.hidden = !model;
    controls.temperature.set(Math.log10(switches.temperature));
    perTokenField.hidden = !model;
    perToken.checked = switches.length_power > 0;
    controls.samples.field.hidden = made.draws < 2;
    controls.samples.range.max = String(made.draws);
    controls.samples.set(made.used);
    reset.disabled = made.untouched;
    for (const input of controls.weighting.group.querySelectorAll("input")) {
      const problem = input.value === record.weighting ? null : weightingProblem(evidenceOf(record, switches.evidence), input.value);
      input.disabled = problem !== null;
      input.title = problem ?? "";
    }
    for (const option of controls.evidence.querySelectorAll("option")) {
      option.disabled = option.value !== "samples" && !(switches.utility in UTILITIES);
    }
    const rows = { risk: "lowest risk first", probability: "most probable first", similarity: "like beside like", drawn: "as drawn" }[switches.sort];
    const columns = { risk: "closest to all hypotheses first", probability: "heaviest first", similarity: "like beside like", drawn: "as drawn" }[switches.sort];
    caption.textContent = `${count(hypotheses.length, "row")}: hypotheses, ${rows}. ${count(made.columns.length, "column")}: evidence, ${columns}; above them their weights.`;
  }

  // ---- painting

  function fit() {
    shape = geometry(width, hypotheses.length, made.columns.length);
    paint();
    paintOverlay();
  }

  function palette() {
    const theme = root.dataset.theme ?? "light";
    if (colours.theme === theme) return colours;
    colours.theme = theme;
    colours.ramp = ramp(theme);
    colours.words = Uint32Array.from(colours.ramp, ([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r);
    for (const name of ["ink", "ink-2", "muted", "line", "edge", "surface", "sunken", "c2", "accent"]) colours[name] = token(root, `--lk-${name}`);
    colours.font = token(root, "--lk-sans") || "sans-serif";
    return colours;
  }

  function step(loss) {
    const [low, high] = made.span;
    return clamp(Math.round(((loss - low) / (high - low)) * 255), 0, 255);
  }

  const css = (loss) => `rgb(${palette().ramp[step(loss)].join(" ")})`;

  function paint() {
    const paint_ = palette();
    made.span = spanOf(made.losses);
    const context = cleared(canvas, width, shape.height);
    context.font = `11px ${paint_.font}`;
    paintHeat(context);
    paintWeights(context);
    paintRisks(context);
    paintRows(context);
    showLegend();
  }

  function paintHeat(context) {
    const { left, top, heatWidth, heatHeight, columnWidth, rowHeight } = shape;
    const paint_ = palette();
    const many = order.rows.length;
    const much = order.columns.length;
    const image = new ImageData(much, many);
    const words = new Uint32Array(image.data.buffer);
    const [low, high] = made.span;
    const scale = 255 / (high - low);
    for (let y = 0; y < many; y++) {
      const losses = made.losses[order.rows[y]];
      if (!losses) continue;
      for (let x = 0; x < much; x++) {
        words[y * much + x] = paint_.words[Math.min(255, Math.max(0, (losses[order.columns[x]] - low) * scale + 0.5)) | 0];
      }
    }
    const small = el("canvas", { width: much, height: many });
    small.getContext("2d").putImageData(image, 0, 0);
    context.fillStyle = paint_.sunken;
    context.fillRect(left, top, heatWidth, heatHeight);
    context.imageSmoothingEnabled = columnWidth * devicePixelRatio < 1 || rowHeight * devicePixelRatio < 1;
    context.drawImage(small, left, top, heatWidth, heatHeight);
    if (shape.lines) {
      context.fillStyle = paint_.surface;
      for (let x = 1; x < much; x++) context.fillRect(left + x * columnWidth - 0.5, top, 1, heatHeight);
      for (let y = 1; y < many; y++) context.fillRect(left, top + y * rowHeight - 0.5, heatWidth, 1);
    }
    context.globalAlpha = 0.75; // samples left out go under a veil
    context.fillStyle = paint_.surface;
    order.columns.forEach((column, x) => {
      if (made.without.has(made.columns[column].index)) context.fillRect(left + x * columnWidth, top, columnWidth, heatHeight);
    });
    context.globalAlpha = 1;
    if (shape.numbers) paintNumbers(context);
  }

  function paintNumbers(context) {
    context.textAlign = "center";
    context.textBaseline = "middle";
    order.rows.forEach((row, y) => order.columns.forEach((column, x) => {
      const loss = made.losses[row]?.[column];
      if (loss === undefined) return;
      const [r, g, b] = palette().ramp[step(loss)];
      context.fillStyle = 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#14181e" : "#ffffff";
      context.fillText(loss.toFixed(2), shape.left + (x + 0.5) * shape.columnWidth, shape.top + (y + 0.5) * shape.rowHeight + 0.5);
    }));
  }

  function paintWeights(context) {
    const { left, top, columnWidth } = shape;
    const paint_ = palette();
    const most = Math.max(...made.weights);
    const room = top - 18;
    context.fillStyle = paint_["ink-2"];
    const gap = columnWidth >= 4 ? 1 : 0;
    const edge = (x) => Math.round((left + x * columnWidth) * devicePixelRatio) / devicePixelRatio;
    order.columns.forEach((column, x) => {
      const height = Math.max(made.weights[column] > 0 ? 0.75 : 0, (made.weights[column] / most) * room);
      context.fillRect(edge(x), top - 4 - height, edge(x + 1) - edge(x) - gap, height);
    });
    context.fillStyle = paint_.muted;
    context.textAlign = "left";
    context.textBaseline = "top";
    context.fillText(`weights, the largest ${figures(most)}`, left, 0);
  }

  function paintRisks(context) {
    const { risk: left, riskWidth, top, rowHeight, heatHeight } = shape;
    const paint_ = palette();
    const finite = made.risk.filter(Number.isFinite);
    if (!finite.length) return;
    const low = Math.min(...finite);
    const high = Math.max(...finite, low + 1e-9);
    const x = (value) => left + 6 + ((value - low) / (high - low)) * (riskWidth - 14);
    context.fillStyle = paint_.line;
    context.fillRect(left, top, 1, heatHeight);
    const size = clamp(rowHeight * 0.5, 1.5, 7);
    order.rows.forEach((row, y) => {
      if (!Number.isFinite(made.risk[row]) || row === made.best) return;
      context.fillStyle = paint_.edge;
      context.fillRect(x(made.risk[row]) - size / 2, top + (y + 0.5) * rowHeight - size / 2, Math.max(size, 3), size);
    });
    if (made.whole) {
      const y = top + (places.rows[made.best] + 0.5) * rowHeight;
      diamond(context, x(made.risk[made.best]), y, Math.max(5, size), paint_.c2, paint_.surface);
    }
    context.fillStyle = paint_.muted;
    context.textBaseline = "top";
    context.textAlign = "left";
    context.fillText("risk", left, top - 16);
    context.fillText(figures(low), left, top + heatHeight + 5);
    context.textAlign = "right";
    if (riskWidth > 70) context.fillText(figures(high), left + riskWidth - 2, top + heatHeight + 5);
  }

  /** The hypotheses' texts where rows are high enough, and the winner's frame. */
  function paintRows(context) {
    const paint_ = palette();
    const { left, top, rowHeight, heatWidth } = shape;
    context.textBaseline = "middle";
    context.textAlign = "left";
    if (shape.labelled) {
      order.rows.forEach((row, y) => {
        const won = made.whole && row === made.best;
        context.fillStyle = won ? paint_.ink : paint_["ink-2"];
        context.font = `${won ? "600 " : ""}12px ${paint_.font}`;
        context.fillText(fitted(context, visible(hypotheses[row].text).replaceAll("␣", " "), left - 12), 2, top + (y + 0.5) * rowHeight);
      });
    }
    if (!made.whole) return;
    const y = top + places.rows[made.best] * rowHeight;
    if (rowHeight < 6) { // a frame would hide its neighbours
      context.fillStyle = paint_.c2;
      context.beginPath();
      context.moveTo(left - 2, y + rowHeight / 2);
      context.lineTo(left - 10, y + rowHeight / 2 - 5);
      context.lineTo(left - 10, y + rowHeight / 2 + 5);
      context.fill();
      return;
    }
    context.lineWidth = 2;
    context.strokeStyle = paint_.surface;
    context.strokeRect(left - 3, y - 3, heatWidth + 6, rowHeight + 6);
    context.strokeStyle = paint_.c2;
    context.strokeRect(left - 1, y - 1, heatWidth + 2, rowHeight + 2);
  }

  function paintOverlay(hover = null) {
    if (!shape || !places.rows.length || !made.whole) return;
    const context = cleared(overlay, width, shape.height);
    const paint_ = palette();
    const { left, top, columnWidth, rowHeight, heatWidth, heatHeight } = shape;
    const frameCell = ([row, column], ink) => {
      const x = left + places.columns[column] * columnWidth;
      const y = top + places.rows[row] * rowHeight;
      const [w, h] = [Math.max(columnWidth, 5), Math.max(rowHeight, 5)];
      const [cx, cy] = [x + columnWidth / 2 - w / 2, y + rowHeight / 2 - h / 2];
      context.lineWidth = 3.5;
      context.strokeStyle = paint_.surface;
      context.strokeRect(cx - 1, cy - 1, w + 2, h + 2);
      context.lineWidth = 2;
      context.strokeStyle = ink;
      context.strokeRect(cx - 1, cy - 1, w + 2, h + 2);
    };
    const here = selected();
    context.fillStyle = paint_.accent;
    context.fillRect(left + (places.columns[here[1]] + 0.5) * columnWidth - 1.5, top - 4, 3, 4);
    context.fillRect(left + heatWidth + 1, top + (places.rows[here[0]] + 0.5) * rowHeight - 1.5, 6, 3);
    if (hover) {
      context.globalAlpha = 0.8;
      context.fillStyle = paint_.accent;
      const x = left + (places.columns[hover[1]] + 0.5) * columnWidth;
      const y = top + (places.rows[hover[0]] + 0.5) * rowHeight;
      context.fillRect(x - 0.5, top, 1, heatHeight);
      context.fillRect(left, y - 0.5, heatWidth, 1);
      context.globalAlpha = 1;
    }
    frameCell(here, paint_.accent);
  }

  function showLegend() {
    const [low, high] = made.span;
    const stops = colours.theme === "dark" ? [...RAMP].reverse() : RAMP;
    legend.replaceChildren(
      el("span", {}, `loss ${figures(low, 1)}: alike`),
      el("span", { class: "lk-rm-ramp", style: `background: linear-gradient(to right, ${stops.join(", ")})` }),
      el("span", {}, `${figures(high, 1)}: unlike`),
    );
  }

  // ---- pointer and keys

  /** The cell under a pointer, as [hypothesis, column], or null beside the matrix. */
  function under(event) {
    const box = canvas.getBoundingClientRect();
    const x = Math.floor((event.clientX - box.left - shape.left) / shape.columnWidth);
    const y = Math.floor((event.clientY - box.top - shape.top) / shape.rowHeight);
    if (x < 0 || y < 0 || x >= order.columns.length || y >= order.rows.length) return null;
    return [order.rows[y], order.columns[x]];
  }

  grid.addEventListener("pointermove", (event) => {
    if (!made.whole) return;
    const place = under(event);
    paintOverlay(place);
    if (!place) return tip.hide();
    const [row, column] = place;
    return tip.show({ left: event.clientX, width: 0, top: event.clientY - 4, bottom: event.clientY + 12 },
      el("div", {}, el("strong", {}, `loss ${made.losses[row][column].toFixed(4)}`), `, weight ${figures(made.weights[column])}`),
      el("div", {}, `h${row} `, label(hypotheses[row].text, {}, 44)),
      el("div", {}, `e${made.columns[column].index} `, label(made.columns[column].text, {}, 44)));
  }, { signal });
  grid.addEventListener("pointerleave", () => { tip.hide(); paintOverlay(); }, { signal });
  grid.addEventListener("click", (event) => {
    const place = made.whole ? under(event) : null;
    if (place) choose(...place, false);
  }, { signal });
  grid.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || !made.whole) return;
    const [row, column] = selected();
    const place = [places.rows[row], places.columns[column]];
    const next = event.key === "b" ? [places.rows[made.best], place[1]] : cellMove(event.key, place, order.rows.length, order.columns.length);
    if (event.key === "x") toggle(column);
    else if (next) choose(order.rows[next[0]], order.columns[next[1]]);
    else return;
    event.preventDefault();
  }, { signal });

  for (const name of SWITCHES) listen(name, refresh);
  listen("selected", () => { if (made.whole) showCell(); });
  onWidth(grid, (room) => {
    width = Math.max(200, room);
    if (made) fit();
  }, signal);
  refresh();
  return { theme() { fit(); if (made.whole) showCell(); } };
}

// ---------------------------------------------------------------------------------------------
// Pieces of the view that need none of its state

const inverse = (order) => {
  const places = new Array(order.length);
  order.forEach((item, place) => { places[item] = place; });
  return places;
};

/** The canvas's context, empty; the canvas is only made anew where its size has changed. */
function cleared(canvas, width, height) {
  const context = canvas.getContext("2d");
  if (canvas.style.width !== `${width}px` || canvas.style.height !== `${height}px` || canvas.width !== Math.round(width * devicePixelRatio)) {
    return sizeCanvas(canvas, width, height);
  }
  context.clearRect(0, 0, width, height);
  return context;
}

function diamond(context, x, y, size, fill, edge) {
  context.beginPath();
  context.moveTo(x, y - size);
  context.lineTo(x + size, y);
  context.lineTo(x, y + size);
  context.lineTo(x - size, y);
  context.closePath();
  context.lineWidth = 3;
  context.strokeStyle = edge;
  context.stroke();
  context.fillStyle = fill;
  context.fill();
}

/** As much of a text as the room takes. */
function fitted(context, text, room) {
  if (context.measureText(text).width <= room) return text;
  let [few, many] = [1, Math.min(text.length, 200)];
  while (few < many) {
    const middle = Math.ceil((few + many) / 2);
    if (context.measureText(shorten(text, middle)).width <= room) few = middle;
    else many = middle - 1;
  }
  return shorten(text, few);
}

function markedText(text, units, marks) {
  if (text === "") return [running(text), el("em", { class: "lk-rm-small" }, "(empty)")];
  return marked(text, locate(text, units), marks, graphemes(text)).map(({ text: part, mark }) => (
    running(part, mark ? { class: `lk-rm-mark lk-rm-mark${mark}` } : {})));
}

function marksLegend(utility, most, unit) {
  const kind = "lk-rm-small lk-rm-marks";
  if (utility === "edit") return el("p", { class: kind }, "Marked: words that stay in the cheapest edit of one into the other.");
  if (most === 1) return el("p", { class: kind }, "Marked: words that both have.");
  return el("p", { class: kind }, `Longest match around it, in ${unit}: `,
    Array.from({ length: most }, (_, n) => el("span", { class: `lk-rm-mark lk-rm-mark${n + 1}` }, ` ${n + 1} `)));
}

/** The clipped matches by order, from which the loss is made. */
function countsTable(utility, hypothesis, evidence) {
  const { matches, made, wanted } = pairCounts(utility, hypothesis, evidence);
  const characters_ = UTILITIES[utility].parts[0][1];
  const byCharacter = utility.startsWith("chrf");
  const unit = (n) => (byCharacter && n < characters_ ? `${n + 1} char.` : `${byCharacter ? n - characters_ + 1 : n + 1} word`);
  const share = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(0)}%` : "–");
  return el("table", { class: "lk-rm-counts" },
    el("caption", { class: "lk-unseen" }, "n-grams in common"),
    el("thead", {}, el("tr", {}, ["n-gram", "in common", "of hypothesis", "of evidence"].map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, Array.from(matches, (match, n) => el("tr", {}, el("th", { scope: "row" }, unit(n)), el("td", {}, String(match)),
      el("td", {}, `${made[n]} · ${share(match, made[n])}`), el("td", {}, `${wanted[n]} · ${share(match, wanted[n])}`)))));
}

export default recordWidget({ name: "RiskMatrix", kind: "risktable", version: 1, most: 1, draw });
