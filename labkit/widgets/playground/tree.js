// A tree of ranks built by hand: which of a head's guesses are drafted after which.
import { button, clamp, count, el, svg } from "../shared/prelude.js";
import { headColor } from "../shared/trace.js";
import { labMove, layoutPaths, leadsTo, nameOf, ordered, without } from "../tree_lab/widget.js";

const MOST = 16; // nodes
const RANKS = 6; // of a head's guesses
const [WIDE, TALL, GAP, ROOT_WIDE] = [44, 26, 40, 44];

/** The best rank that is not drafted yet after a node, as a path; null if there is none. */
export function nextPath(tree, above, deepest) {
  if (above.length >= deepest || tree.length >= MOST) return null;
  const taken = new Set(tree.filter((path) => path.length === above.length + 1 && leadsTo(above, path)).map((path) => path.at(-1)));
  for (let rank = 0; rank < RANKS; rank += 1) if (!taken.has(rank)) return [...above, rank];
  return null;
}

/** The tree with a branch moved under another node; unchanged where it has no room there. */
export function moved(tree, branch, above, deepest) {
  if (leadsTo(branch, above)) return tree;
  const rest = without(tree, branch);
  const target = nextPath(rest, above, deepest);
  if (!target) return tree;
  const carried = tree.filter((path) => leadsTo(branch, path)).map((path) => [...target, ...path.slice(branch.length)]);
  return carried.every((path) => path.length <= deepest) ? ordered([...rest, ...carried]) : tree;
}

/**
 * The editor: click a plus or press Enter to add a child, Delete to remove, drag a node onto another
 * to move its branch, arrow keys to walk.
 * @param {{signal: AbortSignal, say: Function, changed: (tree: number[][]) => void}} place
 */
