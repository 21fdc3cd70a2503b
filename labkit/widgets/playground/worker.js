// The thread that computes: it unpacks the weights once, then answers one question after another.
import { Lab } from "./lab.js";
import { unpack } from "./weights.js";

const stopped = new Set(); // questions that nobody waits for any more
let ready = null;
let before = Promise.resolve();

/**
 * Messages in: `{open: {text, size}}`, `{id, ask, args}`, `{stop: id}`; out: `{id, part}`,
 * `{id, done}` or `{id, error}`.
 */
globalThis.onmessage = ({ data }) => {
  if (data.open) ready = unpack(data.open.text, data.open.size).then((unpacked) => new Lab(unpacked));
  else if (data.stop !== undefined) stopped.add(data.stop);
  else before = before.then(() => answer(data));
};

async function answer({ id, ask, args }) {
  try {
    const lab = await ready;
    const done = await lab.ask(ask, args, (part) => postMessage({ id, part }), () => stopped.has(id));
    postMessage({ id, done });
  } catch (error) {
    postMessage({ id, error: error.message });
  }
  stopped.delete(id);
}
