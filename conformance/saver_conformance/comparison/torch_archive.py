"""Which bytes of a ``.bin`` file are which tensor, without unpickling.

``torch.save`` writes a zip file: ``data.pkl``, a pickle that names tensors, and a member for each
storage. A pickle is a program; this reads the few instructions that ``torch.save`` of a state dict
writes as data, imports nothing and calls nothing. Everything else is refused.
"""

from __future__ import annotations

import os
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saver_conformance.comparison.zip_directory import Member, ZipError, find_data, read_directory
from saver_conformance.folder.regular_file import opened
from saver_conformance.folder.safetensors import DTYPE_BITS
from saver_conformance.safe_text import quoted

MAX_PICKLE_BYTES = 32 << 20
_MAX_DIMENSIONS = 64

_STORAGES = {
    "FloatStorage": "F32",
    "DoubleStorage": "F64",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "ComplexFloatStorage": "C64",
}
_DTYPES = {
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
}


class TorchArchiveError(ValueError):
    """A file is not read as a state dict of ``torch.save``; the message says why."""


@dataclass(frozen=True, slots=True)
class ArchivedTensor:
    """A tensor of the file.

    Attributes:
        dtype: safetensors' name of the type.
        shape: the logical shape.
        strides: elements from one index of a dimension to the next; None where the elements lie
            one after the other.
        begin: where its first element begins in the file, in bytes.
        nbytes: bytes in the file from its first element to its last.
    """

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    begin: int
    nbytes: int


def read_archive(path: Path) -> dict[str, ArchivedTensor]:
    """The tensors of a state dict by name; no tensor is read.

    Raises:
        TorchArchiveError: the file holds something else, or is damaged.
        OSError: the file cannot be read.
    """
    with opened(path) as descriptor:
        try:
            members = read_directory(descriptor)
            return _read(descriptor, members)
        except ZipError as error:
            raise TorchArchiveError(f"{path.name}: {error}") from error
        except TorchArchiveError as error:
            raise TorchArchiveError(f"{path.name}: {error}") from error


def _read(descriptor: int, members: Mapping[str, Member]) -> dict[str, ArchivedTensor]:
    pickles = [name for name in members if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise TorchArchiveError(f"expected one member data.pkl, found {len(pickles)}")
    root = pickles[0].removesuffix("data.pkl")
    if (order := members.get(f"{root}byteorder")) is not None:
        word = os.pread(descriptor, min(order.size, 16), find_data(descriptor, order))
        if word != b"little":
            raise TorchArchiveError(f"the byte order is {quoted(word)}, expected b'little'")
    member = members[pickles[0]]
    if member.size > MAX_PICKLE_BYTES:
        raise TorchArchiveError(f"data.pkl has {member.size} bytes, at most {MAX_PICKLE_BYTES}")
    text = os.pread(descriptor, member.size, find_data(descriptor, member))
    plain = _Machine().run(text)
    if not isinstance(plain, dict):
        raise TorchArchiveError("it holds no state dict")
    found: dict[str, ArchivedTensor] = {}
    for name, value in plain.items():
        if isinstance(value, _Tensor):
            found[name] = _place(name, value, members.get(f"{root}data/{value.key}"), descriptor)
        else:
            raise TorchArchiveError(f"{quoted(name)} is no tensor")
    return found


def _place(name: str, tensor: _Tensor, member: Member | None, descriptor: int) -> ArchivedTensor:
    if member is None:
        raise TorchArchiveError(f"the storage of {quoted(name)} is missing")
    item = DTYPE_BITS[tensor.dtype] // 8
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.strides, strict=True))
    count = 0 if 0 in tensor.shape else last + 1
    if (tensor.offset + count) * item > member.size:
        raise TorchArchiveError(f"{quoted(name)} ends behind its storage of {member.size} bytes")
    begin = find_data(descriptor, member) + tensor.offset * item
    strides = None if _is_contiguous(tensor) else tensor.strides
    return ArchivedTensor(tensor.dtype, tensor.shape, strides, begin, count * item)


def _is_contiguous(tensor: _Tensor) -> bool:
    step = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if size == 0:
            return True
        if size > 1 and stride != step:
            return False
        step *= size
    return True


