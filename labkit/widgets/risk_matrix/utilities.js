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

const PUNCTUATION = new Set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~");

/** @param {string} text @returns {string[]} words, a mark at an end set apart, chrF++'s units */
export function wordsAndMarks(text) {
  return splitWords(text).flatMap((word) => {
    const letters = Array.from(word);
    if (letters.length === 1) return [word];
    if (PUNCTUATION.has(letters.at(-1))) return [letters.slice(0, -1).join(""), letters.at(-1)];
    if (PUNCTUATION.has(letters[0])) return [letters[0], letters.slice(1).join("")];
    return [word];
  });
}

/**
 * A text as sets of features: for each order of n-grams, one number for each n-gram it holds, an
 * n-gram's second occurrence being another number than its first.
 * @typedef {Int32Array[]} Profile
 */

/** @typedef {[(text: string) => string[], number]} Part how to cut a text, the longest n-gram */

/**
 * Give equal n-grams of all texts equal numbers.
 * @param {Part[]} parts
 * @returns {{profile: (text: string) => Profile, size: () => number}}
 */
export function ngramIndex(parts) {
  const alphabets = parts.map(() => new Map());
  const grams = new Map(); // (number of the (n-1)-gram, last unit) -> number of the n-gram
  const features = new Map(); // (how often it stood before, n-gram) -> feature
  let letters = 0;
  const number = (map, high, low) => {
    const key = high * 2 ** 26 + low; // exact while both stay below 2^26
    let found = map.get(key);
    if (found === undefined) map.set(key, (found = map.size + 1));
    return found;
  };
  const letter = (alphabet, unit) => {
    let found = alphabet.get(unit);
    if (found === undefined) alphabet.set(unit, (found = letters++));
    return found;
  };

  function profile(text) {
    const orders = [];
    parts.forEach(([cut, most], part) => {
      const units = cut(text).map((unit) => letter(alphabets[part], unit));
      let shorter = units.map(() => 0); // the (n-1)-gram that starts at each place
      for (let n = 1; n <= most; n++) {
        const set = new Int32Array(Math.max(0, units.length - n + 1));
        const seen = new Map();
        const longer = [];
        for (let at = 0; at < set.length; at++) {
          const gram = number(grams, shorter[at], units[at + n - 1]);
          const before = seen.get(gram) ?? 0;
          seen.set(gram, before + 1);
          set[at] = number(features, before, gram);
          longer.push(gram);
        }
        orders.push(set);
        shorter = longer;
      }
    });
    return orders;
  }
  return { profile, size: () => features.size + 1 };
}

/**
 * Clipped matches of one text with many, for each order.
 * @param {Profile} one
 * @param {Profile[]} many
 * @param {number} size how many features there are
 * @returns {Int32Array[]} for each of the many, its matches by order
 */
export function matchRow(one, many, size) {
  const held = new Uint8Array(size);
  for (const set of one) for (const feature of set) held[feature] = 1;
  return many.map((other) => Int32Array.from(other, (set) => {
    let matches = 0;
    for (let at = 0; at < set.length; at++) matches += held[set[at]];
    return matches;
  }));
}

// Each score takes, by order, the clipped matches, the hypothesis's n-grams (made) and the
// evidence's (wanted), and gives a utility on 0..1.

/**
 * chrF (Popović 2015) as sacrebleu's `sentence_chrf`: mean precision and mean recall over the
 * orders that both texts have, recall weighing beta² = 4 times as much. chrF++ (2017) has word
 * orders too.
 */
export function chrfScore(matches, made, wanted) {
  let precision = 0;
  let recall = 0;
  let orders = 0;
  for (let n = 0; n < matches.length; n++) {
    if (!made[n] || !wanted[n]) continue;
    precision += matches[n] / made[n];
    recall += matches[n] / wanted[n];
    orders += 1;
  }
  if (precision + recall === 0) return 0;
  precision /= orders;
  recall /= orders;
  return (5 * precision * recall) / (4 * precision + recall);
}

/**
 * Sentence BLEU (Papineni et al. 2002) as sacrebleu's `sentence_bleu`: orders that the hypothesis
 * has (effective order), the k-th one without a match counting as 1/2^k matches ("exp").
 */
