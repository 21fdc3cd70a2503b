// What every widget of the lab shares in the page: themes, text shown as text, keys, tips, numbers.
//
// Python puts this file in front of a widget's own module (`labkit.widgets.base.script`), because
// relative imports inside a widget's module fail at run time; node's tests import it as it is.
// Everything a model wrote goes into the page as text nodes only: nothing here parses HTML.

// ---------------------------------------------------------------------------------------------
// Building the page

const SVG = "http://www.w3.org/2000/svg";

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null));
  return node;
}

/**
 * An HTML element. A function among the attributes listens to the event of that name; strings among
 * the children become text.
 * @param {string} tag
 * @param {Object<string, any>} [attributes]
 * @param {...(Node|string|Array)} children
 * @returns {HTMLElement}
 */
export function el(tag, attributes, ...children) {
  return build(document.createElement(tag), attributes, children);
}

/** An SVG element; as `el`. */
export function svg(tag, attributes, ...children) {
  return build(document.createElementNS(SVG, tag), attributes, children);
}

/** The shapes on the buttons, drawn as paths so that they look alike on every system. */
const ICONS = {
  play: "M4 2.5v11l9-5.5z",
  pause: "M3.5 2.5h3v11h-3zM9.5 2.5h3v11h-3z",
  next: "M5.5 2.5 11 8l-5.5 5.5",
  previous: "M10.5 2.5 5 8l5.5 5.5",
  first: "M12 2.5 6.5 8l5.5 5.5M4 2.5v11",
  last: "M4 2.5 9.5 8 4 13.5M12 2.5v11",
  reset: "M3 8a5 5 0 1 0 1.6-3.7M3 2.2v2.6h2.6",
  cross: "m4 4 8 8M12 4l-8 8",
  check: "m3 8.5 3.5 3.5L13 4.5",
  plus: "M8 3v10M3 8h10",
  minus: "M3 8h10",
  spark: "M8 1.5v4M8 10.5v4M1.5 8h4M10.5 8h4M3.6 3.6l2.2 2.2M10.2 10.2l2.2 2.2M12.4 3.6l-2.2 2.2M5.8 10.2l-2.2 2.2",
  skip: "M3 3.5 7.5 8 3 12.5M9.5 5.5l4 5M13.5 5.5l-4 5",
};
const FILLED = new Set(["play", "pause"]);

/** A small decorative picture of that name; the button around it carries the words. */
export function icon(name) {
  const paint = FILLED.has(name)
    ? { fill: "currentColor" }
    : { fill: "none", stroke: "currentColor", "stroke-width": 1.8, "stroke-linecap": "round", "stroke-linejoin": "round" };
  return svg("svg", { viewBox: "0 0 16 16", class: "lk-icon", "aria-hidden": "true", focusable: "false" },
    svg("path", { d: ICONS[name], ...paint }));
}

/**
 * A button. With `hidden_label` the words are only spoken (and shown as a tip), the icon is seen.
 * @param {string} label
 * @param {{icon?: string, hidden_label?: boolean, click: Function, key?: string, pressed?: boolean}} options
 */
export function button(label, { icon: picture, hidden_label = false, click, key, pressed, ...rest }) {
  const node = el("button", {
    type: "button", class: "lk-button", click,
    title: key ? `${label} (${key})` : hidden_label ? label : undefined,
    "aria-label": hidden_label ? label : undefined,
    "aria-keyshortcuts": key,
    "aria-pressed": pressed === undefined ? undefined : String(pressed),
    ...rest,
  });
  if (picture) node.append(icon(picture));
  if (!hidden_label) node.append(el("span", {}, label));
  return node;
}

let serial = 0;
/** An identifier unique in the page, for labels and described-by. */
export function fresh(prefix = "lk") {
  serial += 1;
  return `${prefix}-${serial}-${Math.random().toString(36).slice(2, 7)}`;
}

