// Beyond one best text: how sure the decision is, a set of answers, and kinds of answer.
//
// Pure functions on the losses and weights in force, the same as `labkit.mbr.sets`
// computes, and the panel that shows them.

import { button, el, figures, label, percent, slider, svg } from "../shared/prelude.js";
import { argmin, riskOf } from "./decide.js";

export const MOST_CLUSTERED = 120; // hypotheses; beyond, merging takes longer than a frame

/** The expected loss of the best member of a set. */
export function setRisk(losses, weights, chosen) {
  const least = (r) => Math.min(...chosen.map((h) => losses[h][r]));
  return riskOf(Array.from(weights, (_, r) => least(r)), weights);
}

/** `size` hypotheses chosen greedily so that the set's risk is least; the best single one first. */
export function bestSet(losses, weights, size) {
  const risk = losses.map((row) => riskOf(row, weights));
  const covered = new Float64Array(weights.length).fill(Infinity);
  const chosen = [];
  while (chosen.length < Math.min(size, losses.length)) {
    let [best, least] = [-1, Infinity];
    losses.forEach((row, h) => {
      if (chosen.includes(h)) return;
      const together = riskOf(Array.from(row, (loss, r) => Math.min(loss, covered[r])), weights);
      const closer = together - least;
      if (best < 0 || closer < -1e-12 || (closer < 1e-12 && risk[h] < risk[best])) {
        [best, least] = [h, together];
      }
    });
    chosen.push(best);
    for (let r = 0; r < covered.length; r++) covered[r] = Math.min(covered[r], losses[best][r]);
  }
  return chosen;
}

/**
 * The distance of every two hypotheses, 1 minus the mean of both utilities, from losses against
 * evidence with their texts; null where a hypothesis is not among the evidence.
 */
export function distances(texts, columns, losses) {
  const place = new Map(columns.map(({ text }, r) => [text, r]));
  if (!texts.every((text) => place.has(text))) return null;
  const at = texts.map((text) => place.get(text));
  return texts.map((_, a) => texts.map((__, b) => (
    a === b ? 0 : (losses[a][at[b]] + losses[b][at[a]]) / 2)));
}

/** The cluster of each hypothesis, numbered by first appearance: average linkage, cut at `cut`. */
export function clusterOf(apart, cut) {
  const groups = apart.map((_, h) => [h]);
  const between = (one, other) => {
    let sum = 0;
    for (const a of one) for (const b of other) sum += apart[a][b];
    return sum / (one.length * other.length);
  };
  for (;;) {
    let [pair, least] = [null, Infinity];
    for (let a = 0; a < groups.length; a++) {
      for (let b = a + 1; b < groups.length; b++) {
        const distance = between(groups[a], groups[b]);
        if (distance < least) [pair, least] = [[a, b], distance];
      }
    }
    if (!pair || least > cut + 1e-12) break;
    const [a, b] = pair;
    groups[a] = [...groups[a], ...groups[b]];
    groups.splice(b, 1);
  }
  const of = new Array(apart.length);
  groups.sort((one, other) => Math.min(...one) - Math.min(...other));
  groups.forEach((group, number) => group.forEach((h) => { of[h] = number; }));
  return of;
}

/** The weight of each cluster: each hypothesis has that of the evidence with its text. */
export function massOf(of, texts, columns, weights) {
  const weight = new Map();
  columns.forEach(({ text }, r) => weight.set(text, (weight.get(text) ?? 0) + weights[r]));
  const mass = new Array(Math.max(...of) + 1).fill(0);
  const seen = new Set();
  texts.forEach((text, h) => {
    if (!seen.has(text)) mass[of[h]] += weight.get(text) ?? 0;
    seen.add(text);
  });
  return mass;
}

/** The hypothesis of least risk within a cluster, its own texts as the only evidence. */
export function bestWithin(cluster, of, texts, columns, losses, weights) {
  const inside = new Set(texts.filter((_, h) => of[h] === cluster));
  const share = Array.from(weights, (weight, r) => (inside.has(columns[r].text) ? weight : 0));
  const risk = losses.map((row, h) => (of[h] === cluster ? riskOf(row, share) : Infinity));
  return argmin(risk);
}

/** Where the curve of a test set puts a decision: the share that is surer, and what those lose. */
export function placeOnCurve(curve, confidence) {
  return curve.findLast((point) => point.threshold >= confidence) ?? null;
}

/**
 * The panel: `show(made)` follows the decision in force. The three parts are headings with rows of
 * buttons, so they are walked by Tab and read aloud; a button selects its hypothesis.
 */
