import assert from "node:assert/strict";
import test from "node:test";

import { activity, advance, firstPath, standing, tellOutcome, tokensAt } from "../../labkit/widgets/race/widget.js";
import { endTimes, tokensAfter } from "../../labkit/widgets/shared/trace.js";

const word = (id) => ({ id, text: ` ${id}` });
const node = (depth, parent, accepted) => ({ id: depth, text: ` d${depth}`, parent, depth, source: "head", accepted, tested: true });
const vanilla = {
  method: "vanilla", prefill_s: 0.1, first: word(0),
  steps: [1, 2, 3, 4].map((id) => ({ nodes: [], committed: [word(id)], ending: "plain", draft_s: 0, check_s: 0.2, rest_s: 0.05 })),
};
const quick = {
  method: "mlp", prefill_s: 0.1, first: word(0),
  steps: [[1, 2], [3, 4]].map((ids) => ({ nodes: [node(1, -1, true), node(1, -1, false), node(2, 0, false)], committed: ids.map(word), ending: "replacement", draft_s: 0.1, check_s: 0.15, rest_s: 0 })),
};

test("the clock runs at the chosen speed and stops at the end", () => {
  assert.deepEqual(advance({ time: 1, playing: true }, 0.1, 2, 5), { time: 1.2, playing: true });
  assert.deepEqual(advance({ time: 1, playing: false }, 0.1, 2, 5), { time: 1, playing: false });
  assert.deepEqual(advance({ time: 4.9, playing: true }, 0.1, 2, 5), { time: 5, playing: false });
});

test("tokens appear when their step ends, not before", () => {
  const [ends, totals] = [endTimes(quick), tokensAfter(quick)];
  assert.deepEqual([0, 0.0999, 0.1, 0.34, 0.35, 0.59, 0.6, 9].map((time) => tokensAt(ends, totals, time)), [0, 0, 1, 1, 3, 3, 5, 5]);
});

test("at each moment the time spent adds up to the moment", () => {
  const ends = endTimes(quick);
  for (const time of [0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.35, 0.5, 0.6, 2]) {
    const { spent } = activity(quick, ends, time);
    const sum = spent.prefill + spent.draft + spent.check + spent.rest;
    assert.ok(Math.abs(sum - Math.min(time, 0.6)) < 1e-9, `${time}: ${sum}`);
  }
});

test("what a generation is doing follows prefill, draft, check, rest, done", () => {
  const ends = endTimes(vanilla);
  assert.deepEqual([0.05, 0.2, 0.32, 0.36, 1.1].map((time) => activity(vanilla, ends, time).doing), ["prefill", "check", "rest", "check", "done"]);
  assert.deepEqual([0.15, 0.25].map((time) => activity(quick, endTimes(quick), time).doing), ["draft", "check"]);
  assert.equal(activity(quick, endTimes(quick), 0.4).step, 1);
});

test("the draft that is being checked is the first-ranked path", () => {
  assert.deepEqual(firstPath(quick.steps[0]).map((each) => each.text), [" d1", " d2"]);
  assert.deepEqual(firstPath(vanilla.steps[0]), []);
});

test("the winner is the faster by tokens per second, the factor their ratio", () => {
  const { winner, factors, even, alike } = standing([vanilla, quick]);
  assert.equal(winner, 1);
  assert.ok(Math.abs(factors[0] - 1.1 / 0.6) < 1e-9);
  assert.equal(factors[1], 1);
  assert.deepEqual([even, alike], [true, true]);
});

test("a shorter race is not a faster one", () => {
  const short = { ...vanilla, steps: vanilla.steps.slice(0, 1) };
  const { winner, even, alike } = standing([short, quick]);
  assert.equal(winner, 1);
  assert.deepEqual([even, alike], [false, true]);
  const other = { ...short, first: word(7) };
  assert.equal(standing([other, quick]).alike, false);
});

test("the outcome is told with times where the tokens are as many, else with rates", () => {
  assert.equal(tellOutcome([vanilla, quick]), "mlp wins with 5 tokens in 600 ms, 1.83 times as fast as vanilla (1.10 s). The texts are the same, token for token.");
  const short = { ...vanilla, steps: vanilla.steps.slice(0, 1) };
  assert.match(tellOutcome([short, quick]), /8\.33 tokens per second, .* as fast as vanilla \(5\.71 tokens per second\)\. Up to the end of the shortest, the texts are the same\./);
  assert.equal(tellOutcome([quick]), "mlp: 8.33 tokens per second.");
});
