"""The course's figures: ``python -m docs.figures`` writes them to ``notebooks/figures``.

Each function draws one figure with `docs.drawing.Pen`. A notebook shows it in a Markdown cell as
``![what it shows](figures/name.svg)``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from docs.drawing import Pen

FOLDER = Path(__file__).resolve().parents[1] / "notebooks" / "figures"
FIGURES: dict[str, Callable[[], Pen]] = {}
"""Each figure by its name."""


def figure(name: str, width: int, height: int) -> Callable:
    """Register a function that draws on a pen of this size; its docstring is the alt text."""

    def register(draw: Callable[[Pen], None]) -> Callable[[Pen], None]:
        def made() -> Pen:
            pen = Pen(name, width, height, " ".join((draw.__doc__ or "").split()))
            draw(pen)
            return pen

        FIGURES[name] = made
        return draw

    return register


def main() -> None:
    """Write every figure."""
    FOLDER.mkdir(exist_ok=True)
    for name, made in FIGURES.items():
        (FOLDER / f"{name}.svg").write_text(made().svg(), encoding="utf-8", newline="\n")


# --------------------------------------------------------------------------- speculative decoding


@figure("step", 760, 250)
def _step(pen: Pen) -> None:
    """One step of speculative decoding: heads draft four tokens, the base model checks all of
    them in one pass, the first two are accepted, the third is rejected and replaced by the
    model's own token, and the fourth is dropped.
    """
    rows = (
        ("1  draft", "heads guess four tokens: quick, may be wrong", ["blue"] * 4, "on the sea ."),
        (
            "2  check",
            "the base model says what it would write",
            ["plain"] * 4,
            "on the land .",
        ),
        (
            "3  commit",
            "two accepted, one replaced, one dropped",
            ["green", "green", "orange", ""],
            "on the land",
        ),
    )  # fmt: skip
    for row, (title, note, fills, words) in enumerate(rows):
        y = 24 + 72 * row
        pen.text(24, y + 22, title, "big ink", "start")
        pen.text(24, y + 42, note, "small soft", "start")
        pen.box(330, y, 96, 44, "the rain fell")
        for place, (fill, word) in enumerate(zip(fills, words.split(), strict=False)):
            if fill:
                pen.box(436 + 76 * place, y, 70, 44, word, fill)
        if row == 2:
            pen.box(436 + 76 * 3, y, 70, 44, "dropped", "page", "small soft", "stroke dash")
    for place in range(4):
        pen.arrow((471 + 76 * place, 70), (471 + 76 * place, 93))
    for place, note in enumerate(("✓ accepted", "✓ accepted", "✗ replaced")):
        pen.text(471 + 76 * place, 236, note, "small soft")


@figure("architecture", 920, 470)
def _architecture(pen: Pen) -> None:
    """Left: Medusa's independent heads all read the hidden state Z and do not see each other's
    tokens. Right: the hierarchical speculator passes a state from head to head: state 0 comes
    from Z, head 1 mixes in the model's token T0 with weights a and b and gives T1, head 2 mixes
    in T1 and gives T2, and so on to T4.
    """
    pen.text(40, 36, "Medusa: independent heads", "big ink", "start")
    pen.box(40, 380, 260, 44, "base model: hidden state Z, and T₀", "plain")
    for head in range(4):
        x = 40 + 68 * head
        pen.arrow((x + 28, 380), (x + 28, 262))
        pen.box(x, 220, 56, 42, f"head {head + 1}", "violet")
        pen.arrow((x + 28, 220), (x + 28, 142))
        pen.box(x, 100, 56, 40, "T" + "₁₂₃₄"[head], "green")
    pen.text(40, 62, "heads read Z alone; none knows T₁", "small soft", "start")
    pen.line((340, 30), (340, 440), look="stroke dash")
    pen.text(372, 36, "Hierarchical speculator: the state passes on", "big ink", "start")
    pen.box(372, 380, 90, 44, "Z", "plain")
    pen.box(372, 268, 90, 56, "state₀ =\nZ scaled", "blue")
    pen.arrow((417, 380), (417, 326))
    for head in range(4):
        x = 498 + 106 * head
        pen.box(x, 268, 78, 56, f"head {head + 1}\nstate" + "₁₂₃₄"[head], "violet")
        pen.arrow((x - (36 if head == 0 else 28), 296), (x - 2, 296))
        pen.text(x - 18, 286, "a", "ink")
        pen.box(x + 14, 380, 50, 44, "T" + "₀₁₂₃"[head], "plain" if head == 0 else "green")
        pen.arrow((x + 39, 380), (x + 39, 326))
        pen.text(x + 50, 358, "b", "ink")
        pen.arrow((x + 39, 268), (x + 39, 142))
        pen.box(x + 14, 100, 50, 40, "T" + "₁₂₃₄"[head], "green")
        if head < 3:
            pen.line((x + 64, 120), (x + 97, 120), (x + 97, 402), look="stroke dash")
            pen.arrow((x + 97, 402), (x + 118, 402), look="stroke dash")
    pen.lines(
        372, 180, "a keeps the earlier\nstate, b brings in\nthe token chosen", "small soft", "start"
    )
    pen.text(
        640,
        450,
        "T₀ is the model's own next token; each head is told the token before its own",
        "small soft",
    )


TREE = ((-1, "on"), (-1, "in"), (0, "the"), (0, "a"), (1, "the"), (2, "sea"))
"""The candidate tree that figures show: parent and token of each node."""


@figure("tree-mask", 860, 380)
def _tree(pen: Pen) -> None:
    """A candidate tree of six nodes under a root, and its attention mask. Each node may attend
    to the text, the root, the nodes on its own path and itself; the mask's other cells are
    empty. Nodes of one depth have the same position.
    """
    places = {
        -1: (210, 66),
        0: (130, 150),
        1: (300, 150),
        2: (80, 234),
        3: (180, 234),
        4: (300, 234),
        5: (80, 318),
    }
    pen.text(24, 32, "Candidate tree", "big ink", "start")
    for node, (parent, _) in enumerate(TREE):
        (x0, y0), (x1, y1) = places[parent], places[node]
        pen.line((x0, y0 + 22), (x1, y1 - 22))
    pen.box(210 - 44, 66 - 20, 88, 40, "root: fell", "plain")
    for node, (_, token) in enumerate(TREE):
        x, y = places[node]
        pen.box(
            x - 38, y - 20, 76, 40, f"{node + 1}  {token}", "green" if node in (0, 2) else "blue"
        )
    for depth in range(1, 4):
        pen.text(400, 155 + 84 * (depth - 1), f"position + {depth}", "small soft")
    pen.text(400, 71, "position + 0", "small soft")
    pen.text(470, 32, "Its mask: which row sees which column", "big ink", "start")
    names = ["root", *(str(node + 1) for node in range(6))]
    sees = [{0}]
    for node, (parent, _) in enumerate(TREE):
        sees.append(sees[parent + 1] | {node + 1})
    pen.box(520, 66, 86, 18 + 34 * 7 - 12, "", "plain")
    pen.lines(563, 180, "all of\nthe text", "small ink")
    for row, name in enumerate(names):
        pen.text(508, 90 + 34 * row, name, "small ink", "end")
        pen.text(628 + 32 * row, 56, name, "small ink")
        for column in range(7):
            seen = column in sees[row]
            pen.box(
                613 + 32 * column,
                70 + 34 * row,
                28,
                29,
                "●" if seen else "",
                "green" if seen else "page",
            )
    pen.text(563, 56, "text", "small ink")
    pen.text(
        520, 345, "Siblings have one position and never see each other.", "small soft", "start"
    )


@figure("kv-cache", 860, 430)
def _cache(pen: Pen) -> None:
    """The KV cache through one step. Before: keys and values of the text. During the check:
    rows for the root and all draft nodes are appended. After verification: only the root and
    the accepted path stay, moved directly behind the text, and the rows of rejected nodes are
    rolled back.
    """

    def row(y: float, title: str, note: str, cells: list[tuple[str, str]]) -> None:
        pen.text(24, y, title, "big ink", "start")
        pen.text(24, y + 20, note, "small soft", "start")
        for place, (word, fill) in enumerate(cells):
            pen.box(
                24 + 66 * place,
                y + 32,
                62,
                40,
                word,
                fill,
                "ink",
                "stroke" if fill != "page" else "stroke dash",
            )

    text = [(word, "plain") for word in ["the", "rain", "that"]]
    nodes = ["fell", "on", "in", "the", "a", "the", "sea"]
    row(34, "before the step", "one column per token: its key and value in every layer", text)
    row(
        134, "the check", "the root and six nodes are written behind the text, in one pass",
        text + [(word, "blue") for word in nodes],
    )  # fmt: skip
    row(
        234, "verification", "accepted: the path on → the; rejected: the other four",
        text + [(w, "green" if i in (0, 1, 3) else "red") for i, w in enumerate(nodes)],
    )  # fmt: skip
    row(
        334 - 4, "commit and rollback", "", text + [(w, "green") for w in ("fell", "on", "the")]
        + [("free", "page")] * 4,
    )  # fmt: skip
    pen.arrow((24 + 66 * 6 + 31, 308), (24 + 66 * 5 + 36, 358), look="strong")
    pen.text(440, 342, "the accepted path moves up", "small soft", "start")
    pen.text(24 + 66 * 10 + 8, 388, "the next step writes here", "small soft", "start")


@figure("accept-reject", 860, 350)
def _accept(pen: Pen) -> None:
    """Accept, reject, residual for four words. Left: the drafter's distribution q; what exceeds
    the base model's p is rejected. Middle: what p and q share is accepted as drafted. Right:
    what p still lacks, the residual, is where a rejected draft is replaced from. Both excess
    areas are equal.
    """
    words = ("sun", "rain", "snow", "fog")
    p, q = (0.40, 0.30, 0.20, 0.10), (0.60, 0.10, 0.25, 0.05)
    high, base = 300, 290

    def bars(x: float, title: str, note: str, stacks: list[list[tuple[float, str]]]) -> None:
        pen.text(x, 36, title, "big ink", "start")
        pen.text(x, 56, note, "small soft", "start")
        for place, (word, stack) in enumerate(zip(words, stacks, strict=True)):
            y = base
            for share, fill in stack:
                if share > 0:
                    pen.box(x + 62 * place, y - high * share, 46, high * share, "", fill)
                    y -= high * share
            pen.text(x + 62 * place + 23, base + 20, word, "small ink")
        pen.line((x - 6, base), (x + 62 * 4, base), look="strong")

    both = [min(a, b) for a, b in zip(p, q, strict=True)]
    bars(
        30, "drafted: q", "red: proposed too often",
        [[(b, "blue"), (max(0, y - x), "red")] for b, x, y in zip(both, p, q, strict=True)],
    )  # fmt: skip
    bars(310, "accepted: min(p, q)", "kept as drafted", [[(b, "blue")] for b in both])
    bars(
        590, "written: p", "orange: the residual, p − q",
        [[(b, "blue"), (max(0, x - y), "orange")] for b, x, y in zip(both, p, q, strict=True)],
    )  # fmt: skip
    pen.text(
        430,
        336,
        "Red and orange areas are equal: rejected drafts are replaced from the residual.",
        "ink",
    )


@figure("roofline", 760, 350)
def _roofline(pen: Pen) -> None:
    """Time of one pass against the number of tokens in it. Reading the weights takes the same
    time for any number of tokens; arithmetic grows with each token. The pass takes the longer
    of the two, so its time is flat up to the ridge and rises beyond it.
    """
    pen.arrow((80, 300), (720, 300), look="strong")
    pen.arrow((80, 300), (80, 40), look="strong")
    pen.text(400, 334, "tokens in one pass", "ink")
    pen.text(92, 48, "time", "ink", "start")
    pen.line((80, 180), (720, 180), look="stroke dash")
    pen.line((80, 300), (700, 63), look="stroke dash")
    ridge = 80 + 620 * 120 / 237
    pen.line((80, 180), (ridge, 180), (700, 63), look="strong")
    pen.circle(ridge, 180, 6, fill="orange")
    pen.text(ridge + 4, 212, "the ridge", "ink", "start")
    pen.text(100, 168, "reading all weights: bytes / bandwidth", "ink", "start")
    pen.text(500, 76, "arithmetic: 2 operations", "small soft", "end")
    pen.text(500, 94, "per weight and token", "small soft", "end")
    pen.lines(110, 208, "here further tokens\nare checked for free", "small soft", "start")


# -------------------------------------------------------------------------------- drafters and GPUs


@figure("drafters", 900, 330)
def _drafters(pen: Pen) -> None:
    """Five kinds of drafter and what each reads: n-gram and suffix lookup read only the text so
    far; a draft model reads the text with its own weights; Medusa heads read the last hidden
    state; hierarchical MLP heads read the state and the drafted tokens; EAGLE runs one
    transformer layer over states and tokens.
    """
    kinds = (
        ("n-gram, suffix", "the text so far", "a search", "plain"),
        ("draft model", "the text so far", "a small model,\nits own KV cache", "violet"),
        ("Medusa", "state Z", "one head per place,\nindependent", "blue"),
        ("MLP heads", "Z and the tokens\ndrafted so far", "one head per place,\nin a row", "green"),
        ("EAGLE", "all states and\ntokens so far", "one layer with\nattention, repeated", "orange"),
    )  # fmt: skip
    pen.text(20, 112, "reads", "small soft", "start")
    pen.text(20, 202, "runs", "small soft", "start")
    for place, (name, reads, runs, fill) in enumerate(kinds):
        x = 70 + 165 * place
        pen.text(x + 75, 44, name, "big ink")
        pen.box(x, 80, 150, 56, reads, "plain")
        pen.arrow((x + 75, 136), (x + 75, 168))
        pen.box(x, 170, 150, 56, runs, fill)
        pen.arrow((x + 75, 226), (x + 75, 252))
    pen.box(
        70,
        254,
        810,
        48,
        "draft tokens: a chain or a tree, checked by the base model in one pass",
        "plain",
    )


@figure("launches", 860, 270)
def _launches(pen: Pen) -> None:
    """A pass on a GPU as many small kernels. Without a graph the processor launches each kernel
    and the GPU waits between them; with a CUDA graph one launch replays all of them back to
    back, and the same work ends sooner.
    """

    def lane(y: float, name: str, starts: list[int], width: int, fill: str) -> None:
        pen.text(140, y + 20, name, "ink", "end")
        pen.line((150, y + 15), (840, y + 15), look="stroke dash")
        for x in starts:
            pen.box(x, y, width, 30, "", fill)

    pen.text(24, 34, "One launch for each kernel", "big ink", "start")
    lane(48, "processor", [156 + 74 * k for k in range(9)], 44, "violet")
    lane(86, "GPU", [202 + 74 * k for k in range(9)], 22, "green")
    pen.text(24, 158, "A recorded CUDA graph", "big ink", "start")
    lane(172, "processor", [156], 44, "violet")
    lane(210, "GPU", [206 + 24 * k for k in range(9)], 22, "green")
    pen.text(440, 204, "the same work ends sooner, without waiting", "small soft", "start")


@figure("batching", 860, 330)
def _batching(pen: Pen) -> None:
    """Continuous batching over twelve steps with three slots. Each row is a slot, each column a
    step that one pass over the weights serves. Requests A, B and C are read (prefill) one after
    the other and then get a token at every step; when C and A end, the waiting requests E and D
    take their slots at the next step, while B goes on; F follows when B has ended.
    """
    fills = {"A": "blue", "B": "green", "C": "orange", "D": "blue", "E": "orange", "F": "green"}
    slots = (
        (("A", 1, 5), ("D", 6, 12)),
        (("B", 2, 9), ("F", 10, 12)),
        (("C", 3, 6), ("E", 7, 12)),
    )
    pen.text(24, 34, "Continuous batching", "big ink", "start")
    pen.text(836, 34, "time, in steps", "small soft", "end")
    for step in range(1, 13):
        pen.text(91 + 59 * step, 62, str(step), "small soft")
    for row, requests in enumerate(slots):
        y = 74 + 52 * row
        pen.text(108, y + 25, f"slot {row + 1}", "ink", "end")
        pen.line((120, y + 20), (830, y + 20), look="stroke dash")
        for name, first, last in requests:
            for step in range(first, last + 1):
                words = f"read {name}" if step == first else name
                fill = "violet" if step == first else fills[name]
                pen.box(64 + 59 * step, y, 55, 40, words, fill, "small ink")
    pen.box(64 + 59 * 8, 68, 55, 156, "", "none", edge="strong")
    pen.arrow((91 + 59 * 8, 250), (91 + 59 * 8, 228))
    pen.lines(
        91 + 59 * 8,
        268,
        "one step: one pass over the weights,\nthe last token of every slot",
        "soft",
    )
    pen.box(40, 256, 24, 22, "", "violet")
    pen.text(72, 272, "prefill: the prompt is read, the first token comes", "small soft", "start")
    pen.box(40, 290, 24, 22, "", "blue")
    pen.text(72, 306, "one more token (with drafts: one or more)", "small soft", "start")


# --------------------------------------------------------------------- minimum Bayes risk decoding


@figure("four-choices", 860, 330)
def _four_choices(pen: Pen) -> None:
    """The four choices of minimum Bayes risk decoding. Rows are the hypothesis set H, columns the
    pseudo-references R drawn from the model, a cell is the loss L of a hypothesis against a
    pseudo-reference, weights w stand above the columns. The weighted sum of a row is its risk,
    and the row of least risk is the decision.
    """
    losses = (("0.0", "0.2", "0.9"), ("0.2", "0.0", "0.8"), ("0.9", "0.8", "0.0"))
    fills = {"0.0": "green", "0.2": "green", "0.8": "red", "0.9": "red"}
    texts = ("the cat sat", "a cat sat", "no")
    weights, risks = ("0.4", "0.3", "0.3"), ("0.33", "0.32", "0.60")
    pen.text(24, 36, "1  hypothesis set H", "big ink", "start")
    pen.text(24, 56, "what may be written", "small soft", "start")
    pen.text(300, 36, "2  pseudo-references R (evidence)", "big ink", "start")
    pen.text(300, 56, "samples that stand for p(y|x)", "small soft", "start")
    pen.text(208, 108, "4  weights w", "ink", "start")
    for column, weight in enumerate(weights):
        x = 310 + 110 * column
        pen.text(x + 48, 82, texts[column], "small ink")
        pen.box(x, 92, 96, 26, weight, "violet")
    for row, text in enumerate(texts):
        y = 140 + 54 * row
        pen.box(24, y, 150, 42, text, "blue" if row != 1 else "orange")
        for column, loss in enumerate(losses[row]):
            pen.box(310 + 110 * column, y, 96, 42, loss, fills[loss])
        pen.arrow((634, y + 21), (690, y + 21))
        pen.box(694, y, 90, 42, risks[row], "orange" if row == 1 else "plain")
    pen.text(739, 128, "risk", "ink")
    pen.text(208, 166, "3  loss L", "ink", "start")
    pen.text(
        24,
        318,
        "risk(h) = sum over r of w(r) L(h, r); least: \u201ca cat sat\u201d",
        "ink",
        "start",
    )


@figure("equal-beginnings", 760, 230)
def _equal_beginnings(pen: Pen) -> None:
    """Four samples of one source as a tree of their beginnings. "The" is computed once for all
    four, "The old" once for three of them; only where samples part does the number of rows grow.
    """
    tree = {
        (60, 115): ("The", 4, None),
        (220, 70): ("old", 3, (60, 115)),
        (220, 180): ("elderly", 1, (60, 115)),
        (380, 40): ("man", 2, (220, 70)),
        (380, 110): ("gentleman", 1, (220, 70)),
        (380, 180): ("man", 1, (220, 180)),
        (540, 40): ("sits", 2, (380, 40)),
        (540, 110): ("sits", 1, (380, 110)),
        (540, 180): ("sits", 1, (380, 180)),
    }
    for (x, y), (word, many, parent) in tree.items():
        if parent:
            pen.line((parent[0] + 116, parent[1] + 18), (x, y + 18))
        pen.box(x, y, 116, 36, f"{word}  \u00d7{many}", "green" if many > 1 else "plain")
    pen.text(60, 34, "9 rows instead of 16", "big ink", "start")


@figure("sets-of-answers", 860, 220)
def _sets(pen: Pen) -> None:
    """Samples as points: many alike on the left, fewer of another kind on the right, a blend in
    the middle. Plain minimum Bayes risk takes the blend, the two best single hypotheses are
    twins, and a set of two chosen together has one answer of each kind.
    """
    left = ((80, 112), (120, 82), (126, 142), (160, 106), (120, 112))
    right = ((296, 112), (330, 142), (344, 84), (330, 112))
    titles = ("the text of least risk", "the two best single texts", "two chosen together")
    chosen = (((226, 112),), ((120, 112), (160, 106)), ((120, 112), (330, 112)))
    for panel, (title, marks) in enumerate(zip(titles, chosen, strict=True)):
        shift = 280 * panel
        pen.text(shift + 150, 40, title, "big ink")
        for x, y in (*left, *right, (226, 112)):
            pen.circle(shift + 30 + (x - 60) * 0.75, y + 20, 9, "", "plain")
        for x, y in marks:
            pen.circle(shift + 30 + (x - 60) * 0.75, y + 20, 12, "\u2713", "orange")
        pen.text(shift + 75, 190, "one kind of answer", "small soft")
        pen.text(shift + 230, 190, "another kind", "small soft")


@figure("two-phases", 880, 330)
def _two_phases(pen: Pen) -> None:
    """The two phases of training. In phase 1 people's text passes the frozen base model, which
    gives Z at each place; the heads learn to predict the text's next tokens. In phase 2 the base
    model first writes answers to prompts; these pass the same frozen model, and the heads learn
    to predict its own tokens, or its whole distribution.
    """
    for row, (title, source, target) in enumerate(
        (
            ("Phase 1", "text by people:\nspeeches, talk", "tokens of\nthat text"),
            (
                "Phase 2",
                "answers that the\nbase model wrote",
                "the model's tokens\nor distribution",
            ),
        )
    ):
        y = 62 + 142 * row
        pen.text(24, y - 16, title, "big ink", "start")
        pen.box(24, y, 150, 60, source, "orange" if row == 0 else "blue")
        pen.arrow((174, y + 30), (206, y + 30))
        pen.box(208, y, 150, 60, "base model,\nfrozen", "plain")
        pen.arrow((358, y + 30), (412, y + 30))
        pen.text(384, y + 22, "Z", "ink")
        pen.box(414, y, 150, 60, "heads:\nguess 1, 2, 3 …", "violet")
        pen.arrow((564, y + 30), (616, y + 30))
        pen.text(590, y + 22, "loss", "small soft")
        pen.box(618, y, 150, 60, target, "orange" if row == 0 else "green")
        pen.line((489, y + 60), (489, y + 82), (590, y + 82), (590, y + 36), look="stroke dash")
    pen.text(24, 306, "Only the heads change. What is read and what is learned differs;"
             " the loss and the schedule do not.", "small soft", "start")  # fmt: skip


if __name__ == "__main__":
    main()
