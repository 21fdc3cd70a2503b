"""Pairs come from tab-separated columns: the right two, or one sentence that says what is wrong."""

import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from labkit.errors import LabkitError
from labkit.mbr.pairs import read_pairs


def written(tmp_path, content):
    path = tmp_path / "pairs.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_two_columns_are_source_and_reference_with_any_line_end_and_a_byte_order_mark(tmp_path):
    path = written(tmp_path, "\ufeffHällo.\tHello.\r\nJa.\tYes.\n")
    assert read_pairs(path) == [("Hällo.", "Hello."), ("Ja.", "Yes.")]


def test_a_third_column_is_refused_unless_the_columns_are_named(tmp_path):
    numbered = written(tmp_path, "1\tHallo.\tHello.\n2\tJa.\tYes.\n")
    with pytest.raises(LabkitError, match=r"Line 1 of .* has 3 columns; say which two"):
        read_pairs(numbered)
    assert read_pairs(numbered, ["2", "3"]) == [("Hallo.", "Hello."), ("Ja.", "Yes.")]
    assert read_pairs(numbered, (3, 2))[0] == ("Hello.", "Hallo.")


def test_a_third_column_in_a_later_line_is_refused(tmp_path):
    with pytest.raises(LabkitError, match=r"Line 2 of .* has 3 columns"):
        read_pairs(written(tmp_path, "Hallo.\tHello.\nJa.\tYes.\tCC-BY, anna\n"))


def test_a_header_names_the_columns(tmp_path):
    path = written(tmp_path, "id\tReference\tSource\tby\n1\tHello.\tHallo.\tanna\n")
    assert read_pairs(path) == [("Hallo.", "Hello.")]
    assert read_pairs(path, ("by", "id")) == [("anna", "1")]
    assert read_pairs(path, (3, 2)) == [("Hallo.", "Hello.")]


def test_a_carriage_return_inside_a_field_stays_in_its_line(tmp_path):
    path = written(tmp_path, "eins\rzwei\tone\rtwo\nJa.\tYes.\n")
    assert read_pairs(path) == [("eins\rzwei", "one\rtwo"), ("Ja.", "Yes.")]


def test_an_empty_reference_is_found_wherever_it_is(tmp_path):
    lines = ["Ja.\tYes."] * 35 + ["Nein.\t"] + ["Ja.\tYes."] * 4
    with pytest.raises(LabkitError, match=r"Line 36 of .* empty source or reference"):
        read_pairs(written(tmp_path, "\n".join(lines)))


@pytest.mark.parametrize(
    ("content", "columns", "says"),
    [
        (b"a\tb\nno tab here\n", None, "Line 2 of .* has no tab"),
        (b"a\tb\n\n", None, "Line 2 of .* has no tab"),
        (b" \tb\n", None, "Line 1 of .* empty source"),
        (b"\xff\xfe\tb\n", None, "not UTF-8"),
        (b"", None, "holds no pairs"),
        (b"source\treference\n", None, "holds no pairs"),
        (b"a\tb\tc\n", (2, 2), "name two"),
        (b"a\tb\tc\n", (1, 4), "Line 1 of .* column 4 is needed"),
        (b"a\tb\tc\n", ("a", "x"), "0 columns named 'x'"),
        (b"a\ta\tc\n", ("a", "c"), "2 columns named 'a'"),
        (b"a\tb\n", (0, 1), "columns named '0'"),
    ],
)
def test_a_file_that_holds_no_pairs_gets_one_sentence(tmp_path, content, columns, says):
    with pytest.raises(LabkitError, match=says):
        read_pairs(written(tmp_path, content), columns)


def test_a_missing_file_gets_one_sentence(tmp_path):
    with pytest.raises(LabkitError, match="No such file"):
        read_pairs(tmp_path / "pairs.tsv")


PIECES = st.sampled_from(
    ["\t", "\n", "\r", "\ufeff", "a", " ", "source", "reference", "ä", "\u2028"]
)


@given(
    st.one_of(st.binary(max_size=40), st.lists(PIECES, max_size=14).map("".join)),
    st.sampled_from([None, (1, 2), (2, 3), ("source", "a"), ("", "a"), ("1",), (-1, 2)]),
)
@example("a\tb\n", None)
def test_any_bytes_give_pairs_or_one_sentence(tmp_path_factory, content, columns):
    path = written(tmp_path_factory.getbasetemp(), content)
    try:
        pairs = read_pairs(path, columns)
    except LabkitError as error:
        assert str(error).endswith(".")
        return
    raw = path.read_bytes().decode("utf-8-sig")
    assert raw.removesuffix("\n").count("\n") - len(pairs) in (-1, 0)  # a header is no pair
    for pair in pairs:
        assert all(text.strip() and text in raw for text in pair)


def test_without_numba_a_large_matrix_is_computed_by_the_plain_version():
    code = """
import sys
sys.modules["numba"] = None  # as where it is not installed
from labkit.mbr.utilities import matrix
texts = [f"text {i} of {i % 7}" for i in range(200)]
print(matrix("chrf", texts, texts).trace(), matrix("bleu", texts, texts).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[0] == "200.0 (200, 200)", done.stderr
