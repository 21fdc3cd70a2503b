// RiskMatrix: the loss of each hypothesis against each evidence sample, and what it decides.

import {
  button, choice, clamp, count, el, figures, fresh, label, onWidth, recordWidget, running, select,
  slider, spoken,
} from "../shared/prelude.js";
import { beyondPanel } from "./beyond.js";
import {
  cellMove, colourStep, coloursOf, geometry, paintBoard, paintCell, placeUnder, rampStops, spanOf,
} from "./board.js";
import { countsTable, lossLine, marksLegend, sideBySide } from "./comparison.js";
import {
  argmin, arrangement, asListed, decision, evidenceOf, inverse, lossStore, seriate,
  weighsAsRecorded, weightingProblem,
} from "./decide.js";
import { UTILITIES } from "./utilities.js";

const WEIGHTINGS = [
  ["uniform", "each draw"], ["counts", "counts"], ["model", "model"], ["unique", "each text"],
];
const SORTS = [
  ["risk", "risk"], ["probability", "probability"], ["similarity", "similarity"],
  ["drawn", "as drawn"],
];
/** What each sort puts first, among rows and among columns. */
const FIRST = {
  risk: ["lowest risk first", "closest to all hypotheses first"],
  probability: ["most probable first", "heaviest first"],
  similarity: ["like beside like", "like beside like"],
  drawn: ["as drawn", "as drawn"],
};
const SWITCHES = [
  "utility", "weighting", "temperature", "length_power", "samples", "evidence", "sort", "left_out",
];
const SLICE_MS = 8; // of a frame's 16, what computing losses may take

/** The utilities on offer, the record's own marked as such. */
export function utilityOptions(record) {
  const names = Object.fromEntries(Object.entries(UTILITIES).map(([key, { name }]) => [key, name]));
  const all = record.utility in names ? names : { [record.utility]: record.utility, ...names };
  return Object.entries(all).map(
    ([key, name]) => [key, `1 − ${name}${key === record.utility ? " (recorded)" : ""}`],
  );
}

