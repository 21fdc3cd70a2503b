import assert from "node:assert/strict";
import test from "node:test";

import {
  boundary, curvesOf, readOut, settled, spanned, stops, usualSpan, xOf,
} from "../../labkit/widgets/loss_curves/curves.js";
import {
  apart, logTicks, nearest, path, scale, short, smooth, stopMove, thinned, ticks,
} from "../../labkit/widgets/shared/chart.js";

const point = (phase, step, loss, seconds = step) => ({ phase, step, tokens: step * 100, loss, lr: 0.001, seconds });
const look = (phase, step, loss, accept) => ({ phase, step, tokens: step * 100, loss, accept, tokens_per_step: null });
const log = {
  name: "run", heads: 2,
  points: [point(1, 0, [4, 6]), point(1, 1, [2, 4]), point(2, 2, [1, 3]), point(2, 3, [1, 1])],
  validation: [look(1, 1, [2.5, 4.5], [0.5, 0.2]), look(2, 3, [1.5, 2.5], [0.7, 0.4])],
};

test("the smoothed loss of a constant is that constant from the first value on", () => {
  assert.deepEqual([...smooth([2, 2, 2], 10)], [2, 2, 2]);
});

test("smoothing over one value changes nothing", () => {
  assert.deepEqual([...smooth([3, 1, 2], 1)], [3, 1, 2]);
});

test("smoothed values stay within the raw ones and lag behind a fall", () => {
  const raw = Array.from({ length: 50 }, (_, at) => 5 - at / 10);
  const smoothed = smooth(raw, 8);
  for (let at = 1; at < 50; at++) assert.ok(smoothed[at] > raw[at] && smoothed[at] <= raw[0]);
});

test("phase 2 is smoothed by itself", () => {
  const { heads } = curvesOf(log, "step", 4);
  assert.equal(heads[0].smoothed[2], 1);
  assert.ok(heads[0].smoothed[1] > 2);
});

test("phase 2 begins between its first point and the last of phase 1", () => {
  assert.equal(boundary(curvesOf(log, "step", 1)), 1.5);
  assert.equal(boundary(curvesOf(log, "tokens", 1)), 150);
  assert.equal(boundary(curvesOf({ ...log, points: log.points.slice(0, 2) }, "step", 1)), null);
  assert.equal(boundary(curvesOf({ ...log, points: log.points.slice(2) }, "step", 1)), 2);
});

test("without its start a run lacks its first twentieth, looks included", () => {
  const long = { ...log, points: Array.from({ length: 40 }, (_, step) => point(1, step, [1, 1])) };
  const cut = settled(long);
  assert.equal(cut.points[0].step, 2);
  assert.deepEqual(cut.validation.map(({ step }) => step), [3]);
  assert.deepEqual(settled({ ...log, points: [] }).points, []);
});

test("a resumed run's clock runs on", () => {
  assert.deepEqual(xOf([point(1, 0, [1], 5), point(1, 1, [1], 9), point(1, 2, [1], 2)], "seconds"), [5, 9, 11]);
});

test("the read-out names the nearest point and the last look until there", () => {
  const run = curvesOf(log, "step", 1);
  const said = readOut(run, 2);
  assert.equal(said.point.step, 2);
  assert.equal(said.look.step, 1);
  assert.deepEqual(said.heads[1], { raw: 3, smoothed: 3, validation: 4.5, accept: 0.2 });
  assert.equal(readOut(run, 0).look, null);
});

test("a run without points says nothing", () => {
  const run = curvesOf({ ...log, points: [], validation: [] }, "step", 1);
  assert.equal(readOut(run, 0), null);
  assert.deepEqual(stops([run]), []);
});

test("looks stand at their step's time", () => {
  assert.deepEqual(curvesOf(log, "seconds", 1).looks.map(({ x }) => x), [1, 3]);
});

