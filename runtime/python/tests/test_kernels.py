"""The shipped kernels against NumPy: shapes, views, types, sizes beyond the device, errors."""

import unittest

import numpy as np

import vkhmm
from support import MIB, Case, runtime, shipped
from vkhmm import kernels

random = np.random.default_rng(7)


def some(*shape: int) -> np.ndarray:
    """Managed numbers between -1 and 1."""
    return vkhmm.array(random.random(shape, "f4") * 2 - 1)


class Vectors(Case):
    def test_elementwise(self) -> None:
        for count in (0, 1, 1000, 70_001):
            x, y = some(count), some(count)
            want = np.array(y) + np.float32(2.5) * np.array(x)
            self.assertIs(kernels.axpy(2.5, x, y), y)
            np.testing.assert_allclose(y, want, rtol=1e-6, atol=1e-6)
            want = np.array(x) * np.float32(-3)
            self.assertArray(kernels.scale(-3, x), want)
            made = kernels.copy(x)
            self.assertTrue(vkhmm.is_managed(made))
            self.assertArray(made, want)
            self.assertArray(kernels.fill(made, 7), np.full(count, 7, "f4"))

    def test_reductions_stay_managed(self) -> None:
        x, y = some(123, 457), some(123, 457)
        exact = np.array(x, "f8"), np.array(y, "f8")
        for found, want in (
            (kernels.sum(x), exact[0].sum()),
            (kernels.dot(x, y), (exact[0] * exact[1]).sum()),
            (kernels.max(x), exact[0].max()),
        ):
            self.assertEqual((found.shape, found.dtype), ((), np.float32))
            self.assertTrue(vkhmm.is_managed(found))
            self.assertAlmostEqual(float(found), want, places=2)
        at = kernels.argmin(x)
        self.assertEqual((int(at), at.dtype), (int(np.argmin(np.array(x))), np.uint32))
        out = vkhmm.zeros(5, "f4")
        self.assertEqual(kernels.sum(x, out=out[2:3]).base is not None, True)
        self.assertEqual(np.flatnonzero(out).tolist(), [2])
        self.assertEqual((float(kernels.sum(x[:0])), float(kernels.max(x[:0]))), (0, -np.inf))

    def test_arrays_that_numpy_made(self) -> None:
        with vkhmm.managed():
            x = np.linspace(0, 1, MIB, dtype="f4")
        self.assertAlmostEqual(float(kernels.sum(x)), MIB / 2, delta=1)
        self.assertTrue(vkhmm.is_managed(kernels.copy(x)))


class Matrices(Case):
    def close(self, found: np.ndarray, want: np.ndarray, terms: int = 1) -> None:
        self.assertTrue(vkhmm.is_managed(found))
        self.assertEqual(found.shape, want.shape)
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-6 * max(1, terms))

    def test_products_of_whole_parts_and_transposed(self) -> None:
        m, k, n = 70, 33, 51
        whole, b = some(100, 90), some(k, n)
        fortran = vkhmm.array(np.asfortranarray(np.array(whole)))
        for a in (some(m, k), whole[5 : 5 + m, 7 : 7 + k], whole[3 : 3 + k, 9 : 9 + m].T, fortran[:m, :k], fortran.T[2 : 2 + m, :k]):
            self.assertEqual(a.shape, (m, k))
            want = np.array(a) @ np.array(b)
            self.close(kernels.gemm(a, b), want, k)
            self.close(kernels.gemm(b.T, a.T), want.T, k)
            self.close(kernels.gram(a), np.array(a) @ np.array(a).T, k)

    def test_results_into_parts_leave_the_rest(self) -> None:
        a, b, c = some(20, 30), some(30, 10), some(50, 40)
        want = np.array(c)
        want[5:25, 7:17] = 0.5 * (np.array(a) @ np.array(b)) + 2 * want[5:25, 7:17]
        kernels.gemm(a, b, out=c[5:25, 7:17], alpha=0.5, beta=2.0)
        self.close(c, want, 30)
        want[30:50, 20:30] = np.array(a) @ np.array(b)
        kernels.gemm(a, b, out=c[30:50, 20:30])
        self.close(c, want, 30)
        want[0:10, 30:40] = (np.array(a) @ np.array(b))[:10, :].T[:, :10].T
        kernels.gemm(a[:10], b, out=c[0:10, 30:40])
        self.close(c, want, 30)

    def test_syrk_is_the_lower_triangle(self) -> None:
        a, c = some(40, 25), some(40, 40)
        want = np.where(np.tri(40, dtype=bool), np.array(c) - np.array(a) @ np.array(a).T, np.array(c))
        self.close(kernels.syrk(a, c, alpha=-1, beta=1), want, 25)

    def test_transpose_softmax_conv2d(self) -> None:
        a = some(67, 130)
        self.close(kernels.transpose(a), np.array(a).T)
        self.close(kernels.transpose(a[3:40, 5:9]), np.array(a)[3:40, 5:9].T)
        exp = np.exp(np.array(a, "f8"))
        self.close(kernels.softmax(a), exp / exp.sum(axis=1, keepdims=True))
        f = some(3, 5)
        padded, want = np.pad(np.array(a), ((1, 1), (2, 2)), "edge"), np.zeros(a.shape, "f8")
        for r in range(3):
            for c in range(5):
                want += float(f[r, c]) * padded[r : r + 67, c : c + 130]
        self.close(kernels.conv2d(a, f), want, 15)

    def test_spmv_takes_csr(self) -> None:
        dense = random.random((60, 45), "f4") * (random.random((60, 45)) < 0.1)
        rows, cols = np.nonzero(dense)
        starts = np.searchsorted(rows, np.arange(61))
        for kind in ("u4", "i4"):
            csr = kernels.Csr(vkhmm.array(starts, kind), vkhmm.array(cols, kind), vkhmm.array(dense[rows, cols]), dense.shape)
            x = some(45)
            self.close(kernels.spmv(csr, x), dense @ np.array(x), 10)

    def test_larger_than_the_device(self) -> None:
        small = vkhmm.Runtime(validation=True, device_memory_limit=4 * MIB)
        a = vkhmm.array(random.random((2048, 2048), "f4"), runtime=small)
        self.assertAlmostEqual(float(kernels.sum(a)) / a.size, 0.5, places=2)
        b = kernels.transpose(a)
        self.assertArray(b, np.array(a).T)
        x = vkhmm.array(random.random((2048, 8), "f4"), runtime=small)
        np.testing.assert_allclose(kernels.gemm(a, x), np.array(a) @ np.array(x), rtol=1e-4)
        self.assertEqual(small.validation_messages(), [])


