// The page's source of answers: a thread that computes, started from text in the page itself, since a
// page opened from a folder may load no file. Python puts the widget's module before this text.

const { PageModel } = shared_model;

/** A widget's model whose messages go to the thread, as they go to the kernel in a notebook. */
class ThreadModel extends PageModel {
  constructor(traits) {
    super(traits);
    const code = document.getElementById("labkit-worker").textContent;
    this.thread = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
    this.thread.onmessage = ({ data }) => this.tell(data);
    const weights = document.getElementById("labkit-weights");
    this.thread.postMessage({ open: { text: weights.textContent, size: Number(weights.dataset.size) } });
    weights.textContent = ""; // the thread has them now
    this.waiting = new Map();
    this.asked = 0;
  }

  /** A message from the thread: to the hook's own questions, or to the view. */
  tell(message) {
    const mine = this.waiting.get(message.id);
    if (!mine) {
      for (const listener of this.listeners.get("msg:custom") ?? []) listener(message);
    } else if ("done" in message) mine.resolve(message.done);
    else if ("error" in message) mine.reject(new Error(message.error));
    if (mine && !("part" in message)) this.waiting.delete(message.id);
  }

  send(message) {
    this.thread.postMessage(message);
  }

  /** Ask a question outside the view. */
  ask(ask, args) {
    const id = `hook-${this.asked += 1}`;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.send({ id, ask, args });
    });
  }
}

const model = new ThreadModel({ state: location.hash.slice(1), views: VIEWS });
model.on("change:state", () => history.replaceState(null, "", `#${model.get("state")}`));
addEventListener("hashchange", () => model.set("state", location.hash.slice(1)));

WIDGET.render({ model, el: document.getElementById("playground") });

/**
 * For tests and for pages around this one: `generate({prompt, chat, maxNewTokens, method,
 * temperature, seed})` gives `{text, tokens, steps}`, `logits(tokens)` those of the last position,
 * `ask(question, args)` any answer of lab.js. `chat` matters only to a model with a chat template.
 */
model.ask("info").then(() => {
  window.labkitPlayground = {
    async generate(args = {}) {
      const { text, first, steps } = await model.ask("generate", args);
      const committed = steps.map((step) => step.committed.map((token) => token.id));
      return { text, tokens: [first.id, ...committed.flat()], steps: committed };
    },
    logits: (tokens, tree) => model.ask("logits", { tokens: Array.from(tokens), tree }),
    ask: (question, args) => model.ask(question, args),
  };
});
