"""Kernels that are there already: float32, arrays of any size, no SPIR-V and no grid.

Each is asynchronous and in order, as :func:`vkhmm.launch` is, and returns the managed array that it writes: ``out`` where it is given, else a
new one. Results stay managed, those of one element too, so that nothing waits before somebody looks::

    c = vkhmm.kernels.gemm(a, b)            # c = a @ b
    s = vkhmm.kernels.sum(c)                # an array of no dimensions
    print(float(s))                         # waits

Vectors are contiguous arrays of any number of dimensions; matrices may be parts of larger ones (``a[10:20, 5:9]``) and transposed
(``a.T``). Larger than the device memory limit is no obstacle: a call is several launches on windows then. Sums are made in an order that
depends on the sizes and the limit alone. Arrays that are read and written in one call must not overlap.

Raises:
    ShapeError: a size, stride or type that the kernel cannot work with, or what is written has an element of what is read.
    NotManagedError: an operand that is not in managed memory.
    Those of :func:`vkhmm.launch`; of these, one that concerns a later window leaves what earlier ones wrote.
"""

from __future__ import annotations

from ctypes import POINTER, Structure, byref, c_float, c_uint32, c_uint64
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from . import _abi, _errors
from ._arrays import OVERWRITE, READ, WRITE, Access, empty, place
from ._runtime import Runtime

Array = NDArray[Any]


class _Matrix(Structure):
    _fields_ = [
        ("access", _abi.Access),
        ("rows", c_uint64),
        ("cols", c_uint64),
        ("stride", c_uint64),
        ("transposed", c_uint32),
        ("reserved", c_uint32),
    ]


class _Csr(Structure):
    _fields_ = [
        ("rows", c_uint64),
        ("cols", c_uint64),
        ("row_start", _abi.Access),
        ("columns", _abi.Access),
        ("values", _abi.Access),
    ]


_vector, _matrix = POINTER(_abi.Access), POINTER(_Matrix)
_launch = POINTER(c_uint64)


def _kernel(name: str, *arguments: Any) -> Any:
    return _abi._function(f"vkhmm_kernels_{name}", *arguments, _launch)


_fill = _kernel("fill", _vector, c_float)
_copy = _kernel("copy", _vector, _vector)
_axpy = _kernel("axpy", c_float, _vector, _vector)
_scale = _kernel("scale", c_float, _vector)
_dot = _kernel("dot", _vector, _vector, _vector)
_sum = _kernel("sum", _vector, _vector)
_max = _kernel("max", _vector, _vector)
_arg_min = _kernel("arg_min", _vector, _vector)
_gemm = _kernel("gemm", c_float, _matrix, _matrix, c_float, _matrix)
_gram = _kernel("gram", _matrix, _matrix)
_syrk = _kernel("syrk", c_float, _matrix, c_float, _matrix)
_transpose = _kernel("transpose", _matrix, _matrix)
_conv2d = _kernel("conv2d", _matrix, _matrix, _matrix)
_softmax = _kernel("softmax", _matrix, _matrix)
_spmv = _kernel("spmv", POINTER(_Csr), _vector, _vector)

_NAMES = {"f": "float32", "u": "uint32"}


def _typed(array: Array, name: str, kinds: str = "f") -> None:
    if not isinstance(array, np.ndarray) or array.dtype.itemsize != 4 or array.dtype.kind not in kinds or not array.dtype.isnative:
        have = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise _errors.ShapeError(f"{name} is {have}: {_NAMES[kinds[0]]} is needed, so make it with vkhmm.array(..., {_NAMES[kinds[0]]!r})")


def _given(array: Array, name: str, kind: int, kinds: str = "f") -> Any:
    """A vector for the C ABI."""
    _typed(array, name, kinds)
    try:
        return byref(Access(array, kind).resolve(0)[1])
    except _errors.Error as error:
        error.args = (str(error).replace("access 0", name, 1),)
        raise


