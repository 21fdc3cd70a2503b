import assert from "node:assert/strict";
import test from "node:test";

import {
  bestSet, bestWithin, clusterOf, distances, massOf, placeOnCurve, setRisk,
} from "../../labkit/widgets/risk_matrix/beyond.js";
import { cellMove, colourStep, geometry, placeUnder, ramp, spanOf } from "../../labkit/widgets/risk_matrix/board.js";
import {
  argmin, arrangement, asListed, columnsOf, decision, draws, inverse, lossStore, normalised, orderBy,
  seriate, weigh, weightingProblem,
} from "../../labkit/widgets/risk_matrix/decide.js";
import {
  editScore, keptUnits, locate, longestMatches, lossRows, marked, matchRow, ngramIndex, tokenize13a,
} from "../../labkit/widgets/risk_matrix/utilities.js";
import { utilityOptions } from "../../labkit/widgets/risk_matrix/widget.js";

const sample = (text, count = 1, logprob = null) => ({ text, count, logprob, tokens: null });

/** A table whose recorded numbers no computation here would give: so it shows where they are from. */
function record() {
  const samples = [sample("a cat", 3, -1), sample("the cat", 1, -2), sample("dogs", 1, -4)];
  return {
    utility: "chrf", weighting: "counts", seed: 0, reference: "a cat", hypotheses: samples, evidence: samples,
    weights: [0.6, 0.2, 0.2], loss: [[0, 0.25, 1], [0.25, 0, 1], [1, 1, 0]], risk: [0.3, 0.4, 0.9], best: 0,
  };
}
const usual = { utility: "chrf", weighting: "counts", temperature: 1, length_power: 0, samples: 0, evidence: "samples", sort: "risk", left_out: [] };
const storeOf = (table, utility) => {
  const texts = [...new Set([...table.evidence, ...table.hypotheses].map((each) => each.text))];
  const store = lossStore(utility, table.hypotheses.map((each) => each.text), texts);
  while (store.step());
  return store;
};

test("with nothing switched the record's own numbers stand", () => {
  const table = { ...record(), risk: [0.7, 0.1, 0.2], best: 2 };
  const made = decision(table, usual, null);
  assert.ok(made.untouched);
  assert.equal(made.risk, table.risk);
  assert.equal(made.best, 2);
});

test("recorded model weights stand though no log-probability says where they are from", () => {
  const samples = [sample("a cat"), sample("dogs")];
  const table = { ...record(), weighting: "model", hypotheses: samples, evidence: samples, weights: [0.9, 0.1], loss: [[0, 1], [1, 0]], risk: [0.1, 0.9] };
  assert.ok(decision(table, { ...usual, weighting: "model" }, null).untouched);
  assert.deepEqual([...decision(table, { ...usual, weighting: "model", left_out: [0] }, null).weights], [0, 1]);
});

test("another weighting uses the recorded losses", () => {
  const made = decision(record(), { ...usual, weighting: "unique" }, null);
  assert.ok(!made.untouched);
  assert.deepEqual([...made.weights], [1 / 3, 1 / 3, 1 / 3]);
  assert.ok(Math.abs(made.risk[2] - 2 / 3) < 1e-12);
});

test("uniform weights list every draw", () => {
  const made = decision(record(), { ...usual, weighting: "uniform" }, null);
  assert.deepEqual(made.columns.map((column) => column.text), ["a cat", "a cat", "a cat", "the cat", "dogs"]);
  assert.ok(Math.abs(made.risk[1] - (0.75 + 0 + 1) / 5) < 1e-12);
});

test("fewer draws are a part of the draws, the same each time", () => {
  const table = record();
  for (const n of [1, 2, 3, 4]) {
    const made = decision(table, { ...usual, samples: n }, null);
    assert.equal(made.columns.reduce((sum, column) => sum + column.count, 0), n);
    assert.deepEqual(made.columns, decision(table, { ...usual, samples: n }, null).columns);
  }
});

test("each draw is as likely to be among the first", () => {
  const samples = [sample("a", 3), sample("b", 1)];
  let firsts = 0;
  for (let seed = 0; seed < 4000; seed++) firsts += draws(samples, seed)[0];
  assert.ok(Math.abs(firsts / 4000 - 0.25) < 0.03, `${firsts / 4000}`); // 4.4 standard errors
});

test("samples in the order of their draws stay in it", () => {
  assert.deepEqual(draws([sample("b"), sample("a"), sample("b")], 5), [0, 1, 2]);
});

