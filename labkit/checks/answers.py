"""What all checks share: an answer as plain numbers, and the table of mistakes that judges it.

A check compares only numbers of Python's and numpy's own types, made here from the answer. So an
object that claims to equal everything is just an object of the wrong type. A check passes copies
to the student's function, so an answer that changes its arguments spoils nothing.

A check reads like a table: the right value, and next to what each common mistake gives the sentence
that names it. `verdict` compares an answer with them.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from types import EllipsisType
from typing import Any, Concatenate, ParamSpec

import numpy as np
from numpy.typing import NDArray

from labkit.checks import NOT_WRITTEN, Finding

Floats = NDArray[np.float64]
P = ParamSpec("P")

Answer = Callable[..., Any]
"""A student's function; each check's docstring says what it gets and gives."""

Mistake = tuple[Any, str]
"""A row of a table of mistakes: what the mistake gives, and the sentence that names it."""


class NotUsable(Exception):  # noqa: N818 - it is no error of the program's
    """An answer that cannot be compared; the message says why in one sentence."""


def exercise(
    check: Callable[Concatenate[Any, P], Finding | Iterator[Finding]],
) -> Callable[Concatenate[Any, P], Finding]:
    """Make a check report an exercise that is not begun, or an answer of the wrong type.

    A check may yield findings, of which the first wrong one or the last holds. A student's
    function gets copies of the check's values (see `copied`), so a function that changes its
    arguments is judged by what it returns.
    """

    @functools.wraps(check)
    def checked(answer: Any, /, *args: P.args, **kwargs: P.kwargs) -> Finding:
        def apart(*given: Any) -> Any:
            result = answer(*map(copied, given))
            written(result)
            return result

        try:
            found = check(apart if callable(answer) else answer, *args, **kwargs)
            for finding in [found] if isinstance(found, Finding) else found:
                if not finding.right:
                    break
            return finding
        except NotImplementedError:
            return NOT_WRITTEN
        except NotUsable as reason:
            return Finding(False, str(reason))

    return checked


def verdict(
    found: object,
    right: object,
    good: str,
    *mistakes: Mistake,
    otherwise: str = "",
    tolerance: float = 1e-9,
) -> Finding:
    """Compare an answer with the right value, then with what each mistake gives, in order.

    ``good`` is the sentence for the right answer, ``otherwise`` for a wrong one that no listed
    mistake explains; by default it gives both values.

    >>> verdict(0.5, 2.0, "a over b", (0.5, "the fraction is upside down"))
    Not yet: the fraction is upside down.
    >>> verdict(0.25, 2.0, "a over b", (0.5, "the fraction is upside down"))
    Not yet: it gives 0.2500, and the answer is 2.0000.
    """
    if _same(found, right, tolerance):
        return Finding(True, f"{good}.")
    if not otherwise:
        digits = 3 if np.ndim(found) else 4  # type: ignore[arg-type]
        both = [listed(np.asarray(value, float), digits) for value in (found, right)]
        otherwise = f"it gives {both[0]}, and the answer is {both[1]}"
    says = (says for gives, says in mistakes if _same(found, gives, tolerance))
    return Finding(False, f"{next(says, otherwise)}.")


def _same(found: object, value: object, tolerance: float) -> bool:
    if isinstance(found, float | np.ndarray):
        seen, wanted = np.asarray(found), np.asarray(value, np.float64)
        return seen.shape == wanted.shape and bool((np.abs(seen - wanted) <= tolerance).all())
    return found == value


def formula(
    answer: Answer,
    cases: Sequence[tuple[Any, ...]],
    right: Floats,
    good: str,
    asked: str,
    *mistakes: Mistake,
) -> Finding:
    """Compare a formula's numbers in all ``cases`` with the ``right`` ones, and each mistake's.

    They may be of any size, so ratios are compared. ``asked`` describes a case, with a pair of
    braces for each of its numbers.
    """
    given = np.array([number(answer(*case)) for case in cases])
    found = given / right
    off = int((np.abs(found - 1) > 1e-6).argmax())  # the first case that is wrong
    asked = asked.format(*map(in_words, cases[off]))
    return verdict(
        found, np.ones(len(cases)), good, *((gives / right, says) for gives, says in mistakes),
        otherwise=f"for {asked} it gives {in_words(given[off])}, and the answer is "
        f"{in_words(right[off])}", tolerance=1e-6,
    )  # fmt: skip


def in_words(value: float | Sequence[float]) -> str:
    """Write a number as people do by hand, or a list of them.

    >>> in_words(7e9), in_words(1 / 3), in_words(12345.0), in_words([1.0, 1.5])
    ('7e9', '0.3333', '12345', '1 and 1.5')
    """
    if isinstance(value, Sequence):
        *first, last = map(in_words, value)
        return f"{', '.join(first)} and {last}" if first else last
    if abs(value) < 1e7 and value == int(value):
        return str(int(value))
    digits, _, power = f"{value:.4g}".partition("e")
    return f"{digits}e{int(power)}" if power else digits


def listed(values: Floats, digits: int = 2) -> str:
    """Write an array's numbers, comma separated."""
    return ", ".join(f"{value:.{digits}f}" for value in np.ravel(values))


