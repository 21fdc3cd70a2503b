// Reading a Trace: where each token came from, how heads did, when things happened. Pure functions.

/** The parent of a node that follows the last committed token. */
export const ROOT = -1;

/** Indices of a step's accepted nodes, from the root down. */
export function acceptedPath(step) {
  return step.nodes.flatMap((node, index) => (node.accepted ? [index] : []));
}

/**
 * Every generated token with its origin. `depth` is 0 for the base model's own tokens, else the
 * place in the draft (head 1 drafts depth 1); `step` is -1 for the token that the prefill gave.
 * @returns {Array<{id: number, text: string, step: number, depth: number, node: number|null}>}
 */
export function originOfTokens(trace) {
  const found = [{ ...trace.first, step: -1, depth: 0, node: null }];
  trace.steps.forEach((step, index) => {
    const path = acceptedPath(step);
    step.committed.forEach((token, place) => {
      const drafted = place < path.length;
      found.push({ ...token, step: index, depth: drafted ? place + 1 : 0, node: drafted ? path[place] : null });
    });
  });
  return found;
}

/** How many generated tokens stand after each step; the first entry is the prefill's one token. */
export function tokensAfter(trace) {
  const totals = [1];
  for (const step of trace.steps) totals.push(totals.at(-1) + step.committed.length);
  return totals;
}

/** Has a step a drafted token that failed its test, with nothing accepted in its place? */
export function rejectedAt(step) {
  const deepest = acceptedPath(step).length + 1;
  const failed = step.nodes.some((node) => node.tested && !node.accepted && node.depth === deepest);
  return failed && step.ending !== "bonus" ? deepest : 0;
}

/**
 * The heads of a trace: what each drafted, how often it was reached and passed. A head is a place
 * in the draft; where the drafter names its heads, the name is the record's own.
 * @returns {Array<{depth: number, name: string, reached: number, passed: number}>}
 */
export function headsOf(trace) {
  const heads = [];
  const names = [];
  for (const step of trace.steps) {
    const reached = new Set();
    for (const node of step.nodes) {
      const head = (heads[node.depth - 1] ??= { depth: node.depth, name: "", reached: 0, passed: 0 });
      (names[node.depth - 1] ??= new Set()).add(node.source);
      if (node.tested) reached.add(node.depth);
      if (node.accepted) head.passed += 1;
    }
    for (const depth of reached) heads[depth - 1].reached += 1;
  }
  const own = new Set(names.flatMap((each) => [...each]));
  heads.forEach((head, place) => {
    const named = own.size === heads.length && names[place].size === 1;
    head.name = named ? [...names[place]][0] : `draft ${head.depth}`;
  });
  return heads;
}

/** The seconds at which each step ends, the prefill first: `ends[0]` is the prefill's end. */
export function endTimes(trace) {
  const ends = [trace.prefill_s];
  for (const step of trace.steps) ends.push(ends.at(-1) + step.draft_s + step.check_s + step.rest_s);
  return ends;
}

/** How many entries of a rising list are at most `value`. */
export function countUpTo(rising, value) {
  let low = 0;
  let high = rising.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rising[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The stylesheet's colour of a head, by its place in the draft; 0 is the base model. */
export function headColor(depth) {
  return depth === 0 ? "--lk-base" : `--lk-c${((depth - 1) % 8) + 1}`;
}
