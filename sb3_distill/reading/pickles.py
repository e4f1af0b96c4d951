"""
Reads pickles without making an object: names stay names, and calls stay records of what would have been called.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sb3_distill.reading.limits import MAX_PICKLE_OPCODES, ReadError, check_size

_PUSHED = {
    *("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_MADE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    # A set is nothing that is read.
    "EMPTY_SET": list,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Name:
    """
    A class or function that a pickle names.

    :param module: its module
    :param name: its name
    """

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, repr=False)
class Record:
    """
    An object that unpickling would make, or a reference to something outside of the pickle.

    :param maker: the class or function that would be called; None for a reference
    :param arguments: what it would be given
    :param state: what would then be set on it
    :param items: entries that would be added to it
    """

    maker: Any
    arguments: Any = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)

    @property
    def attributes(self) -> dict[Any, Any]:
        """Its state, if that is a dictionary."""
        return self.state if isinstance(self.state, dict) else {}


class _Machine:
    """Pickle's stack, with records in place of objects."""

    def __init__(self, is_known: Callable[[Name], bool], what: str) -> None:
        self.is_known, self.what = is_known, what
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[Any, Any] = {}

    def name(self, module: Any, name: Any) -> None:
        found = Name(str(module), str(name))
        if not self.is_known(found):
            raise ReadError(f"it refers to {found}, which does not belong in {self.what}")
        self.stack.append(found)

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def pop(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise ReadError("it takes what is not there")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def add_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        target = target.items if isinstance(target, Record) else target
        if not isinstance(target, dict) or len(items) % 2:
            raise ReadError("it sets items of what has none")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # The hash of nested tuples can take forever.
            if key is not None and not isinstance(key, (str, int, float, bytes)):
                raise ReadError("it has a key that is no text or number")
            target[key] = value

    def append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise ReadError("it appends to what is no list")
        self.stack[-1] += items

    def run(self, opcode: str, argument: Any) -> None:
        """Carry out one opcode."""
        if opcode in _PUSHED:
            self.stack.append(argument)
        elif opcode in _MADE:
            self.stack.append(_MADE[opcode]())
        elif opcode in _TUPLES:
            self.stack.append(tuple(self.pop(_TUPLES[opcode])))
        elif opcode in _STEPS:
            _STEPS[opcode](self, argument)
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            raise ReadError(f"it has the opcode {opcode}, which SB3 and PyTorch do not write")

    def on_mark(self, argument: Any) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def on_put(self, argument: Any) -> None:
        self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]

    def on_tuple(self, argument: Any) -> None:
        items = tuple(self.pop_mark())
        self.stack.append(items)

    def on_list(self, argument: Any) -> None:
        items = self.pop_mark()
        self.stack.append(items)

    def on_dict(self, argument: Any) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self.add_items(items)

    def on_call(self, argument: Any) -> None:
        self.stack.append(Record(*self.pop(2)))

    def on_build(self, argument: Any) -> None:
        (state,) = self.pop(1)
        if isinstance(self.stack[-1], Record):
            self.stack[-1].state = state