export function beyondPanel({ record, get, put, pick }) {
  const { hypotheses } = record;
  const texts = hypotheses.map((sample) => sample.text);
  const sure = el("div", {});
  const sets = el("div", { class: "lk-rm-members" });
  const kinds = el("div", { class: "lk-rm-members" });
  const size = slider("Answers", {
    min: 1, max: Math.min(6, texts.length), value: get("set_size"),
    input: (value) => put("set_size", value),
  });
  const cut = slider("Cut at distance", {
    min: 0, max: 1, step: 0.05, value: get("distance"), words: (value) => value.toFixed(2),
    input: (value) => put("distance", value),
  });
  const part = (title, ...inside) => el("section", { class: "lk-rm-part", "aria-label": title },
    el("p", { class: "lk-subtitle" }, title), ...inside);
  const root = el("details", { class: "lk-rm-beyond" },
    el("summary", {}, "Beyond one answer: confidence, sets, kinds of answer"),
    part("How sure is it?", sure),
    part("Several answers that lose least together", size.field, sets),
    part("Kinds of answer", cut.field, kinds));
  const small = (...words) => el("p", { class: "lk-rm-small" }, words);
  const member = (row, lead) => button(`${lead}h${row} ${label(texts[row], {}, 48).textContent}`, {
    click: () => pick(row),
  });

  function showSure(made) {
    const ranked = [...made.risk].sort((a, b) => a - b);
    const confidence = 1 - made.risk[made.best];
    const margin = ranked.length > 1 ? ranked[1] - ranked[0] : 0;
    const point = placeOnCurve(record.coverage ?? [], confidence);
    sure.replaceChildren(...[
      small(`Confidence, 1 minus the least risk: ${confidence.toFixed(4)}. `
        + `The second best loses ${margin.toFixed(4)} more.`),
      point && small(`On a test set ${percent(point.coverage)} of decisions were at least this sure; `
        + `they lost ${point.risk.toFixed(3)} on average against the reference.`),
      (record.coverage ?? []).length > 1 && curvePicture(record.coverage, confidence),
    ].filter(Boolean));
  }

  function showSet(made) {
    const chosen = bestSet(made.losses, made.weights, get("set_size"));
    const single = [...made.risk.keys()].sort((a, b) => made.risk[a] - made.risk[b] || a - b);
    const singles = single.slice(0, chosen.length);
    sets.replaceChildren(
      ...chosen.map((row, at) => member(row, `${at + 1}. `)),
      small(`Risk of the set: ${figures(setRisk(made.losses, made.weights, chosen))}; `
        + `of the ${chosen.length} best single hypotheses: `
        + `${figures(setRisk(made.losses, made.weights, singles))}.`),
    );
    return chosen;
  }

  function showKinds(made) {
    const apart = texts.length <= MOST_CLUSTERED
      ? distances(texts, made.columns, made.losses) : null;
    if (!apart) {
      kinds.replaceChildren(small(texts.length > MOST_CLUSTERED
        ? `Shown for at most ${MOST_CLUSTERED} hypotheses.`
        : "Shown where every hypothesis is also among the evidence."));
      return null;
    }
    const of = clusterOf(apart, get("distance"));
    const mass = massOf(of, texts, made.columns, made.weights);
    const order = mass.map((_, kind) => kind).sort((a, b) => mass[b] - mass[a] || a - b);
    kinds.replaceChildren(
      ...order.slice(0, 6).map((kind) => member(
        bestWithin(kind, of, texts, made.columns, made.losses, made.weights),
        `${percent(mass[kind])} of the weight: `,
      )),
      small(`${order.length} clusters. The best of the heaviest is the structure-conditional `
        + `decision${order.length > 6 ? "; the six heaviest are listed" : ""}.`),
    );
    return of;
  }

  function show(made) {
    size.set(get("set_size"));
    cut.set(get("distance"));
    showSure(made);
    return { chosen: showSet(made), clusters: showKinds(made) };
  }

  return { root, show };
}

/** The risk-coverage curve of a test set, and a line at this decision's confidence. */
function curvePicture(curve, confidence) {
  const [wide, high] = [260, 90];
  const most = Math.max(...curve.map((point) => point.risk), 1e-9);
  const across = (point) => 4 + point.coverage * (wide - 8);
  const down = (point) => high - 4 - (point.risk / most) * (high - 8);
  const here = placeOnCurve(curve, confidence);
  const path = curve.map((p, at) => `${at ? "L" : "M"}${across(p)} ${down(p)}`).join("");
  return svg("svg", {
    viewBox: `0 0 ${wide} ${high}`, class: "lk-rm-curve", role: "img",
    "aria-label": `Mean loss against coverage, up to ${figures(most)}`,
  },
  svg("path", { d: path, class: "lk-rm-curve-line" }),
  here ? svg("circle", { cx: across(here), cy: down(here), r: 4, class: "lk-rm-curve-here" }) : null);
}
