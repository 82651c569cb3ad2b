# SPDX-License-Identifier: Apache-2.0
"""Reads a pickled ``.npy`` that holds a dict of arrays, without unpickling it.

A pickle is a program for a stack machine; unpickling runs it, whatever it calls. Here the program
is read by :mod:`pickletools`, which executes nothing, and acted out for the few instructions that
build dicts, lists, strings, numbers and plain numpy arrays. Everything else is refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from styleavatar_core.errors import AssetError, NotFoundError

# Names that a pickled array refers to, and what they stand for here. None is ever imported.
_NAMES = {
    "numpy.core.multiarray _reconstruct": "new array",
    "numpy._core.multiarray _reconstruct": "new array",
    "numpy ndarray": "array type",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",
}
_PLAIN_KINDS = "biufUS"


class _Array:
    """An array that has been announced; its content follows."""

    value: Any = None

    def fill(self, state: Any) -> None:
        _, shape, dtype, is_fortran, content = state
        if dtype.kind == "O":
            if shape != () or not isinstance(content, list) or len(content) != 1:
                raise ValueError("an array of objects")
            self.value = content[0]
            return
        flat = np.frombuffer(content, dtype.dtype())
        self.value = flat.reshape(shape, order="F" if is_fortran else "C")


class _Dtype:
    """A dtype that has been announced; its byte order follows."""

    def __init__(self, name: str) -> None:
        self.kind, self._size, self._order = name[0], name[1:], "|"
        if self.kind not in _PLAIN_KINDS + "O" or not self._size.isdigit():
            raise ValueError(f"the dtype {name}")

    def fill(self, state: Any) -> None:
        self._order = {"<": "<", ">": ">", "|": "|", "=": "="}[state[1]]

    def dtype(self) -> np.dtype:
        return np.dtype(f"{self._order}{self.kind}{self._size}")


def read_pickled_dict(path: Path) -> dict[str, Any]:
    """Reads what ``np.save(path, dictionary)`` wrote.

    Args:
        path: The ``.npy`` file.

    Returns:
        The dict: numpy arrays, numbers, strings, and lists and dicts of them.

    Raises:
        NotFoundError: There is no such file.
        AssetError: It is no such file, is damaged, or holds something else than plain values.
    """
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}")
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read_header(file)
            if shape != () or dtype != np.dtype(object):
                raise ValueError(f"an array of shape {shape} and type {dtype}")
            value = _plain(_Machine().run(file))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise AssetError(
            f"{path.name} is not a dict of plain arrays saved by numpy, or it is damaged. Nothing "
            f"in it was executed; what was found instead: {error}."
        ) from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise AssetError(f"{path.name} holds a {type(value).__name__} and not a dict of arrays.")
    return value


class _Machine:
    """The stack machine, for the instructions that plain values need."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._simple: dict[str, Callable[[], Any]] = {
            "EMPTY_DICT": dict,
            "EMPTY_LIST": list,
            "EMPTY_TUPLE": tuple,
            "NONE": lambda: None,
            "NEWTRUE": lambda: True,
            "NEWFALSE": lambda: False,
            "TUPLE": lambda: tuple(self._above_mark()),
            "LIST": lambda: self._above_mark(),
            "TUPLE1": lambda: tuple(self._pop(1)),
            "TUPLE2": lambda: tuple(self._pop(2)),
            "TUPLE3": lambda: tuple(self._pop(3)),
            "REDUCE": lambda: self._call(*self._pop(2)),
            "STACK_GLOBAL": lambda: _NAMES[" ".join(self._pop(2))],
        }

    def run(self, file: Any) -> Any:
        """Acts out one pickle and returns what it leaves."""
        argument: Any  # of the kind that the instruction takes
        for instruction, argument, _ in pickletools.genops(file):
            name = instruction.name
            if name in self._simple:
                self._stack.append(self._simple[name]())
            elif name == "GLOBAL":
                self._stack.append(_NAMES[argument])
            elif name == "MARK":
                self._marks.append(len(self._stack))
            elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
                self._memo[len(self._memo) if argument is None else argument] = self._stack[-1]
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                self._stack.append(self._memo[argument])
            elif name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"):
                self._change(name)
            elif type(argument) in (int, float, str, bytes) and name not in ("PROTO", "FRAME"):
                self._stack.append(argument)  # a number, a text, bytes
            elif name == "STOP":
                return self._stack.pop()
            elif name not in ("PROTO", "FRAME"):
                raise ValueError(f"the instruction {name}")
        raise ValueError("no end")

    def _pop(self, count: int) -> list[Any]:
        values = self._stack[-count:]
        del self._stack[-count:]
        return values

    def _above_mark(self) -> list[Any]:
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _change(self, name: str) -> None:
        if name == "BUILD":
            (state,) = self._pop(1)
            self._stack[-1].fill(state)
            return
        is_list = name.startswith("APPEND")
        values = self._above_mark() if name.endswith("S") else self._pop(1 if is_list else 2)
        if is_list:
            self._stack[-1].extend(values)
        else:
            self._stack[-1].update(zip(values[::2], values[1::2], strict=True))

    def _call(self, name: Any, arguments: tuple[Any, ...]) -> Any:
        if name == "new array" and arguments[0] == "array type":
            return _Array()
        if name == "dtype":
            return _Dtype(arguments[0])
        if name == "encode" and arguments[1] == "latin1":
            return arguments[0].encode("latin1")
        raise ValueError(f"a call of {name}")


def _plain(value: Any) -> Any:
    """Puts finished arrays in the place of those announced."""
    if isinstance(value, _Array):
        return _plain(value.value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, np.ndarray | str | int | float | bytes):
        return value
    raise ValueError(f"a {type(value).__name__}")
