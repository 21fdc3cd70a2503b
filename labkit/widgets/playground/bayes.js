// Minimum Bayes risk, live: samples fill the matrix, the switches move the choice.
import { button, count, duration, el, figures, select, shorten, slider, visible } from "../shared/prelude.js";
import { PageModel } from "../shared/model.js";
import { argmin, riskOf } from "../risk_matrix/decide.js";
import { UTILITIES, lossRows } from "../risk_matrix/utilities.js";
import RiskMatrix from "../risk_matrix/widget.js";

const REDRAW_MS = 350; // between two pictures while samples arrive
const FREQUENT = 8; // hypotheses where only those drawn most often are
const KEPT = ["utility", "weighting", "temperature", "length_power", "evidence", "sort"];

/** Equal texts made one, their counts added, in order of first appearance. */
export function distinct(samples) {
  const found = new Map();
  for (const sample of samples) {
    const known = found.get(sample.text);
    if (!known) found.set(sample.text, { ...sample });
    else known.count += sample.count;
  }
  return [...found.values()];
}

/**
 * The samples as a RiskTable: which of them are hypotheses, which stand as evidence.
 * @param {"all"|"frequent"|"split"} hypotheses
 */
export function tableOf(samples, { hypotheses, base, prompt, seed }) {
  const half = Math.ceil(samples.length / 2);
  const split = hypotheses === "split" && samples.length > 1;
  const evidence = distinct(split ? samples.slice(half) : samples);
  let rows = distinct(split ? samples.slice(0, half) : samples);
  if (hypotheses === "frequent") {
    rows = rows.map((row, at) => [row, at]).sort(([a, i], [b, j]) => b.count - a.count || (b.logprob ?? 0) - (a.logprob ?? 0) || i - j)
      .slice(0, FREQUENT).map(([row]) => row);
  }
  const total = evidence.reduce((sum, { count: many }) => sum + many, 0);
  const weights = evidence.map(({ count: many }) => many / total);
  const loss = [...lossRows("chrf", rows.map(({ text }) => text), evidence.map(({ text }) => text))].filter(Boolean).map((row) => Array.from(row));
  const risk = loss.map((row) => riskOf(row, weights));
  return {
    kind: "risktable", version: 1, base, source: prompt, utility: "chrf", weighting: "counts",
    hypotheses: rows, evidence, weights, loss, risk, best: argmin(risk), reference: null, seed, seconds: null,
  };
}

