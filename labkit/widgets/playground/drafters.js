// What drafts: the trained heads, and n-grams of the text so far.
import { drawDistinct, largest, softmax } from "./sampling.js";
import { ROOT, chain, emptyDraft } from "./verify.js";
import { multiply, normalise } from "./llama.js";

const SHOWN = 5; // of the drafter's candidates after a node, kept to look at
const TOP_K = 6; // candidates of a head after each node
const HEAD_COST = 0.04; // time of one more head, in tokens
const CHILD_SHARE = 0.5; // assumed probability of the best child, relative to its parent

/** The error function within 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26), of a number from 0 on. */
function erf(z) {
  const t = 1 / (1 + 0.3275911 * z);
  const sum = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return 1 - sum * Math.exp(-z * z);
}

/** x times the normal distribution's share below x. */
function gelu(x) {
  const share = erf(Math.abs(x) * Math.SQRT1_2);
  return 0.5 * x * (1 + (x > 0 ? share : -share));
}

/** The hierarchical heads over the base model's table (Wertheimer et al. 2024). */
export class Heads {
  /**
   * @param {object} config as the heads' config.json has it
   * @param {(name: string) => Float32Array} tensor
   * @param {Float32Array} table the base model's embeddings (V, D)
   * @param {number[] | null} draftIds the tokens that a head may draft; null: all
   */
  constructor(config, tensor, table, draftIds) {
    this.width = config.emb_dim;
    this.inner = config.inner_dim;
    this.many = config.n_predict;
    this.scaled = config.scale_input;
    this.table = table;
    this.size = draftIds ? draftIds.length : config.vocab_size;
    this.draftIds = draftIds;
    this.vocabulary = config.vocab_size;
    this.rows = table;
    if (draftIds) {
      this.rows = new Float32Array(this.size * this.width);
      draftIds.forEach((id, row) => this.rows.set(this.embedding(id), row * this.width));
    }
    this.keep = 0.5 ** (0.5 / this.many);
    this.add = Math.sqrt((1 - this.keep ** 2) * (this.inner / 2));
    this.heads = Array.from({ length: this.many }, (_, head) => ({
      proj: tensor(`proj.${head}.weight`), token: tensor(`token.${head}.weight`),
      gain: tensor(`norm.${head}.weight`), shift: tensor(`norm.${head}.bias`),
      out: tensor(`out.${head}.weight`),
    }));
  }

  embedding(token) {
    return this.table.subarray(token * this.width, (token + 1) * this.width);
  }

  /** The state before the first head, from the base model's state Z at the root's place. */
  start(hidden) {
    if (!this.scaled) return hidden;
    return normalise(hidden, 1, this.width, null).map((value) => value * Math.SQRT1_2);
  }

  /**
   * One head for several nodes: their states, and for each its distribution over the vocabulary.
   * @param {number} head from 0
   * @param {Float32Array[]} states of the nodes before
   * @param {number[]} tokens of the nodes
   * @param {number} temperature
   */
  step(head, states, tokens, temperature = 1) {
    const { proj, token, gain, shift, out } = this.heads[head];
    const { inner, width, size } = this;
    const many = states.length;
    const given = new Float32Array(many * states[0].length);
    const embedded = new Float32Array(many * width);
    states.forEach((state, row) => given.set(state, row * state.length));
    tokens.forEach((id, row) => embedded.set(this.embedding(id), row * width));
    const mixed = multiply(proj, given, many, states[0].length, inner, new Float32Array(many * inner));
    const more = multiply(token, embedded, many, width, inner, new Float32Array(many * inner));
    for (let at = 0; at < mixed.length; at += 1) mixed[at] = this.keep * mixed[at] + this.add * more[at];
    const active = normalise(mixed, many, inner, gain, shift).map(gelu);
    const features = multiply(out, active, many, inner, width, new Float32Array(many * width));
    const logits = multiply(this.rows, features, many, width, size, new Float32Array(many * size));
    const rows = tokens.map((_, row) => logits.subarray(row * size, (row + 1) * size));
    return {
      states: tokens.map((_, row) => active.subarray(row * inner, (row + 1) * inner)),
      probs: rows.map((row) => this.whole(softmax(temperature === 1 ? row : Float64Array.from(row, (value) => value / temperature)))),
    };
  }

  /** Probabilities of the draft vocabulary as ones of the whole vocabulary. */
  whole(probs) {
    if (!this.draftIds) return probs;
    const all = new Float64Array(this.vocabulary);
    this.draftIds.forEach((id, row) => { all[id] = probs[row]; });
    return all;
  }
}

/** The heads, but what a head makes of a state and a token is computed once. @returns {Heads} */
export function remembering(heads) {
  const known = new Map(); // state -> head, token and temperature -> the step
  const of = (state, key, make) => {
    if (!known.has(state)) known.set(state, new Map());
    const steps = known.get(state);
    if (!steps.has(key)) steps.set(key, make());
    return steps.get(key);
  };
  return {
    many: heads.many,
    start: (hidden) => of(hidden, "start", () => heads.start(hidden)),
    step(head, states, tokens, temperature) {
      const rows = states.map((state, row) => of(state, `${head} ${tokens[row]} ${temperature}`, () => heads.step(head, [state], [tokens[row]], temperature)));
      return { states: rows.map((row) => row.states[0]), probs: rows.map((row) => row.probs[0]) };
    },
  };
}

const best = (probs, many) => largest(probs, many).map((id) => [id, probs[id]]);

