import assert from "node:assert/strict";
import test from "node:test";

import { extent, gain, legible, pointsOf, seriesOf, spaced } from "../../labkit/widgets/serving_curves/series.js";

const spread = (mean) => ({ mean, p50: mean * 0.9, p90: mean * 1.5, p99: mean * 2 });
const row = (users, method, origin, tpot) => ({ users, method, origin, ttft_ms: spread(50), itl_ms: spread(30), tpot_ms: spread(tpot) });
const log = {
  rows: [
    row(4, "vanilla", "measured", 24), row(1, "vanilla", "measured", 20), row(1, "mlp", "measured", 10),
    row(4, "mlp", "measured", 16), row(1, "vanilla", "simulated", 18), row(1, "vanilla", "measured", 22),
  ],
};

test("a series is one method and origin, by users, the later of two equal loads", () => {
  const series = seriesOf(log);
  assert.deepEqual(series.map(({ method, origin }) => `${method} ${origin}`), ["vanilla measured", "mlp measured", "vanilla simulated"]);
  assert.deepEqual(series[0].rows.map(({ users }) => users), [1, 4]);
  assert.equal(series[0].rows[0].tpot_ms.mean, 22);
});

test("a method keeps its colour whatever the origin", () => {
  assert.deepEqual(seriesOf(log).map(({ hue }) => hue), [0, 1, 0]);
});

test("the gain is vanilla's time over the method's under the same load and origin", () => {
  assert.equal(gain(log, log.rows[3]), 1.5);
  assert.equal(gain(log, log.rows[2]), 2.2);
  assert.equal(gain(log, log.rows[0]), null);
  assert.equal(gain(log, row(1, "mlp", "simulated", 9)), 2);
  assert.equal(gain(log, row(64, "mlp", "measured", 9)), null);
  assert.equal(gain(log, row(1, "mlp", "measured", 0)), null);
});

test("a panel spans the points that are drawn on it", () => {
  const [vanilla, mlp] = seriesOf(log);
  assert.deepEqual(pointsOf(log, mlp, "tpot", "mean"), [[1, 10], [4, 16]]);
  assert.deepEqual(pointsOf(log, mlp, "gain", "mean"), [[1, 2.2], [4, 1.5]]);
  assert.deepEqual(pointsOf(log, vanilla, "gain", "mean"), []);
  assert.deepEqual(extent([pointsOf(log, mlp, "tpot", "mean"), pointsOf(log, vanilla, "tpot", "mean")]), [10, 24]);
  assert.deepEqual(extent([]), [1, 1]);
});

test("labels that would touch an earlier one are left out", () => {
  const labels = [{ x: 0, y: 0, width: 10 }, { x: 5, y: 5, width: 10 }, { x: 5, y: 20, width: 10 }, { x: 11, y: 0, width: 10 }];
  assert.deepEqual(legible(labels), [true, false, true, true]);
});

test("loads are written where there is room for them", () => {
  assert.deepEqual(spaced([1, 2, 3, 4], (value) => value * 10, 15), [1, 3]);
});
