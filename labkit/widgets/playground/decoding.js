// The first panel: a draft, its check, and the same text as without drafts.
import { button, choice, count, duration, el, paragraphs, percent, running, select, slider } from "../shared/prelude.js";
import { PageModel } from "../shared/model.js";
import { headColor } from "../shared/trace.js";
import TokenStepper from "../token_stepper/widget.js";
import { telling } from "../token_stepper/widget.js";
import { treeOf, textOfTree } from "./state.js";
import { makeTreeEditor } from "./tree.js";

const SETTLE_MS = 250; // after a change of a switch, before the text is decoded anew

/** The tree that the settings ask for; null lets the heads choose by joint probability. */
export function shapeOf({ shape, tree, heads, nodes }) {
  if (shape === "joint") return null;
  if (shape === "chain") return Array.from({ length: Math.min(heads, nodes) }, (_, depth) => new Array(depth + 1).fill(0));
  return treeOf(tree).filter((path) => path.length <= heads);
}

/** The arguments of a generation under these settings. */
export function questionOf(settings) {
  const { prompt, tokens, method, temperature, topk, seed, nodes, heads } = settings;
  return { prompt, maxNewTokens: tokens, method, temperature, topK: topk, seed, nodes, heads, tree: shapeOf(settings) };
}

/** @param {object} place root, signal, say, source, info, settings, put, views */
export function makeDecoding(place) {
  const { signal, say, source, info, settings, put, views } = place;
  const now = () => settings();
  const draw = (name) => (value) => put({ [name]: value });

  // ---- switches
  const drafter = choice("Drafter", [["mlp", "heads"], ["ngram", "n-grams"], ["vanilla", "none"]], now().method, draw("method"));
  const warmth = slider("Temperature", { min: 0, max: 1.5, step: 0.1, value: now().temperature, words: (t) => (t ? t.toFixed(1) : "0, greedy"), input: draw("temperature") });
  const topk = select("Top-k", [["0", "off"], ["5", "5"], ["20", "20"], ["50", "50"]], String(now().topk), (value) => put({ topk: Number(value) }));
  const shape = select("Tree", [["joint", "by joint probability"], ["chain", "a chain"], ["own", "built by hand"]], now().shape, draw("shape"));
  const nodes = slider("Nodes", { min: 1, max: 16, value: now().nodes, input: draw("nodes") });
  const heads = slider("Heads", { min: 1, max: info.heads, value: Math.min(now().heads, info.heads), input: draw("heads") });
  const tokens = slider("New tokens", { min: 8, max: 128, step: 8, value: now().tokens, input: draw("tokens") });
  const editor = makeTreeEditor({ signal, say, changed: (tree) => put({ tree: textOfTree(tree) }) });

  // ---- actions
  const play = button("Play", { icon: "play", click: () => run(), "aria-keyshortcuts": "Control+Enter" });
  play.classList.add("lk-primary");
  const step = button("One step", { icon: "next", click: () => run(true) });
  const stop = button("Stop", { icon: "pause", click: () => running_?.stop() });
  const status = el("p", { class: "pg-status" });

  const lanes = { mine: makeLane("Speculative"), plain: makeLane("Vanilla") };
  const proof = el("p", { class: "pg-proof", hidden: true });
  const stepper = el("div", { class: "pg-stepper" });
  const hint = el("p", { class: "pg-empty" }, "Press Play: every step of the loop will be shown here, with its tree, p and q, and why a draft was accepted or rejected.");
  const node = el("div", { class: "pg-panel" },
    el("div", { class: "lk-bar pg-switches" }, drafter.group, warmth.field, topk, shape, nodes.field, heads.field, tokens.field),
    editor.node,
    el("div", { class: "lk-bar" }, el("span", { class: "lk-group" }, play, step, stop), status),
    el("div", { class: "pg-lanes" }, lanes.mine.node, lanes.plain.node), proof,
    el("p", { class: "pg-hint" }, "Count the passes, not the seconds: a large model waits for its weights, so a pass that checks nine tokens takes hardly longer than one for a single token. This small model waits for arithmetic instead."),
    hint, stepper);

  let running_ = null;
  let view = null; // the TokenStepper's model
  let leave = null;
  let stepsDone = 0;
  let proved = { about: "", settings: new Set() };
  let timer = 0;

  function show() {
    const s = now();
    drafter.set(s.method);
    warmth.set(s.temperature);
    topk.querySelector("select").value = String(s.topk);
    shape.querySelector("select").value = s.shape;
    nodes.set(s.nodes);
    heads.set(Math.min(s.heads, info.heads));
    tokens.set(s.tokens);
    const byHeads = s.method === "mlp";
    topk.hidden = s.temperature === 0;
    shape.hidden = !byHeads;
    nodes.field.hidden = s.method === "vanilla" || (byHeads && s.shape === "own");
    heads.field.hidden = !byHeads;
    editor.node.hidden = !byHeads || s.shape !== "own";
    editor.show(treeOf(s.tree), Math.min(s.heads, info.heads));
    busy(running_ !== null);
  }
  function busy(yes) {
    stop.disabled = !yes;
    step.disabled = yes;
  }

  /** Decode anew a moment after a switch has moved, where there is a text already. */
  function changed() {
    show();
    if (!view && !running_) return;
    clearTimeout(timer);
    timer = setTimeout(() => run(), SETTLE_MS);
  }

  async function run(one = false) {
    clearTimeout(timer);
    running_?.stop();
    const me = { stop: () => { me.stopped = true; me.asked?.stop(); } };
    running_ = me;
    busy(true);
    const question = { ...questionOf(now()), detail: true };
    if (one) question.steps = stepsDone + 1;
    const began = performance.now();
    status.textContent = "Decoding…";
    proof.hidden = true;
    lanes.mine.begin(question.method === "vanilla" ? "No drafter" : "Speculative");
    lanes.plain.begin("Vanilla");
    try {
      let waited = null;
      me.asked = source.ask("generate", question, (part) => {
        if (running_ !== me) return;
        waited ??= performance.now() - began;
        lanes.mine.add(part);
      });
      const trace = await me.asked.answer;
      if (running_ !== me) return;
      stepsDone = one ? trace.steps.length : 0;
      lanes.mine.end(trace);
      showSteps(trace, one);
      if (!me.stopped && !one) {
        me.asked = source.ask("generate", { ...question, method: "vanilla", detail: false }, (part) => { if (running_ === me) lanes.plain.add(part); });
        const plain = await me.asked.answer;
        if (running_ !== me) return;
        lanes.plain.end(plain);
        if (!me.stopped) tellProof(question, trace, plain);
      }
      status.textContent = me.stopped ? "Stopped." : `First token after ${duration(waited / 1000)}.`;
    } catch (error) {
      if (running_ === me) status.textContent = error.message;
    }
    if (running_ !== me) return;
    running_ = null;
    busy(false);
  }

  function showSteps(trace, atEnd) {
    hint.hidden = true;
    const last = Math.max(0, trace.steps.length - 1);
    const at = atEnd ? last : Math.min(view?.get("step") ?? 0, last);
    leave?.();
    view = new PageModel({
      ...views.TokenStepper, records_json: JSON.stringify([trace]), step: at,
      selected: trace.steps.length ? telling(trace.steps[at]) : -1,
    });
    leave = TokenStepper.render({ model: view, el: stepper });
  }

  /** Greedy: the same text, whatever the switches say. Sampled: the same distribution. */
  function tellProof(question, trace, plain) {
    proof.hidden = false;
    const ids = (made) => [made.first.id, ...made.steps.flatMap((each) => each.committed.map(({ id }) => id))];
    const [mine, theirs] = [ids(trace), ids(plain)];
    if (question.temperature > 0) {
      proof.className = "pg-proof";
      proof.textContent = "Sampled: the texts differ, as two draws do, but both come from exactly the same distribution. Set the temperature to 0 to see the same text.";
      return;
    }
    const { prompt, maxNewTokens, method, nodes: many, heads: deep, tree } = question;
    const about = `${maxNewTokens} ${prompt}`;
    if (proved.about !== about) proved = { about, settings: new Set() };
    proved.settings.add(JSON.stringify([method, many, deep, tree]));
    const same = mine.length === theirs.length && mine.every((id, at) => id === theirs[at]);
    proof.className = `pg-proof ${same ? "pg-same" : "pg-different"}`;
    const times = proved.settings.size;
    proof.textContent = same
      ? `The same text: all ${count(mine.length, "token")} equal, in ${count(trace.steps.length, "pass", "passes")} instead of ${plain.steps.length}.${times > 1 ? ` It held under ${times === 2 ? "both" : `all ${times}`} settings tried so far.` : " Move any switch: the text will not change."}`
      : "The texts differ: this should never happen under greedy decoding.";
    say(proof.textContent);
  }

  signal.addEventListener("abort", () => { clearTimeout(timer); running_?.stop(); leave?.(); });
  show();
  return { node, changed, run, restart: () => { stepsDone = 0; changed(); } };
}

