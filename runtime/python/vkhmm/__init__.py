"""NumPy arrays that Vulkan kernels work on.

Managed memory: the CPU reads and writes it as any array, kernels are launched on it, and its pages move between host and device by
themselves. Touching what a kernel writes waits for the kernel.

    >>> import numpy as np, vkhmm
    >>> x = vkhmm.array(np.arange(1_000_000, dtype=np.float32))
    >>> scale = vkhmm.kernel(spirv)
    >>> vkhmm.launch(scale, x.size, [vkhmm.write(x)], [2.0])     # asynchronous
    >>> x[123]                                                  # waits, and brings that part home
    246.0

docs/PYTHON.md is a tutorial of ten minutes.
"""

from ._allocator import managed
from ._arrays import Access, array, empty, is_managed, overwrite, read, write, zeros
from ._errors import (
    ArgumentError,
    BusyError,
    CompileError,
    DeviceLostError,
    Error,
    ForkedError,
    GuardedError,
    HandleError,
    InternalError,
    KernelError,
    LostError,
    NotManagedError,
    OutOfMemoryError,
    SettingError,
    SetupError,
    ShapeError,
    UnsupportedError,
    WorkingSetTooLargeError,
)
from ._files import load, save
from ._hints import Advice, Location, advise, discard, host, pin, prefetch, residency
from ._launch import Kernel, Launch, compile_glsl, kernel, launch
from ._runtime import Runtime, configure, default_runtime, doctor, stats, wait
from . import _abi, kernels

__version__: str = _abi.version().decode()

# What people see is vkhmm.GuardedError, wherever it is written.
for _public in list(globals().values()):
    if isinstance(_public, type):
        _public.__module__ = "vkhmm"
del _public
