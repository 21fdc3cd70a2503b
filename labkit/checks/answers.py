"""What a student's function gave, as plain numbers: nothing else is ever compared.

A check compares numbers of Python's and numpy's own kinds, made here out of what came. So an object
that calls itself equal to everything is only an object of a strange kind, and a number that changes
when it is looked at was looked at once.

And a check hands out copies only: what an answer does to its arguments, nobody else sees.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from types import EllipsisType
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from labkit.checks import NOT_WRITTEN, Finding

Floats = NDArray[np.float64]
P = ParamSpec("P")
Answer = TypeVar("Answer", bound=Callable[..., Any])


class NotUsable(Exception):  # noqa: N818 - it is no error of the program's
    """An answer that is of no use, and in one sentence why."""


Check = Callable[Concatenate[Answer, P], Finding]
"""From a student's function, and what the check itself may be told, to a finding."""


def exercise(check: Check[Answer, P]) -> Check[Answer, P]:
    """Make a check say of an exercise that nobody began, or of a strange answer, what it is.

    The student's function is handed copies of what the check gives it (see `copied`), so one that
    changes its arguments in place is judged by what it returns, and spoils no later check.
    """

    @functools.wraps(check)
    def checked(answer: Answer, /, *args: P.args, **kwargs: P.kwargs) -> Finding:
        def apart(*given: Any) -> Any:
            return answer(*map(copied, given))

        try:
            return check(apart, *args, **kwargs)  # type: ignore[arg-type]
        except NotImplementedError:
            return NOT_WRITTEN
        except NotUsable as reason:
            return Finding(False, str(reason))

    return checked


def copied(given: Any) -> Any:
    """A copy of an array or a tensor, of a list, tuple or dict with all in it; all else as it is.

    A random generator is handed on as it is, so that what is drawn from it goes on.

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


def written(answer: object) -> None:
    """Raise `NotUsable` where the answer is what an empty function gives."""
    if answer is None or isinstance(answer, EllipsisType):
        raise NotUsable(NOT_WRITTEN.text)


def number(answer: object) -> float:
    """The answer as a float; `NotUsable` where it is no single finite number.

    >>> number(np.float32(0.5)), number(np.array(2))
    (0.5, 2.0)
    """
    value = numbers(answer, ())
    return float(value)


def whole(answer: object) -> int:
    """The answer as an int; `NotUsable` where it is no single whole number.

    >>> whole(np.int64(3))
    3
    """
    value = number(answer)
    if value != int(value):
        raise NotUsable(f"it gives {value:g}, and a whole number is needed.")
    return int(value)


def numbers(answer: object, shape: tuple[int, ...] | None = None, rows: str = "") -> Floats:
    """The answer as a new array of floats, of that ``shape`` where one is given.

    ``rows`` says in words what the axes are. Raises `NotUsable` for anything but numbers, lists of
    numbers, numpy's arrays and torch's tensors, for another shape, and for NaN and infinity.

    >>> numbers([[1, 2]], (1, 2)).tolist()
    [[1.0, 2.0]]
    """
    written(answer)
    wanted = "a number" if shape == () else "an array of numbers"
    if not _numeric(answer):
        raise NotUsable(f"it gives {_kind(answer)}, and {wanted} is needed.")
    try:
        value = np.array(_plain(answer), dtype=np.float64, subok=False)
    except (TypeError, ValueError):
        raise NotUsable(f"it gives {_kind(answer)} that holds more than {wanted}.") from None
    if shape is not None and value.shape != shape:
        given = f"an array of shape {value.shape}" if value.ndim else "one number"
        needed = f"shape {shape}{f', {rows},' if rows else ''}" if shape else "one number"
        raise NotUsable(f"it gives {given}, and {needed} is needed.")
    if not np.isfinite(value).all():
        place = tuple(np.argwhere(~np.isfinite(value))[0].tolist())
        where = f" at {place}" if place else ""
        raise NotUsable(f"it gives {value[place]}{where}, and every number has to be finite.")
    return value


def tokens(answer: object) -> list[int]:
    """The answer as a list of token ids; `NotUsable` where it is none."""
    values = numbers(answer if len(_sized(answer)) else np.zeros(0))
    if values.ndim != 1 or (values != values.round()).any():
        raise NotUsable(f"it gives {_kind(answer)}, and a list of token ids is needed.")
    return [int(value) for value in values]


def texts(answer: object) -> list[str]:
    """The answer as a list of strings; `NotUsable` where it is none."""
    items = [str(one) for one in _sized(answer) if type(one) in (str, np.str_)]
    if len(items) != len(_sized(answer)):
        raise NotUsable(f"it gives {_kind(answer)} that holds other things than texts.")
    return items


def parts(answer: object, many: int, what: str) -> Sequence[Any]:
    """The answer's ``many`` parts; `NotUsable`, saying ``what`` is needed, for another number."""
    written(answer)
    if type(answer) not in (tuple, list) or len(_sized(answer)) != many:
        raise NotUsable(f"it gives {_kind(answer)}, and {what} is needed.")
    return _sized(answer)


def looks_like(answer: Floats, wrong: Mapping[str, object], tolerance: float = 1e-9) -> str | None:
    """What the first of the ``wrong`` answers that this one equals says; None where it is none."""
    for says, seen in wrong.items():
        value = np.asarray(seen, np.float64)
        if value.shape == answer.shape and np.abs(value - answer).max(initial=0) <= tolerance:
            return says
    return None


def _sized(answer: object) -> Sequence[Any]:
    written(answer)
    if type(answer) in (list, tuple):
        return answer  # type: ignore[return-value]
    if isinstance(answer, np.ndarray) or _is_tensor(answer):
        return list(_plain(answer))
    raise NotUsable(f"it gives {_kind(answer)}, and a list is needed.")


def _numeric(answer: object) -> bool:
    kind = type(answer)
    if kind in (list, tuple):
        return True
    return (
        kind in (int, float, bool)
        or issubclass(kind, (np.ndarray, np.number, np.bool_))
        or _is_tensor(answer)
    )


def _is_tensor(answer: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(answer, torch.Tensor)


def _plain(answer: Any) -> Any:
    """Tensors as arrays, within lists as well; all else as it is."""
    if _is_tensor(answer):
        return answer.detach().cpu().double().numpy()
    if type(answer) in (list, tuple):
        return [_plain(one) if _numeric(one) else _strange(one) for one in answer]
    return answer


def _strange(one: object) -> Any:
    raise TypeError(_kind(one))


def _kind(answer: object) -> str:
    name = type(answer).__name__
    article = "an" if name[:1].lower() in "aeio" else "a"
    return f"{article} {name}"