def _shaped(array: Array, name: str, kind: int) -> Any:
    """A matrix for the C ABI: rows of neighbouring elements, or columns of them."""
    _typed(array, name)
    if array.ndim != 2:
        raise _errors.ShapeError(f"{name} has {array.ndim} dimensions: a matrix has two, so reshape it")
    if kind != READ and not array.flags.writeable:
        raise _errors.ArgumentError(f"{name} is read-only in NumPy, and the kernel writes it")
    (rows, cols), (down, right) = array.shape, array.strides
    # Whichever way has neighbours; the stride of a side of one element means nothing.
    transposed = not (right == 4 or cols <= 1) or (rows > 1 and cols > 1 and right == 4 > down)
    if transposed or (cols <= 1 < rows and down == 4 and right != 4):
        rows, cols, down, right, transposed = cols, rows, right, down, True
    stride = down if rows > 1 else 4 * cols
    if array.size and ((cols > 1 and right != 4) or stride < 4 * cols or stride % 4):
        raise _errors.ShapeError(
            f"{name} has strides {array.strides}: the elements of a row, or of a column, must be neighbours, and rows apart; copy it "
            "into a managed array"
        )
    at = place(array, name)
    access = _abi.Access(at.buffer, at.start, at.end - at.start, kind, 0)
    return byref(_Matrix(access, rows, cols, stride // 4 if array.size else 0, transposed, 0))


def _out(out: Array | None, like: Array, name: str, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
    """Where the result goes: what is given, or a new array of the runtime of `like`."""
    if out is not None:
        return out
    return empty(shape, dtype, runtime=Runtime.of[place(like, name).runtime], label="vkhmm.kernels")


def _run(function: Any, *arguments: Any) -> None:
    _abi.check(function(*arguments, None))


def fill(to: Array, value: float) -> Array:
    """``to[...] = value``."""
    _run(_fill, _given(to, "to", OVERWRITE), value)
    return to


def copy(source: Array, out: Array | None = None) -> Array:
    """``out[...] = source``: as many elements, in the order of memory."""
    out = _out(out, source, "source", source.shape)
    _run(_copy, _given(source, "source", READ), _given(out, "out", OVERWRITE))
    return out


def axpy(a: float, x: Array, y: Array) -> Array:
    """``y += a * x``."""
    _run(_axpy, a, _given(x, "x", READ), _given(y, "y", WRITE))
    return y


def scale(a: float, x: Array) -> Array:
    """``x *= a``."""
    _run(_scale, a, _given(x, "x", WRITE))
    return x


def dot(x: Array, y: Array, out: Array | None = None) -> Array:
    """The sum of ``x * y``, in an array of one element."""
    out = _out(out, x, "x", ())
    _run(_dot, _given(x, "x", READ), _given(y, "y", READ), _given(out, "out", OVERWRITE))
    return out


def sum(x: Array, out: Array | None = None) -> Array:
    """The sum of all elements, in an array of one element; 0 of none."""
    out = _out(out, x, "x", ())
    _run(_sum, _given(x, "x", READ), _given(out, "out", OVERWRITE))
    return out


def max(x: Array, out: Array | None = None) -> Array:
    """The largest element, in an array of one. What is not a number is passed over; of nothing it is minus infinity."""
    out = _out(out, x, "x", ())
    _run(_max, _given(x, "x", READ), _given(out, "out", OVERWRITE))
    return out


def argmin(x: Array, out: Array | None = None) -> Array:
    """The index (uint32, counted through all dimensions) of the smallest element, the first of equal ones.

    What is not a number is passed over; of nothing it is 2**32 - 1.
    """
    out = _out(out, x, "x", (), np.uint32)
    _run(_arg_min, _given(x, "x", READ), _given(out, "out", OVERWRITE, "ui"))
    return out


def gemm(a: Array, b: Array, out: Array | None = None, *, alpha: float = 1.0, beta: float = 0.0) -> Array:
    """``out = alpha * a @ b + beta * out``. With `beta` zero the old `out` is not read."""
    _two(a, "a")
    _two(b, "b")
    out = _out(out, a, "a", (a.shape[0], b.shape[1]))
    c = _shaped(out, "out", OVERWRITE if beta == 0 else WRITE)
    _run(_gemm, alpha, _shaped(a, "a", READ), _shaped(b, "b", READ), beta, c)
    return out


def gram(a: Array, out: Array | None = None) -> Array:
    """``a @ a.T``: all products of rows."""
    _two(a, "a")
    out = _out(out, a, "a", (a.shape[0], a.shape[0]))
    _run(_gram, _shaped(a, "a", READ), _shaped(out, "out", OVERWRITE))
    return out


def syrk(a: Array, out: Array, *, alpha: float = 1.0, beta: float = 0.0) -> Array:
    """``out = alpha * a @ a.T + beta * out`` in the lower triangle and the diagonal; what is above stays as it is."""
    _run(_syrk, alpha, _shaped(a, "a", READ), beta, _shaped(out, "out", WRITE))
    return out


def transpose(a: Array, out: Array | None = None) -> Array:
    """``out[...] = a.T``, moved."""
    _two(a, "a")
    out = _out(out, a, "a", a.shape[::-1])
    _run(_transpose, _shaped(a, "a", READ), _shaped(out, "out", OVERWRITE))
    return out


def conv2d(image: Array, filter: Array, out: Array | None = None) -> Array:
    """Each element of `out` is the sum of `filter` times the neighbourhood of the same element of `image`.

    The filter's element ``(rows // 2, cols // 2)`` lies on it; beyond the border the nearest element of `image` stands. The filter is not
    mirrored. One plane: call it for each.
    """
    _two(image, "image")
    out = _out(out, image, "image", image.shape)
    _run(_conv2d, _shaped(image, "image", READ), _shaped(filter, "filter", READ), _shaped(out, "out", OVERWRITE))
    return out


def softmax(a: Array, out: Array | None = None) -> Array:
    """Each row of `out` is the softmax of the same row of `a`."""
    _two(a, "a")
    out = _out(out, a, "a", a.shape)
    _run(_softmax, _shaped(a, "a", READ), _shaped(out, "out", OVERWRITE))
    return out


class Csr(NamedTuple):
    """A sparse matrix in compressed rows, with the names that SciPy has: ``data[indptr[r]:indptr[r + 1]]`` is row `r`.

    ``indptr`` and ``indices`` are uint32 or int32, ``data`` is float32; all are managed.
    """

    indptr: Array
    indices: Array
    data: Array
    shape: tuple[int, int]


class _CsrLike(Protocol):
    @property
    def indptr(self) -> Array: ...
    @property
    def indices(self) -> Array: ...
    @property
    def data(self) -> Array: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


def spmv(a: _CsrLike, x: Array, out: Array | None = None) -> Array:
    """``a @ x`` for a sparse `a`: a :class:`Csr`, or a SciPy matrix in CSR form whose three arrays are managed."""
    rows, cols = a.shape
    out = _out(out, x, "x", (rows,))
    parts = ((a.indptr, "indptr", "ui"), (a.indices, "indices", "ui"), (a.data, "data", "f"))
    given = [_given(array, name, READ, kinds)._obj for array, name, kinds in parts]
    _run(_spmv, byref(_Csr(rows, cols, *given)), _given(x, "x", READ), _given(out, "out", OVERWRITE))
    return out


def _two(array: Array, name: str) -> None:
    if getattr(array, "ndim", None) != 2:
        have = f"has {array.ndim} dimensions" if isinstance(array, np.ndarray) else f"is a {type(array).__name__}"
        raise _errors.ShapeError(f"{name} {have}: a matrix has two")
