// Utilities of MBR decoding on texts: what labkit computes with sparse products, here pair by pair.
//
// Everything counts *clipped* n-gram matches. Writing the c-th occurrence of an n-gram as a feature
// of its own, (n-gram, c), turns a text into a set, and the clipped match count of two texts into
// the size of the intersection of two sets. Rows of the loss matrix then cost one pass over the
// evidence's features each, with no hashing of strings.

/** White space as Python's `str.split()` has it, which differs from JavaScript's `\s`. */
const SPACES = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/u;
const SPACES_AT_END = new RegExp(`${SPACES.source}$`, "u");

/** @param {string} text @returns {string[]} the words between white space */
export function splitWords(text) {
  return text.split(SPACES).filter((word) => word !== "");
}

/**
 * Words and punctuation as mteval's version 13a separates them (sacrebleu's default tokenizer).
 * @param {string} text
 * @returns {string[]}
 */
export function tokenize13a(text) {
  const line = text
    .replace(SPACES_AT_END, "")
    .replaceAll("<skipped>", "")
    .replaceAll("-\n", "")
    .replaceAll("\n", " ")
    .replaceAll("&quot;", '"')
    .replaceAll("&amp;", "&")
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">");
  return splitWords(
    ` ${line} `
      .replace(/([{-~[-` -&(-+:-@/])/g, " $1 ") // every mark but . , - '
      .replace(/([^0-9])([.,])/gu, "$1 $2 ") // a full stop or comma that ends no number
      .replace(/([.,])([^0-9])/gu, " $1 $2")
      .replace(/([0-9])(-)/g, "$1 $2 "),
  );
}

/** @param {string} text @returns {string[]} its code points without white space, chrF's units */
export function characters(text) {
  return Array.from(text.split(SPACES).join(""));
}

/**
 * A text as sets of features: for each order n, one number for each n-gram it holds, an n-gram's
 * second occurrence being another number than its first.
 * @typedef {{length: number, orders: Int32Array[]}} Profile
 */

/**
 * Give equal n-grams of all texts equal numbers.
 * @param {number} maxOrder the longest n-gram
 * @returns {{profile: (units: string[]) => Profile, size: () => number}}
 */
export function ngramIndex(maxOrder) {
  const alphabet = new Map();
  const grams = new Map(); // (number of the (n-1)-gram, last unit) -> number of the n-gram
  const features = new Map(); // (n-gram, how many times it stood before) -> feature
  const number = (map, high, low) => {
    const key = high * 2 ** 26 + low;
    let found = map.get(key);
    if (found === undefined) map.set(key, (found = map.size + 1));
    return found;
  };
  const letter = (unit) => {
    let found = alphabet.get(unit);
    if (found === undefined) alphabet.set(unit, (found = alphabet.size));
    return found;
  };

  function profile(units) {
    const letters = units.map(letter);
    const orders = [];
    let shorter = letters.map(() => 0); // the (n-1)-gram that starts at each place
    for (let n = 1; n <= maxOrder; n++) {
      const set = new Int32Array(gramCount(units.length, n));
      const seen = new Map();
      const longer = [];
      for (let at = 0; at < set.length; at++) {
        const gram = number(grams, shorter[at], letters[at + n - 1]);
        const before = seen.get(gram) ?? 0;
        seen.set(gram, before + 1);
        set[at] = number(features, before, gram);
        longer.push(gram);
      }
      orders.push(set);
      shorter = longer;
    }
    return { length: units.length, orders };
  }
  return { profile, size: () => features.size + 1 };
}

/**
 * Clipped matches of one text against many, for each order: `matches[n - 1]` of each.
 * @param {Profile} one
 * @param {Profile[]} many
 * @param {number} size how many features there are
 * @returns {Int32Array} matches of text r at order n in place r * maxOrder + n - 1
 */
export function matchRow(one, many, size) {
  const maxOrder = one.orders.length;
  const held = new Uint8Array(size);
  for (const set of one.orders) for (const feature of set) held[feature] = 1;
  const matches = new Int32Array(many.length * maxOrder);
  many.forEach((other, r) => {
    other.orders.forEach((set, order) => {
      let count = 0;
      for (let at = 0; at < set.length; at++) count += held[set[at]];
      matches[r * maxOrder + order] = count;
    });
  });
  return matches;
}

// Each score below takes the matches, the hypothesis's and the evidence's number of n-grams of each
// order, and the two lengths; it gives a utility on 0..1.

/** @param {number} length @param {number} n @returns {number} n-grams in a text of that length */
export const gramCount = (length, n) => Math.max(0, length - n + 1);

/**
 * chrF (Popović 2015) as sacrebleu's `sentence_chrf`: mean precision and recall over the orders that
 * both texts have, recall weighing beta² = 4 times.
 */
export function chrfScore(matches, hypothesis, evidence) {
  let precision = 0;
  let recall = 0;
  let orders = 0;
  matches.forEach((match, order) => {
    const made = gramCount(hypothesis, order + 1);
    const wanted = gramCount(evidence, order + 1);
    if (!made || !wanted) return;
    precision += match / made;
    recall += match / wanted;
    orders += 1;
  });
  if (!(precision + recall)) return 0;
  precision /= orders;
  recall /= orders;
  return (5 * precision * recall) / (4 * precision + recall);
}

/**
 * Sentence BLEU (Papineni et al. 2002) as sacrebleu's `sentence_bleu`: effective order, and the
 * k-th order without a match counting as 1/2^k matches ("exp").
 */
export function bleuScore(matches, hypothesis, evidence) {
  if (!matches.some((match) => match > 0)) return 0;
  let logs = 0;
  let orders = 0;
  let smooth = 1;
  for (let order = 0; order < matches.length; order++) {
    const made = gramCount(hypothesis, order + 1);
    if (!made) break;
    if (!matches[order]) smooth *= 2;
    logs += Math.log((matches[order] || 1 / smooth) / made);
    orders += 1;
  }
  const brevity = hypothesis < evidence ? Math.exp(1 - evidence / hypothesis) : 1;
  return brevity * Math.exp(logs / orders);
}
