// The page's own lab: what a Playground asks, answered by a model that runs right here.
//
// The kernel answers the same questions in a notebook (labkit/speculative/play.py).
import { Heads, Lookup, drawnShape, jointTree, pathsOf, remembering, shapedTree } from "./drafters.js";
import { Llama, SPARE, prefill } from "./llama.js";
import { Random, draw, largest, probabilities, softmax } from "./sampling.js";
import { Tokenizer } from "./tokenizer.js";
import { ROOT, chain, emptyDraft, pathTo } from "./verify.js";
import { decode, judge, rowOf, rowsOf, stepRecord } from "./decode.js";

const TOGETHER = 4; // samples that are drawn side by side

/** Let waiting messages in, such as one that says stop. */
const pause = () => new Promise((resume) => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => { port1.close(); resume(); };
  port2.postMessage(0);
});

/** An error whose message is meant for the reader. */
class Refusal extends Error {}

export class Lab {
  /** @param {{header: object, tensor: (name: string) => Float32Array}} unpacked */
  constructor({ header, tensor }) {
    this.name = header.base;
    this.tokenizer = new Tokenizer(header.tokenizer);
    this.ends = new Set(header.ends);
    this.model = new Llama(header.config, tensor);
    this.heads = new Heads(header.heads, tensor, this.model.table, header.draft_ids);
    this.cache = this.model.newCache(this.model.context + SPARE);
    this.held = []; // the tokens in the cache
    this.text = (id) => this.tokenizer.text(id);
  }

  /** Answer a question: `tell(part)` reports as it goes, `stopped()` says when to give up. */
  async ask(kind, args, tell = () => {}, stopped = () => false) {
    if (!["info", "warm", "encode", "generate", "outlook", "judge", "draw", "logits", "tally"].includes(kind)) {
      throw new Refusal(`There is no question named ${kind}.`);
    }
    return this[kind](args, tell, stopped);
  }

  info() {
    return {
      base: this.name, context: this.model.context, heads: this.heads.many,
      methods: [["mlp", "trained heads"], ["ngram", "n-grams of the text"], ["vanilla", "none"]],
    };
  }

  // ---- reading

  /** Make the cache hold `tokens`, reading only what it does not hold; Z and logits of the last. */
  read(tokens) {
    let known = 0;
    while (known < tokens.length - 1 && this.held[known] === tokens[known]) known += 1;
    this.cache.length = Math.min(known, this.held.length);
    this.held = tokens.slice();
    const out = prefill(this.model, tokens.slice(this.cache.length), this.cache);
    return { cache: this.cache, ...out };
  }

  /** Keep those rows of the last pass, which read these tokens. */
  commit(rows, tokens) {
    this.cache.commit(rows);
    this.held.push(...tokens);
  }

  /** A prompt's token ids; refuses what is empty or leaves no room. */
  prompt(prompt = "", maxNewTokens = 1) {
    if (!prompt.trim()) throw new Refusal("The prompt is empty: give some text.");
    if (!(maxNewTokens >= 1)) throw new Refusal(`maxNewTokens is ${maxNewTokens}: give at least 1.`);
    const ids = this.tokenizer.encode(prompt);
    if (ids.length + maxNewTokens > this.model.context) {
      throw new Refusal(`The prompt has ${ids.length} tokens and ${maxNewTokens} more are wanted, beyond the model's context of ${this.model.context}: shorten one or the other.`);
    }
    return ids;
  }

  encode({ text }) {
    return this.tokenizer.encode(text).map((id) => ({ id, text: this.text(id) }));
  }

  /** Read a prompt before anybody waits for it. */
  warm({ prompt }) {
    const ids = this.prompt(prompt);
    this.read(ids);
    return ids.length;
  }

  // ---- speculative decoding

