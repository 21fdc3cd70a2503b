import assert from "node:assert/strict";
import test from "node:test";

import {
  attentionMask, bestAddition, bestTrees, byGain, draftCost, fastest, gain, labMove, layoutPaths, leadsTo, mostNodes, nameOf, nextChild, ordered,
  ranked, speedup, stepCost, tickSizes, tokensPerStep, verifyCost, weakestLeaf, without,
} from "../../labkit/widgets/tree_lab/widget.js";

const study = {
  accept: [[0.6, 0.2, 0.1], [0.5, 0.1], [0.4]],
  verify: [{ nodes: 0, ratio: 1 }, { nodes: 4, ratio: 1.2 }, { nodes: 12, ratio: 2 }],
  draft_head: [0.1, 0.05, 0.05], draft_node: 0.01, token_s: 0.02,
};
const close = (a, b) => assert.ok(Math.abs(a - b) < 1e-12, `${a} is not ${b}`);

test("paths are named and ordered by depth, then rank", () => {
  assert.equal(nameOf([0, 1]), "1·2");
  assert.equal(nameOf([]), "");
  assert.deepEqual(ordered([[1], [0, 1], [0], [0, 0]]), [[0], [1], [0, 0], [0, 1]]);
  assert.deepEqual(ranked([0.1, 0.4, 0.1]), [1, 0, 2]);
});

test("tokens per step are one plus every node's path", () => {
  close(gain(study, [0, 0, 0]), 0.6 * 0.5 * 0.4);
  close(tokensPerStep(study, []), 1);
  close(tokensPerStep(study, [[0], [1], [0, 0]]), 1 + 0.6 + 0.2 + 0.3);
});

test("costs are read off the measured line, drafting added", () => {
  assert.deepEqual([0, 4, 12].map((nodes) => verifyCost(study, nodes)), [1, 1.2, 2]);
  close(verifyCost(study, 2), 1.1);
  close(verifyCost(study, 8), 1.6);
  assert.ok(Number.isNaN(verifyCost(study, 13)));
  close(draftCost(study, [[0], [0, 0]]), 0.15 + 0.02);
  close(stepCost(study, [[0]]), 1.05 + 0.11);
  close(speedup(study, [[0]]), 1.6 / 1.16);
});

test("nodes come by falling gain, parents before children, none twice", () => {
  const nodes = byGain(study, 3, 99);
  assert.equal(nodes.length, 3 + 6 + 6);
  const gains = nodes.map((path) => gain(study, path));
  assert.deepEqual(gains, [...gains].sort((a, b) => b - a));
  nodes.forEach((path, index) => {
    if (path.length > 1) assert.ok(nodes.slice(0, index).some((other) => nameOf(other) === nameOf(path.slice(0, -1))));
  });
  assert.equal(new Set(nodes.map(nameOf)).size, nodes.length);
  assert.ok(byGain(study, 1, 99).every((path) => path.length === 1));
});

test("no tree of a size is faster than the best one of that size", () => {
  const all = byGain(study, 3, 99);
  const trees = bestTrees(study);
  assert.equal(trees.length, mostNodes(study) + 1);
  const grow = (tree, from) => {
    if (tree.length) assert.ok(speedup(study, tree) <= speedup(study, trees[tree.length]) + 1e-9);
    if (tree.length === 5) return;
    for (let index = from; index < all.length; index += 1) {
      const path = all[index];
      if (path.length === 1 || tree.some((other) => nameOf(other) === nameOf(path.slice(0, -1)))) grow([...tree, path], index + 1);
    }
  };
  grow([], 0);
  const top = fastest(study, trees);
  assert.ok(trees.every((tree) => speedup(study, tree) <= speedup(study, trees[top]) + 1e-12));
});

test("the next child is the best one not yet there, and there is an end", () => {
  assert.deepEqual(nextChild(study, [], []), [0]);
  assert.deepEqual(nextChild(study, [[0], [1]], []), [2]);
  assert.equal(nextChild(study, [[0], [1], [2]], []), null);
  assert.equal(nextChild(study, [[0], [0, 0], [0, 0, 0]], [0, 0, 0]), null);
});

test("the best addition gains the most, the weakest leaf the least", () => {
  assert.deepEqual(bestAddition(study, [[0]]), [0, 0]);
  assert.deepEqual(weakestLeaf(study, [[0], [1], [0, 0]]), [1]);
  assert.equal(weakestLeaf(study, []), null);
  const full = byGain(study, 3, 12);
  assert.equal(bestAddition(study, full), null);
});

test("taking a node away takes all below it", () => {
  assert.deepEqual(without([[0], [1], [0, 0], [0, 0, 0]], [0]), [[1]]);
  assert.ok(leadsTo([], [0]) && leadsTo([0], [0, 1]) && !leadsTo([0, 1], [0]) && !leadsTo([1], [0, 1]));
});

test("a node sees the last committed token, its own path and itself, nothing else", () => {
  assert.deepEqual(attentionMask([[0], [1], [0, 0]]), [
    [true, false, false, false],
    [true, true, false, false],
    [true, false, true, false],
    [true, true, false, true],
  ]);
});

test("every node of a drawn tree has a place of its own beside its first child", () => {
  const tree = bestTrees(study)[10];
  const { places, rows } = layoutPaths(tree);
  assert.equal(places.size, tree.length + 1);
  assert.equal(new Set([...places.values()].map(({ column, row }) => `${column} ${row}`)).size, tree.length + 1);
  for (const { row } of places.values()) assert.ok(row < rows);
  assert.equal(places.get("").row, places.get("1").row);
});

test("arrows reach every node from the root", () => {
  const tree = bestTrees(study)[10];
  const seen = new Set([-1]);
  const queue = [-1];
  while (queue.length) {
    const here = queue.pop();
    for (const key of ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"]) {
      const next = labMove(tree, here, key);
      if (next !== null && !seen.has(next)) { seen.add(next); queue.push(next); }
    }
  }
  assert.equal(seen.size, tree.length + 1);
  assert.equal(labMove(tree, 3, "Home"), -1);
  assert.equal(labMove([], -1, "End"), null);
  assert.equal(labMove(tree, 0, "x"), null);
});

test("ticks are few and round", () => {
  assert.deepEqual(tickSizes(12), [0, 2, 4, 6, 8, 10, 12]);
  assert.deepEqual(tickSizes(64), [0, 16, 32, 48, 64]);
  assert.ok(tickSizes(3000).length <= 7);
});
