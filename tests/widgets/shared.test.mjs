import assert from "node:assert/strict";
import test from "node:test";

import {
  clamp, count, duration, figures, graphemes, listMove, luminance, percent, pieces, probability, recordProblem, shorten, spoken, visible,
} from "../../labkit/widgets/shared/prelude.js";
import { PageModel } from "../../labkit/widgets/shared/model.js";
import { acceptedPath, countUpTo, endTimes, headColor, headsOf, originOfTokens, rejectedAt, tokensAfter } from "../../labkit/widgets/shared/trace.js";

test("blanks become visible, words stay as they are", () => {
  assert.equal(visible(" the"), "␣the");
  assert.equal(visible("\n\n  x\t"), "↵↵␣␣x⇥");
  assert.equal(visible("a\u00a0b\u3000"), "a␣b␣");
  assert.equal(visible("\r\n"), "↵");
  assert.equal(visible(""), "∅");
});

test("nothing of a text is lost when it is cut into pieces", () => {
  for (const text of [" a\n\tb  c\u202e\u200b", "<b>\r\n</b>", "👩🏽‍🚀 e\u0301"]) {
    assert.equal(pieces(text).map((piece) => piece.raw).join(""), text);
  }
});

test("characters that reorder or hide their surroundings are shown as code points", () => {
  assert.equal(visible("\u202egnp.exe"), "⟨202E⟩gnp.exe");
  assert.equal(visible("\u200b\u0007\ufeff"), "⟨200B⟩⟨0007⟩⟨FEFF⟩");
  assert.equal(visible("\u{e0041}"), "⟨E0041⟩");
});

test("joiners inside a word stay, since scripts and emoji need them", () => {
  assert.equal(visible("👩🏽‍🚀"), "👩🏽‍🚀");
  assert.equal(visible("می‌خواهم"), "می‌خواهم");
});

test("a lone combining mark sits on a dotted circle", () => {
  assert.equal(visible("\u0301"), "◌\u0301");
  assert.equal(visible("e\u0301"), "e\u0301");
  assert.equal(visible("\u200d"), "◌\u200d");
});

test("shortening counts letters as a reader does and never cuts one", () => {
  assert.equal(shorten("abcdef", 4), "abc…");
  assert.equal(shorten("abcd", 4), "abcd");
  assert.equal(shorten("👩🏽‍🚀👩🏽‍🚀👩🏽‍🚀", 3), "👩🏽‍🚀👩🏽‍🚀👩🏽‍🚀");
  assert.equal(shorten("👩🏽‍🚀👩🏽‍🚀👩🏽‍🚀", 2), "👩🏽‍🚀…");
  assert.deepEqual(graphemes("e\u0301x"), ["e\u0301", "x"]);
});

test("blanks are spoken by name", () => {
  assert.equal(spoken(" the"), "space the");
  assert.equal(spoken("\n"), "line break");
});

test("a probability is 0.00 or 1.00 only where it is", () => {
  assert.deepEqual([0, 0.0001, 0.004, 0.5, 0.996, 0.99999, 1, null].map(probability), ["0.00", "<0.001", "0.004", "0.50", "0.996", ">0.999", "1.00", "–"]);
});

test("times carry the unit that suits them", () => {
  assert.deepEqual([0, 5e-7, 0.0000123, 0.00123, 0.0123, 0.9999, 1.234, 83].map(duration), ["0 s", "0.500 µs", "12.3 µs", "1.23 ms", "12.3 ms", "1.00 s", "1.23 s", "83.0 s"]);
  assert.equal(duration(NaN), "–");
});

test("figures keep significance without exponents", () => {
  assert.deepEqual([0, 1234.5, 12.345, 0.012345, -9.999].map((value) => figures(value)), ["0", "1235", "12.3", "0.0123", "-10.0"]);
  assert.equal(percent(0.345), "35%");
  assert.equal(count(1, "step"), "1 step");
  assert.equal(count(0, "step"), "0 steps");
  assert.equal(clamp(5, 0, 3), 3);
});

test("keys move within a list and stop at its ends", () => {
  assert.deepEqual([listMove("ArrowRight", 2, 3), listMove("ArrowLeft", 0, 3), listMove("Home", 2, 3), listMove("End", 0, 3), listMove("x", 0, 3)], [2, 0, 0, 2, null]);
});

test("luminance tells dark from light and sees through what is see-through", () => {
  assert.equal(luminance("rgb(255, 255, 255)"), 1);
  assert.equal(luminance("rgb(0, 0, 0)"), 0);
  assert.equal(luminance("rgba(0, 0, 0, 0)"), null);
});