_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.on_put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, key: machine.stack.append(machine.memo[key])),
    **dict.fromkeys(("LIST", "FROZENSET"), _Machine.on_list),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda machine, _: machine.append(machine.pop_mark())),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Machine.on_call),
    "MARK": _Machine.on_mark,
    "TUPLE": _Machine.on_tuple,
    "DICT": _Machine.on_dict,
    "SETITEM": lambda machine, _: machine.add_items(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.add_items(machine.pop_mark()),
    "APPEND": lambda machine, _: machine.append(machine.pop(1)),
    "GLOBAL": lambda machine, names: machine.name(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.name(*machine.pop(2)),
    "NEWOBJ_EX": lambda machine, _: machine.stack.append(Record(*machine.pop(3)[:2])),
    "BUILD": _Machine.on_build,
    "PERSID": lambda machine, key: machine.stack.append(Record(None, key)),
    "BINPERSID": lambda machine, _: machine.stack.append(Record(None, *machine.pop(1))),
    "POP": lambda machine, _: machine.pop(1),
    "POP_MARK": lambda machine, _: machine.pop_mark(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
}


def read_pickle(content: bytes, is_known: Callable[[Name], bool], what: str) -> Any:
    """
    :param content: a pickle
    :param is_known: whether a class or function belongs in such a pickle
    :param what: what the pickle should hold, for messages
    :return: its content: plain values, lists, tuples and dictionaries, with records in place of all other objects
    :raises ReadError: it is damaged, refers to something that does not belong there, or is longer than is read
    """
    machine = _Machine(is_known, what)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            check_size("it", count, MAX_PICKLE_OPCODES, "opcodes")
            machine.run(opcode.name, argument)
        (value,) = machine.stack
    except (ReadError, MemoryError):
        raise
    except Exception as error:
        raise ReadError(f"it is damaged: {type(error).__name__}: {str(error) or 'no details'}") from error
    return value


def _is_numpy(maker: Any, *names: str) -> bool:
    """Whether a name is one of numpy.core's, which NumPy 2 calls numpy._core."""
    return (
        isinstance(maker, Name)
        and maker.name in names
        and maker.module.replace("._core.", ".core.") in ("numpy.core.multiarray", "numpy.core.numeric")
    )


def _dtype_of(record: Any) -> np.dtype:
    """A type of numbers, made by its name alone."""
    text = record.arguments[0] if isinstance(record, Record) and record.maker == Name("numpy", "dtype") else None
    if not isinstance(text, str) or len(text) > 3 or text[:1] not in tuple("biuf"):
        raise ReadError(f"it has an array of the type {text!r}, not of numbers")
    order = record.state[1] if isinstance(record.state, tuple) and len(record.state) > 1 else None
    try:
        return np.dtype(f"{order}{text}" if order in ("<", ">") else text)
    except TypeError as error:
        raise ReadError(f"it has an array of the type {text!r}, not of numbers") from error


def _bytes_of(raw: Any) -> bytes:
    if isinstance(raw, Record) and raw.maker == Name("_codecs", "encode") and isinstance(raw.arguments[0], str):
        # Protocols before 3 have no bytes.
        return raw.arguments[0].encode("latin1")
    if not isinstance(raw, (bytes, bytearray)):
        raise ReadError("it has an array without bytes")
    return bytes(raw)


def read_array(record: Any) -> np.ndarray:
    """
    :param record: an array of NumPy, or a number, as ``read_pickle`` reads it
    :return: the array, made of its bytes
    :raises ReadError: it is no array of numbers, or its bytes are not as many as its shape needs
    """
    if isinstance(record, (int, float)):
        return np.array(float(record))
    try:
        fortran = False
        if _is_numpy(record.maker, "_reconstruct"):
            shape, dtype, fortran, raw = record.state[-4:]
        elif _is_numpy(record.maker, "_frombuffer"):
            raw, dtype, shape, order = record.arguments
            fortran = order == "F"
        elif _is_numpy(record.maker, "scalar"):
            (dtype, raw), shape = record.arguments, ()
        else:
            raise ReadError(f"it has {record.maker} where an array belongs")
        kind, content = _dtype_of(dtype), _bytes_of(raw)
        count = 1
        for size in shape:
            count *= int(size)
            if not isinstance(size, int) or size < 0 or count * kind.itemsize > len(content):
                raise ReadError(f"it has an array of {len(content):,} bytes whose shape asks for more")
        if count * kind.itemsize != len(content):
            raise ReadError(f"it has an array of {len(content):,} bytes whose shape asks for {count * kind.itemsize:,}")
        return np.frombuffer(content, kind).reshape(shape, order="F" if fortran else "C")
    except ReadError:
        raise
    except Exception as error:
        # Whatever stands where an array belongs
        raise ReadError(f"it has something else where an array belongs ({type(error).__name__})") from error