test("a sample left out weighs nothing and the others more", () => {
  const made = decision(record(), { ...usual, left_out: [0] }, null);
  assert.deepEqual([...made.weights], [0, 0.5, 0.5]);
  const drawn = decision(record(), { ...usual, weighting: "model", left_out: [0] }, null);
  assert.equal(drawn.weights[0], 0);
  assert.ok(Math.abs(drawn.weights[1] - 1 / (1 + Math.exp(-2))) < 1e-12);
});

test("another utility needs its losses first", () => {
  const table = record();
  const switches = { ...usual, utility: "exact" };
  const store = lossStore("exact", table.hypotheses.map((each) => each.text), table.evidence.map((each) => each.text));
  assert.ok(!decision(table, switches, store).whole);
  assert.equal(decision(table, switches, store).best, -1);
  assert.ok(store.step());
  assert.deepEqual([...decision(table, switches, store).losses[0]], [0, 1, 1]);
  while (store.step());
  const made = decision(table, switches, store);
  assert.ok(made.whole);
  assert.deepEqual(made.risk.map((risk) => Math.round(risk * 1e9) / 1e9), [0.4, 0.8, 0.8]);
});

test("the reference as evidence is the oracle", () => {
  const table = record();
  const made = decision(table, { ...usual, evidence: "reference" }, storeOf(table, "chrf"));
  assert.equal(made.columns.length, 1);
  assert.equal(made.best, 0);
  assert.equal(made.risk[0], 0);
});

test("hypotheses can be their own evidence", () => {
  const table = { ...record(), evidence: [sample("dogs")], weights: [1], loss: [[1], [1], [0]] };
  const made = decision(table, { ...usual, evidence: "hypotheses" }, storeOf(table, "chrf"));
  assert.deepEqual([...made.weights], [0.6, 0.2, 0.2]);
});

test("log-probabilities far apart give weights, not NaN", () => {
  const columns = columnsOf([sample("a", 1, -5000), sample("b", 1, -4000)], [0, 1], "model");
  assert.deepEqual([...weigh(columns, "model")], [0, 1]);
  assert.ok(weigh(columns, "model", { without: new Set([1]) })[0] === 1);
});

test("model weights need a log-probability of each sample", () => {
  assert.equal(weightingProblem([sample("a", 1, -1)], "model"), null);
  assert.match(weightingProblem([sample("a", 1, -1), sample("b")], "model"), /log-probability/);
  assert.equal(weightingProblem([sample("b")], "counts"), null);
});

test("rows are sorted by risk, ties in the record's order", () => {
  const made = { columns: [{}], weights: [1], losses: [[0.5], [0.2], [0.5], [0.1]], risk: [0.5, 0.2, 0.5, 0.1] };
  assert.deepEqual(arrangement({ hypotheses: [] }, made, "risk").rows, [3, 1, 0, 2]);
});

test("rows are sorted by log-probability where it is known, else by count", () => {
  const made = { columns: [{}, {}], weights: [0.2, 0.8], losses: [[0, 0], [0, 0]], risk: [0, 0] };
  const by = (hypotheses) => arrangement({ hypotheses }, made, "probability");
  assert.deepEqual(by([sample("a", 9, -5), sample("b", 1, -1)]).rows, [1, 0]);
  assert.deepEqual(by([sample("a", 1), sample("b", 9)]), { rows: [1, 0], columns: [1, 0] });
});

test("seriation brings two groups apart, whatever the order they come in", () => {
  const group = [0, 1, 0, 1, 1, 0, 1, 0, 0, 1];
  const rows = group.map((mine, h) => Float64Array.from(group, (other, r) => (mine === other ? 0.1 : 0.9) + 0.001 * ((h * 7 + r * 3) % 5)));
  const place = seriate(rows);
  for (const order of [orderBy(place.rows), orderBy(place.columns)]) {
    const seen = order.map((at) => group[at]);
    assert.equal(seen.filter((value, at) => at && value !== seen[at - 1]).length, 1, seen.join(""));
  }
});

test("seriation of equal rows gives numbers", () => {
  const place = seriate([Float64Array.of(0.5, 0.5), Float64Array.of(0.5, 0.5)]);
  assert.ok([...place.rows, ...place.columns].every(Number.isFinite));
});

test("the least is the first of equals, and nothing finite is none", () => {
  assert.equal(argmin([3, 1, 1]), 1);
  assert.equal(argmin([NaN, 2]), 1);
  assert.equal(argmin([NaN]), -1);
});

test("weights that sum to 1 stay as they are", () => {
  const weights = Float64Array.of(0.1, 0.2, 0.7);
  assert.equal(normalised(weights), weights);
  assert.deepEqual([...normalised(Float64Array.of(1, 3))], [0.25, 0.75]);
});

