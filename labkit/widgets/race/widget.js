// Race: several generations replayed side by side in their measured time.
import { button, clamp, count, duration, el, figures, icon, onWidth, paragraphs, recordWidget, reducedMotion, running, select, shorten, sizeCanvas, slider, token } from "../shared/prelude.js";
import { ROOT, countUpTo, endTimes, headColor, headsOf, originOfTokens, tokensAfter } from "../shared/trace.js";

// ---------------------------------------------------------------------------------------------
// What to show at a moment: pure functions of the records

/** The playback clock: the state after `elapsed` seconds of the reader's time. */
export function advance({ time, playing }, elapsed, speed, end) {
  if (!playing) return { time, playing };
  const next = Math.min(end, time + elapsed * speed);
  return { time: next, playing: next < end };
}

/** How many tokens stand at a moment; `ends` and `totals` are `endTimes` and `tokensAfter`. */
export function tokensAt(ends, totals, time) {
  const done = countUpTo(ends, time + 1e-9);
  return done === 0 ? 0 : totals[done - 1];
}

/**
 * What a generation is at a moment doing, and where its time went until then.
 * @returns {{doing: "prefill"|"draft"|"check"|"rest"|"done", step: number, spent: {prefill: number, draft: number, check: number, rest: number}}}
 */
export function activity(trace, ends, time) {
  const spent = { prefill: Math.min(time, trace.prefill_s), draft: 0, check: 0, rest: 0 };
  if (time < trace.prefill_s) return { doing: "prefill", step: -1, spent };
  const done = Math.min(countUpTo(ends, time + 1e-9) - 1, trace.steps.length);
  for (let index = 0; index < done; index += 1) {
    const step = trace.steps[index];
    spent.draft += step.draft_s;
    spent.check += step.check_s;
    spent.rest += step.rest_s;
  }
  if (done === trace.steps.length) return { doing: "done", step: done - 1, spent };
  const step = trace.steps[done];
  let left = time - ends[done];
  let doing = "rest";
  for (const [name, seconds] of [["draft", step.draft_s], ["check", step.check_s], ["rest", step.rest_s]]) {
    spent[name] += Math.min(left, seconds);
    if (left < seconds) {
      doing = name;
      break;
    }
    left -= seconds;
  }
  return { doing, step: done, spent };
}

/** The draft before the check: the first-ranked path of the tree. */
export function firstPath(step) {
  const path = [];
  let parent = ROOT;
  for (;;) {
    const child = step.nodes.findIndex((node) => node.parent === parent);
    if (child < 0) return path;
    path.push(step.nodes[child]);
    parent = child;
  }
}

/**
 * The outcome: which generation is the fastest by tokens per second, and by what factor over each.
 * @returns {{winner: number, factors: number[], rates: number[], even: boolean, alike: boolean}}
 *   `even`: the same number of tokens everywhere; `alike`: the same tokens, up to the shortest of them.
 */
export function standing(traces) {
  const totals = traces.map((trace) => tokensAfter(trace).at(-1));
  const seconds = traces.map((trace) => endTimes(trace).at(-1));
  const rates = totals.map((total, lane) => total / Math.max(seconds[lane], 1e-12));
  const winner = rates.indexOf(Math.max(...rates));
  const ids = traces.map((trace) => originOfTokens(trace).map((each) => each.id));
  const shortest = Math.min(...totals);
  return {
    winner,
    rates,
    factors: rates.map((rate) => rates[winner] / rate),
    even: totals.every((total) => total === totals[0]),
    alike: ids.every((lane) => lane.slice(0, shortest).every((id, place) => id === ids[0][place])),
  };
}

/** The outcome in a sentence or two. */
export function tellOutcome(traces) {
  const { winner, factors, rates, even, alike } = standing(traces);
  if (traces.length === 1) return `${traces[0].method}: ${figures(rates[0])} tokens per second.`;
  const total = tokensAfter(traces[winner]).at(-1);
  const own = even ? `${count(total, "token")} in ${duration(endTimes(traces[winner]).at(-1))}` : `${figures(rates[winner])} tokens per second`;
  const others = traces.flatMap((trace, lane) => {
    if (lane === winner) return [];
    const against = even ? duration(endTimes(trace).at(-1)) : `${figures(rates[lane])} tokens per second`;
    return [`${factors[lane].toFixed(2)} times as fast as ${trace.method} (${against})`];
  });
  const text = !alike ? "The texts differ." : even ? "The texts are the same, token for token." : "Up to the end of the shortest, the texts are the same.";
  return `${traces[winner].method} wins with ${own}, ${others.join(", ")}. ${text}`;
}

