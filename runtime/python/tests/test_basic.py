"""Arrays, kernels, launches, waits, errors."""

import gc
import signal
import threading
import time
import unittest
import weakref

import numpy as np

import vkhmm
from support import MIB, SPV, Case, alone, runtime, shipped

GLSL = """
#version 450
layout(local_size_x = 64) in;
layout(binding = 0) readonly buffer A { float a[]; };
layout(binding = 1) writeonly buffer B { float b[]; };
layout(push_constant) uniform P { uint n; float by; };
void main() {
    uint i = (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * gl_WorkGroupSize.x + gl_LocalInvocationIndex;
    if (i < n) b[i] = by * a[i];
}
"""


class Arrays(Case):
    def test_they_are_arrays_of_zeros_of_any_shape(self) -> None:
        for made in (vkhmm.empty, vkhmm.zeros):
            for shape in (5, (5,), (), (3, 4, 5), (0,), (7, 0), np.int64(3)):
                for dtype in (float, "f4", "<u2", np.complex64, bool, [("a", "u1"), ("b", "f8")]):
                    a = made(shape, dtype)
                    want = np.zeros(shape, dtype)
                    self.assertEqual((type(a), a.shape, a.dtype), (np.ndarray, want.shape, want.dtype))
                    self.assertArray(a, want)
                    self.assertTrue(vkhmm.is_managed(a), (shape, dtype))
                    self.assertTrue(a.flags.writeable and a.flags.aligned)
        self.assertTrue(vkhmm.empty((3, 4), order="F").flags.f_contiguous)

    def test_array_copies_values_type_and_order(self) -> None:
        for source in ([1, 2, 3], 7.5, np.eye(3), np.asfortranarray(np.ones((2, 3), "f4")), np.arange(20)[::-2]):
            a = vkhmm.array(source)
            self.assertArray(a, source)
            self.assertEqual(a.dtype, np.asarray(source).dtype)
            self.assertTrue(vkhmm.is_managed(a))
        self.assertEqual(vkhmm.array([1, 2], "f4").dtype, np.float32)
        self.assertTrue(vkhmm.array(np.asfortranarray(np.ones((2, 3)))).flags.f_contiguous)

    def test_what_cannot_be_an_array_is_refused(self) -> None:
        with self.assertRaisesRegex(vkhmm.ArgumentError, "Python objects"):
            vkhmm.empty(3, object)
        with self.assertRaisesRegex(vkhmm.ArgumentError, "negative"):
            vkhmm.empty((2, -1))
        with self.assertRaisesRegex(vkhmm.ArgumentError, "order is 'K'"):
            vkhmm.empty(2, order="K")
        with self.assertRaises(vkhmm.OutOfMemoryError) as caught:
            vkhmm.empty(1 << 60, "u1")
        self.assertIsInstance(caught.exception, MemoryError)
        self.assertEqual(caught.exception.name, "VKHMM_ERROR_OUT_OF_ADDRESS_SPACE")

    def test_is_managed_tells_views_from_copies(self) -> None:
        a = vkhmm.zeros((100, 100))
        for view in (a[3:7], a.T, a[::2, ::-3], a.ravel(), a.view("u8"), np.asarray(memoryview(a)), a.reshape(50, 200)):
            self.assertTrue(vkhmm.is_managed(view))
        for other in (a.copy(), a + 1, np.ones(3), [1], None):
            self.assertFalse(vkhmm.is_managed(other))

    def test_memory_is_freed_with_the_last_view_and_not_before(self) -> None:
        a = vkhmm.array(np.arange(1000, dtype="u4"))
        memory = weakref.ref(a.base if not isinstance(a.base, np.ndarray) else a.base.base)
        view = memoryview(a[10:20])
        del a
        gc.collect()
        self.assertIsNotNone(memory())
        self.assertEqual(list(view), list(range(10, 20)))
        del view
        gc.collect()
        self.assertIsNone(memory())

    def test_ten_thousand_arrays_come_and_go(self) -> None:
        first = None
        for _ in range(10_000):
            a = vkhmm.empty(MIB, "u1")
            first = first or a.ctypes.data
        self.assertLess(abs(a.ctypes.data - first), 1 << 30)

    def test_numpy_works_on_them(self) -> None:
        a = vkhmm.array(np.random.default_rng(1).random((300, 300)))
        b, c = np.array(a), vkhmm.empty((300, 300))
        np.matmul(a, a, out=c)
        np.testing.assert_allclose(c, b @ b)
        self.assertAlmostEqual(a.sum(), b.sum())
        a += 1
        a[a > 1.5] = 0
        b += 1
        b[b > 1.5] = 0
        self.assertArray(np.sort(a, axis=None), np.sort(b, axis=None))
        self.assertArray(np.linalg.inv(a[:50, :50]), np.linalg.inv(b[:50, :50]))


