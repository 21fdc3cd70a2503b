// The tokenizer: byte-level BPE, as the model's tokenizer.json describes it.

/** White space as the tokenizer's own regular expressions have it; JavaScript's `\s` differs. */
const SPACE = "\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";

/** Where a text is cut before any bytes are merged: GPT-2's pattern. */
const CUT = new RegExp(
  `'(?:s|t|re|ve|m|ll|d)| ?\\p{L}+| ?\\p{N}+| ?[^${SPACE}\\p{L}\\p{N}]+`
  + `|[${SPACE}]+(?![^${SPACE}])|[${SPACE}]+`, "gu",
);

/** The printable letter that stands for each byte in the vocabulary. */
function byteLetters() {
  const letters = new Array(256);
  let next = 256;
  for (let byte = 0; byte < 256; byte += 1) {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    letters[byte] = String.fromCharCode(printable ? byte : next++);
  }
  return letters;
}

/** A tokenizer from the vocabulary (tokens by id), the merges in their order, and special tokens. */
export class Tokenizer {
  /** @param {{vocabulary: string[], merges: string[], special: Object<string, number>}} given */
  constructor({ vocabulary, merges, special }) {
    this.special = special;
    this.specialIds = new Set(Object.values(special));
    this.vocabulary = vocabulary;
    this.ids = new Map(vocabulary.map((token, id) => [token, id]));
    this.ranks = new Map(merges.map((pair, rank) => [pair, rank]));
    this.letters = byteLetters();
    this.bytes = new Map(this.letters.map((letter, byte) => [letter, byte]));
    this.known = new Map(); // words that were split before
    const names = Object.keys(special).map((name) => name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    this.cut = names.length ? new RegExp(`(${names.join("|")})`) : /(?!)/;
  }

  /** The token ids of a text; special tokens written in it are found. */
  encode(text) {
    const ids = [];
    for (const part of text.split(this.cut)) {
      if (part in this.special) ids.push(this.special[part]);
      else for (const [word] of part.matchAll(CUT)) ids.push(...this.word(word));
    }
    return ids;
  }

  /** The ids of one word: the pair that was learnt first is merged first, until none is left. */
  word(word) {
    const found = this.known.get(word);
    if (found) return found;
    let parts = Array.from(new TextEncoder().encode(word), (byte) => this.letters[byte]);
    while (parts.length > 1) {
      let [best, at] = [Infinity, -1];
      for (let place = 0; place + 1 < parts.length; place += 1) {
        const rank = this.ranks.get(`${parts[place]} ${parts[place + 1]}`) ?? Infinity;
        if (rank < best) [best, at] = [rank, place];
      }
      if (at < 0) break;
      const [left, right] = [parts[at], parts[at + 1]];
      const merged = [];
      for (let place = 0; place < parts.length; place += 1) {
        if (parts[place] === left && parts[place + 1] === right) {
          merged.push(left + right);
          place += 1;
        } else merged.push(parts[place]);
      }
      parts = merged;
    }
    const ids = parts.map((part) => this.ids.get(part));
    this.known.set(word, ids);
    return ids;
  }

  /** The text of token ids; special tokens are left out, broken UTF-8 shows as U+FFFD. */
  decode(ids) {
    const bytes = [];
    for (const id of ids) {
      if (this.specialIds.has(id)) continue;
      for (const letter of this.vocabulary[id]) bytes.push(this.bytes.get(letter));
    }
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes));
  }

  /** The text of one token; a special token shows its name. */
  text(id) {
    return this.specialIds.has(id) ? this.vocabulary[id] : this.decode([id]);
  }
}
