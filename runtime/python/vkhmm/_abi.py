"""The C ABI (vkhmm.h) by ctypes: the library beside this file, its structs, and its answers as values or exceptions.

Every call lets go of the GIL while it runs, and nothing in the library ever calls Python: a thread that waits for a page while it holds
the GIL is answered by threads that never need it.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, byref, c_char_p, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any, Callable

from . import _errors

OK, TIMEOUT, INCOMPLETE, NONE = 0, 1, 2, 3
WHOLE_SIZE = 2**64 - 1
FORKED = "VKHMM_ERROR_FORKED"

library = ctypes.CDLL(str(Path(__file__).with_name("libvkhmm.so.0")))


class Options(Structure):
    """vkhmm_runtime_options; what is zero is left open. The library's own tests have the rest of it."""

    _fields_ = [
        ("size", c_size_t),
        ("device_memory_limit", c_uint64),
        ("import_limit", c_uint64),
        ("reservation", c_uint64),
        ("device", c_char_p),
        ("record_launches", c_char_p),
        ("fault_engine", c_uint32),
        ("memory_kind", c_uint32),
        ("placement", c_uint32),
        ("in_place", c_uint32),
        ("in_place_bytes", c_uint64),
        ("strict_io", c_uint32),
        ("validation", c_uint32),
        ("dump_memory", c_uint32),
        ("test_switches", c_uint32 * 7),
        ("test_regions_max", c_uint32),
        ("test_failure", c_uint32),
        ("test_fail_at_call", c_uint64),
        ("test_lose_at_call", c_uint64),
    ]


class Spec(Structure):
    """vkhmm_spec: a specialisation constant."""

    _fields_ = [("id", c_uint32), ("bytes", c_uint32), ("bits", c_uint64)]


class KernelOptions(Structure):
    """vkhmm_kernel_options."""

    _fields_ = [
        ("size", c_size_t),
        ("entry", c_char_p),
        ("name", c_char_p),
        ("specs", POINTER(Spec)),
        ("spec_count", c_size_t),
        ("subgroup_size", c_uint32),
        ("timed", c_uint32),
    ]


class Access(Structure):
    """vkhmm_access: bytes of a buffer, and what is done with them."""

    _fields_ = [
        ("buffer", c_uint64),
        ("offset", c_uint64),
        ("bytes", c_uint64),
        ("kind", c_uint32),
        ("reserved", c_uint32),
    ]


class Value(Structure):
    """vkhmm_value: a value for push constants."""

    _fields_ = [("data", c_char_p), ("bytes", c_size_t)]


class Grid(Structure):
    """vkhmm_grid."""

    _fields_ = [("items", c_uint64), ("groups", c_uint32 * 3), ("reserved", c_uint32)]


class Residency(Structure):
    """vkhmm_residency: a run of pages in the same state."""

    _fields_ = [
        ("offset", c_uint64),
        ("bytes", c_uint64),
        ("location", c_uint32),
        ("held", c_uint32),
        ("dirty", c_uint32),
        ("pinned", c_uint32),
    ]


class Attributes(Structure):
    """vkhmm_attributes: a run of pages about which the same was said."""

    _fields_ = [
        ("offset", c_uint64),
        ("bytes", c_uint64),
        ("preferred", c_uint32),
        ("last_prefetch", c_uint32),
        ("read_mostly", c_uint32),
        ("accessed_by", c_uint32),
        ("in_place", c_uint32),
        ("pinned_host", c_uint32),
        ("pinned_device", c_uint32),
        ("thrash_guarded", c_uint32),
    ]


def _function(name: str, *arguments: Any, result: Any = c_int32) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(library, name)
    function.argtypes, function.restype = arguments, result  # type: ignore[attr-defined]
    return function


# Handles are structs of one 64-bit number, which every 64-bit ABI of Linux passes as that number.
_handle, _out, _words = c_uint64, POINTER(c_uint64), POINTER(c_uint32)
_text = (ctypes.c_char_p, c_size_t, POINTER(c_size_t))
_part = (_handle, c_uint64, c_uint64)

_last_error = _function("vkhmm_last_error", result=c_char_p)
_result_name = _function("vkhmm_result_name", c_int32, result=c_char_p)
version = _function("vkhmm_version", result=c_char_p)
release_handle = _function("vkhmm_release_handle", _handle, result=None)