export function bleuScore(matches, made, wanted) {
  if (matches[0] === 0) return 0;
  let logs = 0;
  let orders = 0;
  let missing = 1;
  for (; orders < matches.length && made[orders] > 0; orders++) {
    if (matches[orders] === 0) missing *= 2;
    logs += Math.log((matches[orders] || 1 / missing) / made[orders]);
  }
  const brevity = made[0] < wanted[0] ? Math.exp(1 - wanted[0] / made[0]) : 1;
  return brevity * Math.exp(logs / orders);
}

/** The share of the hypothesis's words that the evidence has. */
export const precisionScore = ([matches], [made]) => matches / Math.max(made, 1);

/** The share of the evidence's words that the hypothesis has. */
export const recallScore = ([matches], _made, [wanted]) => matches / Math.max(wanted, 1);

/** The harmonic mean of the two. */
export const f1Score = ([matches], [made], [wanted]) => (2 * matches) / Math.max(made + wanted, 1);

/**
 * 1 less the edit distance of two lists of units over the longer one's length; 1 if both are empty.
 * @param {ArrayLike<number>} one
 * @param {ArrayLike<number>} other
 */
export function editScore(one, other) {
  const longer = Math.max(one.length, other.length);
  return longer ? 1 - editTable(one, other, false).at(-1) / longer : 1;
}

/** The edit distances of all beginnings of two lists: the last row of their table, or all rows. */
function editTable(one, other, whole) {
  let row = Int32Array.from({ length: other.length + 1 }, (_, at) => at);
  const rows = [row];
  for (let i = 1; i <= one.length; i++) {
    const next = new Int32Array(other.length + 1);
    next[0] = i;
    for (let j = 1; j <= other.length; j++) {
      const changed = one[i - 1] === other[j - 1] ? 0 : 1;
      next[j] = Math.min(row[j - 1] + changed, row[j] + 1, next[j - 1] + 1);
    }
    row = next;
    if (whole) rows.push(row);
  }
  return whole ? rows : row;
}

/**
 * What the page can compute by itself. `parts` says which n-grams a utility counts and `score` what
 * it makes of the counts; `pair` is a utility of two lists of units, cut by `cut`.
 */
export const UTILITIES = {
  chrf: { name: "chrF", parts: [[characters, 6]], score: chrfScore },
  "chrf++": { name: "chrF++", parts: [[characters, 6], [wordsAndMarks, 2]], score: chrfScore },
  bleu: { name: "BLEU", parts: [[tokenize13a, 4]], score: bleuScore },
  precision: { name: "precision of words", parts: [[tokenize13a, 1]], score: precisionScore },
  recall: { name: "recall of words", parts: [[tokenize13a, 1]], score: recallScore },
  f1: { name: "F1 of words", parts: [[tokenize13a, 1]], score: f1Score },
  edit: { name: "edit distance of words", cut: tokenize13a, pair: editScore },
  exact: { name: "exact match", cut: (text) => [text], pair: ([a], [b]) => Number(a === b) },
};

/**
 * The matches of two texts under a utility that counts n-grams, by order.
 * @returns {{matches: Int32Array, made: number[], wanted: number[]}}
 */
export function pairCounts(utility, hypothesis, evidence) {
  const index = ngramIndex(UTILITIES[utility].parts);
  const [made, wanted] = [index.profile(hypothesis), index.profile(evidence)];
  const [matches] = matchRow(made, [wanted], index.size());
  return { matches, made: made.map((set) => set.length), wanted: wanted.map((set) => set.length) };
}

/**
 * The losses of each hypothesis against each text, one row after the other. A caller with a page to
 * keep alive stops between two steps: a step is one text cut into n-grams (nothing is yielded but
 * null) or one row (its losses are).
 * @param {string} utility a name in UTILITIES
 * @param {string[]} hypotheses
 * @param {string[]} texts
 * @returns {Generator<Float64Array | null>}
 */