/**
 * A labelled select box.
 * @param {string} label
 * @param {Array<[string, string]>} options value and words
 * @param {string} value
 * @param {(value: string) => void} change
 */
export function select(label, options, value, change) {
  const box = el("select", { class: "lk-select", change: () => change(box.value) },
    options.map(([key, words]) => el("option", { value: key }, words)));
  box.value = value;
  return el("label", { class: "lk-field" }, el("span", { class: "lk-label" }, label), box);
}

/** A labelled range input; `words(value)` is what is shown next to it and spoken. */
export function slider(label, { min, max, step = 1, value, words = String, input }) {
  const id = fresh();
  const out = el("output", { class: "lk-value", for: id }, words(value));
  const range = el("input", {
    type: "range", class: "lk-range", id, min, max, step, value, "aria-valuetext": words(value),
    input: () => {
      set(Number(range.value));
      input(Number(range.value));
    },
  });
  function set(next) {
    range.value = String(next);
    out.textContent = words(next);
    range.setAttribute("aria-valuetext", words(next));
  }
  const field = el("label", { class: "lk-field" }, el("span", { class: "lk-label" }, label), range, out);
  return { field, range, set };
}

/**
 * A choice of one among few, as native radio buttons (arrow keys and speech come with them).
 * @returns {{group: HTMLElement, set: (value: string) => void}}
 */
export function choice(label, options, value, change) {
  const name = fresh("choice");
  const inputs = new Map();
  const group = el("fieldset", { class: "lk-choice" }, el("legend", { class: "lk-label" }, label),
    options.map(([key, words]) => {
      const input = el("input", { type: "radio", name, value: key, change: () => change(key) });
      input.checked = key === value;
      inputs.set(key, input);
      return el("label", {}, input, el("span", {}, words));
    }));
  return { group, set: (key) => { if (inputs.has(key)) inputs.get(key).checked = true; } };
}

// ---------------------------------------------------------------------------------------------
// Text that a model wrote

const CONTROL = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060\u2066-\u2069\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/u;
const PIECE = new RegExp(`(?<newline>\\r\\n|\\n|\\r)|(?<tab>\\t)|(?<space>[ \\u00a0\\u3000]+)|(?<control>${CONTROL.source})`, "gu");

/**
 * A text cut into what is shown as it is and what needs a sign to be seen. Characters that would
 * reorder or hide their surroundings (direction overrides, zero-width spaces, controls) come out as
 * their code point; joiners inside a word stay, since emoji and several scripts need them.
 * @param {string} text
 * @returns {Array<{kind: "text"|"space"|"newline"|"tab"|"control"|"empty", raw: string, shown: string}>}
 */
export function pieces(text) {
  if (text === "") return [{ kind: "empty", raw: "", shown: "∅" }];
  const found = [];
  let from = 0;
  const plain = (raw) => { if (raw) found.push({ kind: "text", raw, shown: raw }); };
  for (const match of text.matchAll(PIECE)) {
    plain(text.slice(from, match.index));
    const raw = match[0];
    const kind = Object.keys(match.groups).find((name) => match.groups[name] !== undefined);
    const shown = {
      newline: () => "↵",
      tab: () => "⇥",
      space: () => "␣".repeat(raw.length),
      control: () => `⟨${raw.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`,
    }[kind]();
    found.push({ kind, raw, shown });
    from = match.index + raw.length;
  }
  plain(text.slice(from));
  return found;
}

/** A token's text on one line, every blank visible; a lone combining mark sits on a dotted circle. */
export function visible(text) {
  const shown = pieces(text).map((piece) => piece.shown).join("");
  return /^[\p{M}\u200c\u200d]/u.test(shown) ? `◌${shown}` : shown;
}

/** At most `most` characters as a reader counts them, the cut marked. */
export function shorten(text, most) {
  if (text.length <= most) return text;
  const letters = graphemes(text);
  return letters.length <= most ? text : `${letters.slice(0, Math.max(1, most - 1)).join("")}…`;
}

