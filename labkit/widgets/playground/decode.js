// The loop: prefill, draft, verify, commit. Vanilla decoding is the loop without a drafter.
import { argmax, draw, largest, probabilities, softmax } from "./sampling.js";
import { ROOT, depthsOf, emptyDraft, greedy, pathTo, speculativeSampling } from "./verify.js";

/**
 * The rows of one pass that checks a draft: row 0 the root, row i + 1 node i; each sees the text,
 * the root, and the nodes on its own path.
 */
export function rowsOf(draft, root, length) {
  const depths = depthsOf(draft);
  return {
    tokens: [root, ...draft.tokens],
    positions: [length, ...depths.map((depth) => length + depth)],
    paths: [[length], ...draft.tokens.map((_, node) => [length, ...pathTo(draft, node).map((at) => length + 1 + at)])],
  };
}

/** The logits of one row of a pass. */
export function rowOf(out, row, vocabulary) {
  return out.logits.subarray(row * vocabulary, (row + 1) * vocabulary);
}

/**
 * Accept or reject a draft by the real rule.
 * @param {(row: number) => Float32Array} logits after row 0 (root), i + 1 (node i)
 */
export function judge(logits, draft, sampling, random) {
  if (sampling.temperature === 0) return greedy((row) => argmax(logits(row)), draft);
  return speculativeSampling((row) => probabilities(logits(row), sampling), draft, random, draw);
}

/** The committed tokens up to the first end token and at most `room` of them. */
export function cutAt(committed, room, ends) {
  const place = committed.slice(0, room).findIndex((token) => ends.has(token));
  return committed.slice(0, place < 0 ? room : place + 1);
}

/**
 * Continue a prompt, one step of the loop at a time.
 * @param {object} lab model, ends, and `read(tokens)`: a cache that holds them, Z and logits
 * @param {number[]} prompt
 * @param {{maxNewTokens: number, sampling: {temperature: number, topK: number}, random: Random,
 *   drafter: ((tokens: number[], hidden: Float32Array) => Draft) | null}} how
 * @yields first `{first, seconds}`, then `{draft, verdict, committed, cut, logits, draft_s,
 *   check_s, rest_s}` for each step
 */
export function* decode(lab, prompt, { maxNewTokens, sampling, random, drafter }) {
  const { model, ends } = lab;
  const clock = () => performance.now() / 1000;
  const began = clock();
  const { cache, hidden: last, logits } = lab.read(prompt);
  const first = judge(() => logits, emptyDraft(), sampling, random).token;
  yield { first, seconds: clock() - began };
  let hidden = last;
  const tokens = [...prompt, first];
  while (tokens.length - prompt.length < maxNewTokens && !ends.has(tokens.at(-1))) {
    const t0 = clock();
    const draft = drafter ? drafter(tokens, hidden) : emptyDraft();
    const t1 = clock();
    const out = model.forward(rowsOf(draft, tokens.at(-1), cache.length), cache);
    const t2 = clock();
    const row = (at) => rowOf(out, at, model.vocabulary);
    const verdict = judge(row, draft, sampling, random);
    const kept = [0, ...verdict.path.map((node) => node + 1)];
    lab.commit(kept, [tokens.at(-1), ...verdict.path.map((node) => draft.tokens[node])]);
    const tip = kept.at(-1);
    hidden = out.hidden.slice(tip * model.width, (tip + 1) * model.width);
    const whole = [...verdict.path.map((node) => draft.tokens[node]), verdict.token];
    const committed = cutAt(whole, maxNewTokens - tokens.length + prompt.length, ends);
    tokens.push(...committed);
    yield {
      draft, verdict, committed, cut: committed.length < whole.length, logits: row,
      draft_s: t1 - t0, check_s: t2 - t1, rest_s: clock() - t2,
    };
  }
}

// ---------------------------------------------------------------------------------------------
// The record of a step, as a Trace holds it

const SHOWN = 5; // of the base model's candidates after a place

/** One step as the TokenStepper reads it. @param {(id: number) => string} text of a token */
export function stepRecord(step, text) {
  const { draft, verdict, committed } = step;
  const tests = new Map(verdict.tests.map((test) => [test.node, test]));
  const probs = new Map();
  const probsAfter = (place) => {
    if (!probs.has(place)) probs.set(place, softmax(step.logits(place + 1)));
    return probs.get(place);
  };
  const depths = depthsOf(draft);
  const told = (id) => ({ id, text: text(id) });
  const candidates = (pairs) => pairs.map(([id, prob]) => ({ ...told(id), prob }));
  const nodes = draft.tokens.map((id, node) => {
    const test = tests.get(node);
    return {
      ...told(id), parent: draft.parents[node], depth: depths[node], source: draft.sources[node],
      p: test?.p ?? probsAfter(draft.parents[node])[id], q: test?.q ?? draft.q[node],
      tested: test !== undefined, accepted: verdict.path.includes(node),
      draw: test?.draw ?? null, threshold: test?.threshold ?? null,
    };
  });
  const places = [...new Set([ROOT, ...verdict.path, ...draft.parents])].sort((a, b) => a - b);
  return {
    nodes, committed: committed.map(told), ending: step.cut ? "cut" : verdict.ending,
    outlooks: places.map((after) => {
      const p = probsAfter(after);
      const top = largest(p, SHOWN).map((id) => [id, p[id]]);
      return { after, base: candidates(top), drafter: candidates(draft.considered.get(after) ?? []) };
    }),
    draft_s: step.draft_s, check_s: step.check_s, rest_s: step.rest_s,
  };
}
