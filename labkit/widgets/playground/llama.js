// The base model: a Llama-shaped forward pass in plain JavaScript, with a KV cache and tree attention.
//
// Every sum is taken in double precision and in one fixed order, whatever else is in the pass. So a
// token's logits are the same to the last bit whether it is computed alone or within a tree, and
// greedy speculative decoding gives exactly vanilla's text.

/**
 * The rows of x times the transpose of w: out (rows, outer) from x (rows, inner), w (outer, inner).
 * `outer` is a multiple of four. Each sum runs over `inner` in order, however rows are grouped.
 */
export function multiply(w, x, rows, inner, outer, out) {
  let row = 0;
  for (; row + 4 <= rows; row += 4) {
    const [x0, x1, x2, x3] = [row * inner, (row + 1) * inner, (row + 2) * inner, (row + 3) * inner];
    for (let o = 0; o < outer; o += 2) {
      const [w0, w1] = [o * inner, (o + 1) * inner];
      let [a0, a1, a2, a3, b0, b1, b2, b3] = [0, 0, 0, 0, 0, 0, 0, 0];
      for (let k = 0; k < inner; k += 1) {
        const u = w[w0 + k];
        const v = w[w1 + k];
        const p = x[x0 + k];
        const q = x[x1 + k];
        const r = x[x2 + k];
        const s = x[x3 + k];
        a0 += u * p; a1 += u * q; a2 += u * r; a3 += u * s;
        b0 += v * p; b1 += v * q; b2 += v * r; b3 += v * s;
      }
      const at = row * outer + o;
      out[at] = a0; out[at + outer] = a1; out[at + 2 * outer] = a2; out[at + 3 * outer] = a3;
      out[at + 1] = b0; out[at + outer + 1] = b1;
      out[at + 2 * outer + 1] = b2; out[at + 3 * outer + 1] = b3;
    }
  }
  for (; row < rows; row += 1) {
    const from = row * inner;
    for (let o = 0; o < outer; o += 4) {
      const [w0, w1, w2, w3] = [o * inner, (o + 1) * inner, (o + 2) * inner, (o + 3) * inner];
      let [a, b, c, d] = [0, 0, 0, 0];
      for (let k = 0; k < inner; k += 1) {
        const value = x[from + k];
        a += w[w0 + k] * value; b += w[w1 + k] * value;
        c += w[w2 + k] * value; d += w[w3 + k] * value;
      }
      const at = row * outer + o;
      out[at] = a; out[at + 1] = b; out[at + 2] = c; out[at + 3] = d;
    }
  }
  return out;
}

/** Each row of x divided by its root mean square, then scaled by `gain` (and shifted). */
export function normalise(x, rows, width, gain, shift = null, epsilon = 1e-6) {
  const out = new Float32Array(rows * width);
  for (let row = 0; row < rows; row += 1) {
    const from = row * width;
    let total = 0;
    for (let k = 0; k < width; k += 1) total += x[from + k] * x[from + k];
    const scale = 1 / Math.sqrt(total / width + epsilon);
    for (let k = 0; k < width; k += 1) {
      out[from + k] = x[from + k] * scale * (gain ? gain[k] : 1) + (shift ? shift[k] : 0);
    }
  }
  return out;
}

/** Keys and values of what was read, by slot; `length` slots are committed. */
export class Cache {
  constructor(layers, width, capacity) {
    this.width = width;
    this.capacity = capacity;
    this.length = 0;
    const empty = () => new Float32Array(capacity * width);
    this.keys = Array.from({ length: layers }, empty);
    this.values = Array.from({ length: layers }, empty);
  }

  /** Keep those rows of the last pass, in this order, and forget the others. */
  commit(rows) {
    const { width, length } = this;
    rows.forEach((row, place) => {
      if (row === place) return;
      const [from, to] = [(length + row) * width, (length + place) * width];
      for (const part of [...this.keys, ...this.values]) part.copyWithin(to, from, from + width);
    });
    this.length += rows.length;
  }
}