  /** What drafts under these settings, or null for vanilla. */
  drafter({ method, nodes = 8, heads = this.heads.many, tree = null, temperature = 0 }, random, drafting = this.heads) {
    if (method === "vanilla") return null;
    if (method === "ngram") {
      const lookup = new Lookup();
      return (tokens) => lookup.draft(tokens, nodes);
    }
    if (method !== "mlp") throw new Refusal(`There is no method ${method}: give vanilla, mlp or ngram.`);
    const how = temperature > 0 ? { random, temperature } : {};
    const fixed = tree ?? (temperature > 0 ? pathsOf(drawnShape(nodes), heads) : null);
    return (tokens, hidden) => {
      const root = tokens.at(-1);
      return fixed
        ? shapedTree(drafting, root, hidden, fixed.filter((path) => path.length <= heads), how)
        : jointTree(drafting, root, hidden, { nodes, heads });
    };
  }

  /** Continue a prompt; parts are `{first}` and `{step}`, the answer is a Trace. */
  async generate(args, tell, stopped) {
    const { prompt, maxNewTokens = 64, method = "mlp", temperature = 0, topK = 0, seed = 0, detail = false } = args;
    const ids = this.prompt(prompt, maxNewTokens);
    const random = new Random(seed);
    const steps = [];
    let first = null;
    let prefill_s = 0;
    let breath = performance.now();
    const how = { maxNewTokens, sampling: { temperature, topK }, random, drafter: this.drafter(args, random) };
    for (const made of decode(this, ids, how)) {
      if (made.first !== undefined) {
        first = { id: made.first, text: this.text(made.first) };
        prefill_s = made.seconds;
        tell({ first });
      } else {
        const step = detail ? stepRecord(made, this.text) : { committed: made.committed.map((id) => ({ id, text: this.text(id) })) };
        steps.push(step);
        tell({ step });
      }
      if (args.steps !== undefined && steps.length >= args.steps) break;
      if (performance.now() - breath > 30) {
        await pause();
        breath = performance.now();
      }
      if (stopped()) break;
    }
    const tokens = [first.id, ...steps.flatMap((step) => step.committed.map((token) => token.id))];
    return {
      kind: "trace", version: 1, method, base: this.name, prompt, prompt_tokens: ids.length, temperature,
      seed: temperature > 0 ? seed : null, first, steps, text: this.tokenizer.decode(tokens), prefill_s, ties: 0,
    };
  }

  /** Logits after the last of `tokens`; with a tree (tokens, parents) after each of its nodes too. */
  logits({ tokens, tree = null }) {
    if (!tokens.length) throw new Refusal("There are no tokens: give at least one.");
    if (!tree) return Array.from(this.read(tokens).logits);
    const draft = { ...emptyDraft(), ...tree };
    this.read(tokens.slice(0, -1));
    const out = this.model.forward(rowsOf(draft, tokens.at(-1), this.cache.length), this.cache);
    return Array.from({ length: draft.tokens.length + 1 }, (_, row) => Array.from(rowOf(out, row, this.model.vocabulary)));
  }

  /**
   * Draft and verify one step after `tokens` again and again: how often each token came first, and
   * how often each pair. What the models say after a path is computed once.
   */
  async tally({ tokens, count, method = "mlp", temperature = 1, topK = 0, seed = 0, ...rest }, _tell, stopped) {
    const random = new Random(seed);
    const drafter = this.drafter({ method, temperature, ...rest }, random, remembering(this.heads));
    const { hidden } = this.read(tokens.slice(0, -1));
    const known = new Map(); // path of tokens -> logits after it
    const [firsts, pairs] = [{}, {}];
    let breath = performance.now();
    for (let round = 0; round < count && !stopped(); round += 1) {
      const draft = drafter ? drafter(tokens, hidden) : emptyDraft();
      const name = (row) => pathTo(draft, row - 1).map((node) => draft.tokens[node]).join();
      const read = (row) => {
        if (!known.has(name(row))) {
          const out = this.model.forward(rowsOf(draft, tokens.at(-1), this.cache.length), this.cache);
          for (let at = 0; at <= draft.tokens.length; at += 1) known.set(name(at), rowOf(out, at, this.model.vocabulary));
        }
        return known.get(name(row));
      };
      const verdict = judge(read, draft, { temperature, topK }, random);
      const [one, two] = [...verdict.path.map((node) => draft.tokens[node]), verdict.token];
      firsts[one] = (firsts[one] ?? 0) + 1;
      if (two !== undefined) pairs[`${one},${two}`] = (pairs[`${one},${two}`] ?? 0) + 1;
      if (performance.now() - breath > 30) {
        await pause();
        breath = performance.now();
      }
    }
    return { firsts, pairs };
  }

