// From a training's log to curves: pure functions, nothing drawn.

import { nearest, smooth } from "../shared/chart.js";

/**
 * One run as curves: for each head the points [x, loss] of each phase with their smoothed losses,
 * and the looks at held-out text. x is the step, the positions seen, or the seconds so far.
 * @param {object} log a LossLog
 * @param {string} along "step", "tokens" or "seconds"
 * @param {number} span of the smoothing
 */
export function curvesOf(log, along, span) {
  const xs = xOf(log.points, along);
  const all = log.points.map((_, at) => at);
  const phases = [1, 2].map((phase) => all.filter((at) => log.points[at].phase === phase));
  const heads = Array.from({ length: log.heads }, (_, head) => {
    const smoothed = new Float64Array(log.points.length);
    for (const part of phases) {
      const values = smooth(part.map((at) => log.points[at].loss[head]), span);
      part.forEach((at, place) => { smoothed[at] = values[place]; });
    }
    return { smoothed, raw: Float64Array.from(log.points, (point) => point.loss[head]) };
  });
  const steps = log.points.map((point) => point.step);
  const looks = log.validation.map((look) => {
    const at = nearest(steps, look.step);
    return { ...look, x: along === "seconds" ? (at < 0 ? 0 : xs[at]) : look[along] };
  });
  return { log, xs, steps, phases, heads, looks };
}

/** A log without the steep beginning: the first twentieth of its points, and looks before that. */
export function settled(log) {
  const points = log.points.slice(Math.floor(log.points.length / 20));
  const from = points[0]?.step ?? 0;
  return { ...log, points, validation: log.validation.filter((look) => look.step >= from) };
}

/** The place of each point; time goes on where a resumed run's clock began anew. */
export function xOf(points, along) {
  if (along !== "seconds") return points.map((point) => point[along]);
  let before = 0;
  return points.map(({ seconds }, at) => {
    if (at && seconds < points[at - 1].seconds) before += points[at - 1].seconds;
    return before + seconds;
  });
}

/** Where phase 2 begins: between the phases' points; null if it does not. */
export function boundary({ xs, phases: [first, second] }) {
  if (!second.length) return null;
  return first.length ? (xs[first.at(-1)] + xs[second[0]]) / 2 : xs[second[0]];
}

/** The values that a panel must span, or `otherwise` where there are none. */
export function spanned(values, otherwise) {
  let [low, high] = [Infinity, -Infinity];
  for (const list of values) {
    for (const value of list) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return low <= high ? [low, high] : otherwise;
}

/** A span of the smoothing that suits a run of that many points. */
export const usualSpan = (points) => Math.max(1, Math.round(points / 50));

/** All places that the read-out can stand at, in order: the points of all runs. */
export function stops(runs) {
  const all = runs.flatMap((run) => [...run.xs, ...run.looks.map((look) => look.x)]);
  return [...new Set(all)].sort((a, b) => a - b);
}

/** What one run says at a place: its nearest point, and its last look until then. */
export function readOut(run, x) {
  const at = nearest(run.xs, x);
  const look = run.looks.filter((each) => each.x <= x + 1e-9).at(-1) ?? null;
  if (at < 0 && !look) return null;
  const point = at < 0 ? null : run.log.points[at];
  return {
    point, look,
    heads: run.heads.map(({ smoothed, raw }, head) => ({
      raw: at < 0 ? null : raw[at], smoothed: at < 0 ? null : smoothed[at],
      validation: look?.loss[head] ?? null, accept: look?.accept[head] ?? null,
    })),
  };
}