runtime_create = _function("vkhmm_runtime_create", POINTER(Options), _out)
runtime_fault_engine = _function("vkhmm_runtime_fault_engine", _handle, _words)
runtime_flush = _function("vkhmm_runtime_flush", _handle)
runtime_wait = _function("vkhmm_runtime_wait", _handle, c_uint64)
runtime_device_memory = _function("vkhmm_runtime_device_memory", _handle, _out, _out)
runtime_set_device_memory_limit = _function("vkhmm_runtime_set_device_memory_limit", _handle, c_uint64, _out)
runtime_trim = _function("vkhmm_runtime_trim", _handle, c_uint64, _out)
runtime_window = _function("vkhmm_runtime_window", _handle, c_size_t, c_size_t, c_size_t, POINTER(c_size_t))
runtime_counter = _function("vkhmm_runtime_counter", _handle, c_char_p, _out)
runtime_doctor = _function("vkhmm_runtime_doctor", _handle, *_text)
runtime_report = _function("vkhmm_runtime_report", _handle, *_text)
runtime_stats_json = _function("vkhmm_runtime_stats_json", _handle, *_text)
runtime_waits_json = _function("vkhmm_runtime_waits_json", _handle, *_text)
runtime_validation_messages = _function("vkhmm_runtime_validation_messages", _handle, *_text)

alloc = _function("vkhmm_alloc", _handle, c_uint64, c_char_p, _out)
buffer_pointer = _function("vkhmm_buffer_pointer", _handle, POINTER(c_void_p))
buffer_find = _function("vkhmm_buffer_find", c_void_p, _out, _out, _out)
buffer_residency = _function("vkhmm_buffer_residency", *_part, POINTER(Residency), c_size_t, POINTER(c_size_t))
buffer_attributes = _function("vkhmm_buffer_attributes", *_part, POINTER(Attributes), c_size_t, POINTER(c_size_t))
host_begin = _function("vkhmm_host_begin", *_part, c_uint32, _out, POINTER(c_void_p))
prefetch_to_device = _function("vkhmm_prefetch_to_device", *_part, _out)
prefetch_to_host = _function("vkhmm_prefetch_to_host", *_part, _out)
advise = _function("vkhmm_advise", *_part, c_uint32)
discard = _function("vkhmm_discard", *_part, _out)
pin = _function("vkhmm_pin", *_part, c_uint32, _out)

kernel_create = _function("vkhmm_kernel_create", _handle, c_char_p, c_size_t, POINTER(KernelOptions), _out)
kernel_name = _function("vkhmm_kernel_name", _handle, *_text)
kernel_local_size = _function("vkhmm_kernel_local_size", _handle, POINTER(c_uint32 * 3))
kernel_launch = _function("vkhmm_kernel_launch", _handle, Grid, POINTER(Access), c_size_t, POINTER(Value), c_size_t, _out)
launch_wait = _function("vkhmm_launch_wait", _handle, c_uint64)
launch_is_done = _function("vkhmm_launch_is_done", _handle, _words)
launch_elapsed = _function("vkhmm_launch_elapsed", _handle, _out)


def check(result: int) -> int:
    """The answer, if it is no error.

    Raises:
        Error: of the kind that the code says, in the library's words.
    """
    if result < 0:
        # Finalisers may run in between: they give handles up by a call that leaves this text alone.
        text = _last_error().decode()
        raise _errors.error(_result_name(result).decode(), text)
    return result


def number(function: Callable[..., int], *arguments: Any) -> int:
    """A call whose last argument is where a 64-bit number goes: the number."""
    out = c_uint64()
    check(function(*arguments, byref(out)))
    return out.value


def text(function: Callable[..., int], handle: int) -> str:
    """A call that answers with a text: all of it."""
    capacity, needed = 4096, c_size_t()
    while True:
        buffer = ctypes.create_string_buffer(capacity)
        if check(function(handle, buffer, capacity, byref(needed))) == OK:
            return buffer.value.decode()
        capacity = needed.value


def runs(function: Callable[..., int], kind: type[Structure], part: tuple[int, int, int]) -> list[Any]:
    """A call that answers with runs of pages: all of them."""
    capacity, needed = 64, c_size_t()
    while True:
        found = (kind * capacity)()
        if check(function(*part, found, capacity, byref(needed))) == OK:
            return list(found[: needed.value])
        capacity = needed.value
