"""The Playground's own arithmetic against Python's: logits, tokens, texts, distributions."""

from __future__ import annotations

import base64
import random
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from labkit.kernels.engine import Rows
from labkit.models import load
from labkit.paths import data_dir
from labkit.speculative.decoder import Decoder
from labkit.speculative.tree import Draft
from labkit.widgets.playground import page as playground_page

PROMPTS = [
    "The people of the United States",
    "Hello! How are you doing?",
    "Fellow citizens of the Senate and House of Representatives:",
    "I like to cook, and my sister likes to eat.",
    "During the past year our foreign relations have been",
    "The Secretary of the Treasury reports that",
    "What kind of music do you listen to?",
    "It is the duty of Congress to",
    "My favorite food is",
    "one two three four, one two three four, one two",
    "The war with Mexico",
    "Yes, I have two dogs and a cat.\nThat is nice! What are their names?\n",
    "Agriculture, commerce, and manufactures",
    "A",
    "In 1848 the expenditures were $ 58,241,167.24, and",
    "We must not forget",
    "café naïve Übergröße 東京 🙂",
    "def f(x):\n    return x + 1\n\n\ndef g(x):\n",
    "I work as a nurse. What do you do for a living?",
    "Peace    with all   nations.\n\n\n",
]

TREE = Draft((5, 260, 300, 17, 42, 3000), (-1, -1, 0, 0, 1, 2), (None,) * 6, ("test",) * 6)


@pytest.fixture(scope="module")
def text() -> str:
    """The page itself."""
    return playground_page(data_dir() / "models" / "tiny", data_dir() / "heads" / "tiny")


@pytest.fixture(scope="module")
def opened(chromium, text, tmp_path_factory):
    """The page from a folder, ready; all tests of a module share it and what it complains of."""
    context = chromium.new_context()
    made = ready(context, text, tmp_path_factory.mktemp("playground"))
    yield made
    assert made.complaints == []
    context.close()


def ready(context, text: str, folder: Path):
    file = folder / "index.html"
    file.write_text(text, encoding="utf-8")
    page = context.new_page()
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(f"error: {error}"))
    page.on("request", lambda request: page.complaints.append(f"request: {request.url}"))
    page.goto(file.as_uri())
    page.wait_for_function("window.labkitPlayground", timeout=120_000)
    own = {f"request: {file.as_uri()}"}
    page.complaints = [
        each
        for each in page.complaints
        if each not in own and not each.startswith("request: blob:null/")
    ]
    return page


@pytest.fixture(scope="module")
def base():
    return load("tiny")


@pytest.fixture(scope="module")
def decoder(base):
    return Decoder(base)


def ask(page, question: str, **args):
    return page.evaluate("([ask, args]) => labkitPlayground.ask(ask, args)", [question, args])


def floats(page, expression: str, **args) -> np.ndarray:
    """What an expression gives as one array of float32, sent as text, which is quicker."""
    send = """async args => {
        const bytes = new Uint8Array(Float32Array.from((await (VALUE)).flat()).buffer);
        let text = '';
        for (const byte of bytes) text += String.fromCharCode(byte);
        return btoa(text);
    }"""
    sent = page.evaluate(send.replace("VALUE", expression), args)
    return np.frombuffer(base64.b64decode(sent), np.float32)


def test_logits_are_pythons_for_20_prompts_prefix_and_tree(opened, decoder):
    engine = decoder.engine
    for prompt in PROMPTS:
        ids = decoder.encode(prompt, 64)
        cache = engine.new_cache(len(ids) + len(TREE) + 1)
        if len(ids) > 1:
            engine.forward([Rows(ids[:-1])], cache, "last")
            cache.commit(range(len(ids) - 1))
        wanted = engine.forward([TREE.rows(ids[-1])], cache).logits.numpy()
        prefix = floats(opened, "labkitPlayground.logits(args.ids)", ids=ids)
        assert np.abs(prefix - wanted[0]).max() < 1e-3
        tree = {"tokens": list(TREE.tokens), "parents": list(TREE.parents)}
        found = floats(opened, "labkitPlayground.logits(args.ids, args.tree)", ids=ids, tree=tree)
        assert np.abs(found.reshape(wanted.shape) - wanted).max() < 1e-3


def test_greedy_tokens_are_pythons_for_64_tokens(opened, decoder):
    for prompt in PROMPTS:
        found = opened.evaluate(
            "prompt => labkitPlayground.generate("
            "{prompt, chat: false, maxNewTokens: 64, method: 'vanilla', temperature: 0, seed: 0})",
            prompt,
        )
        wanted = decoder.generate(prompt, 64, "vanilla")
        assert found["tokens"] == wanted.tokens
        assert found["steps"] == [list(step.committed) for step in wanted.steps]
        assert found["text"] == decoder.base.decode(wanted.tokens)


def texts_of_every_kind() -> list[str]:
    """200 texts: words, emoji, several scripts, runs of blanks, code, special tokens."""
    words = (
        "the| United States| don't|I'll|we've|'s|X'S| 1848|3.14|$58,241.24|🙂|👩\u200d👩\u200d👧|🇩🇪"
        "|é|e\u0301|ß|東京|日本語|한국어|مرحبا|שלום|हिन्दी"
        "|->|==|//|{'a': [1]}|<|end|²|Ⅷ|٣|𝔘|_|--|…|<script>"
    )
    blanks = (" ", "  ", "     ", "\n", "\n\n\n", "\r\n", "\t", "\xa0", "\u3000", "\x85")
    strange = (
        "\ufeff",
        "\u200b",
        "\u2028",
        "\x1c",
        "\x00",
        "<|endoftext|>",
        "def f(x):\n    return x",
    )
    pieces = [*words.split("|"), *blanks, *strange]
    choose = random.Random(0)
    made = [*pieces, *PROMPTS, "x" * 300, " " * 200, "a " * 100, "東" * 50]
    while len(made) < 200:
        made.append("".join(choose.choices(pieces, k=choose.randint(2, 9))))
    return made[:200]