const SEGMENTER = typeof Intl !== "undefined" && Intl.Segmenter
  ? new Intl.Segmenter(undefined, { granularity: "grapheme" }) : null; // slow to make, so made once

/** The characters a reader counts: a letter with its marks, an emoji with its parts. */
export function graphemes(text) {
  return SEGMENTER ? Array.from(SEGMENTER.segment(text), (part) => part.segment) : Array.from(text);
}

/** How a token is read aloud: blanks by name, otherwise as it is. */
export function spoken(text) {
  const names = { space: "space", newline: "line break", tab: "tab", empty: "empty" };
  const words = pieces(text).map((piece) => names[piece.kind] ?? piece.shown);
  return words.join(" ");
}

/**
 * A token for running text: a span whose blanks are real (the line breaks and wraps where the text
 * does) and carry a faint sign. Not isolated, so that right-to-left text keeps its own order.
 */
export function running(text, attributes = {}) {
  const given = attributes.class ?? "";
  if (PLAIN_WORD.test(text)) { // most tokens: one element, the sign of the blank in front is painted behind it
    const side = RIGHT_TO_LEFT.test(text) ? "right" : "left";
    return el("span", { ...attributes, class: `lk-token ${text[0] === " " ? `lk-lead-${side} ` : ""}${given}`.trim() }, text);
  }
  return el("span", { ...attributes, class: `lk-token ${given}`.trim() }, text === "" ? [] : pieces(text).map(runningPiece));
}
const PLAIN_WORD = new RegExp(`^ ?(?:(?![ \\u00a0\\u3000\\t\\n\\r])(?!${CONTROL.source}).)+$`, "su");
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;

function runningPiece(piece) {
  if (piece.kind === "text") return piece.raw;
  if (piece.kind === "newline") return el("span", { class: "lk-newline" }, el("span", { class: "lk-sign", "aria-hidden": "true" }, "↵"), "\n");
  if (piece.kind === "space") return Array.from(piece.raw, (blank) => el("span", { class: "lk-space" }, blank));
  if (piece.kind === "tab") return [el("span", { class: "lk-sign", "aria-hidden": "true" }, "⇥"), "\t"];
  return el("span", { class: "lk-control" }, piece.shown);
}

/**
 * Spans of running text in blocks, one a line that the text itself ends: a change then costs the
 * browser one block, not the whole text, and each block finds its own direction.
 */
export function paragraphs(spans, texts) {
  const blocks = [el("div", { class: "lk-paragraph" })];
  spans.forEach((span, index) => {
    if (index > 0 && /\n$/.test(texts[index - 1])) blocks.push(el("div", { class: "lk-paragraph" }));
    blocks.at(-1).append(span);
  });
  return blocks;
}

/** A token for a label: one line, blanks visible, cut off from the direction of its surroundings. */
export function label(text, attributes = {}, most = Infinity) {
  return el("bdi", { ...attributes, class: `lk-literal ${attributes.class ?? ""}`.trim() }, shorten(visible(text), most));
}

// ---------------------------------------------------------------------------------------------
// Numbers

/** A probability: 0.00 and 1.00 only where they are meant. */
export function probability(value) {
  if (value === null || value === undefined) return "–";
  if (value > 0 && value < 0.005) return value < 0.0005 ? "<0.001" : value.toFixed(3);
  if (value < 1 && value >= 0.995) return value > 0.9995 ? ">0.999" : value.toFixed(3);
  return value.toFixed(2);
}

/** A share as a whole percentage. */
export function percent(value) {
  return `${Math.round(100 * value)}%`;
}

/** A time in seconds with the unit that suits it and three figures. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds === 0) return "0 s";
  if (seconds < 0.0009995) return `${figures(1e6 * seconds)} µs`;
  if (seconds < 0.9995) return `${figures(1e3 * seconds)} ms`;
  return `${figures(seconds)} s`;
}

/** A number with `many` significant figures, without an exponent. */
export function figures(value, many = 3) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const exponent = Math.floor(Math.log10(Math.abs(Number(value.toPrecision(many)))) + 1e-12);
  return value.toFixed(clamp(many - 1 - exponent, 0, 8));
}

