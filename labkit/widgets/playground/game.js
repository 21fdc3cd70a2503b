// Be the drafter: the reader guesses the next tokens, the model accepts or rejects them.
import { button, count, el, label, paragraphs, probability, running, visible } from "../shared/prelude.js";
import { headColor } from "../shared/trace.js";

const PICKS = 6; // tokens on offer

/** Typed words as they continue a text: a blank comes first unless there is one, or a mark. */
export function joinedTo(before, typed) {
  return /^[\p{L}\p{N}]/u.test(typed) && before !== "" && !/\s$/.test(before) ? ` ${typed}` : typed;
}

/** One judged step in words: what was kept, and what the model put. */
export function tellJudged(step) {
  const kept = step.nodes.filter((node) => node.accepted).length;
  const own = `“${visible(step.committed.at(-1).text)}”`;
  if (kept === step.nodes.length) return `${kept === 1 ? "Accepted" : `All ${kept} accepted`}; the bonus is ${own}.`;
  return `${kept ? `${kept} of ${step.nodes.length} accepted` : "Rejected at once"}; the model puts ${own} instead.`;
}

export function makeGame({ signal, say, source, info, settings }) {
  let context = null; // token ids: the prompt and what was committed
  let story = []; // committed tokens after the prompt: {text, by}
  let draft = [];
  let score = { rounds: 0, mine: 0, heads: 0 };
  let serial = 0;

  const text = el("div", { class: "lk-running pg-text pg-story", tabindex: 0, role: "group", "aria-label": "The text so far", dir: "auto" });
  const slots = el("ol", { class: "pg-slots", "aria-label": "Your draft" });
  const typed = el("input", { class: "pg-input", type: "text", autocomplete: "off", spellcheck: "false", placeholder: "Type the next words, then Enter" });
  const picks = el("div", { class: "pg-picks", role: "group", "aria-label": "Or pick the next token" });
  const judge = button("Let the model judge", { icon: "check", click: submit });
  judge.classList.add("lk-primary");
  const undo = button("Take back", { icon: "previous", click: () => { draft.pop(); refresh(); } });
  const again = button("Start over", { icon: "reset", click: begin });
  const verdict = el("div", { class: "pg-verdict" });
  const board = el("div", { class: "pg-score" });
  const status = el("p", { class: "pg-status" });
  const node = el("div", { class: "pg-panel" },
    el("p", {}, `You are the drafter. Guess up to ${count(info.heads, "token")} that come next: the model reads them in one pass and keeps those that pass its test, as it does with the heads’ drafts. The heads play the same text by the same rule.`),
    text,
    el("div", { class: "pg-draft" }, slots, el("label", { class: "lk-field pg-grow" }, el("span", { class: "lk-label" }, "Your guess"), typed), el("span", { class: "lk-group" }, judge, undo, again)),
    picks, status, verdict, board);

  typed.addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      event.preventDefault();
      if (typed.value) take(typed.value);
      else if (draft.length) submit();
    } else if (event.key === "Backspace" && !typed.value && draft.length) {
      draft.pop();
      refresh();
    }
  }, { signal });

  const before = () => (story.length || draft.length ? [...story, ...draft].at(-1).text : settings().prompt);

  async function begin() {
    serial += 1;
    const mine = serial;
    [context, story, draft, score] = [null, [], [], { rounds: 0, mine: 0, heads: 0 }];
    verdict.replaceChildren();
    status.textContent = "";
    paint();
    try {
      const { prompt, temperature, topk, seed } = settings();
      const ids = await source.ask("encode", { text: prompt, prompt: true }).answer;
      const made = await source.ask("generate", { prompt, maxNewTokens: 1, method: "vanilla", temperature, topK: topk, seed }).answer;
      if (mine !== serial) return;
      context = [...ids.map(({ id }) => id), made.first.id];
      story = [{ text: made.first.text, by: "model" }];
      refresh();
    } catch (error) {
      if (mine === serial) status.textContent = error.message;
    }
  }

  async function take(words) {
    typed.value = "";
    try {
      const tokens = await source.ask("encode", { text: joinedTo(before(), words) }).answer;
      draft.push(...tokens.slice(0, info.heads - draft.length));
      refresh();
    } catch (error) {
      status.textContent = error.message;
    }
  }

  /** Offer likely tokens, in alphabetical order, so that their rank is not given away. */
  async function offer() {
    picks.replaceChildren();
    if (!context || draft.length >= info.heads) return;
    const asked = [...context, ...draft.map(({ id }) => id)];
    const found = await source.ask("outlook", { tokens: asked, many: PICKS }).answer.catch(() => []);
    if (!context || asked.join() !== [...context, ...draft.map(({ id }) => id)].join()) return;
    found.sort((a, b) => (a.text < b.text ? -1 : 1));
    picks.replaceChildren(el("span", { class: "lk-label" }, "or pick"), ...found.map((token) => (
      el("button", { type: "button", class: "lk-button", click: () => { draft.push(token); refresh(); typed.focus(); } }, label(token.text)))));
  }

  function refresh() {
    paint();
    offer();
  }

  function paint() {
    const spans = [running(settings().prompt, { class: "pg-given" }), ...story.map(({ text: word, by, depth }) => (
      running(word, { class: by === "you" ? "pg-drafted" : "pg-own", style: `--c: var(${headColor(by === "you" ? depth : 0)})` })))];
    text.replaceChildren(...paragraphs(spans, [settings().prompt, ...story.map((each) => each.text)]));
    text.scrollTop = text.scrollHeight;
    slots.replaceChildren(...Array.from({ length: info.heads }, (_, at) => (
      el("li", { class: draft[at] ? "pg-slot" : "pg-slot pg-open", style: `--c: var(${headColor(at + 1)})` }, draft[at] ? label(draft[at].text) : "…"))));
    judge.disabled = !context || !draft.length;
    undo.disabled = !draft.length;
    typed.disabled = !context || draft.length >= info.heads;
    const { rounds, mine, heads } = score;
    const mean = (sum) => (rounds ? (sum / rounds).toFixed(2) : "–");
    board.replaceChildren(
      figure("You, tokens a step", mean(mine), rounds && mine >= heads),
      figure("The heads, tokens a step", mean(heads), rounds && heads > mine),
      figure("Rounds", String(rounds), false));
  }

  async function submit() {
    if (!context || !draft.length) return;
    const { temperature, topk, seed } = settings();
    judge.disabled = true;
    try {
      const found = await source.ask("judge", {
        tokens: context, draft: draft.map(({ id }) => id), temperature, topK: topk, seed: seed + score.rounds,
      }).answer;
      const { reader, heads } = found;
      const accepted = reader.nodes.filter((each) => each.accepted).length;
      reader.committed.forEach((token, at) => story.push({ text: token.text, by: at < accepted ? "you" : "model", depth: at + 1 }));
      context.push(...reader.committed.map(({ id }) => id));
      score = { rounds: score.rounds + 1, mine: score.mine + reader.committed.length, heads: score.heads + heads.committed.length };
      verdict.replaceChildren(judged("You", reader), judged("The heads, here", heads));
      say(`You: ${tellJudged(reader)} The heads: ${tellJudged(heads)}`);
      draft = [];
    } catch (error) {
      status.textContent = error.message;
    }
    refresh();
    typed.focus();
  }

  /** Begin where nothing was begun, or anew where the prompt has changed. */
  function changed() {
    if (!node.hidden) begin();
    else context = null;
  }
  paint();
  return { node, changed, open: () => { if (!context) begin(); } };
}

function figure(words, value, leads) {
  return el("div", { class: leads ? "pg-leads" : undefined }, el("span", { class: "lk-label" }, words), el("strong", {}, value));
}

/** A judged draft: each token with its test. */
function judged(name, step) {
  const chip = (node) => el("li", { class: `pg-slot pg-${node.accepted ? "accepted" : node.tested ? "rejected" : "untested"}`, style: `--c: var(${headColor(node.depth)})` },
    label(node.text), el("small", {}, `p ${probability(node.p)}${node.draw === null ? "" : `, drew ${probability(node.draw)}`}`));
  return el("div", {}, el("p", {}, el("strong", {}, `${name}: `), tellJudged(step)), el("ol", { class: "pg-slots" }, step.nodes.map(chip),
    el("li", { class: "pg-slot pg-base" }, label(step.committed.at(-1).text), el("small", {}, step.ending === "bonus" ? "bonus" : "the model’s"))));
}
