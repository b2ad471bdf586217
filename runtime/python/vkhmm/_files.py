"""Arrays in .npy files."""

from __future__ import annotations

import os
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ._arrays import array as _array
from ._arrays import is_managed
from ._hints import host
from ._runtime import Runtime


def save(file: str | os.PathLike[str] | BinaryIO, array: NDArray[Any]) -> None:
    """Writes an array as .npy: numpy.save under a guard, since writing a file is a system call."""
    if is_managed(array):
        with host(array):
            np.save(file, array, allow_pickle=False)
    else:
        np.save(file, array, allow_pickle=False)


def load(file: str | os.PathLike[str], *, runtime: Runtime | None = None, label: str | None = None) -> NDArray[Any]:
    """Reads a .npy file into a managed array. Each byte is copied once, out of the page cache.

    Raises:
        ValueError: no .npy file, or one of Python objects.
    """
    return _array(np.load(file, mmap_mode="r", allow_pickle=False), runtime=runtime, label=label or os.path.basename(os.fspath(file)))