/** "1 step", "2 steps". */
export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

/** The value, kept within bounds. */
export function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

/** Scroll `holder` as far as `item` needs to be seen, with `room` to its right. */
export function reveal(item, holder, room = 0) {
  const box = item.getBoundingClientRect();
  const frame = holder.getBoundingClientRect();
  if (box.left < frame.left) holder.scrollLeft -= frame.left - box.left + 8;
  if (box.right + room > frame.right) holder.scrollLeft += box.right - frame.right + (room || 8);
  if (box.top < frame.top) holder.scrollTop -= frame.top - box.top + 8;
  if (box.bottom > frame.bottom) holder.scrollTop += box.bottom - frame.bottom + 8;
}

// ---------------------------------------------------------------------------------------------
// The surrounding page

/** Does the reader ask for less motion? */
export function reducedMotion() {
  return typeof matchMedia === "function" && matchMedia("(prefers-reduced-motion: reduce)").matches;
}

/** The relative luminance of a CSS `rgb(...)` colour, or null where it is see-through. */
export function luminance(css) {
  const numbers = (css.match(/[\d.]+/g) ?? []).map(Number);
  if (numbers.length < 3 || (numbers.length > 3 && numbers[3] < 0.5)) return null;
  const [r, g, b] = numbers.slice(0, 3).map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/**
 * "light" or "dark", as the surrounding page is: what JupyterLab, Notebook 7, VS Code, Colab or the
 * page itself declares, else the colour behind the widget, else what the reader's system asks for.
 */
export function pageTheme(node) {
  if (matchMedia("print").matches) return "light";
  for (const place of [document.body, document.documentElement]) {
    const jupyter = place.getAttribute("data-jp-theme-light");
    if (jupyter) return jupyter === "false" ? "dark" : "light";
    const declared = place.getAttribute("data-theme") ?? place.getAttribute("theme")
      ?? place.getAttribute("data-vscode-theme-kind") ?? "";
    if (/dark/i.test(declared)) return "dark";
    if (/light/i.test(declared)) return "light";
  }
  for (let place = node.parentElement; place; place = place.parentElement) {
    const bright = luminance(getComputedStyle(place).backgroundColor);
    if (bright !== null) return bright < 0.25 ? "dark" : "light";
  }
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

/** Keep `root`'s data-theme as the page's theme; `changed` is told after each change. */
function followTheme(root, changed, signal) {
  const look = () => {
    const theme = pageTheme(root);
    if (root.dataset.theme === theme) return;
    root.dataset.theme = theme;
    changed();
  };
  const watcher = new MutationObserver(look);
  for (const place of [document.documentElement, document.body]) {
    watcher.observe(place, { attributes: true, attributeFilter: ["class", "style", "theme", "data-theme", "data-jp-theme-light", "data-vscode-theme-kind"] });
  }
  for (const query of ["(prefers-color-scheme: dark)", "print"]) {
    matchMedia(query).addEventListener("change", look, { signal });
  }
  signal.addEventListener("abort", () => watcher.disconnect());
  look();
  requestAnimationFrame(look);
}

/** The value of a token of the stylesheet, for canvases: `token(root, "--lk-ink")`. */
export function token(root, name) {
  return getComputedStyle(root).getPropertyValue(name).trim();
}

/** Call `fitted(width)` now and whenever the node's width changes. */
export function onWidth(node, fitted, signal) {
  let last = -1;
  const look = () => {
    const width = Math.floor(node.clientWidth);
    if (width > 0 && width !== last) {
      last = width;
      fitted(width);
    }
  };
  const watcher = new ResizeObserver(() => look());
  watcher.observe(node);
  signal.addEventListener("abort", () => watcher.disconnect());
  look();
}

/** Size a canvas in CSS pixels for the screen's density; returns its context, scaled. */
export function sizeCanvas(canvas, width, height) {
  const density = globalThis.devicePixelRatio || 1;
  canvas.width = Math.round(width * density);
  canvas.height = Math.round(height * density);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(density, 0, 0, density, 0, 0);
  return context;
}

// ---------------------------------------------------------------------------------------------
// Keys and tips

/**
 * One tab stop for a set of items, arrow keys between them. `items()` lists them in order; `move`
 * may answer the index to go to for a key, or null to leave the key alone.
 * @returns {{focus: (index: number, really?: boolean) => void}}
 */
export function roving(container, items, { move = null, moved = () => {}, signal }) {
  const set = (index, really = true) => {
    const all = items();
    all.forEach((item, place) => item.setAttribute("tabindex", place === index ? "0" : "-1"));
    if (really && all[index]) {
      all[index].focus({ preventScroll: false });
      moved(index);
    }
  };
  container.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const all = items();
    const here = all.indexOf(event.target.closest?.("[tabindex]"));
    if (here < 0) return;
    const next = move ? move(event.key, here, all.length) : listMove(event.key, here, all.length);
    if (next === null || next === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    set(clamp(next, 0, all.length - 1));
  }, { signal });
  container.addEventListener("focusin", (event) => {
    const here = items().indexOf(event.target);
    if (here >= 0) set(here, false);
  }, { signal });
  set(0, false);
  return { focus: set };
}

/** Where a key leads in a list of `many` items from item `here`; null if the key means nothing. */
export function listMove(key, here, many) {
  switch (key) {
    case "ArrowRight": case "ArrowDown": return Math.min(here + 1, many - 1);
    case "ArrowLeft": case "ArrowUp": return Math.max(here - 1, 0);
    case "Home": return 0;
    case "End": return many - 1;
    default: return null;
  }
}

/** The note that floats next to what the pointer or the focus is on; Escape puts it away. */
export function makeTip(root, signal) {
  const tip = el("div", { class: "lk-tip", role: "tooltip", hidden: true, id: fresh("tip") });
  root.append(tip);
  const hide = () => { tip.hidden = true; };
  root.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); }, { signal });
  /** Show the content next to a rectangle in client coordinates. */
  function show(box, ...content) {
    tip.replaceChildren(...content);
    tip.hidden = false;
    const frame = root.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = tip;
    const left = clamp(box.left + box.width / 2 - width / 2 - frame.left, 4, Math.max(4, frame.width - width - 4));
    const below = box.bottom - frame.top + 8;
    const above = box.top - frame.top - height - 8;
    const top = above >= 0 ? above : below;
    tip.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
  }
  /** Show what `content()` gives while the node is pointed at or has the focus. */
  function attach(node, content) {
    const open = () => show(node.getBoundingClientRect(), ...[content()].flat());
    node.addEventListener("pointerenter", open, { signal });
    node.addEventListener("focus", open, { signal });
    node.addEventListener("pointerleave", hide, { signal });
    node.addEventListener("blur", hide, { signal });
  }
  return { node: tip, show, hide, attach };
}