export function* lossRows(utility, hypotheses, texts) {
  const { parts, score, cut, pair } = UTILITIES[utility];
  if (pair) {
    const numbers = new Map();
    const number = (unit) => {
      if (!numbers.has(unit)) numbers.set(unit, numbers.size);
      return numbers.get(unit);
    };
    const numbered = (text) => cut(text).map(number);
    const others = texts.map(numbered);
    for (const one of hypotheses.map(numbered)) {
      yield Float64Array.from(others, (other) => 1 - pair(one, other));
    }
    return;
  }
  const index = ngramIndex(parts);
  const profiles = new Map();
  for (const text of [...hypotheses, ...texts]) {
    if (profiles.has(text)) continue;
    profiles.set(text, index.profile(text));
    yield null;
  }
  const many = texts.map((text) => profiles.get(text));
  const wanted = many.map((profile) => profile.map((set) => set.length));
  for (const one of hypotheses) {
    const profile = profiles.get(one);
    const made = profile.map((set) => set.length);
    const matches = matchRow(profile, many, index.size());
    yield Float64Array.from(matches, (row, r) => 1 - clampUnit(score(row, made, wanted[r])));
  }
}

const clampUnit = (value) => Math.min(1, Math.max(0, value));

// ---------------------------------------------------------------------------------------------
// Which pieces of two texts match: for the eye

/**
 * For each unit of two lists, the length of the longest n-gram around it that both lists have
 * (0: none), repeated n-grams matching as often as the list with fewer has them.
 * @param {string[]} one
 * @param {string[]} other
 * @param {number} most the longest n-gram looked at
 * @returns {[Uint8Array, Uint8Array]}
 */
export function longestMatches(one, other, most) {
  const marks = [new Uint8Array(one.length), new Uint8Array(other.length)];
  for (let n = 1; n <= most; n++) {
    const places = [one, other].map((units) => {
      const found = new Map();
      for (let at = 0; at + n <= units.length; at++) {
        const gram = units.slice(at, at + n).join("\u0000");
        if (!found.has(gram)) found.set(gram, []);
        found.get(gram).push(at);
      }
      return found;
    });
    for (const [gram, here] of places[0]) {
      const there = places[1].get(gram) ?? [];
      const common = Math.min(here.length, there.length);
      [here, there].forEach((starts, side) => {
        for (const at of starts.slice(0, common)) marks[side].fill(n, at, at + n);
      });
    }
  }
  return marks;
}

/**
 * Which units of two lists stay in the cheapest edit of one into the other, as marks.
 * @param {string[]} one
 * @param {string[]} other
 * @param {number} mark for a unit that stays
 * @returns {[Uint8Array, Uint8Array]}
 */
export function keptUnits(one, other, mark) {
  const rows = editTable(one, other, true);
  const marks = [new Uint8Array(one.length), new Uint8Array(other.length)];
  let [i, j] = [one.length, other.length];
  while (i > 0 && j > 0) {
    if (one[i - 1] === other[j - 1] && rows[i][j] === rows[i - 1][j - 1]) {
      marks[0][--i] = mark;
      marks[1][--j] = mark;
    } else if (rows[i][j] === rows[i - 1][j - 1] + 1) [i, j] = [i - 1, j - 1];
    else if (rows[i][j] === rows[i - 1][j] + 1) i -= 1;
    else j -= 1;
  }
  return marks;
}

/**
 * Where a list of units stands in the text it was cut from: [start, end) of each in UTF-16 units,
 * or null where the cutting changed it (as when an entity became a mark).
 * @param {string} text
 * @param {string[]} units
 * @returns {Array<[number, number] | null>}
 */
export function locate(text, units) {
  let from = 0;
  return units.map((unit) => {
    const at = text.indexOf(unit, from);
    if (at < 0) return null;
    from = at + unit.length;
    return [at, from];
  });
}

/**
 * A text cut where its marks change, never inside what a reader sees as one character.
 * @param {string} text
 * @param {Array<[number, number] | null>} places of the units
 * @param {ArrayLike<number>} marks of the units
 * @param {string[]} letters the text as the characters a reader sees
 * @returns {Array<{text: string, mark: number}>}
 */
export function marked(text, places, marks, letters) {
  const level = new Uint8Array(text.length);
  places.forEach((place, unit) => {
    if (!place) return;
    level.fill(marks[unit], place[0], place[1]);
    const before = places[unit - 1];
    const shared = Math.min(marks[unit], marks[unit - 1] ?? 0);
    if (before && shared > 1) level.fill(shared, before[1], place[0]); // blanks within a match
  });
  const runs = [];
  let at = 0;
  for (const letter of letters) {
    const mark = Math.max(...level.subarray(at, at + letter.length));
    at += letter.length;
    if (runs.at(-1)?.mark === mark) runs.at(-1).text += letter;
    else runs.push({ text: letter, mark });
  }
  return runs;
}
