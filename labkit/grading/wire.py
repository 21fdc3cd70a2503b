"""What passes between the tests and a student's kernel: plain data, and nothing that can run.

A message is a list of values: None, true and false, numbers, texts, lists, tuples, dictionaries
with texts as keys, numpy's arrays and torch's tensors, numpy's generators, and functions, which
stay where they are and are called from afar. It is written as JSON with the arrays' bytes behind
it. Reading makes such values and no others, no matter who wrote it; pickle, which can run
anything, is not used.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

MOST_BYTES = 1 << 28
"""The longest message that is read."""
DEEPEST = 50
"""How deep lists may be nested."""
KINDS = {
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16",
    "float32", "float64",
}  # fmt: skip
"""The number formats of arrays that are passed on."""

Functions = Callable[[Callable[..., Any]], Any]
"""From a function to the name under which the other side may call it."""
Callables = Callable[[Any], Callable[..., Any]]
"""From such a name to something that can be called here."""


class WireError(Exception):
    """A value that cannot be sent, or a message that cannot be read; one sentence."""


class ClosedError(WireError):
    """The other side is gone."""


class LateError(WireError):
    """The other side has not answered in time."""


def pack(value: object, functions: Functions) -> bytes:
    """Return the value as a message; raises `WireError` for anything but plain data.

    ``functions`` gives a name to each function in it.
    """
    writer = _Writer(functions)
    try:
        head = json.dumps(writer.plain(value)).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError(f"it gives something that cannot be passed on ({error})") from None
    return b"".join([struct.pack("!I", len(head)), head, *writer.buffers])


def unpack(message: bytes, callables: Callables) -> Any:
    """Return the value of a message; raises `WireError` if it cannot be read.

    ``callables`` makes of a function's name something to call.
    """
    try:
        (size,) = struct.unpack_from("!I", message)
        head = json.loads(message[4 : 4 + size])
        return _Reader(memoryview(message)[4 + size :], callables).value(head)
    except WireError:
        raise
    except Exception as error:
        raise WireError(f"a message makes no sense ({type(error).__name__})") from None


class _Writer:
    """Makes JSON of values: plain ones as they are, others as lists that begin with their kind."""

    def __init__(self, functions: Functions) -> None:
        self.buffers: list[bytes] = []
        self._functions = functions
        self._depth = 0

    def plain(self, value: Any) -> Any:
        """Return JSON for a value; the bytes of arrays are added to ``buffers``."""
        if value is None or type(value) in (bool, int, str):
            return value
        self._depth += 1
        if self._depth > DEEPEST:
            raise WireError("it gives lists within lists without end")
        try:
            return self._collection(value)
        finally:
            self._depth -= 1

    def _collection(self, value: Any) -> Any:
        kind: Any = type(value)
        if kind in COLLECTIONS:
            return [COLLECTIONS[kind], [self.plain(item) for item in value]]
        if kind is dict:
            if any(type(key) is not str for key in value):
                raise WireError("it gives a dictionary whose keys are not all texts")
            return ["dict", {key: self.plain(item) for key, item in value.items()}]
        return self._single(value)

    def _single(self, value: Any) -> Any:
        if value is ...:
            return ["..."]
        if type(value) is float:
            return value if math.isfinite(value) else ["float", repr(value)]
        if type(value) is np.random.Generator:
            return ["generator", value.bit_generator.state]
        return self._other(value)

    def _other(self, value: Any) -> Any:
        if isinstance(value, np.generic):
            return self.plain(value.item())
        if isinstance(value, np.ndarray):
            return self._array("array", value)
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            plain = value.detach().cpu()
            plain = plain.float() if plain.dtype == torch.bfloat16 else plain
            return self._array("tensor", plain.numpy())
        if callable(value):
            return ["function", self._functions(value)]
        raise WireError(
            f"it gives a {type(value).__name__}, and plain numbers, texts or lists are needed"
        )

    def _array(self, name: str, value: np.ndarray) -> Any:
        array = np.ascontiguousarray(np.asarray(value)).reshape(np.shape(value))
        if array.dtype.name not in KINDS:
            raise WireError(f"it gives an array of {array.dtype.name}, and numbers are needed")
        if array.nbytes > MOST_BYTES:
            raise WireError(f"it gives an array of {array.nbytes:,} bytes, which is too much")
        self.buffers.append(array.tobytes())
        return [name, array.dtype.name, list(map(int, array.shape))]


COLLECTIONS = {list: "list", range: "list", tuple: "tuple", set: "set", frozenset: "set"}
"""The types that are written as a list of their items, and the kind that is read again."""


class _Reader:
    """Reads values out of JSON and the bytes behind it, in the order in which they were written."""

    def __init__(self, rest: memoryview, callables: Callables) -> None:
        self._rest = rest
        self._depth = 0
        self._kinds: dict[str, Callable[..., Any]] = {
            "list": lambda items: [self.value(item) for item in items],
            "tuple": lambda items: tuple(self.value(item) for item in items),
            "set": lambda items: {self.value(item) for item in items},
            "dict": lambda items: {str(key): self.value(item) for key, item in items.items()},
            "array": self._numbers,
            "tensor": self._tensor,
            "float": float,
            "generator": _generator,
            "function": callables,
            "...": lambda: ...,
        }

    def value(self, given: Any) -> Any:
        """Return the value that ``given`` stands for."""
        if not isinstance(given, (list, dict)):
            return given
        self._depth += 1
        if isinstance(given, dict) or given[0] not in self._kinds or self._depth > DEEPEST:
            raise WireError("a message makes no sense")
        made = self._kinds[given[0]](*given[1:])
        self._depth -= 1
        return made

    def _numbers(self, dtype: str, shape: list[int]) -> Any:
        if dtype not in KINDS or any(type(n) is not int or n < 0 for n in shape):
            raise WireError("a message holds a strange array")
        size = int(math.prod(shape)) * np.dtype(dtype).itemsize
        if size > len(self._rest):
            raise WireError("a message is shorter than it says")
        array = np.frombuffer(self._rest[:size], dtype).reshape(shape).copy()
        self._rest = self._rest[size:]
        return array

    def _tensor(self, dtype: str, shape: list[int]) -> Any:
        import torch

        return torch.from_numpy(self._numbers(dtype, shape))


def _generator(state: dict[str, Any]) -> np.random.Generator:
    made = np.random.default_rng()
    made.bit_generator.state = state
    return made


def generators(args: Sequence[Any]) -> list[np.random.Generator]:
    """Return the generators among the arguments of a call, which the call may move."""
    return [one for one in args if type(one) is np.random.Generator]


def bring_up_to_date(args: Sequence[Any], moved: Sequence[Any]) -> None:
    """Move the generators among ``args`` to the state in which the other side left its copies."""
    ours = generators(args)
    if len(ours) != len(moved) or generators(moved) != list(moved):
        raise WireError("the other side's answer makes no sense")
    for generator, there in zip(ours, moved, strict=True):
        generator.bit_generator.state = there.bit_generator.state


class Line:
    """One end of a connection that carries whole messages."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection

    def send(self, message: bytes) -> None:
        """Send a message; raises `ClosedError` if the other side is gone."""
        try:
            self._connection.settimeout(None)
            self._connection.sendall(struct.pack("!Q", len(message)) + message)
        except OSError:
            raise ClosedError("the other side is gone") from None

    def receive(self, deadline: float | None = None) -> bytes:
        """Return the next message; raises `ClosedError`, or `LateError` at ``deadline``."""
        (size,) = struct.unpack("!Q", self._read(8, deadline))
        if size > MOST_BYTES:
            raise WireError(f"it gives {size:,} bytes, which is too much")
        return self._read(size, deadline)

    def _read(self, size: int, deadline: float | None) -> bytes:
        parts: list[bytes] = []
        while size:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise LateError("no answer in time")
            try:
                self._connection.settimeout(left)
                part = self._connection.recv(min(size, 1 << 20))
            except TimeoutError:
                raise LateError("no answer in time") from None
            except OSError:
                raise ClosedError("the other side is gone") from None
            if not part:
                raise ClosedError("the other side is gone")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()