class Launches(Case):
    def test_touching_waits_for_the_kernel(self) -> None:
        x = vkhmm.array(np.arange(1_000_000, dtype="f4"))
        launched = vkhmm.launch(shipped("scale"), x.size, [vkhmm.write(x)], [2.0])
        self.assertEqual(x[123], 246)
        self.assertArray(x, 2 * np.arange(1_000_000, dtype="f4"))
        self.assertTrue(launched.wait() and launched.done)

    def test_a_launch_outlives_its_arrays_and_its_kernel(self) -> None:
        k = shipped("scale")
        for _ in range(50):
            x = vkhmm.array(np.ones(100_000, "f4"))
            launched = vkhmm.launch(k, x.size, [vkhmm.write(x)], [3.0])
            del x
        del k
        gc.collect()
        self.assertTrue(launched.wait())

    def test_views_are_given_as_their_bytes(self) -> None:
        k = shipped("scale")
        x = vkhmm.array(np.ones((64, 1024), "f4"))
        vkhmm.launch(k, x[8:16].size, [vkhmm.write(x[8:16])], [5.0])
        want = np.ones((64, 1024), "f4")
        want[8:16] = 5
        self.assertArray(x, want)
        with self.assertRaisesRegex(vkhmm.ArgumentError, "access 0.*not C-contiguous"):
            vkhmm.launch(k, 10, [vkhmm.write(x[:, 3])], [5.0])
        with self.assertRaisesRegex(vkhmm.ArgumentError, "not C-contiguous"):
            vkhmm.launch(k, 10, [vkhmm.write(x.T)], [5.0])
        x.flags.writeable = False
        with self.assertRaisesRegex(vkhmm.ArgumentError, "read-only in NumPy"):
            vkhmm.launch(k, 10, [vkhmm.write(x)], [5.0])

    def test_glsl_text_and_files(self) -> None:
        a, b = vkhmm.array(np.arange(1000, dtype="f4")), vkhmm.empty(1000, "f4")
        vkhmm.launch(vkhmm.kernel(GLSL), a.size, [vkhmm.read(a), vkhmm.overwrite(b)], [a.size, 0.5])
        self.assertArray(b, a / 2)
        k = vkhmm.kernel(SPV / "scale.spv", name="twice")
        self.assertEqual((k.name, k.local_size[1:]), ("twice", (1, 1)))
        vkhmm.launch(k, b.size, [vkhmm.write(b)], [np.float32(4)])
        self.assertArray(b, a * 2)
        with self.assertRaisesRegex(vkhmm.CompileError, r"refuses the shader:\n(.|\n)*kernel.comp:3"):
            vkhmm.kernel("#version 450\nvoid main() {\n  nonsense;\n}")

    def test_without_a_compiler_glsl_is_refused_clearly(self) -> None:
        alone(
            """
            try:
                vkhmm.kernel("void main() {}")
            except vkhmm.CompileError as error:
                print(error)
            """,
            says="no GLSL compiler is on PATH",
            PATH="",
        )

    def test_parameters_are_what_shaders_take(self) -> None:
        text = """
        #version 450
        #extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
        layout(constant_id = 3) const uint c = 1;
        layout(constant_id = 4) const float d = 1;
        layout(local_size_x = 1) in;
        layout(binding = 0) buffer A { uint a[]; };
        layout(push_constant) uniform P { int i; uint u; float f; uint b; uint64_t w; };
        void main() { a[0] = uint(i); a[1] = u; a[2] = floatBitsToUint(f); a[3] = b; a[4] = uint(w >> 32); a[5] = c; a[6] = floatBitsToUint(d); }
        """
        k = vkhmm.kernel(text, constants={3: 17, 4: 0.25})
        bits = lambda value: int(np.float32(value).view("u4"))  # noqa: E731
        want = [2**32 - 5, 2**32 - 1, bits(1.5), 1, 9, 17, bits(0.25)]
        struct = np.array([(-5, 2**32 - 1, 1.5, 1, 9 << 32)], "i4,u4,f4,u4,u8")[0]
        for params in ([-5, 2**32 - 1, 1.5, True, np.uint64(9 << 32)], [struct], [struct.tobytes()]):
            a = vkhmm.zeros(7, "u4")
            vkhmm.launch(k, (1,), [vkhmm.write(a)], params)
            self.assertEqual(a.tolist(), want)
        with self.assertRaisesRegex(vkhmm.ArgumentError, "param 1 is 4294967296, more than 32 bits"):
            vkhmm.launch(k, (1,), [vkhmm.write(a)], [1, 2**32])
        with self.assertRaisesRegex(vkhmm.ArgumentError, "param 0 is a dict"):
            vkhmm.launch(k, (1,), [vkhmm.write(a)], [{}])

    def test_larger_than_the_limit_by_windows(self) -> None:
        n = 24 * MIB
        x = vkhmm.empty(n, "f4")
        x[:] = 1
        k = shipped("scale")
        for part in runtime.windows(n, 4):
            vkhmm.launch(k, x[part].size, [vkhmm.write(x[part])], [7.0])
        self.assertEqual((x.min(), x.max()), (7, 7))
        with self.assertRaises(vkhmm.WorkingSetTooLargeError) as caught:
            vkhmm.launch(k, n, [vkhmm.write(x)], [7.0])
        self.assertIsInstance(caught.exception, vkhmm.OutOfMemoryError)

    def test_refusals_are_exceptions_with_the_librarys_words(self) -> None:
        k, x = shipped("scale"), vkhmm.zeros(100, "f4")
        for access, params, name, words in (
            ([vkhmm.read(x)], [2.0], "VKHMM_ERROR_WRITES_READ_ONLY_ARGUMENT", "can write binding"),
            ([], [2.0], "VKHMM_ERROR_ARGUMENTS", "storage buffer"),
            ([vkhmm.write(x)], [2.0, 3.0], "VKHMM_ERROR_ARGUMENTS", "takes the values a (4 bytes); given: 2 values"),
        ):
            with self.assertRaises(vkhmm.ArgumentError) as caught:
                vkhmm.launch(k, 100, access, params)
            self.assertEqual(caught.exception.name, name)
            self.assertIn(words, str(caught.exception))
            self.assertIsInstance(caught.exception, ValueError)
        with self.assertRaisesRegex(vkhmm.NotManagedError, "access 0 .*not in managed memory"):
            vkhmm.launch(k, 100, [vkhmm.write(np.zeros(100, "f4"))], [2.0])
        with self.assertRaisesRegex(vkhmm.ArgumentError, "by read"):
            vkhmm.launch(k, 100, [x], [2.0])
        with self.assertRaisesRegex(vkhmm.ArgumentError, "one to three"):
            vkhmm.launch(k, (1, 1, 1, 1), [vkhmm.write(x)], [2.0])
        with self.assertRaises(vkhmm.KernelError):
            vkhmm.kernel(b"no module")
        with self.assertRaisesRegex(vkhmm.SettingError, "is made already"):
            vkhmm.configure()
        with self.assertRaisesRegex(vkhmm.SettingError, "there are uffd-thread,"):
            vkhmm.Runtime(fault_engine="magic")

    def test_runtimes_do_not_mix_and_end_with_their_last_array(self) -> None:
        other = vkhmm.Runtime(validation=True, device_memory_limit=32 * MIB)
        self.assertIn("32 MiB", repr(other))
        k = vkhmm.kernel(SPV / "scale.spv", runtime=other)
        x, y = vkhmm.array(np.ones(10, "f4"), runtime=other), vkhmm.zeros(10, "f4")
        with self.assertRaises(vkhmm.ArgumentError) as caught:
            vkhmm.launch(k, 10, [vkhmm.write(y)], [2.0])
        self.assertEqual(caught.exception.name, "VKHMM_ERROR_FOREIGN")
        vkhmm.launch(k, 10, [vkhmm.write(x)], [2.0])
        self.assertEqual(other.validation_messages(), [])
        gone = weakref.ref(other)
        del other, k
        gc.collect()
        self.assertArray(x, 2)
        self.assertIsNotNone(gone())
        del x, caught
        gc.collect()
        self.assertIsNone(gone())

    def test_declared_is_refused_and_says_why(self) -> None:
        alone(
            """
            for make in (lambda: vkhmm.Runtime(fault_engine="declared"), lambda: vkhmm.empty(3)):
                try:
                    make()
                except vkhmm.SetupError as error:
                    print(error)
            """,
            says="NumPy announces nothing",
            VKHMM_FAULT_ENGINE="declared",
        )


