"""What goes wrong, as exceptions: one class per kind of error, with the words of the library."""

from __future__ import annotations


class Error(RuntimeError):
    """A refused or failed call of vkhmm. Its text says what was wrong, what was allowed and what to do; nothing has changed.

    ``name`` is the code of the C ABI, such as ``"VKHMM_ERROR_GUARDED"``.
    """

    name = "VKHMM_ERROR_REFUSED"


class InternalError(Error):
    """A bug of vkhmm: a broken invariant. Nothing of its runtime should be used any more."""


class ForkedError(Error):
    """This process was forked from the one that owns the runtime. Use the start method "spawn"."""


class HandleError(Error):
    """Something that was given up already."""


class BusyError(Error):
    """It would have to wait for what stands in the way."""


class GuardedError(Error):
    """A guard or pin keeps the pages on the host: the launch comes after its ``with`` block."""


class LostError(Error):
    """The bytes existed only on a device that was lost."""


class DeviceLostError(LostError):
    """The device is gone."""


class NotManagedError(Error, TypeError):
    """An array that is not in managed memory, or not of one piece in it."""

    name = "VKHMM_NONE"


class ArgumentError(Error, ValueError):
    """An argument that cannot be."""

    name = "VKHMM_ERROR_INVALID_ARGUMENT"


class SettingError(ArgumentError):
    """A setting, given or in the environment, that cannot be."""


class ShapeError(ArgumentError):
    """Shapes or types that a kernel cannot work with."""

    name = "VKHMM_ERROR_SHAPE"


class OutOfMemoryError(Error, MemoryError):
    """No memory: of the host, of the device, of addresses, or for one launch at once."""


class WorkingSetTooLargeError(OutOfMemoryError):
    """One launch names more than can be on the device at once."""


class SetupError(Error):
    """This machine has no usable device, host memory, fault engine, thread or file."""


class KernelError(Error):
    """A module that cannot become a kernel."""

    name = "VKHMM_ERROR_KERNEL"


class UnsupportedError(KernelError):
    """A module that needs what the device lacks."""


class CompileError(KernelError):
    """GLSL that the compiler refuses, or no compiler."""


KINDS: dict[str, type[Error]] = {
    "VKHMM_ERROR_INTERNAL": InternalError,
    "VKHMM_ERROR_INVALID_ARGUMENT": ArgumentError,
    "VKHMM_ERROR_INVALID_HANDLE": HandleError,
    "VKHMM_ERROR_STALE_HANDLE": HandleError,
    "VKHMM_ERROR_FOREIGN": ArgumentError,
    "VKHMM_ERROR_FORKED": ForkedError,
    "VKHMM_ERROR_DEVICE_LOST": DeviceLostError,
    "VKHMM_ERROR_LOST": LostError,
    "VKHMM_ERROR_WORKING_SET_TOO_LARGE": WorkingSetTooLargeError,
    "VKHMM_ERROR_GUARDED": GuardedError,
    "VKHMM_ERROR_OUT_OF_HOST_MEMORY": OutOfMemoryError,
    "VKHMM_ERROR_OUT_OF_DEVICE_MEMORY": OutOfMemoryError,
    "VKHMM_ERROR_OUT_OF_ADDRESS_SPACE": OutOfMemoryError,
    "VKHMM_ERROR_OUT_OF_RANGE": ArgumentError,
    "VKHMM_ERROR_NO_DEVICE": SetupError,
    "VKHMM_ERROR_NO_HOST": SetupError,
    "VKHMM_ERROR_KERNEL": KernelError,
    "VKHMM_ERROR_UNSUPPORTED": UnsupportedError,
    "VKHMM_ERROR_SETTING": SettingError,
    "VKHMM_ERROR_SYSTEM": SetupError,
    "VKHMM_ERROR_WRITES_READ_ONLY_ARGUMENT": ArgumentError,
    "VKHMM_ERROR_ARGUMENTS": ArgumentError,
    "VKHMM_ERROR_GRID_TOO_LARGE": ArgumentError,
    "VKHMM_ERROR_BINDING_TOO_LARGE": ArgumentError,
    "VKHMM_ERROR_MISALIGNED": ArgumentError,
    "VKHMM_ERROR_WORDS": ArgumentError,
    "VKHMM_ERROR_SHAPE": ShapeError,
    "VKHMM_ERROR_ACQUIRED": BusyError,
    "VKHMM_ERROR_BUSY": BusyError,
}
"""By code; every other code is :class:`Error` itself."""


def error(name: str, text: str) -> Error:
    """The exception for a code and its words."""
    made = KINDS.get(name, Error)(text)
    made.name = name
    return made
