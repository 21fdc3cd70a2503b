"""Texts that break metrics: empty, blank, repeating, astral, combining, without spaces."""

from hypothesis import strategies as st

from labkit.records import Sample

AWKWARD = (
    "",
    " ",
    "\u3000\n\t",
    "a",
    "aaaaaaaaaa aaaaaaaaaa",
    "the cat sat on the mat.",
    "the the the the cat",
    "It's (so) 3.50, -- e.g. 1-2 &quot;x&amp;y&lt;!",
    "日本語のテキストは空白がない。",
    "ภาษาไทยไม่มีช่องว่าง",
    "مرحبا بالعالم",
    "e\u0301 \u00e9 \U0001f469\u200d\U0001f52c\U0001f468\u200d\U0001f52c",
    "\x00\x01\x85\u2028line",
    "\U0010ffff\U0010ffff!",
    "?!?! ... ,,,",
)

texts = st.one_of(
    st.sampled_from(AWKWARD),
    st.text(alphabet="ab .,", max_size=40),
    st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat", ".", "3.5"])).map(" ".join),
    st.text(max_size=30),
)

text_lists = st.lists(texts, min_size=1, max_size=6)

samples = st.builds(
    Sample,
    text=st.sampled_from(["a b c", "a b d", "x", "", "a b c d e"]),
    count=st.integers(1, 5),
    logprob=st.floats(-2000, 0),
    tokens=st.integers(1, 50),
)

sample_lists = st.lists(samples, min_size=1, max_size=8)