class Waits(Case):
    def spin(self, seconds: float) -> vkhmm.Launch:
        """A kernel that runs for about that long."""
        k, x = shipped("spin"), vkhmm.zeros(1 << 20, "u4")

        def spin(words: int) -> vkhmm.Launch:
            return vkhmm.launch(k, words, [vkhmm.write(x)], [1000, words])

        def took(words: int) -> float:
            start = time.monotonic()
            spin(words).wait()
            return time.monotonic() - start

        # The faster of two: busy machines are slow now and then.
        words, once = 256, 0.0
        while once < 0.05:
            words *= 2
            once = min(took(words), took(words))
        return spin(min(x.size, int(words * seconds / once)))

    def test_a_wait_ends_in_time_and_lets_other_threads_run(self) -> None:
        launched = self.spin(0.5)
        self.assertFalse(launched.wait(0.01))
        self.assertFalse(vkhmm.wait(0.01))
        turns = 0
        over = threading.Event()

        def count() -> None:
            nonlocal turns
            while not over.is_set():
                turns += 1

        thread = threading.Thread(target=count)
        thread.start()
        self.assertTrue(launched.wait())
        over.set()
        thread.join()
        self.assertGreater(turns, 100)
        self.assertTrue(vkhmm.wait(10))

    def test_ctrl_c_ends_a_wait(self) -> None:
        launched = self.spin(1.5)
        for wait in (launched.wait, vkhmm.wait):
            timer = threading.Timer(0.1, signal.raise_signal, [signal.SIGINT])
            timer.start()
            with self.assertRaises(KeyboardInterrupt):
                wait()
                timer.join()
            self.assertFalse(launched.done)
        self.assertTrue(launched.wait())

    def test_a_timed_kernel_knows_how_long_it_ran(self) -> None:
        x = vkhmm.zeros(1 << 20, "f4")
        launched = vkhmm.launch(shipped("scale", timed=True), x.size, [vkhmm.write(x)], [2.0])
        launched.wait()
        self.assertGreater(launched.elapsed or 0, 0)


if __name__ == "__main__":
    unittest.main()