export function makeBayes({ signal, say, source, info, settings, put, views }) {
  const samples = slider("Samples", { min: 8, max: 64, step: 4, value: settings().samples, input: (value) => put({ samples: value }) });
  const length = slider("Tokens each", { min: 4, max: 40, step: 2, value: settings().length, input: (value) => put({ length: value }) });
  const warmth = slider("Temperature", { min: 0.2, max: 1.5, step: 0.1, value: settings().warmth, words: (value) => value.toFixed(1), input: (value) => put({ warmth: value }) });
  const hypotheses = select("Hypotheses", [["all", "every sample"], ["frequent", `the ${FREQUENT} drawn most often`], ["split", "one half, the other as evidence"]], settings().hypotheses, (value) => put({ hypotheses: value }));
  const draw = button("Draw", { icon: "play", click: () => run() });
  draw.classList.add("lk-primary");
  const stop = button("Stop", { icon: "pause", click: () => asked?.stop() });
  stop.disabled = true;
  const progress = el("progress", { class: "pg-progress", max: 1, value: 0, "aria-label": "Samples drawn" });
  const status = el("p", { class: "pg-status" });
  const matrix = el("div", { class: "pg-matrix" });
  const why = makeWhy(signal, say);
  const node = el("div", { class: "pg-panel" },
    el("p", {}, "Draw continuations of the prompt. Each is a hypothesis, and together they are the evidence of what the model might say: the choice is the text that loses least against all of them, on average."),
    el("div", { class: "lk-bar pg-switches" }, samples.field, length.field, warmth.field, hypotheses),
    el("div", { class: "lk-bar" }, el("span", { class: "lk-group" }, draw, stop), progress, status),
    matrix, why.node);

  let asked = null;
  let drawn = [];
  let about = { prompt: "", seed: 0 };
  let view = null;
  let leave = null;

  async function run() {
    asked?.stop();
    const { prompt, samples: wanted, length: tokens, warmth: temperature, seed } = settings();
    drawn = [];
    about = { prompt, seed };
    progress.max = wanted;
    progress.value = 0;
    status.textContent = "Drawing…";
    stop.disabled = false;
    let shown = 0;
    const began = performance.now();
    const mine = source.ask("draw", { prompt, count: wanted, maxNewTokens: tokens, temperature, seed }, ({ sample }) => {
      if (asked !== mine) return;
      drawn.push(sample);
      progress.value = drawn.length;
      if (drawn.length > 1 && performance.now() - shown > REDRAW_MS) {
        showTable();
        shown = performance.now();
      }
    });
    asked = mine;
    try {
      await mine.answer;
      if (asked !== mine) return;
      const all = drawn.length >= wanted;
      status.textContent = `${all ? "" : "Stopped: "}${count(drawn.length, "sample")}, ${distinct(drawn).length} different, in ${duration((performance.now() - began) / 1000)}.`;
      say(status.textContent);
      if (drawn.length) showTable();
    } catch (error) {
      if (asked === mine) status.textContent = error.message;
    }
    if (asked !== mine) return;
    asked = null;
    stop.disabled = true;
  }

  /** The matrix over what was drawn so far; switches and the focus stay where they are. */
  function showTable() {
    const record = tableOf(drawn, { ...about, hypotheses: settings().hypotheses, base: info.base });
    const kept = view ? Object.fromEntries(KEPT.map((name) => [name, view.get(name)])) : { weighting: "counts" };
    const focus = matrix.contains(document.activeElement) ? placeOf(document.activeElement) : -1;
    leave?.();
    view = new PageModel({
      ...views.RiskMatrix, utility: "chrf", ...kept, left_out: [], records_json: JSON.stringify([record]),
      best: record.best, selected: [record.best, 0],
    });
    const traits = [...KEPT, "left_out", "samples", "best"];
    traits.forEach((name) => view.on(`change:${name}`, () => why.show(record, view)));
    leave = RiskMatrix.render({ model: view, el: matrix });
    if (focus >= 0) matrix.querySelectorAll("button, input, select, [tabindex]")[focus]?.focus({ preventScroll: true });
    why.show(record, view);
  }
  const placeOf = (element) => [...matrix.querySelectorAll("button, input, select, [tabindex]")].indexOf(element);

  function changed() {
    const s = settings();
    samples.set(s.samples);
    length.set(s.length);
    warmth.set(s.warmth);
    hypotheses.querySelector("select").value = s.hypotheses;
    if (drawn.length > 1 && !asked) showTable();
  }
  signal.addEventListener("abort", () => { asked?.stop(); leave?.(); });
  return { node, changed, run };
}

// Why this one: the decision in a few steps, each with its numbers.

function makeWhy(signal, say) {
  let at = 0;
  let steps = [];
  const body = el("div", { class: "pg-why-body" });
  const place = el("span", { class: "lk-value" });
  const back = button("Previous reason", { icon: "previous", hidden_label: true, click: () => go(-1) });
  const on = button("Next reason", { icon: "next", hidden_label: true, click: () => go(1) });
  const node = el("section", { class: "pg-why", "aria-label": "Why this one", hidden: true },
    el("div", { class: "lk-bar" }, el("p", { class: "lk-title" }, "Why this one?"), el("span", { class: "lk-group" }, back, on), place), body);

  function go(by) {
    at = Math.min(Math.max(0, at + by), steps.length - 1);
    paint();
    say(body.textContent);
  }
  function paint() {
    body.replaceChildren(...steps[at]);
    place.textContent = `${at + 1} of ${steps.length}`;
    back.disabled = at === 0;
    on.disabled = at === steps.length - 1;
  }
  function show(record, view) {
    const made = decided(record, view);
    if (!made) return;
    node.hidden = false;
    steps = reasons(record, made);
    at = Math.min(at, steps.length - 1);
    paint();
  }
  return { node, show };
}

