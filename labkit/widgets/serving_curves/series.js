// From a serving log to curves: pure functions, nothing drawn.

/**
 * The log's series, in its own order: one a method and origin, rows by users (the last of equals).
 * @returns {Array<{method: string, origin: string, hue: number, rows: object[]}>}
 */
export function seriesOf(log) {
  const methods = [...new Set(log.rows.map((row) => row.method))];
  const found = new Map();
  for (const row of log.rows) {
    const { method, origin } = row;
    const key = JSON.stringify([method, origin]);
    const hue = methods.indexOf(method);
    if (!found.has(key)) found.set(key, { method, origin, hue, byUsers: new Map() });
    found.get(key).byUsers.set(row.users, row);
  }
  return [...found.values()].map(({ byUsers, ...series }) => (
    { ...series, rows: [...byUsers.values()].sort((a, b) => a.users - b.users) }));
}

/** How many times faster a method's row is than vanilla's under the same load; null if unknown. */
export function gain(log, row, measure = "tpot", figure = "mean") {
  if (row.method === "vanilla") return null;
  const plain = log.rows.findLast((each) => (
    each.method === "vanilla" && each.origin === row.origin && each.users === row.users));
  const own = row[`${measure}_ms`][figure];
  return plain && own > 0 ? plain[`${measure}_ms`][figure] / own : null;
}

/** What a panel shows of a row; null where there is nothing to show. */
export function value(log, row, measure, figure) {
  return measure === "gain" ? gain(log, row, "tpot", figure) : row[`${measure}_ms`][figure];
}

/** A series' points on a panel, [users, value] each. */
export function pointsOf(log, series, measure, figure) {
  const points = series.rows.map((row) => [row.users, value(log, row, measure, figure)]);
  return points.filter(([, each]) => each !== null);
}

/** The lowest value above nought and the highest of all points; [1, 1] where there is none. */
export function extent(lists) {
  const values = lists.flat().map(([, each]) => each);
  const above = values.filter((each) => each > 0);
  return above.length ? [Math.min(...above), Math.max(...above)] : [1, 1];
}

/**
 * Which labels can be written without touching one written before.
 * @param {Array<{x: number, y: number, width: number}>} labels centres, in order of importance
 * @param {number} height
 * @returns {boolean[]}
 */
export function legible(labels, height = 13) {
  const kept = [];
  return labels.map((label) => {
    const free = kept.every((other) => (
      Math.abs(other.x - label.x) > (other.width + label.width) / 2
      || Math.abs(other.y - label.y) > height));
    if (free) kept.push(label);
    return free;
  });
}

/** The values of which no two would be written closer than `gap` pixels, the first one kept. */
export function spaced(values, place, gap) {
  let last = -Infinity;
  return values.filter((value) => {
    if (place(value) - last < gap) return false;
    last = place(value);
    return true;
  });
}
