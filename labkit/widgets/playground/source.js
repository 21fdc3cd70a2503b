// Who answers the view's questions: a thread of the page, or the kernel. Both speak alike.
import { fresh } from "../shared/prelude.js";

/**
 * Questions by message: `{id, ask, args}` out, `{id, part}`, `{id, done}`, `{id, error}` back.
 * @param {object} model anywidget's, or the page's stand-in for it
 * @param {AbortSignal} signal ends the listening
 */
export function makeSource(model, signal) {
  const waiting = new Map();
  const hear = (message) => {
    const mine = waiting.get(message.id);
    if (!mine) return;
    if ("part" in message) { mine.tell(message.part); return; }
    waiting.delete(message.id);
    if ("error" in message) mine.reject(new Error(message.error));
    else mine.resolve(message.done);
  };
  model.on("msg:custom", hear);
  signal.addEventListener("abort", () => model.off("msg:custom", hear));

  /**
   * Ask; `tell` hears each part of the answer, `stop` asks for what there is so far.
   * @returns {{answer: Promise<any>, stop: () => void}}
   */
  function ask(question, args = {}, tell = () => {}) {
    const id = fresh("ask");
    const answer = new Promise((resolve, reject) => waiting.set(id, { resolve, reject, tell }));
    model.send({ id, ask: question, args });
    return { answer, stop: () => model.send({ stop: id }) };
  }
  return { ask };
}