@dataclass(frozen=True, slots=True)
class _Global:
    """Something that a pickle would import."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: str | None
    key: str


@dataclass(frozen=True, slots=True)
class _Tensor:
    dtype: str
    key: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Ignored:
    """What does not matter: hooks, and settings of a state dict."""


_MARK = object()


class _Machine:
    """The stack and the memo of a pickle, of which only data is made."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, text: bytes) -> Any:
        """The object that the pickle holds."""
        try:
            for opcode, argument, _ in pickletools.genops(text):
                if opcode.name == "STOP":
                    return self._stack.pop()
                self._step(opcode.name, argument)
        except TorchArchiveError:
            raise
        except (ValueError, TypeError, LookupError, OverflowError, UnicodeError) as error:
            raise TorchArchiveError(f"data.pkl cannot be parsed: {quoted(str(error))}") from error
        raise TorchArchiveError("data.pkl has no end")

    def _step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self._stack.append(_LITERALS[name](argument))
        elif name in ("PROTO", "FRAME"):
            pass
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        elif (function := _STEPS.get(name)) is not None:
            function(self)
        else:
            raise TorchArchiveError(f"data.pkl has the instruction {name}, no state dict needs it")

    def _take(self) -> list[Any]:
        """What lies on the stack above the last mark, which goes too."""
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise TorchArchiveError("data.pkl lacks a mark")
        taken = self._stack[at + 1 :]
        del self._stack[at:]
        return taken

    def _pop(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise TorchArchiveError("data.pkl takes more from its stack than lies there")
        taken = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return taken

    def _tuple(self) -> None:
        self._stack.append(tuple(self._take()))

    def _tuple_of(self, count: int) -> None:
        self._stack.append(tuple(self._pop(count)))

    def _stack_global(self) -> None:
        module, name = self._pop(2)
        self._stack.append(_global(f"{module} {name}"))

    def _persistent(self) -> None:
        self._stack.append(_storage(self._stack.pop()))

    def _reduce(self) -> None:
        function, arguments = self._pop(2)
        self._stack.append(_call(function, arguments))

    def _build(self) -> None:
        self._pop(1)  # a state dict's _metadata

    def _set_item(self) -> None:
        self._set(self._pop(2))

    def _set_items(self) -> None:
        self._set(self._take())

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, _Ignored):
            return
        if not isinstance(target, dict) or len(items) % 2:
            raise TorchArchiveError("data.pkl sets items of what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                raise TorchArchiveError("a key of the state dict is no string")
            target[key] = value

    def _append(self) -> None:
        self._pop(1)

    def _appends(self) -> None:
        self._take()


def _global(argument: str) -> _Global:
    module, _, name = argument.partition(" ")
    return _Global(module, name)


_LITERALS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(
        ("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        lambda argument: argument,
    ),
    "GLOBAL": _global,
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "MARK": lambda _: _MARK,
    "EMPTY_TUPLE": lambda _: (),
    "EMPTY_DICT": lambda _: {},
    # Lists are no part of a state dict, and nobody looks into those next to it.
    "EMPTY_LIST": lambda _: _Ignored(),
}
_STEPS: Mapping[str, Callable[[_Machine], None]] = {
    "TUPLE": _Machine._tuple,
    "TUPLE1": lambda machine: machine._tuple_of(1),
    "TUPLE2": lambda machine: machine._tuple_of(2),
    "TUPLE3": lambda machine: machine._tuple_of(3),
    "STACK_GLOBAL": _Machine._stack_global,
    "BINPERSID": _Machine._persistent,
    "REDUCE": _Machine._reduce,
    "BUILD": _Machine._build,
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_items,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
}


def _storage(identity: Any) -> _Storage:
    """The storage that ``("storage", type, key, location, number of elements)`` means."""
    if not isinstance(identity, tuple) or len(identity) != 5 or identity[0] != "storage":
        raise TorchArchiveError("data.pkl refers to something outside that is no storage")
    kind, key = identity[1], identity[2]
    if not isinstance(kind, _Global) or not isinstance(key, str):
        raise TorchArchiveError("a storage has no type or no key")
    if kind.name == "UntypedStorage":
        return _Storage(None, key)
    if kind.name not in _STORAGES:
        raise TorchArchiveError(f"the type of storage {quoted(kind.name)} is not known")
    return _Storage(_STORAGES[kind.name], key)


def _call(function: Any, arguments: Any) -> Any:
    """What a call would give, as data; only what a state dict is made of is known."""
    if not isinstance(function, _Global) or not isinstance(arguments, tuple):
        raise TorchArchiveError("data.pkl calls what is no function")
    name = f"{function.module}.{function.name}"
    if name == "collections.OrderedDict" and not arguments:
        return {}
    if name == "torch._utils._rebuild_tensor_v2" and len(arguments) >= 4:
        return _tensor(*arguments[:4])
    if name == "torch._utils._rebuild_tensor_v3" and len(arguments) >= 7:
        kind = arguments[6]
        dtype = _DTYPES.get(kind.name) if isinstance(kind, _Global) else None
        return _tensor(*arguments[:4], dtype=dtype)
    is_parameter = name == "torch._utils._rebuild_parameter" and arguments
    if is_parameter and isinstance(arguments[0], _Tensor):
        return arguments[0]
    raise TorchArchiveError(f"data.pkl calls {quoted(name)}, no state dict needs it")


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, *, dtype: str | None = None
) -> _Tensor:
    if not isinstance(storage, _Storage) or (dtype := dtype or storage.dtype) is None:
        raise TorchArchiveError("a tensor has no storage or no dtype")
    if not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise TorchArchiveError("a tensor has no shape or no strides")
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > _MAX_DIMENSIONS:
        raise TorchArchiveError("the shape and the strides of a tensor do not fit each other")
    if not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers):
        raise TorchArchiveError("a shape or strides hold no sizes")
    return _Tensor(dtype, storage.key, offset, shape, strides)
