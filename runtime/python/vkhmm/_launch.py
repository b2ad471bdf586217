"""Kernels, and running them."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterable, Mapping, Sequence

import numpy as np

from . import _abi, _errors
from ._arrays import Access
from ._runtime import Runtime, chosen, patiently

SPIRV_MAGIC = (b"\x03\x02\x23\x07", b"\x07\x23\x02\x03")


class Kernel:
    """A compiled kernel. Made by :func:`kernel`."""

    __slots__ = ("__weakref__", "_id", "_runtime")

    def __init__(self, runtime: Runtime, handle: int) -> None:
        self._id, self._runtime = handle, runtime

    def __del__(self, release: Callable[[int], None] = _abi.release_handle) -> None:
        release(self._id)

    def __repr__(self) -> str:
        return f"<vkhmm.Kernel {self.name}, {self.local_size} invocations a group>"

    @property
    def name(self) -> str:
        """What messages call it."""
        return _abi.text(_abi.kernel_name, self._id)

    @property
    def local_size(self) -> tuple[int, int, int]:
        """Invocations of one work group."""
        size = (ctypes.c_uint32 * 3)()
        _abi.check(_abi.kernel_local_size(self._id, size))
        return size[0], size[1], size[2]


class Launch:
    """Work on its way. Dropping it changes nothing: touching what it writes waits for it anyway."""

    __slots__ = ("__weakref__", "_id", "_runtime")

    def __init__(self, runtime: Any, handle: int) -> None:
        self._id, self._runtime = handle, runtime

    def __del__(self, release: Callable[[int], None] = _abi.release_handle) -> None:
        release(self._id)

    def __repr__(self) -> str:
        return f"<vkhmm.Launch, {'done' if self.done else 'on its way'}>"

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it is over, at most `timeout` seconds. Whether it is. Other threads run meanwhile, and Ctrl-C works.

        Raises:
            DeviceLostError: every page that it was to write is lost.
        """
        return patiently(_abi.launch_wait, self._id, timeout)

    @property
    def done(self) -> bool:
        """Whether it is over."""
        done = ctypes.c_uint32()
        _abi.check(_abi.launch_is_done(self._id, ctypes.byref(done)))
        return bool(done.value)

    @property
    def elapsed(self) -> float | None:
        """Seconds that the kernel ran on the device, once it is over; None before, without a clock, and for kernels not made `timed`."""
        ns = ctypes.c_uint64()
        return ns.value / 1e9 if _abi.check(_abi.launch_elapsed(self._id, ctypes.byref(ns))) == _abi.OK else None


def compile_glsl(source: str) -> bytes:
    """SPIR-V for Vulkan 1.2 from the text of a compute shader, by glslangValidator or glslc, whichever is on PATH.

    Raises:
        CompileError: the compiler's words; or there is none.
    """
    with tempfile.TemporaryDirectory() as folder:
        text, module = Path(folder, "kernel.comp"), Path(folder, "kernel.spv")
        text.write_text(source)
        if compiler := shutil.which("glslangValidator"):
            command = [compiler, "-V", "--quiet", "--target-env", "vulkan1.2", "-S", "comp", "-o", str(module), str(text)]
        elif compiler := shutil.which("glslc"):
            command = [compiler, "--target-env=vulkan1.2", "-fshader-stage=comp", "-o", str(module), str(text)]
        else:
            raise _errors.CompileError(
                "no GLSL compiler is on PATH: install glslangValidator (Debian's glslang-tools) or glslc (shaderc), or compile elsewhere "
                "and pass SPIR-V bytes"
            )
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode != 0:
            words = (run.stdout + run.stderr).replace(folder + os.sep, "").strip()
            raise _errors.CompileError(f"{Path(compiler).name} refuses the shader:\n{words}")
        return module.read_bytes()


def _bytes(value: Any, what: str) -> bytes:
    """A number as a shader takes it: Python's int is int or uint, float is float, bool is bool; anything else has its own bytes."""
    if isinstance(value, bool):
        return struct.pack("=I", value)
    if isinstance(value, int):
        if -(2**31) <= value < 2**32:
            return struct.pack("=i" if value < 0 else "=I", value)
        raise _errors.ArgumentError(f"{what} is {value}, more than 32 bits: pass numpy.int64 or numpy.uint64 for a 64-bit member")
    if isinstance(value, float):
        return struct.pack("=f", value)
    if isinstance(value, np.bool_):
        return struct.pack("=I", bool(value))
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tobytes()
    try:
        return bytes(memoryview(value))
    except TypeError:
        raise _errors.ArgumentError(f"{what} is a {type(value).__name__}: pass a number, a NumPy scalar or array, or bytes") from None


