// One cell of the matrix: its two texts side by side, what they share, and the loss that it makes.

import { el, figures, graphemes, percent, running } from "../shared/prelude.js";
import {
  UTILITIES, characters, keptUnits, locate, longestMatches, marked, pairCounts, tokenize13a,
} from "./utilities.js";

const OTHERWISE = 4; // the longest n-gram looked at where the utility itself counts none

/** Does a utility count characters? */
const byCharacter = (utility) => utility === "chrf" || utility === "chrf++";

/** The longest n-gram that a utility looks at. */
const longest = (utility) => UTILITIES[utility]?.parts?.[0][1] ?? OTHERWISE;

/**
 * Two texts, each under its title and over its facts, with what they share marked in both.
 * @param {string} utility whose units are marked
 * @param {Array<{title: string, text: string, facts: string}>} sides hypothesis, then evidence
 */
export function sideBySide(utility, sides) {
  const cut = byCharacter(utility) ? characters : tokenize13a;
  const units = sides.map(({ text }) => cut(text));
  const mark = utility === "edit" ? keptUnits : longestMatches;
  const marks = mark(...units, longest(utility));
  return el("div", { class: "lk-rm-texts" }, sides.map(({ title, text, facts }, side) => (
    el("div", { class: "lk-rm-text" },
      el("p", { class: "lk-subtitle" }, title),
      el("p", { class: "lk-running", dir: "auto" }, markedText(text, units[side], marks[side])),
      el("p", { class: "lk-rm-small" }, facts)))));
}

function markedText(text, units, marks) {
  if (text === "") return el("em", { class: "lk-rm-small" }, "(empty)");
  return marked(text, locate(text, units), marks, graphemes(text)).map(({ text: part, mark }) => (
    running(part, mark ? { class: `lk-rm-mark lk-rm-mark${mark}` } : {})));
}

/** What the marks mean. */
export function marksLegend(utility) {
  const most = longest(utility);
  const line = (...words) => el("p", { class: "lk-rm-small" }, words);
  if (utility === "edit") {
    return line("Marked: words that stay in the cheapest edit of one into the other.");
  }
  if (most === 1) return line("Marked: words that both have.");
  return line(`Longest match around it, in ${byCharacter(utility) ? "characters" : "words"}: `,
    Array.from({ length: most }, (_, n) => (
      el("span", { class: `lk-rm-mark lk-rm-mark${n + 1}` }, ` ${n + 1} `))));
}

/** The clipped matches by order, from which the loss is made; null where none are counted. */
export function countsTable(utility, hypothesis, evidence) {
  if (!UTILITIES[utility]?.parts) return null;
  const { matches, made, wanted } = pairCounts(utility, hypothesis, evidence);
  const head = ["n-gram", "in common", "of hypothesis", "of evidence"];
  const rows = Array.from(matches, (match, n) => el("tr", {},
    el("th", { scope: "row" }, orderName(utility, n)), el("td", {}, String(match)),
    el("td", {}, share(match, made[n])), el("td", {}, share(match, wanted[n]))));
  return el("table", { class: "lk-rm-counts" },
    el("caption", { class: "lk-unseen" }, "n-grams in common"),
    el("thead", {}, el("tr", {}, head.map((words) => el("th", { scope: "col" }, words)))),
    el("tbody", {}, rows));
}

/** The name of a utility's n-th order, from 0: characters first, then words. */
function orderName(utility, n) {
  if (!byCharacter(utility)) return `${n + 1} word`;
  return n < longest(utility) ? `${n + 1} char.` : `${n - longest(utility) + 1} word`;
}

const share = (part, whole) => (whole ? `${whole} · ${percent(part / whole)}` : "0 · –");

/** The loss of the cell and what it adds to the risk. */
export function lossLine(loss, weight, colour) {
  return el("div", { class: "lk-rm-loss" },
    el("span", { class: "lk-rm-swatch", style: `background: ${colour}` }),
    el("strong", {}, loss.toFixed(4)),
    el("span", {}, ` loss × ${figures(weight)} weight = ${figures(loss * weight)} of the risk`));
}