// ---------------------------------------------------------------------------------------------
// The view

const SPEEDS = [["0.02", "1/50 ×"], ["0.1", "1/10 ×"], ["0.25", "1/4 ×"], ["0.5", "1/2 ×"], ["1", "as measured"], ["2", "2 ×"], ["5", "5 ×"], ["20", "20 ×"]];
const PARTS = ["prefill", "draft", "check", "rest"];
const DOING = { prefill: "reads the prompt", draft: "drafts", check: "checks", rest: "commits", done: "done" };

export default recordWidget({ name: "Race", kind: "trace", version: 1, most: 8, draw: drawRace });

function drawRace(place) {
  const { root, signal, say, listen, put, get } = place;
  let traces = place.records;
  let end = 0;
  let lanes = [];

  const names = el("p", { class: "lk-title" });
  const legend = el("p", { class: "rc-legend" });
  const prompt = el("p", { class: "rc-prompt", dir: "auto" });
  const track = el("div", { class: "rc-lanes" });
  const outcome = el("p", { class: "rc-outcome" });
  const play = button("Play", { icon: "play", hidden_label: true, key: "Space", click: toggle });
  play.classList.add("lk-primary");
  const again = button("Back to the start", { icon: "reset", hidden_label: true, key: "Home", click: () => jump(0) });
  const speed = select("Speed", SPEEDS, "1", (value) => { put("speed", Number(value)); });
  const scrub = slider("Clock", { min: 0, max: 1000, value: 0, words: (share) => duration((end * share) / 1000), input: (share) => jump((end * share) / 1000) });
  scrub.field.classList.add("rc-scrub");
  root.append(names, prompt, el("div", { class: "lk-bar", role: "group", "aria-label": "Playback" }, el("span", { class: "lk-group" }, play, again), speed, scrub.field), track, outcome, legend);

  function lay(records) {
    traces = records;
    end = Math.max(...traces.map((trace) => endTimes(trace).at(-1)));
    names.replaceChildren(...traces.flatMap((trace, lane) => [lane ? el("span", { class: "rc-on" }, lane === traces.length - 1 ? " against " : ", ") : "", trace.method]),
      el("span", { class: "rc-on" }, ` on ${[...new Set(traces.map((trace) => trace.base))].join(", ")}`));
    const prompts = [...new Set(traces.map((trace) => trace.prompt))];
    prompt.replaceChildren(el("span", { class: "lk-label" }, prompts.length === 1 ? "Prompt " : "Prompts differ, the first is "), shorten(prompts[0].trim(), 300));
    const most = Math.max(...traces.map((trace) => tokensAfter(trace).at(-1)));
    if (lanes.length !== traces.length) {
      lanes.forEach((lane) => lane.stop());
      lanes = traces.map(() => makeLane(place));
      track.replaceChildren(...lanes.map((lane) => lane.node));
    }
    lanes.forEach((lane, index) => lane.take(traces[index], { most, end, place: index }));
    const heads = traces.map(headsOf).reduce((long, each) => (each.length > long.length ? each : long), []);
    legend.replaceChildren("Tokens by origin: ",
      ...heads.map((head) => el("span", { class: "rc-key", style: `--c: var(${headColor(head.depth)})` }, el("i", {}), head.name)),
      el("span", { class: "rc-key", style: "--c: var(--lk-base)" }, el("i", {}), "base model"));
  }

  let clock = { time: 0, playing: false };
  let frame = 0;
  let told = 0;
  let before = 0;

  function toggle() {
    if (!get("playing") && get("time") >= end) jump(0);
    put("playing", !get("playing"));
  }
  function jump(time) {
    put("time", clamp(time, 0, end));
  }
  function tick(now) {
    frame = 0;
    const elapsed = Math.min(0.25, (now - before) / 1000);
    before = now;
    clock = advance({ time: clock.time, playing: get("playing") }, elapsed, get("speed"), end);
    show();
    if (now - told > 200 || !clock.playing) {
      told = now;
      put("time", clock.time);
      if (!clock.playing) put("playing", false);
    }
    if (clock.playing) frame = requestAnimationFrame(tick);
  }
  function sync() {
    const playing = get("playing");
    play.replaceChildren(icon(playing ? "pause" : "play"));
    play.setAttribute("aria-label", playing ? "Pause" : "Play");
    play.title = playing ? "Pause (Space)" : "Play (Space)";
    if (playing && !frame) {
      clock = { time: get("time"), playing: true };
      before = performance.now();
      frame = requestAnimationFrame(tick);
    }
  }
  let ended = null;
  function show() {
    const { time } = clock;
    const speedNow = get("speed");
    for (const lane of lanes) lane.show(time, speedNow, clock.playing);
    scrub.set(end ? Math.round((1000 * time) / end) : 0);
    const over = time >= end - 1e-9 && !get("live");
    if (over === ended) return;
    ended = over;
    outcome.hidden = !over;
    root.classList.toggle("rc-over", over);
    if (!over) return;
    const { winner } = standing(traces);
    lanes.forEach((lane, index) => lane.crown(traces.length > 1 && index === winner));
    outcome.textContent = tellOutcome(traces);
    say(outcome.textContent);
  }
  function retime() {
    if (get("playing") && Math.abs(get("time") - clock.time) < 1e-9) return;
    clock = { time: clamp(get("time"), 0, end), playing: get("playing") };
    show();
  }
  function respeed() {
    const box = speed.querySelector("select");
    const value = String(get("speed"));
    if (![...box.options].some((option) => option.value === value)) box.append(el("option", { value }, `${value} ×`));
    box.value = value;
  }

  root.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.defaultPrevented || event.target.closest("input, select")) return;
    if (event.key === " " && !event.target.closest("button")) toggle();
    else if (event.key === "Home") jump(0);
    else if (event.key === "End") jump(end);
    else if (event.key === "ArrowRight") jump(get("time") + end / 50);
    else if (event.key === "ArrowLeft") jump(get("time") - end / 50);
    else return;
    event.preventDefault();
  }, { signal });
  signal.addEventListener("abort", () => { cancelAnimationFrame(frame); lanes.forEach((lane) => lane.stop()); });

  lay(place.records);
  listen("time", retime);
  listen("playing", sync);
  listen("speed", respeed);
  listen("live", () => { ended = null; show(); });
  retime();
  show();
  respeed();
  sync();
  return {
    update(records) {
      lay(records);
      ended = null;
      if (get("live")) clock = { time: end, playing: false };
      show();
    },
    theme() {
      for (const lane of lanes) lane.paint();
    },
  };
}