/** A voice for screen readers: `say(words)` speaks when the reader is idle. */
export function makeVoice(root) {
  const region = el("div", { class: "lk-unseen", role: "status", "aria-live": "polite" });
  root.append(region);
  return (words) => { region.textContent = words; };
}

// ---------------------------------------------------------------------------------------------
// A widget in its place

/**
 * The root of a widget in its place: keys stay inside it, its theme is the page's.
 * @param {string} name
 * @param {HTMLElement} place
 * @param {() => void} themed called after each change of theme
 * @returns {{root: HTMLElement, signal: AbortSignal, leave: () => void}}
 */
export function frame(name, place, themed) {
  const whole = new AbortController();
  // A group, not a landmark: two of the same widget in one notebook are no trouble, and no heading:
  // the notebook's own outline stays as its author made it.
  const root = el("div", { class: `labkit lk-${name}`, role: "group", "aria-label": name });
  const stopKeys = (event) => { if (!event.defaultPrevented || event.key !== "Escape") event.stopPropagation(); };
  root.addEventListener("keydown", stopKeys); // the notebook's own shortcuts stay out of the widget
  root.setAttribute("data-lm-suppress-shortcuts", "true");
  place.append(root);
  followTheme(root, themed, whole.signal);
  return { root, signal: whole.signal, leave: () => { whole.abort(); root.remove(); } };
}

