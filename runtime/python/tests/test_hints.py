"""Residency, prefetches, advice, guards, pins, files, counters; and what other libraries take arrays by."""

import gc
import io
import os
import tempfile
import unittest

import numpy as np

import vkhmm
from support import MIB, PAGE, Case, runtime, shipped

DEVICE, SHARED, HOST, ABSENT = vkhmm.Location.DEVICE, vkhmm.Location.SHARED, vkhmm.Location.HOST, vkhmm.Location.ABSENT


def on_device(count: int = MIB) -> np.ndarray:
    """That many ones, and then only on the device, as twos."""
    x = vkhmm.array(np.ones(count, "f4"))
    vkhmm.launch(shipped("scale"), x.size, [vkhmm.write(x)], [2.0]).wait()
    return x


class Where(Case):
    def test_residency_has_a_number_for_each_page(self) -> None:
        x = vkhmm.zeros(MIB, "f4")
        self.assertEqual((vkhmm.residency(x).shape, vkhmm.residency(x).dtype), ((1024,), np.uint8))
        self.assertArray(vkhmm.residency(x), ABSENT)
        x[:] = 1
        self.assertArray(vkhmm.residency(x), HOST)
        half = x[: MIB // 2]
        vkhmm.launch(shipped("scale"), half.size, [vkhmm.write(half)], [2.0]).wait()
        self.assertArray(vkhmm.residency(x), [DEVICE] * 512 + [HOST] * 512)
        # A view counts the pages that it touches.
        self.assertArray(vkhmm.residency(x[MIB // 2 - 1 : MIB // 2 + 1]), [DEVICE, HOST])
        self.assertEqual(vkhmm.residency(x[10:20]).tolist(), [DEVICE])
        self.assertEqual(vkhmm.residency(x[::-2]).size, 1024)
        self.assertEqual(vkhmm.residency(x[3:3]).size, 0)
        self.assertFalse(vkhmm.is_managed(vkhmm.residency(x)))
        self.assertEqual(x[0], 2)
        self.assertIn(vkhmm.residency(x)[0], (SHARED, HOST))
        with self.assertRaises(vkhmm.NotManagedError):
            vkhmm.residency(np.zeros(3))

    def test_prefetch_moves_ahead(self) -> None:
        x = vkhmm.array(np.ones(MIB, "f4"))
        self.assertTrue(vkhmm.prefetch(x).wait())
        self.assertNotIn(ABSENT, vkhmm.residency(x))
        self.assertArray(vkhmm.residency(x) == SHARED, True)
        self.assertEqual(vkhmm.advise(x).last_prefetch, "device")
        x = on_device()
        part = x[: MIB // 4]
        vkhmm.prefetch(part, to="host").wait()
        self.assertArray(vkhmm.residency(x[MIB // 4 :]), DEVICE)
        self.assertNotIn(DEVICE, vkhmm.residency(part))
        self.assertArray(x, 2)
        with self.assertRaisesRegex(vkhmm.ArgumentError, "to is 'gpu'"):
            vkhmm.prefetch(x, to="gpu")

    def test_advice_is_said_and_read(self) -> None:
        x = vkhmm.zeros((4, MIB // 4), "f4")
        advice = vkhmm.advise(x)
        self.assertEqual((advice.preferred, advice.read_mostly, advice.accessed_by), (None, False, False))
        for side in ("device", "host", None):
            advice.preferred = side
            self.assertEqual(vkhmm.advise(x).preferred, side)
        vkhmm.advise(x[1]).read_mostly = True
        self.assertIsNone(advice.read_mostly)
        self.assertTrue(vkhmm.advise(x[1]).read_mostly)
        advice.read_mostly = False
        self.assertEqual(advice.read_mostly, False)
        advice.accessed_by = True
        self.assertTrue(advice.accessed_by)
        self.assertIn("accessed_by=True", repr(advice))
        with self.assertRaises(vkhmm.ArgumentError):
            advice.preferred = "moon"

    def test_discard_saves_the_way_home(self) -> None:
        x = on_device()
        self.assertEqual(vkhmm.discard(x), x.nbytes)
        x[:] = 5
        self.assertArray(x, 5)

    def test_guards_keep_arrays_at_home_for_system_calls(self) -> None:
        x = on_device()
        with tempfile.TemporaryFile() as file, vkhmm.host(x) as same:
            self.assertIs(same, x)
            self.assertEqual(vkhmm.advise(x).pinned, "host")
            self.assertEqual(os.write(file.fileno(), memoryview(x)), x.nbytes)
            with self.assertRaises(vkhmm.GuardedError):
                vkhmm.launch(shipped("scale"), x.size, [vkhmm.write(x)], [2.0])
            file.seek(0)
            y = on_device(x.size)
            with vkhmm.host(y, write=True):
                self.assertEqual(os.readv(file.fileno(), [memoryview(y).cast("B")]), y.nbytes)
        vkhmm.launch(shipped("scale"), y.size, [vkhmm.write(y)], [2.0])
        self.assertArray(y, 4)

    def test_pins(self) -> None:
        x = on_device()
        with vkhmm.pin(x, "device"):
            self.assertEqual(vkhmm.advise(x).pinned, "device")
            self.assertEqual(x[7], 2)
        self.assertIsNone(vkhmm.advise(x).pinned)
        with vkhmm.pin(x, "host"), self.assertRaises(vkhmm.GuardedError):
            vkhmm.launch(shipped("scale"), x.size, [vkhmm.write(x)], [2.0])

    def test_stats_count_bytes(self) -> None:
        before = vkhmm.stats()
        x = on_device()
        x.sum()
        after = vkhmm.stats()
        self.assertEqual(after["in_bytes"] - before["in_bytes"], x.nbytes)
        self.assertGreaterEqual(after["out_bytes"] - before["out_bytes"], x.nbytes)
        self.assertIn("Verdict", vkhmm.doctor())
        self.assertIsInstance(runtime.waits(), list)
        self.assertIn("operation", runtime.report())
        limit, used = runtime.device_memory
        self.assertEqual(limit, 64 * MIB)
        self.assertGreaterEqual(runtime.trim(used), 0)
        self.assertEqual(runtime.set_device_memory_limit(limit), 0)


class Files(Case):
    def test_npy_files_there_and_back(self) -> None:
        arrays = [
            on_device(),
            vkhmm.array(np.asfortranarray(np.arange(6.0).reshape(2, 3))),
            vkhmm.array(np.array([(1, 2.5)], [("a", "u1"), ("b", "f8")])),
            vkhmm.array(7),
            np.ones(3),
        ]
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "a.npy")
            for array in arrays:
                vkhmm.save(file, array)
                loaded = vkhmm.load(file)
                self.assertTrue(vkhmm.is_managed(loaded))
                self.assertArray(loaded, array)
                self.assertEqual(loaded.dtype, array.dtype)
                self.assertEqual(loaded.flags.f_contiguous, array.flags.f_contiguous)
                self.assertArray(np.load(file), array)
            np.save(file, np.array([{}]), allow_pickle=True)
            with self.assertRaises(ValueError):
                vkhmm.load(file)
        memory = io.BytesIO()
        vkhmm.save(memory, arrays[1])
        memory.seek(0)
        self.assertArray(np.load(memory), arrays[1])


class Sharing(Case):
    def test_dlpack_buffers_and_interfaces_are_the_memory_itself(self) -> None:
        x = vkhmm.array(np.arange(10, dtype="f4"))
        self.assertEqual(x.__dlpack_device__(), (1, 0))
        from_dlpack = getattr(np, "from_dlpack", None) or np._from_dlpack  # the latter: NumPy 1.22
        for other in (from_dlpack(x), np.asarray(memoryview(x)), np.asarray(Interface(x))):
            self.assertEqual(other.ctypes.data, x.ctypes.data)
            self.assertTrue(vkhmm.is_managed(other))
            self.assertArray(other, x)
        kept, view = from_dlpack(x), np.asarray(memoryview(x))
        del x, other
        for _ in range(3):
            vkhmm.zeros(10, "f4").fill(9)
        address = view.ctypes.data
        vkhmm.launch(shipped("scale"), kept.size, [vkhmm.write(view)], [2.0])
        del view
        gc.collect()
        self.assertArray(kept, 2 * np.arange(10))
        self.assertEqual(kept.ctypes.data, address)

    def test_what_computes_on_them_while_the_device_does(self) -> None:
        """NumPy's operators between launches on the same array, with no wait that anybody wrote."""
        x, want = vkhmm.array(np.ones(300_000, "f4")), np.ones(300_000, "f4")
        k = shipped("scale")
        for i in range(20):
            vkhmm.launch(k, x.size, [vkhmm.write(x)], [1.5])
            want *= np.float32(1.5)
            x[i::7] -= 3
            want[i::7] -= 3
            np.sqrt(np.abs(x), out=x)
            want = np.sqrt(np.abs(want))
        self.assertArray(x, want)


class Interface:
    """Only what `__array_interface__` says."""

    def __init__(self, array: np.ndarray) -> None:
        self.kept, self.__array_interface__ = array, array.__array_interface__


if __name__ == "__main__":
    unittest.main()