/**
 * @typedef {{tokens: ArrayLike<number>, positions?: ArrayLike<number>, prefix?: number,
 *   paths?: number[][]}} Rows tokens to read in one pass; by default one text that goes on. Row i
 *   sees the cache's first `prefix` slots, then the slots in `paths[i]`, its own the last of them.
 */

/** Positions beyond the context that a draft may reach, and slots of the cache for them. */
export const SPARE = 80;

/** A Llama-shaped model of float32 weights. */
export class Llama {
  /**
   * @param {object} config as config.json has it
   * @param {(name: string) => Float32Array} tensor
   */
  constructor(config, tensor) {
    this.width = config.hidden_size;
    this.inner = config.intermediate_size;
    this.heads = config.num_attention_heads;
    this.kvHeads = config.num_key_value_heads;
    this.size = config.head_dim ?? this.width / this.heads;
    this.vocabulary = config.vocab_size;
    this.context = config.max_position_embeddings;
    this.epsilon = config.rms_norm_eps;
    this.table = tensor("model.embed_tokens.weight");
    this.norm = tensor("model.norm.weight");
    this.layers = Array.from({ length: config.num_hidden_layers }, (_, layer) => {
      const of = (name) => tensor(`model.layers.${layer}.${name}.weight`);
      return {
        before: of("input_layernorm"), after: of("post_attention_layernorm"),
        q: of("self_attn.q_proj"), k: of("self_attn.k_proj"), v: of("self_attn.v_proj"),
        o: of("self_attn.o_proj"), gate: of("mlp.gate_proj"), up: of("mlp.up_proj"),
        down: of("mlp.down_proj"),
      };
    });
    const half = this.size / 2;
    const theta = config.rope_parameters?.rope_theta ?? config.rope_theta ?? 10000;
    const places = this.context + SPARE;
    this.cosines = new Float32Array(places * half);
    this.sines = new Float32Array(places * half);
    for (let place = 0; place < places; place += 1) {
      for (let k = 0; k < half; k += 1) {
        const angle = Math.fround(place * Math.fround(theta ** (-k / half)));
        this.cosines[place * half + k] = Math.cos(angle);
        this.sines[place * half + k] = Math.sin(angle);
      }
    }
  }

  newCache(capacity) {
    return new Cache(this.layers.length, this.kvHeads * this.size, capacity);
  }

  /**
   * Read tokens; nothing of them stays in the cache until `commit`.
   * @param {Rows} rows
   * @param {Cache} cache
   * @param {"all"|"last"|"none"} wanted for which rows logits are computed
   * @returns {{hidden: Float32Array, logits: Float32Array}} the states after the last norm (N, D),
   *   and logits (N, V), or (1, V) of the last row, or none
   */
  forward(rows, cache, wanted = "all") {
    const { tokens } = rows;
    const many = tokens.length;
    const first = cache.length;
    if (first + many > cache.capacity) throw new Error("The text is longer than the cache.");
    const prefix = rows.prefix ?? first;
    const positions = rows.positions ?? Array.from(tokens, (_, row) => first + row);
    const paths = rows.paths
      ?? Array.from(tokens, (_, row) => Array.from({ length: row + 1 }, (_each, at) => first + at));
    const { width, inner, size } = this;
    const [qWide, kvWide] = [this.heads * size, this.kvHeads * size];
    const x = new Float32Array(many * width);
    for (let row = 0; row < many; row += 1) {
      x.set(this.table.subarray(tokens[row] * width, (tokens[row] + 1) * width), row * width);
    }
    const [q, mixed] = [new Float32Array(many * qWide), new Float32Array(many * qWide)];
    const [gate, up] = [new Float32Array(many * inner), new Float32Array(many * inner)];
    const change = new Float32Array(many * width);
    const add = () => { for (let at = 0; at < x.length; at += 1) x[at] += change[at]; };
    this.layers.forEach((layer, index) => {
      const [keys, values] = [cache.keys[index], cache.values[index]];
      const [from, to] = [first * kvWide, (first + many) * kvWide];
      let seen = normalise(x, many, width, layer.before, null, this.epsilon);
      multiply(layer.q, seen, many, width, qWide, q);
      multiply(layer.k, seen, many, width, kvWide, keys.subarray(from, to));
      multiply(layer.v, seen, many, width, kvWide, values.subarray(from, to));
      this.rotate(q, positions, this.heads);
      this.rotate(keys.subarray(from, to), positions, this.kvHeads);
      for (let row = 0; row < many; row += 1) {
        this.attend(q, keys, values, row, prefix, paths[row], mixed);
      }
      multiply(layer.o, mixed, many, qWide, width, change);
      add();
      seen = normalise(x, many, width, layer.after, null, this.epsilon);
      multiply(layer.gate, seen, many, width, inner, gate);
      multiply(layer.up, seen, many, width, inner, up);
      for (let at = 0; at < gate.length; at += 1) {
        gate[at] = (gate[at] / (1 + Math.exp(-gate[at]))) * up[at];
      }
      multiply(layer.down, gate, many, inner, width, change);
      add();
    });
    const hidden = normalise(x, many, width, this.norm, null, this.epsilon);
    return { hidden, logits: this.logits(hidden, many, wanted) };
  }

