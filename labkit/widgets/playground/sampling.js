// From logits to a distribution, and from a distribution to a token.

/** Uniform numbers on [0, 1) from a seed: sfc32, whose state is stirred before its first number. */
export class Random {
  constructor(seed) {
    this.state = Uint32Array.of(seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0, 0x9e3779b9, 1);
    for (let round = 0; round < 16; round += 1) this.bits();
  }

  /** 32 random bits. */
  bits() {
    const s = this.state;
    const result = (s[0] + s[1] + s[3]) >>> 0;
    s[3] += 1;
    s[0] = s[1] ^ (s[1] >>> 9);
    s[1] = s[2] + (s[2] << 3);
    s[2] = ((s[2] << 21) | (s[2] >>> 11)) + result;
    return result;
  }

  /** A number on [0, 1) with 53 random bits. */
  uniform() {
    return ((this.bits() >>> 5) * 2 ** 26 + (this.bits() >>> 6)) / 2 ** 53;
  }
}

/** The softmax of logits. @returns {Float64Array} */
export function softmax(logits) {
  let most = -Infinity;
  for (let at = 0; at < logits.length; at += 1) if (logits[at] > most) most = logits[at];
  const probs = new Float64Array(logits.length);
  let total = 0;
  for (let at = 0; at < logits.length; at += 1) total += probs[at] = Math.exp(logits[at] - most);
  for (let at = 0; at < logits.length; at += 1) probs[at] /= total;
  return probs;
}

/**
 * The distribution to draw from: logits after temperature and top-k (tokens as probable as the
 * k-th stay; 0: all stay).
 * @param {{temperature: number, topK: number}} sampling
 */
export function probabilities(logits, { temperature, topK }) {
  const scaled = Float64Array.from(logits, (value) => value / temperature);
  if (topK > 0 && topK < scaled.length) {
    const least = scaled.slice().sort()[scaled.length - topK];
    for (let at = 0; at < scaled.length; at += 1) if (scaled[at] < least) scaled[at] = -Infinity;
  }
  return softmax(scaled);
}

/** The index of the largest value; the first of equals. */
export function argmax(values) {
  let best = 0;
  for (let at = 1; at < values.length; at += 1) if (values[at] > values[best]) best = at;
  return best;
}

/** The indices of the `many` largest values, falling; of equals the first. @returns {number[]} */
export function largest(values, many) {
  const found = [];
  for (let at = 0; at < values.length; at += 1) {
    const value = values[at];
    if (found.length === many && !(value > values[found[many - 1]])) continue;
    let place = found.length < many ? found.length : many - 1;
    while (place > 0 && value > values[found[place - 1]]) {
      found[place] = found[place - 1];
      place -= 1;
    }
    found[place] = at;
  }
  return found;
}

/** Draw an index from a distribution by the inverse of its distribution function. */
export function draw(probs, random) {
  let left = random.uniform();
  let last = 0;
  for (let at = 0; at < probs.length; at += 1) {
    if (!probs[at]) continue;
    last = at;
    left -= probs[at];
    if (left < 0) return at;
  }
  return last;
}

/** Draw `many` different indices, one after another and none put back; fewer where p ends. */
export function drawDistinct(probs, many, random) {
  const found = [];
  for (let left = probs; left && found.length < many; left = without(left, found.at(-1))) {
    found.push(draw(left, random));
  }
  return found;
}

/** The distribution once x is drawn and not put back; null where x held all of it. */
export function without(probs, x) {
  const left = probs.slice();
  left[x] = 0;
  return normalised(left);
}

/** Values divided by their sum, or null where that is zero. */
export function normalised(values) {
  let mass = 0;
  for (let at = 0; at < values.length; at += 1) mass += values[at];
  return mass > 0 ? values.map((value) => value / mass) : null;
}