/** The decision under the matrix's switches: losses, weights and risks, as this panel tells them. */
function decided(record, view) {
  const utility = view.get("utility");
  const list = view.get("evidence") === "hypotheses" ? record.hypotheses : record.evidence;
  const left = new Set(view.get("evidence") === "samples" ? view.get("left_out") : []);
  const weighting = view.get("weighting");
  const power = view.get("length_power");
  const exponent = (each) => each.logprob / (view.get("temperature") * Math.max(each.tokens ?? 1, 1) ** power);
  const top = Math.max(...list.map(exponent));
  const share = (each) => (weighting === "model" ? Math.exp(exponent(each) - top) : weighting === "unique" ? 1 : each.count);
  const raw = list.map((each, index) => (left.has(index) ? 0 : share(each)));
  const total = raw.reduce((sum, value) => sum + value, 0);
  if (!(total > 0)) return null;
  const texts = (samples) => samples.map(({ text }) => text);
  const loss = [...lossRows(utility, texts(record.hypotheses), texts(list))].filter(Boolean);
  const weights = raw.map((value) => value / total);
  const risk = loss.map((row) => riskOf(row, weights));
  return { list, loss, weights, risk, best: argmin(risk), utility };
}

function reasons(record, { list, loss, weights, risk, best, utility }) {
  const { hypotheses } = record;
  const plain = (text, most) => el("bdi", {}, shorten(visible(text.trim()).replaceAll("␣", " "), most));
  const quote = (text) => ["“", plain(text, 120), "”"];
  const order = risk.map((_, row) => row).sort((a, b) => risk[a] - risk[b]);
  const second = order.find((row) => row !== best);
  const table = (head, rows) => el("table", { class: "pg-table" }, el("thead", {}, el("tr", {}, head.map((words) => el("th", { scope: "col" }, words)))),
    el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell) => el("td", {}, cell))))));
  const columns = list.map((_, column) => column);
  const parts = [...columns].sort((a, b) => weights[b] * loss[best][b] - weights[a] * loss[best][a]).slice(0, 4);
  const steps = [[
    el("p", {}, el("strong", {}, "The candidates. "), `${count(hypotheses.length, "hypothesis", "hypotheses")}, judged against ${count(list.length, "piece")} of evidence. Nobody knows the right text, so what the model says elsewhere stands in for it.`),
  ], [
    el("p", {}, el("strong", {}, "The loss of one pair. "), `1 − ${UTILITIES[utility].name}: 0 where two texts agree, 1 where they share nothing. The chosen text, `, ...quote(hypotheses[best].text), `, against the evidence it suits least:`),
    table(["evidence", "weight", "loss", "weight × loss"], parts.map((column) => [plain(list[column].text, 60), figures(weights[column], 2), loss[best][column].toFixed(3), figures(weights[column] * loss[best][column], 2)])),
  ], [
    el("p", {}, el("strong", {}, "The risk. "), `All ${count(list.length, "product")} of weight and loss added up give the risk of the chosen text: ${risk[best].toFixed(4)}. The least of all:`),
    table(["hypothesis", "drawn", "risk"], order.slice(0, 4).map((row) => [plain(hypotheses[row].text, 70), String(hypotheses[row].count), risk[row].toFixed(4)])),
  ]];
  if (second !== undefined) {
    const gains = [...columns].sort((a, b) => weights[b] * (loss[second][b] - loss[best][b]) - weights[a] * (loss[second][a] - loss[best][a])).slice(0, 3);
    steps.push([
      el("p", {}, el("strong", {}, "Against the runner-up. "), ...quote(hypotheses[second].text), ` has risk ${risk[second].toFixed(4)}, ${figures(risk[second] - risk[best], 2)} more. The evidence that decides it:`),
      table(["evidence", "loss of the chosen", "loss of the runner-up"], gains.map((column) => [plain(list[column].text, 60), loss[best][column].toFixed(3), loss[second][column].toFixed(3)])),
    ]);
  }
  const known = hypotheses.every((each) => each.logprob !== null);
  const likely = argmin(hypotheses.map((each) => (known ? -each.logprob : -each.count)));
  steps.push([el("p", {}, el("strong", {}, known ? "Not the most probable. " : "Not the most frequent. "), ...(likely === best
    ? ["Here the chosen text is also the most probable one. Draw again, or warmer: they often part."]
    : [`The ${known ? "most probable" : "most frequent"} sample, `, ...quote(hypotheses[likely].text), `, has risk ${risk[likely].toFixed(4)}: more than the chosen text’s ${risk[best].toFixed(4)}. Being likely is not the same as agreeing with everything else that is likely.`]))]);
  return steps;
}