  logits(hidden, many, wanted) {
    if (wanted === "none") return new Float32Array(0);
    const rows = wanted === "last" ? 1 : many;
    const from = wanted === "last" ? hidden.subarray((many - 1) * this.width) : hidden;
    const out = new Float32Array(rows * this.vocabulary);
    return multiply(this.table, from, rows, this.width, this.vocabulary, out);
  }

  /** Rotary position embedding, in place: x (N, heads, size), its halves being paired. */
  rotate(x, positions, heads) {
    const { size } = this;
    const half = size / 2;
    for (let row = 0; row < positions.length; row += 1) {
      const angle = positions[row] * half;
      for (let head = 0; head < heads; head += 1) {
        const at = (row * heads + head) * size;
        for (let k = 0; k < half; k += 1) {
          const cosine = this.cosines[angle + k];
          const sine = this.sines[angle + k];
          const low = x[at + k];
          const high = x[at + half + k];
          x[at + k] = low * cosine - high * sine;
          x[at + half + k] = high * cosine + low * sine;
        }
      }
    }
  }

  /** Attention of one row over the first `prefix` slots and those in `path`, in that order. */
  attend(q, keys, values, row, prefix, path, out) {
    const { size, heads, kvHeads } = this;
    const wide = kvHeads * size;
    const seen = prefix + path.length;
    const scores = new Float64Array(seen);
    const scale = 1 / Math.sqrt(size);
    const mix = new Float64Array(size);
    for (let head = 0; head < heads; head += 1) {
      const from = (row * heads + head) * size;
      const shared = Math.floor((head * kvHeads) / heads) * size;
      let most = -Infinity;
      for (let place = 0; place < seen; place += 1) {
        const slot = place < prefix ? place : path[place - prefix];
        const at = slot * wide + shared;
        let score = 0;
        for (let k = 0; k < size; k += 1) score += q[from + k] * keys[at + k];
        scores[place] = score * scale;
        if (scores[place] > most) most = scores[place];
      }
      let total = 0;
      mix.fill(0);
      for (let place = 0; place < seen; place += 1) {
        const slot = place < prefix ? place : path[place - prefix];
        const at = slot * wide + shared;
        const weight = Math.exp(scores[place] - most);
        total += weight;
        for (let k = 0; k < size; k += 1) mix[k] += weight * values[at + k];
      }
      for (let k = 0; k < size; k += 1) out[from + k] = mix[k] / total;
    }
  }
}

const PREFILL_ROWS = 64;

/** Read a text into the cache; return the state (D,) and the logits (V,) of its last token, if any. */
export function prefill(model, tokens, cache) {
  if (!tokens.length) return { hidden: null, logits: null };
  let out = null;
  for (let start = 0; start < tokens.length; start += PREFILL_ROWS) {
    const part = tokens.slice(start, start + PREFILL_ROWS);
    const last = start + PREFILL_ROWS >= tokens.length;
    out = model.forward({ tokens: part }, cache, last ? "last" : "none");
    cache.commit(part.map((_, row) => row));
  }
  return { hidden: out.hidden.slice(-model.width), logits: out.logits };
}
