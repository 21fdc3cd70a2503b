import assert from "node:assert/strict";
import test from "node:test";

import {
  hasOwnToken, layoutTree, nextRejection, outlookFor, stateOf, stripLayout, telling, tellNode, tellStep, treeMove,
} from "../../labkit/widgets/token_stepper/widget.js";

const node = (depth, parent, state, extra = {}) => ({
  id: 1, text: ` d${depth}`, parent, depth, source: `head ${depth}`, p: 0.3, q: 0.6, draw: null, threshold: null,
  tested: state !== "untested", accepted: state === "accepted", ...extra,
});
const words = (...texts) => texts.map((text) => ({ id: 9, text }));
const chain = { nodes: [node(1, -1, "accepted"), node(2, 0, "rejected"), node(3, 1, "untested")], committed: words(" d1", " r"), ending: "replacement", outlooks: [] };
const whole = { nodes: [node(1, -1, "accepted"), node(2, 0, "accepted")], committed: words(" d1", " d2", " b"), ending: "bonus", outlooks: [] };
const tree = {
  nodes: [node(1, -1, "rejected"), node(1, -1, "accepted"), node(2, 0, "untested"), node(2, 1, "rejected"), node(2, 1, "rejected")],
  committed: words(" d1", " r"), ending: "replacement", outlooks: [{ after: -1, base: [], drafter: [] }, { after: 1, base: [1], drafter: [] }],
};
const plain = { nodes: [], committed: words(" w"), ending: "plain", outlooks: [] };
const cut = { nodes: [node(1, -1, "accepted"), node(2, 0, "accepted")], committed: words(" d1"), ending: "cut", outlooks: [] };

test("the telling node is the rejection, else the last accepted, else the base model's own", () => {
  assert.deepEqual([chain, whole, tree, plain, cut].map(telling), [1, 1, 3, 0, 1]);
});

test("a step cut off at the end has no token of the base model's own", () => {
  assert.deepEqual([chain, whole, plain, cut].map(hasOwnToken), [true, true, true, false]);
});

test("the next rejection is searched forward, by any head or by one", () => {
  const steps = [whole, chain, { ...chain, nodes: [node(1, -1, "rejected")], committed: words(" r") }, whole];
  assert.equal(nextRejection(steps, 0), 1);
  assert.equal(nextRejection(steps, 1), 2);
  assert.equal(nextRejection(steps, 0, 1), 2);
  assert.equal(nextRejection(steps, 2), -1);
  assert.equal(nextRejection(steps, 0, 3), -1);
});

test("every node has a place of its own, right of its parent", () => {
  for (const step of [chain, whole, tree, plain, cut]) {
    const { places, rows, columns } = layoutTree(step);
    assert.equal(places.length, step.nodes.length + (hasOwnToken(step) ? 1 : 0));
    assert.equal(new Set(places.map(({ column, row }) => `${column} ${row}`)).size, places.length);
    for (const { parent, column, row } of places) {
      assert.equal(column, parent === -1 ? 1 : places.find((place) => place.index === parent).column + 1);
      assert.ok(row < rows && column <= columns);
    }
  }
});

test("the committed path runs straight on into the base model's own token", () => {
  const { places, rootRow } = layoutTree(chain);
  const at = (index) => places.find((place) => place.index === index);
  assert.equal(at(0).row, rootRow);
  assert.equal(at(3).row, at(0).row);
  assert.equal(at(3).parent, 0);
  assert.ok(at(1).row > at(3).row);
});

test("siblings keep the order in which they were drafted", () => {
  const { places } = layoutTree(tree);
  const rows = [0, 1].map((index) => places.find((place) => place.index === index).row);
  assert.ok(rows[0] < rows[1]);
});

test("arrows walk the tree: right to the first child, left to the parent, up and down in a column", () => {
  const layout = layoutTree(tree);
  const own = tree.nodes.length;
  assert.equal(treeMove(layout, -1, "ArrowRight"), 0);
  assert.equal(treeMove(layout, 0, "ArrowDown"), 1);
  assert.equal(treeMove(layout, 1, "ArrowUp"), 0);
  assert.equal(treeMove(layout, 0, "ArrowUp"), null);
  assert.equal(treeMove(layout, own, "ArrowLeft"), 1);
  assert.equal(treeMove(layout, 4, "ArrowRight"), null);
  assert.equal(treeMove(layout, 4, "Home"), -1);
  assert.equal(treeMove(layout, -1, "ArrowLeft"), null);
  assert.equal(treeMove(layout, -1, "End"), own);
});