test("a repeated n-gram matches as often as the text with fewer has it", () => {
  const index = ngramIndex([[(text) => text.split(" "), 2]]);
  const [one, other] = ["the the the cat", "the the dog"].map(index.profile);
  assert.deepEqual([...matchRow(one, [other], index.size())[0]], [2, 1]);
});

test("rows of losses come one after the other with rests between", () => {
  const steps = [...lossRows("chrf", ["a cat"], ["a cat", "dogs"])];
  assert.deepEqual(steps.map((step) => step && step.length), [null, null, 2]);
  assert.equal(steps[2][0], 0);
});

test("the edit distance is that of words, over the longer text", () => {
  assert.equal(editScore([], []), 1);
  assert.equal(editScore([1, 2, 3], []), 0);
  assert.equal(editScore([1, 2, 3, 4], [1, 3, 4]), 0.75);
  assert.ok(Math.abs(editScore([1, 2, 3], [3, 2, 1]) - 1 / 3) < 1e-12);
  const [losses] = [...lossRows("edit", ["the cat sat."], ["the dog sat down.", ""])];
  assert.deepEqual([...losses], [0.4, 1]);
});

test("the units that stay in an edit are as many on both sides and in order", () => {
  const [one, other] = keptUnits([..."kitten"], [..."sitting"], 4);
  assert.deepEqual([...one], [0, 4, 4, 4, 0, 4]);
  assert.deepEqual([...other], [0, 4, 4, 4, 0, 4, 0]);
});

test("marks show the longest match around each word, clipped", () => {
  const [one, other] = longestMatches(["the", "cat", "sat", "the"], ["a", "the", "cat"], 4);
  assert.deepEqual([...one], [2, 2, 0, 0]);
  assert.deepEqual([...other], [0, 2, 2]);
});

test("tokens are found again in the text they were cut from", () => {
  const text = "Tom & Jerry, they said.";
  const places = locate(text, tokenize13a(text));
  assert.deepEqual(places.map(([from, to]) => text.slice(from, to)), ["Tom", "&", "Jerry", ",", "they", "said", "."]);
  assert.deepEqual(locate("&amp;", tokenize13a("&amp;")).map(Boolean), [true]);
  assert.equal(locate("&quot;", ['"'])[0], null);
});

test("a mark never cuts a letter from its accent, and all text is kept", () => {
  const text = "ae\u0301o x";
  const runs = marked(text, locate(text, ["a", "e", "\u0301", "o", "x"]), [0, 3, 0, 0, 1], ["a", "e\u0301", "o", " ", "x"]);
  assert.equal(runs.map((run) => run.text).join(""), text);
  assert.deepEqual(runs.map((run) => run.mark), [0, 3, 0, 1]);
});

test("the blank inside a match is part of it", () => {
  const runs = marked("a b", [[0, 1], [2, 3]], [2, 2], ["a", " ", "b"]);
  assert.deepEqual(runs, [{ text: "a b", mark: 2 }]);
});

