"""Where arrays are, and what is said about them ahead: residency, prefetches, advice, guards and pins."""

from __future__ import annotations

import contextlib
import ctypes
import enum
from typing import Any, Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from . import _abi, _errors
from ._arrays import place
from ._launch import Launch

PAGE_BYTES = 4096

_SIDES = {"host": 1, "device": 2}
_NAMES = {0: None, 1: "host", 2: "device"}


def _side(name: str, what: str) -> int:
    if name not in _SIDES:
        raise _errors.ArgumentError(f'{what} is {name!r}: say "host" or "device"')
    return _SIDES[name]


class Location(enum.IntEnum):
    """Where the current bytes of a page are: the values of :func:`residency`."""

    ABSENT = 0
    """Nowhere: zeros that nobody has written."""
    HOST = 1
    """On the host."""
    SHARED = 2
    """On both sides, the same."""
    DEVICE = 3
    """On the device, and only there."""
    LOST = 4
    """Gone, with the device that held the only copy."""


def residency(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Where each page of 4 KiB that an array touches is, as :class:`Location`: one number a page, in the order of memory, to be plotted.

    Moves nothing. The array is an ordinary one.
    """
    buffer, start, size = place(array).part
    first, end = start // PAGE_BYTES, -(-(start + size) // PAGE_BYTES)
    pages = np.zeros(max(0, end - first), np.uint8)
    if size:
        for run in _abi.runs(_abi.buffer_residency, _abi.Residency, (buffer, start, size)):
            from_page, to_page = run.offset // PAGE_BYTES, -(-(run.offset + run.bytes) // PAGE_BYTES)
            pages[max(0, from_page - first) : max(0, to_page - first)] = run.location
    return pages


def prefetch(array: NDArray[Any], to: str = "device") -> Launch:
    """Starts to bring an array to the "device", where the CPU may still read it, or to the "host". A hint: it waits for nobody.

    The launch may be waited for.
    """
    at = place(array)
    function = (_abi.prefetch_to_host, _abi.prefetch_to_device)[_side(to, "to") - 1]
    return Launch(array, _abi.number(function, *at.part))


def discard(array: NDArray[Any]) -> int:
    """Says that nobody needs what the array holds: nothing of it is copied home. Until they are written again, elements are some earlier
    values of theirs, or zeros. Returns the bytes whose copy home is saved.
    """
    if not array.flags.c_contiguous:
        raise _errors.ArgumentError("discard: the array is not C-contiguous, so there are bytes between its elements that are not its own")
    return _abi.number(_abi.discard, *place(array).part)


class Advice:
    """What is said about an array's pages: properties to read, and some to set. Made by :func:`advise`.

    A property of an array whose pages differ is None.
    """

    __slots__ = ("_array",)

    def __init__(self, array: NDArray[Any]) -> None:
        place(array)
        self._array = array

    def _say(self, advice: int) -> None:
        _abi.check(_abi.advise(*place(self._array).part, advice))

    def _all(self, name: str) -> int | None:
        found = {getattr(run, name) for run in _abi.runs(_abi.buffer_attributes, _abi.Attributes, place(self._array).part)}
        return found.pop() if len(found) == 1 else None

    def _flag(self, name: str) -> bool | None:
        value = self._all(name)
        return None if value is None else bool(value)

    @property
    def preferred(self) -> str | None:
        """Where they had better be: "host", "device" or None. On the host, their frames are given up first; on the device, last."""
        return _NAMES[self._all("preferred") or 0]

    @preferred.setter
    def preferred(self, side: str | None) -> None:
        self._say(3 if side is None else _side(side, "preferred"))

    @property
    def read_mostly(self) -> bool | None:
        """They are read far more often than written, by both sides."""
        return self._flag("read_mostly")

    @read_mostly.setter
    def read_mostly(self, yes: bool) -> None:
        self._say(4 if yes else 5)

    @property
    def accessed_by(self) -> bool | None:
        """Kernels are to work on the host's bytes in place: of a whole allocation, before its first use on the device."""
        return self._flag("accessed_by")

    @accessed_by.setter
    def accessed_by(self, yes: bool) -> None:
        self._say(6 if yes else 7)

    @property
    def last_prefetch(self) -> str | None:
        """Where the last prefetch was to bring them."""
        return _NAMES[self._all("last_prefetch") or 0]

    @property
    def in_place(self) -> bool | None:
        """Kernels do work on the host's bytes, because it was advised or for another reason."""
        return self._flag("in_place")

    @property
    def pinned(self) -> str | None:
        """The side that a guard or pin keeps them on."""
        return "host" if self._all("pinned_host") else "device" if self._all("pinned_device") else None

    @property
    def thrash_guarded(self) -> bool | None:
        """Host and device took them from each other: they stay where they are for a while."""
        return self._flag("thrash_guarded")

    def __repr__(self) -> str:
        names = ("preferred", "read_mostly", "accessed_by", "last_prefetch", "in_place", "pinned", "thrash_guarded")
        return f"<vkhmm.Advice {', '.join(f'{name}={getattr(self, name)!r}' for name in names)}>"


def advise(array: NDArray[Any]) -> Advice:
    """What is said about an array, to be read and set: ``vkhmm.advise(a).read_mostly = True``.

    Hints, until something else is said: they move nothing by themselves, and change no result.
    """
    return Advice(array)


@contextlib.contextmanager
def _kept(array: NDArray[Any], begin: Callable[..., int], *more: Any) -> Iterator[NDArray[Any]]:
    at = place(array)
    handle = _abi.number(begin, *at.part, *more)
    try:
        yield array
    finally:
        # Also where the block failed because its runtime was: a handle that is gone is what is wanted.
        _abi.release_handle(handle)


def _begin(buffer: int, start: int, size: int, kind: int, out: Any) -> int:
    result: int = _abi.host_begin(buffer, start, size, kind, out, None)
    return result


def host(array: NDArray[Any], write: bool = False) -> contextlib.AbstractContextManager[NDArray[Any]]:
    """Brings an array home and keeps it there for a ``with`` block, in which system calls may work on it: files, sockets, readinto.

    NumPy and everything else that computes needs no guard. Launches that write the array, or with `write` use it at all, raise
    :class:`~vkhmm.GuardedError` inside.

    Args:
        write: the system call changes the array.
    """
    return _kept(array, _begin, 2 if write else 1)


def pin(array: NDArray[Any], side: str) -> contextlib.AbstractContextManager[NDArray[Any]]:
    """Brings an array to the "host" or the "device" and keeps it there for a ``with`` block.

    On the host, launches that name it raise :class:`~vkhmm.GuardedError`; on the device, nothing takes its place there.
    """
    return _kept(array, _abi.pin, _side(side, "side"))