test("arrows reach every node from the root", () => {
  for (const step of [chain, whole, tree]) {
    const layout = layoutTree(step);
    const seen = new Set([-1]);
    const queue = [-1];
    while (queue.length) {
      const here = queue.pop();
      for (const key of ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"]) {
        const next = treeMove(layout, here, key);
        if (next !== null && !seen.has(next)) {
          seen.add(next);
          queue.push(next);
        }
      }
    }
    assert.equal(seen.size, layout.places.length + 1);
  }
});

test("the strip breaks into lines rather than draw a mark too thin", () => {
  assert.deepEqual(stripLayout(10, 200), { perLine: 10, lines: 1, cell: 20 });
  assert.deepEqual(stripLayout(500, 400), { perLine: 100, lines: 5, cell: 4 });
  assert.equal(stripLayout(3, 1000).cell, 40);
  for (const [steps, width] of [[1, 10], [7, 20], [499, 333], [500, 1130]]) {
    const { perLine, lines, cell } = stripLayout(steps, width);
    assert.ok(perLine * lines >= steps && perLine * (lines - 1) < steps);
    assert.ok(cell * perLine <= width + 1e-9);
  }
});

test("states are told apart", () => {
  assert.deepEqual(chain.nodes.map(stateOf), ["accepted", "rejected", "untested"]);
});

test("a step is told in one sentence", () => {
  assert.equal(tellStep(chain), "3 tokens drafted, 1 was accepted; the base model replaced the next with “␣r”.");
  assert.equal(tellStep(whole), "2 tokens drafted, all were accepted; “␣b” came as a bonus.");
  assert.equal(tellStep(tree), "5 tokens drafted as a tree 2 deep, 1 was accepted; the base model replaced the next with “␣r”.");
  assert.equal(tellStep(plain), "Nothing was drafted; the base model chose “␣w”.");
  assert.equal(tellStep(cut), "2 tokens drafted, all were accepted; the generation ended here.");
  const lone = { ...whole, nodes: [node(1, -1, "accepted")], committed: words(" d1", " b") };
  assert.equal(tellStep(lone), "1 token drafted, it was accepted; “␣b” came as a bonus.");
  const deep = { ...whole, nodes: [...whole.nodes, node(1, -1, "untested")] };
  assert.equal(tellStep(deep), "3 tokens drafted as a tree 2 deep, a whole path was accepted; “␣b” came as a bonus.");
});

test("a node's fate is told with its numbers", () => {
  const drawn = { ...chain, nodes: [node(1, -1, "accepted", { draw: 0.2, threshold: 0.5 }), node(2, 0, "rejected", { draw: 0.8, threshold: 0.5 }), node(3, 1, "untested")] };
  assert.equal(tellNode(drawn, 0, false), "Accepted: drawn 0.20, accepted below min(1, p/q) = 0.50.");
  assert.equal(tellNode(drawn, 1, false), "Rejected: drawn 0.80, accepted below min(1, p/q) = 0.50.");
  assert.match(tellNode(drawn, 2, false), /the token before it was rejected/);
  assert.match(tellNode(chain, 0, true), /most probable token here\.$/);
  assert.match(tellNode(tree, 2, true), /before it was rejected/);
  assert.match(tellNode(chain, 3, true), /in place of the rejected draft/);
  assert.match(tellNode(whole, 2, true), /bonus/);
  assert.match(tellNode(chain, -1, true), /last committed/);
});

test("a node is shown what both models thought of the place where it stood", () => {
  assert.equal(outlookFor(tree, 0).after, -1);
  assert.equal(outlookFor(tree, 3).after, 1);
  assert.equal(outlookFor(tree, tree.nodes.length).after, 1);
  assert.equal(outlookFor(tree, -1).after, -1);
  assert.equal(outlookFor(tree, 2), null);
});
