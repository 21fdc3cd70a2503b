// Accept or reject, by the rules of labkit/speculative/verify.py: p is the base model, q the drafter.
import { normalised, without } from "./sampling.js";

/** The parent of a node that follows the last committed token. */
export const ROOT = -1;

/**
 * A candidate tree, parents before children. `outlooks` maps a parent to the drafter's whole
 * distribution after it, from which its children were drawn without replacement, in their order;
 * children of a parent that is not there were chosen outright.
 * @typedef {{tokens: number[], parents: number[], q: (number|null)[], sources: string[],
 *   outlooks: Map<number, Float64Array>, considered: Map<number, [number, number][]>}} Draft
 */

/** @returns {Draft} */
export function emptyDraft() {
  return { tokens: [], parents: [], q: [], sources: [], outlooks: new Map(), considered: new Map() };
}

/** A tree of width one, of tokens chosen outright. @returns {Draft} */
export function chain(tokens, source) {
  return {
    ...emptyDraft(), tokens: [...tokens], parents: tokens.map((_, at) => at - 1),
    q: tokens.map(() => null), sources: tokens.map(() => source),
  };
}

/** The nodes that follow `parent`, in order. */
export function childrenOf(draft, parent) {
  return draft.parents.flatMap((above, node) => (above === parent ? [node] : []));
}

/** Each node's distance from the root; a child of the root has 1. */
export function depthsOf(draft) {
  const depths = [];
  for (const parent of draft.parents) depths.push(1 + (parent === ROOT ? 0 : depths[parent]));
  return depths;
}

/** The nodes on the way from the root to `node`, itself included. */
export function pathTo(draft, node) {
  const path = [];
  for (let at = node; at !== ROOT; at = draft.parents[at]) path.unshift(at);
  return path;
}

/**
 * @typedef {{node: number, accepted: boolean, p?: number, q?: number, draw?: number,
 *   threshold?: number}} Test
 * @typedef {{path: number[], token: number, ending: string, tests: Test[]}} Verdict
 */

function ending(draft, at) {
  if (!draft.tokens.length) return "plain";
  return childrenOf(draft, at).length ? "replacement" : "bonus";
}

/**
 * Follow the base model's most probable tokens down the tree.
 * @param {(row: number) => number} choice the most probable token after row 0 (root), i + 1 (node i)
 * @returns {Verdict}
 */
export function greedy(choice, draft) {
  const [path, tests] = [[], []];
  for (let at = ROOT; ;) {
    const wanted = choice(at + 1);
    let found = null;
    for (const node of childrenOf(draft, at)) {
      const accepted = draft.tokens[node] === wanted;
      tests.push({ node, accepted });
      if (accepted) {
        found = node;
        break;
      }
    }
    if (found === null) return { path, token: wanted, ending: ending(draft, at), tests };
    path.push(found);
    at = found;
  }
}

/**
 * Lossless verification of a chain or a tree under sampling.
 * @param {(row: number) => Float64Array} probs p after row 0 (root), i + 1 (node i)
 * @param {Draft} draft
 * @param {Random} random
 * @param {(p: Float64Array, random: Random) => number} draw
 * @returns {Verdict}
 */
export function speculativeSampling(probs, draft, random, draw) {
  const [path, tests] = [[], []];
  for (let at = ROOT; ;) {
    let p = probs(at + 1);
    let q = draft.outlooks.get(at) ?? null;
    let found = null;
    for (const node of childrenOf(draft, at)) {
      const x = draft.tokens[node];
      const [pOfX, qOfX] = [p[x], q ? q[x] : 1];
      const threshold = acceptance(pOfX, qOfX);
      const drawn = random.uniform();
      const accepted = drawn < threshold;
      tests.push({ node, accepted, p: Math.min(pOfX, 1), q: Math.min(qOfX, 1), draw: drawn, threshold });
      if (accepted) {
        found = node;
        break;
      }
      p = residual(p, q, x);
      if (q) q = without(q, x) ?? new Float64Array(q.length);
    }
    if (found === null) return { path, token: draw(p, random), ending: ending(draft, at), tests };
    path.push(found);
    at = found;
  }
}

/** The probability min(1, p(x) / q(x)) that a draft x is accepted; 0 where q cannot draw x. */
export function acceptance(pOfX, qOfX) {
  return qOfX > 0 ? Math.min(1, pOfX / qOfX) : 0;
}

/** What p still owes once x was rejected: norm(max(0, p - q)), a missing q being all on x. */
export function residual(p, q, x) {
  const left = q ? p.map((value, at) => Math.max(0, value - q[at])) : p.slice();
  if (!q) left[x] = 0;
  return normalised(left) ?? p; // p equals q to the last bit: then x was rejected with probability 0
}