class Refusals(Case):
    def test_each_names_the_operand(self) -> None:
        a, v = some(10, 20), some(10)
        for call, error, words in (
            (lambda: kernels.gemm(a, a), vkhmm.ShapeError, "gemm: b is 10 x 20: as many rows"),
            (lambda: kernels.gemm(a, v), vkhmm.ShapeError, "b has 1 dimensions"),
            (lambda: kernels.gemm(a[:, ::2], a), vkhmm.ShapeError, "a has strides"),
            (lambda: kernels.gemm(a[::-1], a.T), vkhmm.ShapeError, "a has strides"),
            (lambda: kernels.axpy(1, v, v[:5]), vkhmm.ShapeError, "axpy: y is 5 elements"),
            (lambda: kernels.sum(vkhmm.zeros(3)), vkhmm.ShapeError, "x is float64: float32 is needed"),
            (lambda: kernels.sum([1.0]), vkhmm.NotManagedError, "x is a list"),
            (lambda: kernels.argmin(v, out=v[:1]), vkhmm.ShapeError, "out is float32: uint32"),
            (lambda: kernels.sum(np.zeros(3, "f4")), vkhmm.NotManagedError, "^x .*not in managed memory"),
            (lambda: kernels.softmax([[1.0]]), vkhmm.ShapeError, "a is a list"),
            (lambda: kernels.conv2d(None, a), vkhmm.ShapeError, "image is a NoneType"),
            (lambda: kernels.softmax(a, out=a), vkhmm.ShapeError, "softmax: out is in memory that a has, too"),
            (lambda: kernels.axpy(1, v[:9], v[1:]), vkhmm.ShapeError, "axpy: y is in memory that x has, too"),
            (lambda: vkhmm.empty((2**62, 4), "f4"), vkhmm.OutOfMemoryError, "larger than any address space"),
            (lambda: vkhmm.empty((0, 2**63), "f4"), vkhmm.OutOfMemoryError, "larger than any address space"),
            (lambda: vkhmm.launch(shipped("add_one"), 2**64 + 1, [vkhmm.write(a)]), vkhmm.ArgumentError, "the grid is 18446744073709551617"),
            (lambda: kernels.scale(2, a[:, 3]), vkhmm.ArgumentError, "^x .*not C-contiguous"),
            (lambda: kernels.gemm(a, np.zeros((20, 3), "f4")), vkhmm.NotManagedError, "^b .*not in managed memory"),
        ):
            with self.subTest(words), self.assertRaisesRegex(error, words):
                call()
        a.flags.writeable = False
        with self.assertRaisesRegex(vkhmm.ArgumentError, "out is read-only"):
            kernels.gemm(some(10, 3), some(3, 20), out=a)


if __name__ == "__main__":
    unittest.main()