  // ---- be the drafter

  /** The base model's most probable tokens after `tokens`. */
  outlook({ tokens, many = 5 }) {
    const probs = softmax(this.read(tokens).logits);
    return largest(probs, many).map((id) => ({ id, text: this.text(id), prob: probs[id] }));
  }

  /** The reader's draft and the heads' own chain after the same text, each judged by the real rule. */
  judge({ tokens, draft, temperature = 0, topK = 0, seed = 0, most = this.heads.many }) {
    const sampling = { temperature, topK };
    const heads = this.drafter({ method: "mlp", temperature, heads: most, tree: pathsOf(new Array(most).fill(1), most) }, new Random(seed));
    const { hidden } = this.read(tokens.slice(0, -1));
    const judged = (candidate, random) => {
      const out = this.model.forward(rowsOf(candidate, tokens.at(-1), this.cache.length), this.cache);
      const logits = (row) => rowOf(out, row, this.model.vocabulary);
      const verdict = judge(logits, candidate, sampling, random);
      const committed = [...verdict.path.map((node) => candidate.tokens[node]), verdict.token];
      return stepRecord({ draft: candidate, verdict, committed, cut: false, logits, draft_s: 0, check_s: 0, rest_s: 0 }, this.text);
    };
    return {
      reader: judged(chain(draft, "you"), new Random(seed)),
      heads: judged(heads(tokens, hidden), new Random(seed)),
    };
  }

  // ---- minimum Bayes risk

  /** Draw continuations; each is told when it is whole: text, log p under the model, tokens. */
  async draw({ prompt, count, maxNewTokens = 24, temperature = 1, topK = 0, seed = 0 }, tell, stopped) {
    const ids = this.prompt(prompt, maxNewTokens);
    const random = new Random(seed);
    const { logits: start } = this.read(ids);
    const { length } = this.cache;
    const samples = [];
    for (let from = 0; from < count && !stopped(); from += TOGETHER) {
      const live = Array.from({ length: Math.min(TOGETHER, count - from) }, () => ({ tokens: [], slots: [], logprob: 0, logits: start }));
      const cache = this.model.newCache(length + TOGETHER * maxNewTokens + 1);
      [cache.keys, cache.values].forEach((parts, which) => parts.forEach((part, layer) => {
        part.set((which ? this.cache.values : this.cache.keys)[layer].subarray(0, length * cache.width));
      }));
      cache.length = length;
      let going = live;
      while (going.length && !stopped()) {
        for (const one of going) {
          const token = draw(probabilities(one.logits, { temperature, topK }), random);
          one.logprob += Math.log(softmax(one.logits)[token]);
          one.tokens.push(token);
        }
        going = going.filter(({ tokens }) => tokens.length < maxNewTokens && !this.ends.has(tokens.at(-1)));
        if (!going.length) break;
        going.forEach((one, row) => one.slots.push(cache.length + row));
        const out = this.model.forward({
          tokens: going.map(({ tokens }) => tokens.at(-1)), prefix: length,
          positions: going.map(({ tokens }) => length + tokens.length - 1), paths: going.map(({ slots }) => slots),
        }, cache);
        cache.commit(going.map((_, row) => row));
        going.forEach((one, row) => { one.logits = rowOf(out, row, this.model.vocabulary); });
        await pause();
      }
      if (stopped()) break;
      for (const { tokens, logprob } of live) {
        const sample = { text: this.tokenizer.decode(tokens), count: 1, logprob: Math.min(0, logprob), tokens: tokens.length };
        samples.push(sample);
        tell({ sample });
      }
    }
    return samples;
  }
}
