"""Runtimes: memory that host and device share, and a Vulkan device. Most programs use the one that is made by itself."""

from __future__ import annotations

import ctypes
import json
import os
import threading
import time
import weakref
from typing import Any, Callable, ClassVar, Iterator

from . import _abi, _errors

FAULT_ENGINES = {1: "uffd-thread", 2: "uffd-thread-user", 3: "declared", 4: "uffd-sigbus", 5: "segv-mprotect"}
MEMORY_KINDS = {1: "device-private", 2: "device-bar", 3: "device-coherent", 4: "unified-memory"}
PLACEMENTS = {1: "span", 2: "sparse"}

SLICE_NS = 50_000_000
"""Nanoseconds that a wait stays away from Python at a time: how long Ctrl-C may take."""


def _code(names: dict[int, str], name: str | None, what: str) -> int:
    if name is None:
        return 0
    for code, known in names.items():
        if known == name:
            return code
    raise _errors.SettingError(f"{what} is {name!r}: there are {', '.join(names.values())}")


def _switch(value: bool | None) -> int:
    return 0 if value is None else 1 + bool(value)


def _path(value: str | os.PathLike[str] | None) -> bytes | None:
    return None if value is None else os.fsencode(value)


def patiently(wait: Callable[[int, int], int], handle: int, timeout: float | None) -> bool:
    """Calls `wait(handle, ns)` in slices, between which Python answers signals, until it is over or `timeout` seconds are. Whether it is over."""
    until = None if timeout is None else time.monotonic() + timeout
    while True:
        left = SLICE_NS if until is None else max(0, min(SLICE_NS, int((until - time.monotonic()) * 1e9)))
        if _abi.check(wait(handle, left)) == _abi.OK:
            return True
        if until is not None and time.monotonic() >= until:
            return False