/** One text as it comes, every token in the colour of what drafted it. */
function makeLane(name) {
  const title = el("p", { class: "lk-title" }, name);
  const facts = el("p", { class: "pg-facts" });
  const body = el("div", { class: "lk-running pg-text", tabindex: 0, role: "group", dir: "auto", "aria-label": `Text, ${name}` });
  let block = null;
  let [tokens, passes] = [0, 0];

  function begin(words) {
    title.textContent = words;
    [tokens, passes] = [0, 0];
    facts.textContent = "";
    [block] = paragraphs([], []);
    body.replaceChildren(block);
  }
  function put({ text }, depth) {
    block.append(running(text, { class: depth ? "pg-drafted" : "pg-own", style: `--c: var(${headColor(depth)})` }));
    tokens += 1;
  }
  function add({ first, step }) {
    if (first) put(first, 0);
    if (step) {
      passes += 1;
      const accepted = (step.nodes ?? []).filter((each) => each.accepted).length;
      step.committed.forEach((token, at) => put(token, at < accepted ? at + 1 : 0));
    }
    facts.textContent = tell();
    body.scrollTop = body.scrollHeight;
  }
  function tell() {
    const perPass = passes ? `${((tokens - 1) / passes).toFixed(2)} tokens a pass` : "";
    return [count(tokens, "token"), count(passes, "pass", "passes"), perPass].filter(Boolean).join(" · ");
  }
  function end(trace) {
    begin(title.textContent);
    add({ first: trace.first });
    for (const step of trace.steps) add({ step });
    const drafted = trace.steps.flatMap((step) => step.nodes ?? []);
    const share = drafted.length ? `${percent(drafted.filter((each) => each.accepted).length / drafted.length)} of drafts accepted` : "";
    facts.textContent = [tell(), share].filter(Boolean).join(" · ");
  }
  begin(name);
  return { node: el("div", { class: "pg-lane" }, el("div", { class: "pg-lane-head" }, title, facts), body), begin, add, end };
}
