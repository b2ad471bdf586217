"""Arrays over managed memory: plain numpy.ndarray, whose memory is freed with its last view."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from typing import Any, Callable, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import _abi, _errors
from ._runtime import Runtime, chosen


Order = Literal["C", "F"]


class _Memory:
    """Managed bytes, the base of every view of them. They are freed with it."""

    __slots__ = ("__array_interface__", "__weakref__", "_id", "_runtime")

    def __init__(self, runtime: Runtime, size: int, label: str) -> None:
        self._id = 0
        self._runtime = runtime
        # An empty array has an address, too.
        self._id = _abi.number(_abi.alloc, runtime._id, max(1, size), label.encode())
        pointer = ctypes.c_void_p()
        _abi.check(_abi.buffer_pointer(self._id, ctypes.byref(pointer)))
        self.__array_interface__ = {"data": (pointer.value, False), "shape": (size,), "typestr": "|u1", "version": 3}

    def __del__(self, release: Callable[[int], None] = _abi.release_handle) -> None:
        release(self._id)


def _caller() -> str:
    frame = sys._getframe(2)
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


def _make(shape: Any, dtype: DTypeLike, order: Order, runtime: Runtime | None, label: str) -> NDArray[Any]:
    kind = np.dtype(dtype)
    if kind.hasobject:
        raise _errors.ArgumentError(f"an array of {kind} holds Python objects, which no kernel can use: pass a dtype of plain numbers")
    sizes = tuple(int(n) for n in (shape if np.iterable(shape) else (shape,)))
    if min(sizes, default=0) < 0:
        raise _errors.ArgumentError(f"shape {sizes} has a negative size")
    if order not in ("C", "F"):
        raise _errors.ArgumentError(f'order is {order!r}: say "C" or "F"')
    size = math.prod(sizes) * kind.itemsize
    # NumPy counts the other sides of an empty array, too.
    if math.prod(max(1, n) for n in sizes) * kind.itemsize >= 2**63:
        raise _errors.OutOfMemoryError(f"an array of {kind} of shape {sizes} is larger than any address space: ask for less than 2**63 bytes")
    bytes_of = np.asarray(_Memory(chosen(runtime), size, label))
    return np.ndarray(sizes, kind, bytes_of, order=order)


def empty(
    shape: int | tuple[int, ...],
    dtype: DTypeLike = float,
    order: Order = "C",
    *,
    runtime: Runtime | None = None,
    label: str | None = None,
) -> NDArray[Any]:
    """A managed array. Its elements are zero; no memory is taken until they are touched, here or by a kernel.

    Args:
        order: "C" or "F".
        runtime: whose memory; the default runtime's if left out.
        label: what errors and reports call it; the caller's file and line if left out.

    Raises:
        ArgumentError: a dtype that holds Python objects.
        OutOfMemoryError: no addresses for it.
    """
    return _make(shape, dtype, order, runtime, label or _caller())


def zeros(
    shape: int | tuple[int, ...],
    dtype: DTypeLike = float,
    order: Order = "C",
    *,
    runtime: Runtime | None = None,
    label: str | None = None,
) -> NDArray[Any]:
    """A managed array of zeros: :func:`empty`, said for those who read."""
    return _make(shape, dtype, order, runtime, label or _caller())


def array(
    object: ArrayLike, dtype: DTypeLike | None = None, *, runtime: Runtime | None = None, label: str | None = None
) -> NDArray[Any]:
    """A managed copy of anything that numpy.asarray takes, in its order."""
    source = np.asarray(object, dtype)
    order: Order = "F" if source.flags.f_contiguous and not source.flags.c_contiguous else "C"
    made = _make(source.shape, source.dtype, order, runtime, label or _caller())
    made[...] = source
    return made


class Place(NamedTuple):
    """Where an array lies: in which buffer of which runtime, from which byte to which."""

    runtime: int
    buffer: int
    start: int
    end: int

    @property
    def part(self) -> tuple[int, int, int]:
        """As functions of the C ABI take it."""
        return self.buffer, self.start, self.end - self.start


def _find(address: int) -> tuple[int, int, int] | None:
    runtime, buffer, offset = ctypes.c_uint64(), ctypes.c_uint64(), ctypes.c_uint64()
    out = (ctypes.byref(value) for value in (runtime, buffer, offset))
    if _abi.check(_abi.buffer_find(address, *out)) == _abi.NONE:
        return None
    return runtime.value, buffer.value, offset.value


def place(array: NDArray[Any], what: str = "the array") -> Place:
    """The bytes that an array's elements span.

    Raises:
        NotManagedError: they are not in managed memory.
    """
    if not isinstance(array, np.ndarray):
        raise _errors.NotManagedError(f"{what} is a {type(array).__name__}: pass a managed array (vkhmm.array makes one)")
    address = array.__array_interface__["data"][0]
    low = high = 0
    if array.size:
        for n, stride in zip(array.shape, array.strides):
            low, high = low + min(0, (n - 1) * stride), high + max(0, (n - 1) * stride)
        high += array.itemsize
    found = _find(address)
    if found is None:
        raise _errors.NotManagedError(
            f"{what} ({array.dtype}, shape {array.shape}) is not in managed memory: make it with vkhmm.empty or vkhmm.array, or inside "
            "vkhmm.managed() where it is 1 MiB or more; operators make new arrays, so write into managed ones (out=, a[...] = b)"
        )
    runtime, buffer, offset = found
    return Place(runtime, buffer, offset + low, offset + high)


def is_managed(array: Any) -> bool:
    """Whether an array's elements lie in managed memory, of any runtime. Touches nothing. In a forked child nothing does."""
    if not isinstance(array, np.ndarray):
        return False
    try:
        return _find(array.__array_interface__["data"][0]) is not None
    except _errors.ForkedError:
        return False


READ, WRITE, OVERWRITE = 1, 2, 3
_VERBS = {READ: "read", WRITE: "write", OVERWRITE: "overwrite"}


class Access:
    """An array, and what a kernel may do with it. Made by :func:`read`, :func:`write` and :func:`overwrite`."""

    __slots__ = ("array", "kind")

    def __init__(self, array: NDArray[Any], kind: int) -> None:
        self.array, self.kind = array, kind

    def __repr__(self) -> str:
        return f"{_VERBS[self.kind]}({self.array.dtype}, shape {self.array.shape})"

    def resolve(self, argument: int) -> tuple[int, _abi.Access]:
        """The runtime, and the access as the C ABI takes it."""
        array, what = self.array, f"access {argument}"
        at = place(array, what)
        if not array.flags.c_contiguous:
            raise _errors.ArgumentError(
                f"{what} (shape {array.shape}, strides {array.strides}) is not C-contiguous: a kernel is given a run of bytes. Pass the "
                "array that it is a view of, or copy it into a managed array"
            )
        if self.kind != READ and not array.flags.writeable:
            raise _errors.ArgumentError(f"{what} is read-only in NumPy, and the kernel is to {_VERBS[self.kind]} it: pass read(array)")
        return at.runtime, _abi.Access(at.buffer, at.start, at.end - at.start, self.kind, 0)


def read(array: NDArray[Any]) -> Access:
    """The kernel reads the array, a C-contiguous view of managed memory. Several launches and CPU threads may read at a time."""
    return Access(array, READ)


def write(array: NDArray[Any]) -> Access:
    """The kernel reads and writes the array."""
    return Access(array, WRITE)


def overwrite(array: NDArray[Any]) -> Access:
    """The kernel writes all of the array: what it held is dead, and nothing of it is copied to the device.

    What the kernel leaves out is unspecified afterwards.
    """
    return Access(array, OVERWRITE)
