"""Arrays that NumPy makes by itself, managed: a data allocator after NEP 49.

Its functions are the library's own (vkhmm_memory_*): NumPy calls them as it calls malloc, and no Python runs there.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from typing import Any, Iterator

import numpy

from . import _abi
from ._runtime import Runtime, chosen

# NumPy 1 has it elsewhere.
_numpy = importlib.import_module(f"numpy.{'_core' if int(numpy.__version__.split('.')[0]) > 1 else 'core'}._multiarray_umath")

# Of numpy/__multiarray_api.h since 1.22.
_SET_HANDLER = 304


class _Allocator(ctypes.Structure):
    """PyDataMemAllocator."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("context", "malloc", "calloc", "realloc", "free")]


class _Handler(ctypes.Structure):
    """PyDataMem_Handler, version 1."""

    _fields_ = [("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("allocator", _Allocator)]


def _address(name: str) -> int | None:
    return ctypes.cast(getattr(_abi.library, name), ctypes.c_void_p).value


def _api(index: int) -> int:
    capsule = _numpy._ARRAY_API
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.argtypes, pointer.restype = (ctypes.py_object, ctypes.c_char_p), ctypes.POINTER(ctypes.c_void_p)
    found: int = pointer(capsule, None)[index]
    return found


_set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(_api(_SET_HANDLER))
_NAME = b"mem_handler"

# Arrays keep the handler they were made by, and the library is what frees them, maybe after the last line of Python: what is here, and
# the runtimes, stay for good.
_handlers: dict[int, tuple[_Handler, Any]] = {}


def _handler(runtime: Runtime) -> Any:
    """NumPy's capsule for a runtime."""
    if runtime._id not in _handlers:
        names = ("vkhmm_memory_malloc", "vkhmm_memory_calloc", "vkhmm_memory_realloc", "vkhmm_memory_free")
        made = _Handler(b"vkhmm_managed", 1, _Allocator(runtime._id, *map(_address, names)))
        new = ctypes.pythonapi.PyCapsule_New
        new.argtypes, new.restype = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p), ctypes.py_object
        capsule = new(ctypes.addressof(made), _NAME, None)
        for kept in (made, capsule, runtime):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
        _handlers[runtime._id] = made, capsule
    return _handlers[runtime._id][1]


@contextlib.contextmanager
def managed(runtime: Runtime | None = None) -> Iterator[None]:
    """Inside, every array of 1 MiB or more that NumPy makes is managed, whoever makes it; smaller ones are as always.

    They stay managed after the block, and are freed with their last view. The block is the context's, as :mod:`contextvars` has it: other
    threads and tasks are not concerned. The runtime lives until the process ends.

    In a forked child new arrays are ordinary ones, also inside.
    """
    old = _set_handler(_handler(chosen(runtime)))
    try:
        yield
    finally:
        _set_handler(old)