def test_token_ids_are_pythons_for_200_texts(opened, base):
    texts = texts_of_every_kind()
    assert len(texts) == 200
    found = opened.evaluate(
        "texts => Promise.all(texts.map(text => labkitPlayground.ask('encode', {text})))", texts
    )
    for text, tokens in zip(texts, found, strict=True):
        assert [token["id"] for token in tokens] == base.tokenizer(text)["input_ids"], repr(text)
        assert [token["text"] for token in tokens] == [
            base.token_text(token["id"]) for token in tokens
        ]


def test_speculative_texts_are_vanillas_for_50_random_settings(opened):
    choose = random.Random(1)
    steps = 0
    for _ in range(50):
        prompt = choose.choice(PROMPTS)
        size = choose.randint(1, 16)
        how = {
            "prompt": prompt,
            "maxNewTokens": choose.randint(1, 40),
            "method": choose.choice(["mlp", "mlp", "ngram"]),
            "nodes": size,
            "heads": choose.randint(1, 3),
            "seed": choose.randint(0, 99),
            "topK": choose.choice([0, 1, 20]),
            "tree": choose.choice([None, [[0], [1], [0, 0], [0, 1], [2], [0, 0, 0], [1, 0]]]),
        }
        found = opened.evaluate("how => labkitPlayground.generate(how)", how)
        plain = opened.evaluate(
            "how => labkitPlayground.generate({...how, method: 'vanilla'})", how
        )
        assert (found["tokens"], found["text"]) == (plain["tokens"], plain["text"]), how
        steps += len(plain["steps"]) - len(found["steps"])
    assert steps > 100  # drafts were accepted: it was no comparison of vanilla with itself


SAMPLED = {"temperature": 1.0, "topK": 12}
TOO_RARE = 5


def distribution(logits) -> np.ndarray:
    scaled = np.float64(logits) / SAMPLED["temperature"]
    scaled[scaled < np.sort(scaled)[-SAMPLED["topK"]]] = -np.inf
    weights = np.exp(scaled - scaled.max())
    return weights / weights.sum()


def chi_square(counts: dict[str, int], p: np.ndarray) -> float:
    """The p-value of counts of tokens against their probabilities; 0 for one that cannot be."""
    many = sum(counts.values())
    if any(p[int(token)] == 0 for token in counts):
        return 0.0
    seen = np.array([counts.get(str(token), 0) for token in range(len(p))])
    common = p * many >= TOO_RARE
    observed, expected = seen[common], p[common] * many
    if (rest := many - expected.sum()) > TOO_RARE:
        observed, expected = np.append(observed, seen[~common].sum()), np.append(expected, rest)
    return stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue


def fits(page, tokens: list[int], **how) -> list[float]:
    """p-values of the first committed token, and of the second after the commonest first."""
    found = ask(page, "tally", tokens=tokens, count=1500, seed=5, **SAMPLED, **how)
    firsts = found["firsts"]
    commonest = max(firsts, key=firsts.get)
    seconds = {
        pair.split(",")[1]: many
        for pair, many in found["pairs"].items()
        if pair.split(",")[0] == commonest
    }
    expression = "labkitPlayground.logits(args.ids)"
    p = distribution(floats(page, expression, ids=tokens))
    after = distribution(floats(page, expression, ids=[*tokens, int(commonest)]))
    return [chi_square(firsts, p), chi_square(seconds, after)]


SHAPES = ({"tree": [[0], [1], [2], [0, 0], [0, 1]]}, {"method": "ngram", "nodes": 2})


def some_tokens(base) -> list[int]:
    return base.encode("I like to cook. I like to eat. I like to")


@pytest.mark.parametrize("how", SHAPES, ids=["tree", "ngram"])
def test_sampled_output_has_the_base_models_distribution(opened, base, how):
    assert min(fits(opened, some_tokens(base), **how)) > 1e-3


def test_the_same_test_finds_a_wrong_residual(chromium, text, base, tmp_path):
    right = "q ? p.map((value, at) => Math.max(0, value - q[at])) : p.slice()"
    assert text.count(right) == 1
    context = chromium.new_context()
    page = ready(context, text.replace(right, "p.slice()"), tmp_path)
    assert min(fits(page, some_tokens(base), **SHAPES[0])) < 1e-6
    context.close()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"prompt": "  "}, "The prompt is empty"),
        ({}, "The prompt is empty"),
        (None, "The prompt is empty"),
        ({"prompt": "word " * 1200}, "beyond the model's context of 1024"),
        ({"prompt": "A", "maxNewTokens": 0}, "give at least 1"),
        ({"prompt": "A", "method": "eagle"}, "There is no method eagle"),
    ],
)
def test_what_cannot_be_decoded_is_one_sentence(opened, args, words):
    said = opened.evaluate(
        "args => labkitPlayground.generate(args ?? undefined).catch(e => e.message)", args
    )
    assert words in said
    assert "\n" not in said


def test_the_page_is_small_and_closes_no_script_early(text):
    assert len(text.encode()) < 6_000_000
    assert text.count("</script>") == 3