test("lightness rises along the ramp on light pages and falls on dark ones", () => {
  const light = ramp("light").map(([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b);
  for (let at = 1; at < 256; at++) assert.ok(light[at] >= light[at - 1] - 1e-9, String(at));
  assert.deepEqual(ramp("dark"), [...ramp("light")].reverse());
});

test("colours span the tenths around the losses", () => {
  assert.deepEqual(spanOf([[0.31, 0.52], null]), [0.3, 0.6]);
  assert.deepEqual(spanOf([[1, 1]]), [1, 1.1]);
  assert.deepEqual(spanOf([null]), [0, 1]);
});

test("everything fits the canvas, from one cell to very many", () => {
  for (const width of [200, 360, 700, 1100]) {
    for (const [rows, columns] of [[1, 1], [3, 200], [64, 64], [256, 256], [1000, 1000]]) {
      const shape = geometry(width, rows, columns);
      assert.ok(shape.risk + shape.riskWidth <= width, `${width} ${rows} ${columns}`);
      assert.ok(shape.top + shape.heatHeight < shape.height);
      assert.ok(shape.columnWidth > 0 && shape.rowHeight > 0);
    }
  }
});

test("keys move within the matrix and no further", () => {
  assert.deepEqual(cellMove("ArrowUp", [0, 3], 5, 5), [0, 3]);
  assert.deepEqual(cellMove("ArrowRight", [0, 3], 5, 5), [0, 4]);
  assert.deepEqual(cellMove("PageDown", [0, 3], 5, 5), [4, 3]);
  assert.deepEqual(cellMove("End", [2, 0], 5, 5), [2, 4]);
  assert.equal(cellMove("q", [0, 0], 5, 5), null);
});

test("the pointer is over a cell or over none", () => {
  const shape = geometry(700, 4, 5);
  const at = (row, column) => [shape.left + (column + 0.5) * shape.columnWidth, shape.top + (row + 0.5) * shape.rowHeight];
  assert.deepEqual(placeUnder(shape, ...at(3, 4), 4, 5), [3, 4]);
  assert.equal(placeUnder(shape, ...at(-1, 2), 4, 5), null);
  assert.equal(placeUnder(shape, ...at(2, 5), 4, 5), null);
});

test("colours span exactly the losses shown", () => {
  assert.equal(colourStep(0.3, [0.3, 0.6]), 0);
  assert.equal(colourStep(0.6, [0.3, 0.6]), 255);
});

test("places undo an order", () => {
  assert.deepEqual(inverse([2, 0, 1]), [1, 2, 0]);
  assert.deepEqual(asListed(2, 3), { rows: [0, 1], columns: [0, 1, 2] });
});

test("the record's own loss is marked, and offered though the page knows it not", () => {
  assert.deepEqual(utilityOptions({ utility: "chrf" })[0], ["chrf", "1 − chrF (recorded)"]);
  assert.deepEqual(utilityOptions({ utility: "comet" })[0], ["comet", "1 − comet (recorded)"]);
  assert.equal(utilityOptions({ utility: "comet" }).length, 1 + utilityOptions({ utility: "chrf" }).length);
});

test("a set grows by what it lacks, not by the twin of what it has", () => {
  const losses = [[0, 0, 0.9], [0, 0.1, 0.9], [0.9, 0.9, 0]];
  const weights = [0.4, 0.3, 0.3];
  assert.deepEqual(bestSet(losses, weights, 2), [0, 2]);
  assert.deepEqual(bestSet(losses, weights, 9), [0, 2, 1]);
  assert.ok(Math.abs(setRisk(losses, weights, [0, 1]) - 0.27) < 1e-12);
  assert.equal(setRisk(losses, weights, [0, 2]), 0);
});

test("clusters merge while their mean distance is within the cut", () => {
  const apart = [[0, 0.1, 0.9], [0.1, 0, 0.8], [0.9, 0.8, 0]];
  assert.deepEqual(clusterOf(apart, 0), [0, 1, 2]);
  assert.deepEqual(clusterOf(apart, 0.1), [0, 0, 1]);
  assert.deepEqual(clusterOf(apart, 0.84), [0, 0, 1]);
  assert.deepEqual(clusterOf(apart, 0.85), [0, 0, 0]);
  assert.deepEqual(clusterOf([[0]], 0.5), [0]);
});

test("a cluster's weight is that of its texts, and its best is judged by them alone", () => {
  const columns = [{ text: "a" }, { text: "b" }, { text: "c" }, { text: "a" }];
  const [texts, of, weights] = [["a", "b", "c"], [0, 0, 1], [0.2, 0.3, 0.3, 0.2]];
  assert.deepEqual(massOf(of, texts, columns, weights).map((mass) => mass.toFixed(2)), ["0.70", "0.30"]);
  const losses = [[0, 0.5, 0, 0], [0.4, 0, 0, 0.4], [1, 1, 0, 1]];
  assert.equal(bestWithin(0, of, texts, columns, losses, weights), 0);
  assert.equal(bestWithin(1, of, texts, columns, losses, weights), 2);
});

test("distances need every hypothesis among the evidence, and are the same both ways", () => {
  const losses = [[0, 0.2], [0.4, 0]];
  assert.deepEqual(distances(["a", "b"], [{ text: "a" }, { text: "b" }], losses), [[0, 0.3], [0.3, 0]].map((row) => row.map((value) => (value ? (0.2 + 0.4) / 2 : 0))));
  assert.equal(distances(["a", "z"], [{ text: "a" }, { text: "b" }], losses), null);
});

test("a decision is placed after those that are surer, or nowhere", () => {
  const curve = [{ threshold: 0.9, coverage: 0.5, risk: 0.1 }, { threshold: 0.4, coverage: 1, risk: 0.3 }];
  assert.equal(placeOnCurve(curve, 0.5).coverage, 0.5);
  assert.equal(placeOnCurve(curve, 0.4).coverage, 1);
  assert.equal(placeOnCurve(curve, 0.95), null);
  assert.equal(placeOnCurve([], 0.5), null);
});
