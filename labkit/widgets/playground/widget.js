// Playground: speculative decoding and minimum Bayes risk on a prompt of one's own.
//
// The view asks questions; a thread of the page answers them, or the kernel in a notebook.
import { button, el, frame, fresh, makeVoice, problemPanel, roving } from "../shared/prelude.js";
import { makeBayes } from "./bayes.js";
import { makeDecoding } from "./decoding.js";
import { makeGame } from "./game.js";
import { makeSource } from "./source.js";
import { PRESETS, format, parse } from "./state.js";

const WARM_MS = 150; // after the last letter of the prompt, before it is read ahead

export default {
  render({ model, el: place }) {
    const { root, signal, leave } = frame("Playground", place, () => {});
    const source = makeSource(model, signal);
    const say = makeVoice(root);
    const waiting = el("p", { class: "pg-empty" }, "Opening the model…");
    root.append(waiting);
    source.ask("info").answer.then((info) => {
      if (signal.aborted) return;
      waiting.remove();
      draw({ root, signal, say, source, model, info, views: JSON.parse(model.get("views")) });
    }).catch((error) => root.replaceChildren(problemPanel("Playground", error.message)));
    return leave;
  },
};

function draw(shared) {
  const { root, signal, model, source, info } = shared;
  let now = parse(model.get("state"));
  const settings = () => now;

  function put(change) {
    now = { ...now, ...change };
    model.set("state", format(now));
    model.save_changes();
    tell(change);
  }
  function tell(change) {
    const names = Object.keys(change);
    const any = (...of) => of.some((name) => names.includes(name));
    if (any("prompt", "tokens", "seed")) decoding.restart();
    else if (any("method", "temperature", "topk", "shape", "nodes", "heads", "tree")) decoding.changed();
    if (any("prompt", "temperature", "topk", "seed")) game.changed();
    if (any("samples", "length", "warmth", "hypotheses")) bayes.changed();
  }

  const place = { ...shared, settings, put };
  const decoding = makeDecoding(place);
  const game = makeGame(place);
  const bayes = makeBayes(place);

  // ---- the prompt
  const id = fresh("prompt");
  let timer = 0;
  const prompt = el("textarea", {
    id, class: "pg-prompt", rows: 2, spellcheck: "false", maxlength: 4000, dir: "auto",
    input: () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        source.ask("warm", { prompt: prompt.value }).answer.catch(() => {});
        put({ prompt: prompt.value });
      }, WARM_MS);
    },
    keydown: (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) go(); },
  });
  const seed = el("input", { class: "pg-number", type: "number", min: 0, max: 2 ** 31, step: 1, change: () => put({ seed: Math.max(0, Math.floor(Number(seed.value) || 0)) }) });
  const presets = PRESETS.map(([name, words, change]) => button(name, { title: words, click: () => { prompt.value = change.prompt; put({ tab: "decode", topk: 0, ...change }); showTab(); showInputs(); decoding.run(); } }));

  // ---- the three panels
  const panels = { decode: ["Speculative decoding", decoding.node], draft: ["Be the drafter", game.node], bayes: ["Minimum Bayes risk", bayes.node] };
  const names = Object.keys(panels);
  const tabs = names.map((name) => {
    const [words, panel] = panels[name];
    Object.assign(panel, { id: fresh("panel") });
    const tab = el("button", { type: "button", role: "tab", id: fresh("tab"), class: "pg-tab", "aria-controls": panel.id, click: () => open(name) }, words);
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", tab.id);
    return tab;
  });
  const list = el("div", { role: "tablist", "aria-label": "What to try", class: "pg-tabs" }, tabs);

  root.append(
    el("div", { class: "pg-top" },
      el("label", { class: "lk-label", for: id }, "Your prompt"), prompt,
      el("div", { class: "lk-bar pg-given-bar" }, el("span", { class: "lk-group pg-presets" }, presets), el("label", { class: "lk-field" }, el("span", { class: "lk-label" }, "Seed"), seed))),
    list, ...names.map((name) => panels[name][1]));
  const roved = roving(list, () => tabs, { moved: (index) => open(names[index]), signal });

  function open(name) {
    if (name !== now.tab) put({ tab: name });
    showTab();
  }
  function showTab() {
    names.forEach((name, at) => {
      tabs[at].setAttribute("aria-selected", String(name === now.tab));
      panels[name][1].hidden = name !== now.tab;
      if (name === now.tab) roved.focus(at, false);
    });
    if (now.tab === "draft") game.open();
  }
  function showInputs() {
    prompt.value = now.prompt;
    seed.value = String(now.seed);
  }
  function go() {
    clearTimeout(timer);
    if (prompt.value !== now.prompt) put({ prompt: prompt.value });
    if (now.tab === "bayes") bayes.run();
    else if (now.tab === "decode") decoding.run();
  }

  const linked = () => { // the address, or Python, has another state
    if (model.get("state") === format(now)) return;
    const next = parse(model.get("state"));
    const change = Object.fromEntries(Object.entries(next).filter(([name, value]) => value !== now[name]));
    now = next;
    showInputs();
    tell(change);
    showTab();
  };
  model.on("change:state", linked);
  signal.addEventListener("abort", () => { clearTimeout(timer); model.off("change:state", linked); });

  showInputs();
  showTab();
  source.ask("warm", { prompt: now.prompt }).answer.catch(() => {});
  if (model.get("state") && now.tab !== "draft") go(); // a link leads to a moment
}
