"""A suffix automaton over token ids: where in a text its last tokens occurred before.

The automaton of Blumer et al. (1985) in its online form: the smallest one that accepts every
substring of the text read so far. A state stands for all substrings that end at the same places;
its suffix link leads to the longest of its suffixes that ends at more places. Decoding from it was
proposed by Hu et al. (2024, "SAM Decoding").
"""

from __future__ import annotations

START = 0
"""The state of the empty substring."""


class SuffixAutomaton:
    """Every substring of a growing text, with the number of times that each occurred.

    ``after[s]`` maps a token to the state of the longer substring, ``length[s]`` is the length of
    the longest substring of state s, ``link[s]`` its suffix link (-1 at `START`), ``count[s]`` how
    often its substrings occurred.

    Reading n tokens makes at most 2n states and 3n transitions, in O(n) time but for two things:
    splitting a state copies its transitions, and counting walks the new state's suffix links, at
    most one for each token of the longest suffix that occurred before.

    >>> text = SuffixAutomaton()
    >>> for token in [1, 2, 3, 1, 2, 4, 1, 2]:
    ...     text.read(token)
    >>> state = text.match
    >>> text.length[state], {token: text.count[s] for token, s in text.after[state].items()}
    (2, {3: 1, 4: 1})
    """

    def __init__(self) -> None:
        self.after: list[dict[int, int]] = [{}]
        self.length, self.link, self.count = [0], [-1], [0]
        self._whole = START

    @property
    def match(self) -> int:
        """The state of the longest suffix of the text that occurred before; `START` if none."""
        return max(self.link[self._whole], START)

    def read(self, token: int) -> None:
        """Append a token to the text."""
        new, at = self._add(self.length[self._whole] + 1, {}), self._whole
        while at >= 0 and token not in self.after[at]:
            self.after[at][token] = new
            at = self.link[at]
        self.link[new] = START if at < 0 else self._suffix(at, token)
        self._whole = at = new
        while at > START:
            self.count[at] += 1
            at = self.link[at]

    def _suffix(self, at: int, token: int) -> int:
        """Return the state of exactly ``at``'s longest substring and ``token``; split for it."""
        found = self.after[at][token]
        if self.length[found] == self.length[at] + 1:
            return found
        split = self._add(self.length[at] + 1, dict(self.after[found]))
        self.link[split], self.count[split] = self.link[found], self.count[found]
        while at >= 0 and self.after[at].get(token) == found:
            self.after[at][token] = split
            at = self.link[at]
        self.link[found] = split
        return split

    def _add(self, length: int, after: dict[int, int]) -> int:
        self.after.append(after)
        self.length.append(length)
        self.link.append(-1)
        self.count.append(0)
        return len(self.length) - 1