def kernel(
    source: bytes | str | os.PathLike[str],
    *,
    entry: str | None = None,
    name: str | None = None,
    constants: Mapping[int, Any] | None = None,
    subgroup_size: int | None = None,
    timed: bool = False,
    runtime: Runtime | None = None,
) -> Kernel:
    """Makes a kernel from SPIR-V (bytes), from GLSL (text), or from a file of either (a path).

    The contract is the caller's: for every launch whose arguments pass the checks the kernel ends, has no data race, reads only what it is
    given, and writes only what it is given for writing.

    Args:
        entry: the entry point; needed only where the module has several.
        name: what messages call it; the entry point if left out.
        constants: specialisation constants by number.
        subgroup_size: the subgroup size to run with.
        timed: its launches know how long they ran. Not free.

    Raises:
        CompileError: GLSL that the compiler refuses, or no compiler.
        KernelError: no module, or one with other than storage buffers and push constants.
        UnsupportedError: it needs what the device lacks.
    """
    if isinstance(source, os.PathLike):
        content = Path(source).read_bytes()
        source = content if content[:4] in SPIRV_MAGIC else content.decode()
    spirv = compile_glsl(source) if isinstance(source, str) else bytes(source)
    specs = [(number, _bytes(value, f"constant {number}")) for number, value in (constants or {}).items()]
    listed = (_abi.Spec * len(specs))(*(_abi.Spec(n, len(b), int.from_bytes(b, "little")) for n, b in specs))
    options = _abi.KernelOptions(
        size=ctypes.sizeof(_abi.KernelOptions),
        entry=None if entry is None else entry.encode(),
        name=None if name is None else name.encode(),
        specs=listed,
        spec_count=len(specs),
        subgroup_size=subgroup_size or 0,
        timed=timed,
    )
    owner = chosen(runtime)
    return Kernel(owner, _abi.number(_abi.kernel_create, owner._id, spirv, len(spirv), ctypes.byref(options)))


def launch(
    kernel: Kernel, grid: int | Sequence[int], accesses: Iterable[Access] = (), params: Iterable[Any] = ()
) -> Launch:
    """Runs a kernel. Returns at once: whoever touches what it writes waits for it, launch or CPU, and sees what it did.

    Args:
        grid: a number of items, for kernels that number them by ``(group.y * groups.x + group.x) * local_size + local index`` and
            check the bound; or up to three numbers of work groups.
        accesses: :func:`read`, :func:`write` or :func:`overwrite` of C-contiguous views of managed arrays. They fill the storage buffers
            in (set, binding) order, then push-constant members that are device addresses.
        params: values for the other push-constant members, in order; one structured scalar or bytes may fill the rest of the block.

    Raises:
        NotManagedError: an array that is not in managed memory.
        ArgumentError: what does not fit the kernel or the device.
        WorkingSetTooLargeError: it cannot all be on the device at once.
        GuardedError: a guard or pin keeps pages on the host.
    """
    if not isinstance(kernel, Kernel):
        raise _errors.ArgumentError(f"the kernel is a {type(kernel).__name__}: make one with vkhmm.kernel")
    if isinstance(grid, (int, np.integer)):
        if not 0 <= grid < 2**63:
            raise _errors.ArgumentError(f"the grid is {grid}: pass a number of items, or one to three numbers of groups")
        size = _abi.Grid(items=int(grid))
    else:
        groups = [int(n) for n in grid]
        if not 1 <= len(groups) <= 3 or not all(0 <= n < 2**32 for n in groups):
            raise _errors.ArgumentError(f"the grid is {grid}: pass a number of items, or one to three numbers of groups")
        size = _abi.Grid(groups=(ctypes.c_uint32 * 3)(*groups, *[1] * (3 - len(groups))))
    found = []
    for i, access in enumerate(accesses):
        if not isinstance(access, Access):
            raise _errors.ArgumentError(
                f"access {i} is a {type(access).__name__}: say what the kernel does with the array, by read(a), write(a) or overwrite(a)"
            )
        found.append(access.resolve(i)[1])
    values = [_bytes(value, f"param {i}") for i, value in enumerate(params)]
    handle = _abi.number(
        _abi.kernel_launch,
        kernel._id,
        size,
        (_abi.Access * len(found))(*found),
        len(found),
        (_abi.Value * len(values))(*(_abi.Value(value, len(value)) for value in values)),
        len(values),
    )
    return Launch(kernel._runtime, handle)
