// The reader's settings, and their text in the page's address (after #) or in the widget's trait.

/** Every setting with its default and what it may be. */
const SETTINGS = {
  tab: ["decode", (value) => ["decode", "draft", "bayes"].includes(value)],
  prompt: ["The people of the United States", (value) => value.length <= 4000],
  seed: [0, whole(0, 2 ** 31)],
  tokens: [48, whole(8, 128)],
  method: ["mlp", (value) => ["mlp", "ngram", "vanilla"].includes(value)],
  temperature: [0, between(0, 2)],
  topk: [0, whole(0, 100)],
  shape: ["joint", (value) => ["joint", "chain", "own"].includes(value)],
  nodes: [8, whole(1, 16)],
  heads: [3, whole(1, 8)],
  tree: ["1 2 1.1 1.2 1.1.1", (value) => treeOf(value) !== null],
  samples: [24, whole(8, 64)],
  length: [16, whole(4, 40)],
  warmth: [0.8, between(0.1, 2)],
  hypotheses: ["all", (value) => ["all", "frequent", "split"].includes(value)],
};

function whole(low, high) {
  return (value) => Number.isInteger(value) && value >= low && value <= high;
}

function between(low, high) {
  return (value) => Number.isFinite(value) && value >= low && value <= high;
}

/** A tree from text such as "1 2 1.1": paths of ranks, parents included; null where it is none. */
export function treeOf(text) {
  const paths = text.split(" ").filter(Boolean).map((path) => path.split(".").map((rank) => Number(rank) - 1));
  const right = paths.every((path) => path.length <= 8 && path.every((rank) => Number.isInteger(rank) && rank >= 0 && rank < 10));
  const names = new Set(paths.map(String));
  const whole_ = paths.every((path) => path.length === 1 || names.has(String(path.slice(0, -1))));
  return right && whole_ && paths.length <= 16 ? paths : null;
}

/** A tree as such a text. */
export function textOfTree(paths) {
  return paths.map((path) => path.map((rank) => rank + 1).join(".")).join(" ");
}

/** Settings from the text; what is missing or wrong has its default. */
export function parse(text) {
  const given = new URLSearchParams(text);
  return Object.fromEntries(Object.entries(SETTINGS).map(([name, [standard, allowed]]) => {
    if (!given.has(name)) return [name, standard];
    const value = typeof standard === "number" ? Number(given.get(name)) : given.get(name);
    return [name, allowed(value) ? value : standard];
  }));
}

/** Settings as text, those at their defaults left out. */
export function format(settings) {
  const told = Object.entries(settings).filter(([name, value]) => value !== SETTINGS[name][0]);
  return new URLSearchParams(told.map(([name, value]) => [name, String(value)])).toString();
}

/** Prompts that each show something, with the settings that show it. */
export const PRESETS = [
  ["A speech", "The heads know this style: whole paths are accepted.", { prompt: "The people of the United States", method: "mlp", temperature: 0 }],
  ["A chat", "Small talk between two people; some drafts fail.", { prompt: "Hello! How are you doing today?", method: "mlp", temperature: 0 }],
  ["A repetition", "Copying from the text itself is enough here.", { prompt: "one two three four, one two three four, one two", method: "ngram", temperature: 0 }],
  ["Sampled", "Warm sampling: see p, q and the number drawn at each test.", { prompt: "I like to cook. What do you like to do", method: "mlp", temperature: 0.9, topk: 50 }],
];