test("what is no record of the kind is named in one sentence", () => {
  const wanted = { kind: "trace", version: 1, most: 1 };
  const good = { kind: "trace", version: 1 };
  assert.equal(recordProblem([good], wanted), null);
  for (const [records, words] of [
    [[], "needs a record"], [{}, "needs a record"], [[good, good], "at most 1 record"], [[null], "no record"], [[3], "no record"], [[[]], "no record"],
    [[{ kind: "losslog", version: 1 }], "“losslog”"], [[{}], "“unknown”"], [[{ kind: "trace", version: 2 }], "version 2"],
  ]) assert.ok(recordProblem(records, wanted).includes(words), JSON.stringify(records));
});

test("a page's model tells its listeners of each change once", () => {
  const model = new PageModel({ step: 0 });
  let heard = 0;
  const listener = () => { heard += 1; };
  model.on("change:step", listener);
  model.set("step", 0);
  model.set("step", 1);
  assert.equal(heard, 1);
  model.off("change:step", listener);
  model.set("step", 2);
  assert.equal(heard, 1);
  assert.equal(model.get("step"), 2);
});

const node = (depth, parent, state, extra = {}) => ({
  id: depth, text: ` d${depth}`, parent, depth, source: `head ${depth}`, p: null, q: null, draw: null, threshold: null,
  tested: state !== "untested", accepted: state === "accepted", ...extra,
});
const word = (text) => ({ id: 9, text });
const trace = {
  kind: "trace", version: 1, method: "mlp", base: "tiny", prompt: "Go", temperature: 0, first: word("A"), text: "", prefill_s: 0.1, ties: 0,
  steps: [
    { nodes: [node(1, -1, "accepted"), node(2, 0, "rejected"), node(3, 1, "untested")], committed: [word(" d1"), word(" r")], ending: "replacement", outlooks: [], draft_s: 0.01, check_s: 0.02, rest_s: 0 },
    { nodes: [node(1, -1, "accepted"), node(2, 0, "accepted")], committed: [word(" d1"), word(" d2"), word(" b")], ending: "bonus", outlooks: [], draft_s: 0.01, check_s: 0.02, rest_s: 0.01 },
    { nodes: [node(1, -1, "accepted"), node(2, 0, "accepted")], committed: [word(" d1")], ending: "cut", outlooks: [], draft_s: 0, check_s: 0.02, rest_s: 0 },
  ],
};

test("every token knows the head that drafted it", () => {
  assert.deepEqual(originOfTokens(trace).map(({ step, depth, node: at }) => [step, depth, at]),
    [[-1, 0, null], [0, 1, 0], [0, 0, null], [1, 1, 0], [1, 2, 1], [1, 0, null], [2, 1, 0]]);
  assert.deepEqual(tokensAfter(trace), [1, 3, 6, 7]);
});

test("the path, the rejection and the times of a step are read off its nodes", () => {
  assert.deepEqual(acceptedPath(trace.steps[1]), [0, 1]);
  assert.deepEqual(trace.steps.map(rejectedAt), [2, 0, 0]);
  assert.deepEqual(endTimes(trace).map((seconds) => Number(seconds.toFixed(6))), [0.1, 0.13, 0.17, 0.19]);
});

test("a tree whose second child was accepted has no rejection there", () => {
  const step = { nodes: [node(1, -1, "rejected"), node(1, -1, "accepted")], committed: [word("x"), word("y")], ending: "bonus" };
  assert.equal(rejectedAt(step), 0);
});

test("a head counts once a step however many of its drafts were tested", () => {
  const twice = { ...trace, steps: [{ ...trace.steps[0], nodes: [node(1, -1, "rejected"), node(1, -1, "accepted")] }] };
  assert.deepEqual(headsOf(twice), [{ depth: 1, name: "head 1", reached: 1, passed: 1 }]);
  assert.deepEqual(headsOf(trace).map(({ reached, passed }) => [reached, passed]), [[3, 3], [3, 2], [0, 0]]);
});

test("a drafter without named heads is told by place", () => {
  const lookup = { ...trace, steps: trace.steps.map((step) => ({ ...step, nodes: step.nodes.map((each) => ({ ...each, source: "prompt lookup" })) })) };
  assert.deepEqual(headsOf(lookup).map((head) => head.name), ["draft 1", "draft 2", "draft 3"]);
});

test("counting in a rising list includes the value itself", () => {
  assert.deepEqual([-1, 0, 1, 1.5, 3, 9].map((value) => countUpTo([0, 1, 3], value)), [0, 1, 2, 2, 3, 3]);
  assert.equal(countUpTo([], 1), 0);
});

test("heads beyond the eighth start the colours again, the base model has its own", () => {
  assert.deepEqual([0, 1, 8, 9].map(headColor), ["--lk-base", "--lk-c1", "--lk-c8", "--lk-c1"]);
});