function makeLane({ root, signal }) {
  const title = el("p", { class: "rc-name" });
  const crown = el("span", { class: "rc-crown", hidden: true }, "first");
  const doing = el("span", { class: "rc-doing" });
  const canvas = el("canvas", { "aria-hidden": "true" });
  const road = el("div", { class: "rc-road" }, canvas);
  const numbers = Object.fromEntries(["clock", "tokens", "rate", "length"].map((name) => [name, el("span", { class: "rc-figure" })]));
  const facts = el("div", { class: "rc-facts" }, [["clock", "time"], ["tokens", "tokens"], ["rate", "tokens / s"], ["length", "tokens / step"]].map(([name, words]) => el("div", {}, el("span", { class: "lk-label" }, words), numbers[name])));
  const ghost = el("span", { class: "rc-ghost", "aria-hidden": "true" });
  const body = el("div", { class: "lk-running rc-text", tabindex: 0, role: "group", dir: "auto" });
  const bars = Object.fromEntries(PARTS.map((part) => [part, el("div", { class: `rc-part rc-${part}` })]));
  const shares = Object.fromEntries(PARTS.map((part) => [part, el("b", {})]));
  const time = el("div", { class: "rc-time" },
    el("div", { class: "rc-bars", "aria-hidden": "true" }, PARTS.map((part) => bars[part])),
    el("p", { class: "rc-shares" }, PARTS.map((part) => el("span", {}, el("i", { class: `rc-${part}` }), `${part} `, shares[part]))));
  const node = el("div", { class: "rc-lane", role: "group" },
    el("div", { class: "rc-head" }, title, crown, doing), road, facts, body, time);
  const stop = new AbortController();
  signal.addEventListener("abort", () => stop.abort());

  let trace = null;
  let tokens = [];
  let spans = [];
  let ends = [];
  let totals = [];
  let scale = { most: 1, end: 1 };
  let shown = -1;
  let width = 300;
  let drafted = "";

  function take(record, scales) {
    const same = trace && tokens.length && record.first.id === trace.first.id && record.method === trace.method;
    trace = record;
    scale = scales;
    ends = endTimes(trace);
    totals = tokensAfter(trace);
    const next = originOfTokens(trace);
    const kept = same ? tokens.findIndex((each, index) => next[index]?.id !== each.id || next[index].depth !== each.depth) : 0;
    const keep = kept < 0 ? tokens.length : kept;
    for (const span of spans.splice(keep)) span.remove();
    for (const each of next.slice(keep)) {
      const span = running(each.text, { class: each.depth ? "rc-drafted" : "rc-own", style: `--c: var(${headColor(each.depth)}); --n: ${Math.min(each.depth, 4)}px` });
      span.hidden = true;
      spans.push(span);
    }
    tokens = next;
    body.replaceChildren(...paragraphs([...spans, ghost], [...tokens.map((each) => each.text), ""]));
    shown = Math.min(shown, keep);
    title.textContent = trace.method;
    node.setAttribute("aria-label", `Lane ${scale.place + 1}: ${trace.method}`);
    body.setAttribute("aria-label", `Text of lane ${scale.place + 1}, ${trace.method}`);
    road.setAttribute("title", `${count(tokens.length, "token")}`);
    paint();
  }

  function show(now, speed, moving) {
    const many = tokensAt(ends, totals, now);
    const state = activity(trace, ends, now);
    const finished = state.doing === "done";
    if (many !== shown) {
      const from = Math.max(0, shown);
      if (many > from) for (let index = from; index < many; index += 1) spans[index].hidden = false;
      else for (let index = many; index < Math.max(from, spans.length); index += 1) spans[index].hidden = true;
      spans.slice(Math.max(0, from - 12), from).forEach((span) => span.classList.remove("rc-new"));
      if (moving && !reducedMotion()) spans.slice(from, many).forEach((span) => span.classList.add("rc-new"));
      shown = many;
      paint();
    }
    const past = Math.min(now, ends.at(-1));
    const steps = Math.max(0, Math.min(countUpTo(ends, now + 1e-9) - 1, trace.steps.length));
    numbers.clock.textContent = duration(past);
    numbers.tokens.textContent = String(many);
    numbers.rate.textContent = past > 0 ? figures(many / past) : "–";
    numbers.length.textContent = steps ? ((totals[steps] - 1) / steps).toFixed(2) : "–";
    for (const part of PARTS) {
      bars[part].style.width = `${(100 * state.spent[part]) / Math.max(scale.end, 1e-12)}%`;
      shares[part].textContent = duration(state.spent[part]);
    }
    const step = trace.steps[state.step];
    const slow = step && (step.draft_s + step.check_s) / speed > 0.12;
    doing.textContent = finished ? "" : slow || state.doing === "prefill" ? doingWords(state, step) : "";
    const pending = slow && state.doing === "check" ? firstPath(step).map((each) => each.text).join("") : "";
    if (pending !== drafted) {
      drafted = pending;
      ghost.replaceChildren(...(pending ? [running(pending)] : []));
    }
    node.classList.toggle("rc-done", finished);
    if (!finished) crown.hidden = true;
    body.scrollTop = body.scrollHeight;
  }

  function doingWords(state, step) {
    if (state.doing === "check" && step.nodes.length) return `checks ${count(step.nodes.length, "draft")}`;
    if (state.doing === "check") return "computes a token";
    return DOING[state.doing];
  }

  function paint() {
    if (!trace) return;
    const height = 16;
    const context = sizeCanvas(canvas, width, height);
    const colors = Array.from({ length: 9 }, (_, depth) => token(root, headColor(depth)));
    const wide = width / scale.most;
    for (let index = 0; index < Math.max(0, shown); index += 1) {
      const { depth } = tokens[index];
      context.fillStyle = colors[depth === 0 ? 0 : ((depth - 1) % 8) + 1];
      const tall = depth === 0 ? height : height - 4;
      context.fillRect(index * wide, (height - tall) / 2, Math.max(0.6, wide - (wide > 3 ? 1 : 0)), tall);
    }
    if (shown > 0) {
      context.fillStyle = token(root, "--lk-ink");
      context.fillRect(Math.min(width - 2, shown * wide), 0, 2, height);
    }
  }

  onWidth(road, (wide) => { width = wide; paint(); }, stop.signal);
  return { node, take, show, paint, crown: (first) => { crown.hidden = !first; }, stop: () => stop.abort() };
}