export function makeTreeEditor({ signal, say, changed }) {
  const picture = svg("svg", { class: "pg-tree", role: "tree", "aria-label": "Shape of the draft tree" });
  let tree = [];
  let deepest = 3;
  let selected = -1;
  const pathOf = (index) => (index < 0 ? [] : tree[index]);
  const add = button("Add a child", { icon: "plus", key: "Enter", click: () => grow(selected) });
  const cut = button("Remove", { icon: "cross", key: "Delete", click: () => drop(selected) });
  const node = el("div", { class: "pg-editor" },
    el("div", { class: "pg-scroll" }, picture),
    el("div", { class: "lk-bar" }, add, cut, el("span", { class: "pg-hint" }, "Rank 1 is a head’s best guess. Drag a node onto another to move its branch.")));

  function put(next, path, words) {
    tree = ordered(next);
    selected = tree.findIndex((each) => nameOf(each) === nameOf(path));
    draw();
    changed(tree);
    say(`${words} ${count(tree.length, "node")}.`);
  }
  function grow(index) {
    const path = nextPath(tree, pathOf(index), deepest);
    if (path) put([...tree, path], path, `Added rank ${path.at(-1) + 1} of head ${path.length}.`);
    else say("There is no room for another child here.");
  }
  function drop(index) {
    if (index < 0 || tree.length < 2) return;
    const path = tree[index];
    const left = without(tree, path);
    if (left.length) put(left, path.slice(0, -1), "Removed.");
  }

  function draw() {
    const { places, rows } = layoutPaths(tree);
    const columns = Math.max(1, ...tree.map((path) => path.length));
    const x = (column) => (column ? ROOT_WIDE + GAP + (column - 1) * (WIDE + GAP) : 2);
    const y = (row) => 4 + row * (TALL + 8);
    const width = x(columns) + WIDE + 34;
    const height = y(Math.max(1, rows)) + 2;
    for (const [name, value] of [["viewBox", `0 0 ${width} ${height}`], ["width", width], ["height", height]]) picture.setAttribute(name, value);
    const [edges, items, handles] = [[], [], []];
    [-1, ...tree.map((_, index) => index)].forEach((index) => {
      const path = pathOf(index);
      const { column, row } = places.get(nameOf(path));
      const wide = index < 0 ? ROOT_WIDE : WIDE;
      if (index >= 0) {
        const above = places.get(nameOf(path.slice(0, -1)));
        const [x0, x1, y0, y1] = [x(above.column) + (above.column ? WIDE : ROOT_WIDE), x(column), y(above.row) + TALL / 2, y(row) + TALL / 2];
        edges.push(svg("path", { class: "pg-edge", style: `--c: var(${headColor(column)})`, d: `M${x0} ${y0}C${(x0 + x1) / 2} ${y0} ${(x0 + x1) / 2} ${y1} ${x1} ${y1}` }));
      }
      items.push(svg("g", {
        class: "pg-node", role: "treeitem", "data-index": index, tabindex: index === selected ? 0 : -1, transform: `translate(${x(column)} ${y(row)})`,
        "aria-selected": String(index === selected), "aria-level": column + 1, style: `--c: var(${headColor(column)})`,
        "aria-label": index < 0 ? "The text so far" : `Head ${column}, rank ${path.at(-1) + 1}`,
      }, svg("rect", { width: wide, height: TALL, rx: 7 }), svg("text", { x: wide / 2, y: 17, "text-anchor": "middle" }, index < 0 ? "text" : `${path.at(-1) + 1}`)));
      if (nextPath(tree, path, deepest)) {
        handles.push(svg("g", { class: "pg-handle", "data-add": index, "aria-hidden": "true", transform: `translate(${x(column) + wide + 12} ${y(row) + TALL / 2})` },
          svg("circle", { r: 11, class: "pg-reach" }), svg("circle", { r: 7, class: "pg-ring" }), svg("path", { d: "M-3 0H3M0 -3V3" })));
      }
    });
    const had = picture.contains(document.activeElement);
    picture.replaceChildren(...edges, ...items, ...handles);
    if (had) picture.querySelector("[tabindex='0']")?.focus({ preventScroll: true });
    add.disabled = !nextPath(tree, pathOf(selected), deepest);
    cut.disabled = selected < 0 || without(tree, pathOf(selected)).length === 0;
  }
  function choose(index) {
    selected = clamp(index, -1, tree.length - 1);
    draw();
    picture.querySelector("[tabindex='0']")?.focus({ preventScroll: true });
  }

  let held = null; // the node that is dragged
  picture.addEventListener("pointerdown", (event) => {
    const item = event.target.closest("[data-index]");
    held = item ? Number(item.dataset.index) : null;
  }, { signal });
  picture.addEventListener("pointerup", (event) => {
    const item = document.elementFromPoint(event.clientX, event.clientY)?.closest?.("[data-index]");
    const onto = item && picture.contains(item) ? Number(item.dataset.index) : null;
    const from = held;
    held = null;
    if (from === null || onto === null || from === onto || from < 0) return;
    const next = moved(tree, tree[from], pathOf(onto), deepest);
    if (next !== tree) put(next, pathOf(onto), "Moved.");
    else say("There is no room for that branch here.");
  }, { signal });
  picture.addEventListener("click", (event) => {
    const handle = event.target.closest("[data-add]");
    const item = event.target.closest("[data-index]");
    if (handle) grow(Number(handle.dataset.add));
    else if (item) choose(Number(item.dataset.index));
  }, { signal });
  picture.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Enter" || event.key === "+") grow(selected);
    else if (event.key === "Delete" || event.key === "Backspace") drop(selected);
    else {
      const next = labMove(tree, selected, event.key);
      if (next === null) return;
      choose(next);
    }
    event.preventDefault();
  }, { signal });

  /** Show a tree of at most so many heads. */
  function show(next, heads) {
    deepest = heads;
    tree = ordered(next.filter((path) => path.length <= heads));
    selected = clamp(selected, -1, tree.length - 1);
    draw();
  }
  return { node, show };
}