class Runtime:
    """A Vulkan device, and memory that host and device share. It lives as long as something made with it.

    What is left out is taken from the environment (``doctor()`` lists the variables), then from the machine.

    Args:
        device_memory_limit: most bytes of device memory that arrays may take; what does not fit is evicted, and comes back.
        device: part of a device's name, or its number.
        fault_engine: "uffd-thread", "uffd-thread-user", "uffd-sigbus" or "segv-mprotect".
        memory_kind: "device-private", "device-bar", "device-coherent" or "unified-memory".
        placement: "span" or "sparse".
        in_place_bytes: arrays up to this size are used where they are; 0 for none.
        import_limit: most bytes of host memory that the device may have pinned at a time.
        reservation: bytes of address space to reserve.
        strict_io: a system call without :func:`vkhmm.host` fails on the first run, not on the rare one.
        validation: run under Khronos validation; see :meth:`validation_messages`.
        dump_memory: whether core dumps contain managed memory.
        record_launches: file for a trace of all launches.

    Raises:
        SetupError: no usable device, host memory or fault engine; the text says what would help.
        SettingError: a setting that cannot be.
    """

    of: ClassVar[weakref.WeakValueDictionary[int, Runtime]] = weakref.WeakValueDictionary()
    """Those that live, by their handles."""

    def __init__(
        self,
        *,
        device_memory_limit: int | None = None,
        device: str | int | None = None,
        fault_engine: str | None = None,
        memory_kind: str | None = None,
        placement: str | None = None,
        in_place_bytes: int | None = None,
        import_limit: int | None = None,
        reservation: int | None = None,
        strict_io: bool | None = None,
        validation: bool | None = None,
        dump_memory: bool | None = None,
        record_launches: str | os.PathLike[str] | None = None,
    ) -> None:
        self._id = 0
        options = _abi.Options(
            size=ctypes.sizeof(_abi.Options),
            device_memory_limit=device_memory_limit or 0,
            import_limit=import_limit or 0,
            reservation=reservation or 0,
            device=None if device is None else str(device).encode(),
            record_launches=_path(record_launches),
            fault_engine=_code(FAULT_ENGINES, fault_engine, "fault_engine"),
            memory_kind=_code(MEMORY_KINDS, memory_kind, "memory_kind"),
            placement=_code(PLACEMENTS, placement, "placement"),
            in_place=_switch(None if in_place_bytes is None else in_place_bytes > 0),
            in_place_bytes=in_place_bytes or 0,
            strict_io=_switch(strict_io),
            validation=_switch(validation),
            dump_memory=_switch(dump_memory),
        )
        self._id = _abi.number(_abi.runtime_create, ctypes.byref(options))
        if self.fault_engine == "declared":
            raise _errors.error(
                "VKHMM_ERROR_NO_HOST",
                "the fault engine is `declared`, under which memory may be touched only where it is announced, and NumPy announces "
                "nothing: an array would show stale bytes. Leave fault_engine and VKHMM_FAULT_ENGINE open, or choose segv-mprotect, "
                "which needs no userfaultfd",
            )
        Runtime.of[self._id] = self

    def __del__(self, release: Callable[[int], None] = _abi.release_handle) -> None:
        release(self._id)

    def __repr__(self) -> str:
        limit, used = self.device_memory
        return f"<vkhmm.Runtime {self.fault_engine}, {used >> 20} of {limit >> 20} MiB of device memory in use>"

    @property
    def fault_engine(self) -> str:
        """How CPU touches of what is on the device are answered."""
        engine = ctypes.c_uint32()
        _abi.check(_abi.runtime_fault_engine(self._id, ctypes.byref(engine)))
        return FAULT_ENGINES[engine.value]

    @property
    def device_memory(self) -> tuple[int, int]:
        """Bytes of device memory: the limit, and what is in use now."""
        limit, used = ctypes.c_uint64(), ctypes.c_uint64()
        _abi.check(_abi.runtime_device_memory(self._id, ctypes.byref(limit), ctypes.byref(used)))
        return limit.value, used.value

    def set_device_memory_limit(self, limit: int) -> int:
        """Sets how many bytes of device memory arrays may take, and evicts what is above. Returns the bytes evicted."""
        return _abi.number(_abi.runtime_set_device_memory_limit, self._id, limit)

    def trim(self, size: int) -> int:
        """Evicts at least `size` bytes of device memory, if that much can be, the cheapest first. Returns the bytes evicted."""
        return _abi.number(_abi.runtime_trim, self._id, size)

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for everything launched before, at most `timeout` seconds. Whether it is over. Other threads run, and Ctrl-C works."""
        return patiently(_abi.runtime_wait, self._id, timeout)

    def flush(self) -> None:
        """Submits what is recorded and not yet submitted. Never needed for correctness."""
        _abi.check(_abi.runtime_flush(self._id))

    def windows(self, count: int, bytes_per_item: int, depth: int = 3) -> Iterator[slice]:
        """Slices that cut `count` items so that `depth` windows fit the device memory limit at once.

        `bytes_per_item` is what the arrays of one window take per item together. Launches in such a loop overlap copies in, kernels and
        copies out.
        """
        step = ctypes.c_size_t()
        _abi.check(_abi.runtime_window(self._id, count, bytes_per_item, depth, ctypes.byref(step)))
        for start in range(0, count, max(1, step.value)):
            yield slice(start, min(count, start + step.value))

    def stats(self) -> dict[str, Any]:
        """Everything that is counted since the runtime was made: bytes moved by cause and by path, touches, launches, evictions.

        ``in_bytes`` and ``out_bytes`` are all bytes copied to the device, and home.
        """
        found: dict[str, Any] = json.loads(_abi.text(_abi.runtime_stats_json, self._id))
        for name in ("in_bytes", "out_bytes"):
            found[name] = _abi.number(_abi.runtime_counter, self._id, name.encode())
        return found

    def waits(self) -> list[dict[str, Any]]:
        """Who waited for what, longest first: allocations and kernels, with ``label``, ``count`` and ``ns``."""
        found: list[dict[str, Any]] = json.loads(_abi.text(_abi.runtime_waits_json, self._id))
        return found

    def doctor(self) -> str:
        """What was found on this machine, what was chosen and why."""
        return _abi.text(_abi.runtime_doctor, self._id)

    def report(self) -> str:
        """What is going on right now: open operations, queues, who is in which call. Answers also when everything hangs."""
        return _abi.text(_abi.runtime_report, self._id)

    def validation_messages(self) -> list[str]:
        """What the validation layers said. Any message is a bug of vkhmm, or of a kernel."""
        return _abi.text(_abi.runtime_validation_messages, self._id).splitlines()


_lock = threading.Lock()
_default: Runtime | None = None


def configure(**options: Any) -> Runtime:
    """Makes the default runtime with options of :class:`Runtime`: before anything else uses it.

    Raises:
        SettingError: there is a default runtime already.
    """
    global _default
    with _lock:
        if _default is not None:
            raise _errors.SettingError("the default runtime is made already: call configure before the first array or kernel, or "
                                       "pass runtime=vkhmm.Runtime(...)")
        _default = Runtime(**options)
        return _default


def default_runtime() -> Runtime:
    """The runtime of everything that is not given one; made by the first call."""
    global _default
    if _default is None:
        with _lock:
            if _default is None:
                _default = Runtime()
    return _default


def chosen(runtime: Runtime | None) -> Runtime:
    """The runtime given, or the default one."""
    return default_runtime() if runtime is None else runtime


def stats(runtime: Runtime | None = None) -> dict[str, Any]:
    """:meth:`Runtime.stats`."""
    return chosen(runtime).stats()


def wait(timeout: float | None = None, runtime: Runtime | None = None) -> bool:
    """:meth:`Runtime.wait`. Never needed for correctness: touching an array waits for what writes it."""
    return chosen(runtime).wait(timeout)


def doctor(runtime: Runtime | None = None) -> str:
    """:meth:`Runtime.doctor`."""
    return chosen(runtime).doctor()