/**
 * A tree grown by joint probability (the rule of EAGLE-2: Li et al. 2024): every head proposes its
 * best tokens after each node of the frontier, and of all candidates the `nodes` most likely to be
 * reached are drafted.
 * @param {Heads} heads
 * @param {number} root the last committed token
 * @param {Float32Array} hidden Z
 * @param {{nodes: number, heads: number}} limits
 */
export function jointTree(heads, root, hidden, limits) {
  const { nodes: most } = limits;
  const wide = Math.min(Math.max(2, Math.ceil(most / 4)), most);
  const all = []; // candidates: {token, parent, p, joint, depth, state}
  const considered = new Map();
  let frontier = [{ at: ROOT, token: root, joint: 0, state: heads.start(hidden) }];
  for (let head = 0; head < limits.heads; head += 1) {
    const { states, probs } = heads.step(head, frontier.map((each) => each.state), frontier.map((each) => each.token));
    const found = [];
    frontier.forEach((node, row) => {
      const top = best(probs[row], TOP_K);
      considered.set(node.at, top.slice(0, SHOWN));
      for (const [token, p] of top) {
        found.push({ token, parent: node.at, p, joint: node.joint + Math.log(p), depth: head + 1, state: states[row] });
      }
    });
    const first = all.length;
    all.push(...found);
    const order = found.map((_, at) => at).sort((a, b) => found[b].joint - found[a].joint || a - b);
    frontier = order.slice(0, wide).map((at) => ({ ...found[at], at: first + at }));
    if (all.length > most) {
      const bar = all.map((each) => each.joint).sort((a, b) => b - a)[most - 1];
      if (CHILD_SHARE * Math.exp(frontier[0].joint) - Math.exp(bar) <= HEAD_COST) break;
    }
  }
  const chosen = all.map((_, at) => at).sort((a, b) => all[b].joint - all[a].joint || a - b)
    .slice(0, most).sort((a, b) => a - b);
  const place = new Map([[ROOT, ROOT], ...chosen.map((at, node) => [at, node])]);
  const draft = emptyDraft();
  for (const at of chosen) addNode(draft, all[at].token, place.get(all[at].parent), all[at].p, all[at].depth);
  for (const [at, top] of considered) if (place.has(at)) draft.considered.set(place.get(at), top);
  return draft;
}

function addNode(draft, token, parent, q, depth) {
  draft.tokens.push(token);
  draft.parents.push(parent);
  draft.q.push(q);
  draft.sources.push(`head ${depth}`);
}

/** How many children are drawn after each node of a depth where no tree is given. */
export function drawnShape(nodes) {
  const chains = nodes < 4 ? 1 : nodes < 9 ? 2 : 3;
  return [chains, ...new Array(Math.floor(nodes / chains) - 1).fill(1)];
}

/** The tree of a shape: paths of ranks, as TreeLab has them. */
export function pathsOf(shape, depth) {
  let last = [[]];
  const all = [];
  for (const many of shape.slice(0, depth)) {
    last = last.flatMap((path) => Array.from({ length: many }, (_, rank) => [...path, rank]));
    all.push(...last);
  }
  return all;
}

/**
 * A tree of a fixed shape, paths of ranks: after each node the heads' best tokens of those ranks,
 * or, with `random`, as many tokens drawn without replacement.
 * @param {Heads} heads
 * @param {number} root
 * @param {Float32Array} hidden
 * @param {number[][]} tree
 * @param {{random?: Random, temperature?: number}} how
 */
export function shapedTree(heads, root, hidden, tree, { random = null, temperature = 1 } = {}) {
  const draft = emptyDraft();
  let frontier = [{ node: ROOT, path: [], token: root, state: heads.start(hidden) }];
  for (let head = 0; head < heads.many; head += 1) {
    const below = (path) => tree.filter((other) => other.length === head + 1 && path.every((rank, at) => rank === other[at]));
    frontier = frontier.filter(({ path }) => below(path).length);
    if (!frontier.length) break;
    const { states, probs } = heads.step(head, frontier.map((each) => each.state), frontier.map((each) => each.token), random ? temperature : 1);
    const next = [];
    frontier.forEach(({ node, path }, row) => {
      const children = below(path).sort((a, b) => a.at(-1) - b.at(-1));
      draft.considered.set(node, best(probs[row], SHOWN));
      if (random) draft.outlooks.set(node, probs[row]);
      const tokens = random
        ? drawDistinct(probs[row], children.length, random)
        : children.map((child) => largest(probs[row], child.at(-1) + 1).at(-1));
      tokens.forEach((token, at) => {
        next.push({ node: draft.tokens.length, path: children[at], token, state: states[row] });
        addNode(draft, token, node, probs[row][token], head + 1);
      });
    });
    frontier = next;
  }
  return draft;
}

/** Prompt lookup: what followed the last time these words occurred (Saxena 2023). */
export class Lookup {
  constructor(longest = 4, shortest = 2) {
    Object.assign(this, { longest, shortest, seen: new Map(), read: 0 });
  }

  /** The tokens that followed the latest occurrence of the longest suffix, as a chain. */
  draft(tokens, most) {
    for (let end = Math.max(this.read, 1); end < tokens.length; end += 1) {
      for (let length = this.shortest; length <= Math.min(this.longest, end); length += 1) {
        this.seen.set(tokens.slice(end - length, end).join(), end);
      }
    }
    this.read = Math.max(this.read, tokens.length);
    for (let length = Math.min(this.longest, tokens.length); length >= this.shortest; length -= 1) {
      const place = this.seen.get(tokens.slice(-length).join());
      if (place !== undefined) return chain(tokens.slice(place, place + most), "lookup");
    }
    return emptyDraft();
  }
}