test("the read-out stops at the points of both runs, each place once", () => {
  const other = { ...log, points: [point(1, 1, [1, 1]), point(1, 5, [1, 1])], validation: [] };
  assert.deepEqual(stops([curvesOf(log, "step", 1), curvesOf(other, "step", 1)]), [0, 1, 2, 3, 5]);
});

test("ticks are round, within the span, and about as many as wanted", () => {
  assert.deepEqual(ticks(0, 10, 5), [0, 2, 4, 6, 8, 10]);
  assert.deepEqual(ticks(0.13, 0.29, 4), [0.15, 0.2, 0.25]);
  assert.deepEqual(ticks(3, 3), [3]);
});

test("logarithmic ticks are 1, 2 and 5 times powers of ten", () => {
  assert.deepEqual(logTicks(0.9, 12), [1, 2, 5, 10]);
});

test("a scale leads there and back", () => {
  for (const kind of ["linear", "log"]) {
    const place = scale([1, 100], [10, 210], kind);
    assert.equal(place(1), 10);
    assert.ok(Math.abs(place(100) - 210) < 1e-9);
    assert.ok(Math.abs(place.back(place(7)) - 7) < 1e-9);
  }
  assert.equal(scale([1, 100], [0, 100], "log")(10), 50);
  assert.ok(Number.isFinite(scale([2, 2], [0, 100])(2)));
});

test("a thinned curve keeps each pixel column's extremes and order", () => {
  const points = Array.from({ length: 1000 }, (_, at) => [at / 100, Math.sin(at) * 50]);
  const kept = thinned(points);
  assert.ok(kept.length <= 40);
  for (let column = 0; column < 10; column++) {
    const of = (list) => list.filter(([x]) => Math.floor(x) === column).map(([, y]) => y);
    assert.equal(Math.min(...of(kept)), Math.min(...of(points)));
    assert.equal(Math.max(...of(kept)), Math.max(...of(points)));
  }
  assert.ok(kept.every(([x], at) => !at || x >= kept[at - 1][0]));
});

test("a sparse curve is kept whole", () => {
  const points = [[0, 1], [5, 2], [10, 3]];
  assert.deepEqual(thinned(points), points);
  assert.equal(path(points), "M0.0 1.0L5.0 2.0L10.0 3.0");
});

test("labels that touch move apart and keep their order", () => {
  const out = apart([50, 52, 51, 10], 12, 0, 100);
  assert.equal(out[3], 10);
  const sorted = [out[0], out[2], out[1]];
  assert.ok(sorted[1] - sorted[0] >= 12 && sorted[2] - sorted[1] >= 12);
  assert.ok(Math.max(...apart([99, 99, 99], 10, 0, 100)) <= 100);
});

test("the nearest of a list, which may be empty", () => {
  assert.equal(nearest([1, 5, 9], 6), 1);
  assert.equal(nearest([1, 5, 9], -3), 0);
  assert.equal(nearest([1, 5, 9], 99), 2);
  assert.equal(nearest([], 1), -1);
});

test("keys lead a read-out from stop to stop and no further", () => {
  assert.equal(stopMove("ArrowRight", 4, 5), 4);
  assert.equal(stopMove("PageUp", 1, 100, 20), 21);
  assert.equal(stopMove("PageDown", 1, 100, 20), 0);
  assert.equal(stopMove("End", 0, 100), 99);
  assert.equal(stopMove("End", 0, 0), null);
  assert.equal(stopMove("q", 0, 100), null);
});

test("numbers on an axis are short", () => {
  assert.deepEqual([0, 0.05, 800, 12000, 2.5e6, 3e9].map(short), ["0", "0.05", "800", "12k", "2.5M", "3G"]);
});

test("the span of no values is the one that was wished for", () => {
  assert.deepEqual(spanned([[], []], [0, 1]), [0, 1]);
  assert.deepEqual(spanned([[3], [1, 2]], [0, 1]), [1, 3]);
  assert.equal(usualSpan(1000), 20);
});