def copied(given: Any) -> Any:
    """Return a copy of an array, a tensor, or a list, tuple or dict with its content.

    Anything else is returned as it is; a random generator so that its draws continue.

    >>> p = np.array([0.25, 0.75])
    >>> copied([p])[0] is p, copied([p])[0].tolist()
    (False, [0.25, 0.75])
    """
    if isinstance(given, np.ndarray):
        return given.copy()
    if _is_tensor(given):
        return given.clone()
    if type(given) in (list, tuple):
        return type(given)(map(copied, given))
    if type(given) is dict:
        return {key: copied(value) for key, value in given.items()}
    return given


def refuse(*cases: tuple[object, str]) -> None:
    """Raise `NotUsable` with the sentence of the first case that holds, if one does."""
    for holds, says in cases:
        if holds:
            raise NotUsable(says if says.endswith("?") else f"{says}.")


def written(answer: object) -> None:
    """Raise `NotUsable` if the answer is what an empty function gives."""
    if answer is None or isinstance(answer, EllipsisType):
        raise NotUsable(NOT_WRITTEN.text)


def number(answer: object) -> float:
    """Return the answer as a float; `NotUsable` if it is not one finite number."""
    return float(numbers(answer, ()))


def whole(answer: object) -> int:
    """Return the answer as an int; `NotUsable` if it is not one whole number."""
    value = number(answer)
    refuse((value != int(value), f"it gives {value:g}, and a whole number is needed"))
    return int(value)


def numbers(answer: object, shape: tuple[int, ...] | None = None, rows: str = "") -> Floats:
    """Return the answer as a new array of floats, of that ``shape`` if one is given.

    ``rows`` describes the axes. Raises `NotUsable` for anything but numbers, lists of numbers,
    numpy arrays and torch tensors, for another shape, and for NaN and infinity.

    >>> numbers([[1, 2]], (1, 2)).tolist()
    [[1.0, 2.0]]
    """
    written(answer)
    try:
        value = np.array(_plain(answer), dtype=np.float64, subok=False)
    except (TypeError, ValueError):
        wanted = "a number" if shape == () else "an array of numbers"
        holds = type(answer) in (list, tuple) or isinstance(answer, np.ndarray)
        why = f" that holds more than {wanted}" if holds else f", and {wanted} is needed"
        raise NotUsable(f"it gives {_kind(answer)}{why}.") from None
    if shape is not None and value.shape != shape:
        given = f"an array of shape {value.shape}" if value.ndim else "one number"
        needed = f"shape {shape}{f', {rows},' if rows else ''}" if shape else "one number"
        raise NotUsable(f"it gives {given}, and {needed} is needed.")
    for place in np.argwhere(~np.isfinite(value)):
        where = f" at {tuple(place.tolist())}" if value.ndim else ""
        raise NotUsable(
            f"it gives {value[tuple(place)]}{where}, and every number has to be finite."
        )
    return value


def tokens(answer: object) -> list[int]:
    """Return the answer as a list of token ids; `NotUsable` if it is not one."""
    _sized(answer)
    values = numbers(answer)
    wrong = values.ndim != 1 or (values != values.round()).any()
    refuse((wrong, f"it gives {_kind(answer)}, and a list of token ids is needed"))
    return [int(value) for value in values]


def texts(answer: object) -> list[str]:
    """Return the answer as a list of strings; `NotUsable` if it is not one."""
    items = _sized(answer)
    strange = any(type(one) not in (str, np.str_) for one in items)
    refuse((strange, f"it gives {_kind(answer)} that holds other things than texts"))
    return list(map(str, items))


def parts(answer: object, many: int, what: str) -> Sequence[Any]:
    """Return the answer's ``many`` parts; otherwise `NotUsable` says ``what`` is needed."""
    known = type(answer) in (tuple, list) and len(_sized(answer)) == many
    refuse((not known, f"it gives {_kind(answer)}, and {what} is needed"))
    return _sized(answer)


def _sized(answer: object) -> Sequence[Any]:
    if (isinstance(answer, np.ndarray) or _is_tensor(answer)) and np.ndim(answer):  # type: ignore
        return list(_plain(answer))
    refuse((type(answer) not in (list, tuple), f"it gives {_kind(answer)}, and a list is needed"))
    return answer  # type: ignore[return-value]


def _is_tensor(answer: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(answer, torch.Tensor)


def _plain(answer: Any) -> Any:
    """Return numbers and arrays as they are, and tensors as arrays, also those in lists."""
    if _is_tensor(answer):
        return answer.detach().cpu().double().numpy()
    if type(answer) in (list, tuple):
        return [_plain(one) for one in answer]
    if type(answer) in (int, float, bool) or isinstance(answer, np.ndarray | np.number | np.bool_):
        return answer
    raise TypeError(_kind(answer))


def _kind(answer: object) -> str:
    name = type(answer).__name__
    return f"{'an' if name[:1].lower() in 'aeio' else 'a'} {name}"
