// The weights in the page: from text back to bytes, from float16 to float32.
//
// A page that works from a plain folder must carry its weights inside itself, as text. Base64 would
// need 33% more room than the bytes; the code here needs 14%: seven bits become one ASCII character.
// HTML does not keep three of the 128 (NUL, CR and "<"), so a value that would be one of them is
// joined with the next value: both become one character from U+0100 on, two bytes in UTF-8.

/** The characters that stand for the seven-bit values which HTML would not keep. */
const KEPT_OUT = [0, 13, 60];
const WIDE = 0x100;

/**
 * The bytes behind such a text.
 * @param {string} text
 * @param {number} size how many bytes they are
 * @returns {Uint8Array}
 */
export function bytesOf(text, size) {
  const bytes = new Uint8Array(size);
  let [held, bits, at] = [0, 0, 0];
  for (let place = 0; place < text.length; place += 1) {
    let code = text.charCodeAt(place);
    if (code < 128) {
      held = (held << 7) | code;
      bits += 7;
    } else {
      code -= WIDE;
      held = (held << 14) | (KEPT_OUT[code >> 7] << 7) | (code & 127);
      bits += 14;
    }
    while (bits >= 8 && at < size) {
      bits -= 8;
      bytes[at++] = (held >> bits) & 255;
    }
    held &= (1 << bits) - 1;
  }
  return bytes;
}

/** Bytes that were packed with deflate (raw, without a header) as they were before. */
export async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** The value of a float16 from its 16 bits. */
export function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/**
 * What a page carries: settings, the tokenizer, and named tensors.
 *
 * The packed bytes are four for the length of the header, the header as JSON, and then the upper
 * bytes of all weights followed by their lower bytes: the upper ones are alike and pack well.
 * @param {string} text
 * @param {number} size of the packed bytes
 * @returns {Promise<{header: object, tensor: (name: string) => Float32Array}>}
 */
export async function unpack(text, size) {
  const raw = await inflate(bytesOf(text, size));
  const length = new DataView(raw.buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(raw.subarray(4, 4 + length)));
  const upper = raw.subarray(4 + length, 4 + length + header.count);
  const lower = raw.subarray(4 + length + header.count);
  const values = Float32Array.from({ length: 65536 }, (_, bits) => fromHalf(bits));
  const all = new Float32Array(header.count);
  for (let at = 0; at < all.length; at += 1) all[at] = values[(upper[at] << 8) | lower[at]];
  const tensor = (name) => {
    const found = header.tensors[name];
    if (!found) throw new Error(`The page carries no weights named ${name}.`);
    return all.subarray(found[0], found[0] + found[1]);
  };
  return { header, tensor };
}