/** One sentence where the widget would be. */
export function problemPanel(name, sentence) {
  return el("div", { class: "lk-problem", role: "alert" },
    el("strong", {}, `${name} has nothing to show.`), " ", el("span", {}, sentence));
}

/** What is wrong with the records that reached the page, in one sentence, or null. */
export function recordProblem(records, { kind, version, most }) {
  if (!Array.isArray(records) || records.length === 0) return `It needs a record of kind “${kind}”.`;
  if (most && records.length > most) return `It shows at most ${count(most, "record")}, this is ${records.length}.`;
  for (const record of records) {
    if (record === null || typeof record !== "object" || Array.isArray(record)) return `It needs a record of kind “${kind}”, this is no record.`;
    if (record.kind !== kind) return `It needs a record of kind “${kind}”, this one is of kind “${String(record.kind ?? "unknown")}”.`;
    if (record.version !== version) return `It reads version ${version} of “${kind}” records, this one is version ${String(record.version ?? "unknown")}: make it again with this labkit.`;
  }
  return null;
}

/**
 * The anywidget module of a widget that shows records.
 *
 * `draw(place)` builds the view. `place` holds `root` (draw into it), `records` (parsed), `model`,
 * `signal` (aborted when the view goes or is drawn anew: pass it to every listener), `tip`, `say`,
 * `listen(trait, changed)`, `get(trait)`, `put(trait, value)`. It may return `{update(records),
 * theme()}`: called with new records (else the view is drawn anew), and after a change of theme.
 *
 * @param {{name: string, kind: string, version: number, most?: number, draw: Function}} widget
 */
export function recordWidget(widget) {
  return {
    render({ model, el: place }) {
      let session = null;
      const { root, leave } = frame(widget.name, place, () => session?.view?.theme?.());

      const refuse = (sentence) => {
        session?.stop.abort();
        session = null;
        root.replaceChildren(problemPanel(widget.name, sentence));
      };

      const look = () => {
        const told = model.get("problem");
        if (told) return refuse(told);
        let records;
        try {
          records = JSON.parse(model.get("records_json"));
        } catch {
          return refuse("The record's text is damaged: it is no JSON.");
        }
        const wrong = recordProblem(records, widget);
        if (wrong) return refuse(wrong);
        try {
          if (session?.view?.update) session.view.update(records);
          else start(records);
        } catch (error) {
          refuse(`The record is damaged: ${error.message}.`);
          console.warn(`labkit ${widget.name}:`, error);
        }
        return undefined;
      };

      function start(records) {
        session?.stop.abort();
        root.replaceChildren();
        const stop = new AbortController();
        const { signal } = stop;
        session = { stop, view: null };
        const listen = (trait, changed) => {
          model.on(`change:${trait}`, changed);
          signal.addEventListener("abort", () => model.off(`change:${trait}`, changed));
        };
        const put = (trait, value) => {
          if (model.get(trait) === value) return;
          model.set(trait, value);
          model.save_changes();
        };
        const tip = makeTip(root, signal);
        const say = makeVoice(root);
        session.view = widget.draw({ root, records, model, signal, tip, say, listen, put, get: (trait) => model.get(trait) }) ?? null;
      }

      model.on("change:records_json", look);
      model.on("change:problem", look);
      look();
      return () => {
        session?.stop.abort();
        model.off("change:records_json", look);
        model.off("change:problem", look);
        leave();
      };
    },
  };
}