function draw({ root, records: [record], signal, tip, say, listen, put, get }) {
  const { hypotheses } = record;
  const texts = [...new Set([...record.evidence, ...hypotheses].map((sample) => sample.text))];
  if (record.reference !== null && !texts.includes(record.reference)) texts.push(record.reference);
  const utilities = utilityOptions(record);
  const sources = [
    ["samples", count(record.evidence.length, "sample")], ["hypotheses", "the hypotheses"],
  ];
  if (record.reference !== null) sources.push(["reference", "the reference (oracle)"]);

  const stores = new Map(); // utility -> the losses that the page has computed
  let switches = {};
  let made = null; // the decision under the switches
  let order = { rows: [], columns: [] };
  let places = { rows: [], columns: [] };
  let likeness = {}; // the last seriation, and of what
  let marks = { chosen: [], clusters: null }; // the set, and each hypothesis's kind
  let colours = null;
  let width = 600; // of the canvas, in CSS pixels
  let workFrame = 0;
  let panelFrame = 0;

  // ---- the parts of the page

  const winner = el("p", { class: "lk-rm-winner", dir: "auto" });
  const facts = el("p", { class: "lk-rm-facts" });
  const status = el("p", { class: "lk-rm-status" });
  const legend = el("div", { class: "lk-rm-legend", "aria-hidden": "true" });
  const caption = el("p", { class: "lk-rm-caption" });
  const panel = el("div", { class: "lk-rm-panel" });
  const help = el("p", { class: "lk-rm-help", id: fresh("help") },
    "Arrow keys move the cell, Page up and down by ten rows, Home and End to a row’s ends; ",
    el("kbd", {}, "b"), " goes to the best row, ",
    el("kbd", {}, "x"), " leaves the sample out or takes it back.");
  const canvas = el("canvas", { class: "lk-rm-canvas", "aria-hidden": "true" });
  const overlay = el("canvas", { class: "lk-rm-overlay", "aria-hidden": "true" });
  const cell = el("div", {
    role: "gridcell", id: fresh("cell"), class: "lk-unseen", "aria-selected": "true",
  });
  const line = el("div", { role: "row", class: "lk-unseen" }, cell);
  const grid = el("div", {
    role: "grid", tabindex: "0", class: "lk-rm-grid", "aria-label": "Losses",
    "aria-describedby": help.id, "aria-activedescendant": cell.id,
  }, canvas, overlay, line);

  const controls = {
    utility: select("Loss", utilities, get("utility"), (value) => put("utility", value)),
    weighting: choice("Weights", WEIGHTINGS, get("weighting"), (value) => put("weighting", value)),
    temperature: slider("Temperature", {
      min: -1, max: 1.5, step: 0.05, value: Math.log10(get("temperature")),
      words: (value) => figures(10 ** value, 2),
      input: (value) => put("temperature", Number((10 ** value).toPrecision(3))),
    }),
    samples: slider("Draws", {
      min: 1, max: 1, value: 1, input: (value) => put("samples", value === made.draws ? 0 : value),
    }),
    evidence: select("Evidence", sources, get("evidence"), (value) => put("evidence", value)),
    sort: select("Sorted by", SORTS, get("sort"), (value) => put("sort", value)),
    perToken: el("input", {
      type: "checkbox", change: () => put("length_power", controls.perToken.checked ? 1 : 0),
    }),
    reset: button("As recorded", { icon: "reset", click: reset }),
  };
  const perToken = el("label", { class: "lk-field" }, controls.perToken,
    el("span", { class: "lk-label" }, "log p per token"));

  const beyond = beyondPanel({
    record, get, put,
    pick: (row) => {
      if (made.whole) choose(row, selected()[1], true);
    },
  });

  root.append(
    el("div", { class: "lk-rm-head" },
      el("p", { class: "lk-rm-source", dir: "auto" },
        el("span", { class: "lk-label" }, "Source "), running(record.source)),
      winner, facts),
    el("div", { class: "lk-bar lk-rm-controls" },
      controls.utility, controls.weighting.group, controls.temperature.field, perToken,
      controls.samples.field, controls.evidence, controls.sort, controls.reset),
    el("div", { class: "lk-rm-body" },
      el("div", { class: "lk-rm-matrix" },
        grid, el("div", { class: "lk-bar" }, legend, status), caption, help),
      panel),
    beyond.root,
  );

  function reset() {
    const own = {
      utility: record.utility, weighting: record.weighting, temperature: 1, length_power: 0,
      samples: 0, evidence: "samples", left_out: [],
    };
    for (const [trait, value] of Object.entries(own)) put(trait, value);
    say("Back to what was recorded.");
  }

  // ---- from switches to numbers

  /** What the traits say, as far as this record can follow it; `note` says where it cannot. */
  function readSwitches() {
    const next = Object.fromEntries(SWITCHES.map((name) => [name, get(name)]));
    if (!utilities.some(([key]) => key === next.utility)) next.utility = record.utility;
    const computed = next.utility in UTILITIES;
    if (!computed || !sources.some(([key]) => key === next.evidence)) next.evidence = "samples";
    if (weighsAsRecorded(record, next)) return next;
    const problem = weightingProblem(evidenceOf(record, next.evidence), next.weighting);
    if (!problem) return next;
    return { ...next, weighting: "counts", note: `counts as weights: ${problem}` };
  }

  /** The losses that the page computes under these switches; null where the record has them. */
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
    if (made.whole) arrange(arrangement(record, made, switches.sort, seriated));
    else if (order.columns.length !== made.columns.length) {
      arrange(asListed(hypotheses.length, made.columns.length));
    }
    showControls();
    paint();
    if (made.whole) settle();
    else if (!workFrame) workFrame = requestAnimationFrame(work);
  }

  function arrange(next) {
    order = next;
    places = { rows: inverse(order.rows), columns: inverse(order.columns) };
  }

  /** Where likeness puts rows and columns: weights do not matter to it, so it is kept for them. */
  function seriated() {
    const columns = made.columns.map((column) => column.index).join();
    const key = `${switches.utility} ${switches.evidence} ${columns}`;
    if (likeness.key !== key) likeness = { key, place: seriate(made.losses) };
    return likeness.place;
  }

  /** Compute losses for a slice of this frame, paint what there is, and come again. */
  function work() {
    workFrame = 0;
    const store = storeFor(switches);
    if (!store) return;
    const until = performance.now() + SLICE_MS;
    let more = true;
    while (more && performance.now() < until) more = store.step();
    if (!more) {
      refresh();
      return;
    }
    made = decision(record, switches, store);
    paint();
    const { name } = UTILITIES[switches.utility];
    status.textContent = `computing ${name}: ${Math.floor(100 * store.share())}%`;
    workFrame = requestAnimationFrame(work);
  }

  /** All losses are known: say what was decided. */
  function settle() {
    const usual = made.untouched ? "as recorded" : "recomputed in this page";
    status.textContent = switches.note ?? usual;
    put("best", made.best);
    showDecision();
    showBeyond();
    showCell();
  }

  /** The set and the clusters of the decision in force, in the panel and beside the matrix. */
  function showBeyond() {
    marks = beyond.show(made);
    paint();
  }

  // ---- the selected cell: the trait names it as the record lists it

  /** The selected hypothesis and column of the evidence in force. */
  function selected() {
    const [row, index] = get("selected");
    const column = made.columns.findIndex((each) => each.index === index);
    return [clamp(row, 0, hypotheses.length - 1), Math.max(0, column)];
  }

  function choose(row, column, speak) {
    put("selected", [row, made.columns[column].index]);
    if (speak) say(cell.getAttribute("aria-label"));
  }

  function toggle(column) {
    if (switches.evidence !== "samples") return;
    const { index } = made.columns[column];
    const next = made.without.has(index)
      ? switches.left_out.filter((each) => each !== index)
      : [...switches.left_out, index].sort((a, b) => a - b);
    if (made.columns.every((each) => next.includes(each.index))) say("At least one sample stays.");
    else put("left_out", next);
  }

  // ---- words

  const risk = (row) => made.risk[row].toFixed(4);
  const times = (sample) => (sample.count > 1 ? `, drawn ${sample.count} times` : "");
  const logprob = ({ logprob: value }) => (
    value === null ? "" : `, log p ${value.toFixed(2).replace("-", "−")}`);

  function showDecision() {
    const { best } = made;
    const many = hypotheses.length;
    const star = el("span", { class: "lk-rm-star", "aria-hidden": "true" }, "◆ ");
    winner.replaceChildren(star, running(hypotheses[best].text));
    const said = [
      `Lowest risk of ${many}: ${risk(best)}, hypothesis ${best}${times(hypotheses[best])}`,
    ];
    const most = argmin(hypotheses.map((sample) => -sample.count));
    if (most !== best && hypotheses[most].count > 1) {
      const often = hypotheses[most].count;
      said.push(`most frequent: hypothesis ${most} (${often} times), risk ${risk(most)}`);
    }
    if (record.best !== best) said.push(`the record decided for hypothesis ${record.best}`);
    facts.textContent = said.join(" · ");
  }

  function cellLabel(row, column) {
    const sample = made.columns[column];
    return [
      `Hypothesis ${row}, place ${places.rows[row] + 1} of ${hypotheses.length}`,
      row === made.best ? "lowest risk" : null,
      `risk ${risk(row)}`,
      spoken(hypotheses[row].text),
      `evidence ${sample.index}`,
      made.without.has(sample.index) ? "left out" : `weight ${figures(made.weights[column])}`,
      spoken(sample.text),
      `loss ${made.losses[row][column].toFixed(4)}`,
    ].filter(Boolean).join(", ");
  }

  function showCell() {
    const [row, column] = selected();
    grid.setAttribute("aria-rowcount", hypotheses.length);
    grid.setAttribute("aria-colcount", made.columns.length);
    line.setAttribute("aria-rowindex", places.rows[row] + 1);
    cell.setAttribute("aria-colindex", places.columns[column] + 1);
    cell.setAttribute("aria-label", cellLabel(row, column));
    paintCell(overlay, scene(), [row, column], null);
    cancelAnimationFrame(panelFrame); // the matrix does not wait for the texts: they come a frame
    panelFrame = requestAnimationFrame(showPanel); // later, and once for many keys
  }

  function showPanel() {
    if (!made.whole) return;
    const [row, column] = selected();
    const { utility } = switches;
    const [one, other] = [hypotheses[row], made.columns[column]];
    const [loss, weight] = [made.losses[row][column], made.weights[column]];
    const colour = colours.steps[colourStep(loss, made.span)];
    panel.replaceChildren(...[
      lossLine(loss, weight, `rgb(${colour.join(" ")})`),
      sideBySide(utility, [
        {
          title: `Hypothesis ${row}${row === made.best ? " ◆" : ""}`, text: one.text,
          facts: `risk ${risk(row)}${times(one)}${logprob(one)}`,
        },
        {
          title: evidenceTitle(other), text: other.text,
          facts: `weight ${figures(weight)}${times(other)}${logprob(other)}`,
        },
      ]),
      marksLegend(utility),
      countsTable(utility, one.text, other.text),
      switches.evidence === "samples" ? leaveButton(column) : null,
    ].filter(Boolean));
  }

  function evidenceTitle({ index }) {
    if (switches.evidence === "reference") return "The reference";
    if (switches.evidence === "hypotheses") return `Hypothesis ${index} as evidence`;
    return `Evidence ${index}`;
  }

  function leaveButton(column) {
    const left = made.without.has(made.columns[column].index);
    return button(left ? "Take this sample back" : "Leave this sample out", {
      icon: left ? "plus" : "cross", key: "x", click: () => toggle(column),
    });
  }

  function showControls() {
    const model = switches.weighting === "model";
    for (const name of ["utility", "evidence", "sort"]) {
      controls[name].querySelector("select").value = switches[name];
    }
    controls.weighting.set(switches.weighting);
    controls.temperature.field.hidden = !model;
    controls.temperature.set(Math.log10(switches.temperature));
    perToken.hidden = !model;
    controls.perToken.checked = switches.length_power > 0;
    controls.samples.field.hidden = made.draws < 2;
    controls.samples.range.max = String(made.draws);
    controls.samples.set(made.used);
    controls.reset.disabled = made.untouched;
    for (const input of controls.weighting.group.querySelectorAll("input")) {
      const problem = input.value === record.weighting
        ? null : weightingProblem(evidenceOf(record, switches.evidence), input.value);
      input.disabled = problem !== null;
      input.title = problem ?? "";
    }
    for (const option of controls.evidence.querySelectorAll("option")) {
      option.disabled = option.value !== "samples" && !(switches.utility in UTILITIES);
    }
    const [rows, columns] = FIRST[switches.sort];
    caption.textContent = `${count(hypotheses.length, "row")}: hypotheses, ${rows}. `
      + `${count(made.columns.length, "column")}: evidence, ${columns}; above them their weights.`;
  }

  // ---- painting

  const scene = () => ({
    hypotheses, made, order, places, colours, marks, span: made.span,
    shape: geometry(width, hypotheses.length, made.columns.length),
  });

  function paint() {
    // A notebook draws before it puts the widget into the page: there are no colours yet then.
    if (!colours?.ink || colours.theme !== (root.dataset.theme ?? "light")) colours = coloursOf(root);
    made.span = spanOf(made.losses);
    paintBoard(canvas, scene());
    const [low, high] = made.span;
    const gradient = `linear-gradient(to right, ${rampStops(colours.theme).join(", ")})`;
    legend.replaceChildren(
      el("span", {}, `loss ${figures(low, 1)}: alike`),
      el("span", { class: "lk-rm-ramp", style: `background: ${gradient}` }),
      el("span", {}, `${figures(high, 1)}: unlike`),
    );
  }

  // ---- pointer and keys

  /** The hypothesis and the column under a pointer, or null beside the matrix. */
  function under(event) {
    const box = canvas.getBoundingClientRect();
    const place = placeUnder(
      scene().shape, event.clientX - box.left, event.clientY - box.top,
      order.rows.length, order.columns.length,
    );
    return place && [order.rows[place[0]], order.columns[place[1]]];
  }

  function showTip(event, [row, column]) {
    const { clientX: x, clientY: y } = event;
    const sample = made.columns[column];
    tip.show({ left: x, width: 0, top: y - 4, bottom: y + 12 },
      el("div", {}, el("strong", {}, `loss ${made.losses[row][column].toFixed(4)}`),
        `, weight ${figures(made.weights[column])}`),
      el("div", {}, `h${row} `, label(hypotheses[row].text, {}, 44)),
      el("div", {}, `e${sample.index} `, label(sample.text, {}, 44)));
  }

  grid.addEventListener("pointermove", (event) => {
    if (!made.whole) return;
    const pointed = under(event);
    paintCell(overlay, scene(), selected(), pointed);
    if (pointed) showTip(event, pointed);
    else tip.hide();
  }, { signal });
  grid.addEventListener("pointerleave", () => {
    tip.hide();
    if (made.whole) paintCell(overlay, scene(), selected(), null);
  }, { signal });
  grid.addEventListener("click", (event) => {
    const pointed = made.whole ? under(event) : null;
    if (pointed) choose(...pointed, false);
  }, { signal });
  grid.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || !made.whole) return;
    const [row, column] = selected();
    const place = [places.rows[row], places.columns[column]];
    const next = cellMove(event.key, place, order.rows.length, order.columns.length);
    if (next) choose(order.rows[next[0]], order.columns[next[1]], true);
    else if (event.key === "b") choose(made.best, column, true);
    else if (event.key === "x") toggle(column);
    else return;
    event.preventDefault();
  }, { signal });

  signal.addEventListener("abort", () => {
    cancelAnimationFrame(workFrame);
    cancelAnimationFrame(panelFrame);
  });
  for (const name of SWITCHES) listen(name, refresh);
  for (const name of ["set_size", "distance"]) {
    listen(name, () => { if (made.whole) showBeyond(); });
  }
  listen("selected", () => { if (made.whole) showCell(); });
  const repaint = () => {
    paint();
    if (made.whole) showCell();
  };
  onWidth(grid, (room) => {
    width = Math.max(200, room);
    if (made) repaint();
  }, signal);
  refresh();
  return { theme: repaint };
}

export default recordWidget({ name: "RiskMatrix", kind: "risktable", version: 1, most: 1, draw });
