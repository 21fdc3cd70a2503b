from __future__ import annotations

from labkit.course import table


def test_a_table_reads_the_same_as_text_and_as_html():
    shown = table(("text", "risk", "drawn"), [("a <b>", 0.5, 3), ("\n\nb", 0.25, 1)])
    assert repr(shown).splitlines() == [
        "text   risk   drawn",
        "a <b>  0.500  3",
        "↵ ↵ b  0.250  1",
    ]
    markup = shown._repr_html_()
    assert "a &lt;b&gt;" in markup
    assert markup.count("<tr>") == 3
