"""Arrays that NumPy makes inside managed(), and forked children."""

import asyncio
import gc
import multiprocessing
import os
import signal
import threading
import unittest

import numpy as np

import vkhmm
from support import MIB, Case, alone, shipped

try:
    from numpy._core.multiarray import get_handler_name
except ImportError:
    from numpy.core.multiarray import get_handler_name

BIG, SMALL = MIB, MIB - 1


class Managed(Case):
    def test_large_arrays_are_managed_and_small_ones_are_not(self) -> None:
        with vkhmm.managed():
            big, small, zeros = np.empty(BIG, "u1"), np.empty(SMALL, "u1"), np.zeros((512, 512), "f8")
            computed = zeros + 1.0
            sliced = zeros[:10].copy()
        after = np.empty(BIG, "u1")
        for array, want in ((big, True), (small, False), (zeros, True), (computed, True), (sliced, False), (after, False)):
            self.assertEqual(vkhmm.is_managed(array), want)
            inside = array is not after
            self.assertEqual(get_handler_name(array), "vkhmm_managed" if inside else "default_allocator")
        self.assertEqual(computed.sum(), 512 * 512)

    def test_kernels_work_on_them(self) -> None:
        with vkhmm.managed():
            x = np.linspace(0, 1, 1 << 20, dtype="f4")
        want = x * np.float32(3)
        vkhmm.launch(shipped("scale"), x.size, [vkhmm.write(x)], [3.0])
        self.assertArray(x, want)

    def test_memory_of_both_kinds_is_freed_outside(self) -> None:
        def take() -> None:
            with vkhmm.managed():
                for size in (0, 1, 100, SMALL, BIG, 5 * MIB):
                    a = np.ones(size, "u1")
                    b = a.reshape(-1)[size // 2 :]
                    del a
                    self.assertEqual(b[::4096].sum(), len(b[::4096]))

        for _ in range(4):
            take()
        first = vkhmm.empty(1).ctypes.data
        for _ in range(40):
            take()
        self.assertLess(abs(vkhmm.empty(1).ctypes.data - first), 64 * MIB, "addresses are used again")

    def test_resize_keeps_what_fits_on_every_side_of_the_border(self) -> None:
        sizes = (10, SMALL, BIG, 3 * MIB, 7, 2 * MIB, 100)
        with vkhmm.managed():
            a = np.arange(5, dtype="u1")
        for size in sizes:
            kept = a[:size].copy()
            a.resize(size, refcheck=False)
            self.assertArray(a[: kept.size], kept)
            self.assertFalse(a[kept.size :].any())
            # Grown outside by the functions that made it.
            self.assertEqual(vkhmm.is_managed(a), size >= BIG)

    def test_libraries_that_make_arrays_make_managed_ones(self) -> None:
        with vkhmm.managed():
            a = np.fromiter(range(300_000), "f8")
            stacked = np.vstack([a, a])
            read = np.frombuffer(bytes(2 * MIB), "u1").copy()
            spectrum = np.fft.fft(a)
        for array in (a, stacked, read, spectrum):
            self.assertTrue(vkhmm.is_managed(array))

    def test_the_block_is_the_contexts(self) -> None:
        seen = {}

        def elsewhere() -> None:
            seen["thread"] = vkhmm.is_managed(np.empty(BIG, "u1"))

        async def task(name: str, inside: bool) -> None:
            if inside:
                with vkhmm.managed():
                    await asyncio.sleep(0.02)
                    seen[name] = vkhmm.is_managed(np.empty(BIG, "u1"))
            else:
                await asyncio.sleep(0.01)
                seen[name] = vkhmm.is_managed(np.empty(BIG, "u1"))

        async def both() -> None:
            await asyncio.gather(task("inside", True), task("outside", False))

        with vkhmm.managed():
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
            with vkhmm.managed():
                pass
            seen["after the inner block"] = vkhmm.is_managed(np.empty(BIG, "u1"))
        asyncio.run(both())
        with self.assertRaises(ZeroDivisionError), vkhmm.managed():
            1 / 0
        seen["after an error"] = vkhmm.is_managed(np.empty(BIG, "u1"))
        want = {"thread": False, "after the inner block": True, "inside": True, "outside": False, "after an error": False}
        self.assertEqual(seen, want)

    def test_no_memory_is_a_memory_error(self) -> None:
        with vkhmm.managed(), self.assertRaises(MemoryError):
            np.empty(1 << 60, "u1")

    def test_the_process_ends_well_whatever_is_left(self) -> None:
        alone(
            """
            rt = vkhmm.Runtime(device_memory_limit=32 << 20)
            with vkhmm.managed(rt):
                kept = np.ones(1 << 20)
            class Late:
                def __init__(self, a): self.a = a
                def __del__(self): print("last", self.a[-1])
            late = Late(kept)
            k = vkhmm.kernel((SPV / "scale.spv").read_bytes(), runtime=rt)
            vkhmm.launch(k, kept.size, [vkhmm.write(kept.view("f4"))], [1.0])
            import builtins, gc
            builtins.kept = late, vkhmm.empty(5)
            del rt, k, kept
            gc.collect()
            assert late.a[-1] == 1
            del late
            """,
            says="last 1.0",
        )


def child_of_fork(body: str) -> int:
    """How a forked child that runs `body` ends."""
    process = os.fork()
    if process == 0:
        try:
            exec(body, globals())
            os._exit(0)
        except BaseException as error:  # whatever it is, it must not go on as the parent
            print(repr(error), flush=True)
            os._exit(1)
    return os.waitpid(process, 0)[1]


def plain(x: float) -> float:
    """For workers."""
    with_managed = np.ones(2 * MIB, "u1")
    return x * 2 + with_managed[-1]


def managed_work(x: float) -> float:
    """For workers that are spawned: they make a runtime of their own."""
    a = vkhmm.array(np.full(1000, x))
    return float(a.sum())


class Forks(Case):
    def test_the_childs_garbage_collection_does_no_harm(self) -> None:
        global held
        with vkhmm.managed():
            arrays = [np.full(BIG, i, "u1") for i in range(8)] + [vkhmm.array(np.arange(i + 10)) for i in range(8)]
        k = shipped("scale")
        x = vkhmm.array(np.ones(1 << 20, "f4"))
        held = [arrays, vkhmm.launch(k, x.size, [vkhmm.write(x)], [2.0]), k, x, vkhmm.Runtime(device_memory_limit=MIB * 16)]
        self.assertEqual(child_of_fork("held.clear(); gc.collect(); np.ones(5 * MIB).sum()"), 0)
        for i in range(8):
            self.assertEqual((arrays[i].min(), arrays[i].max()), (i, i))
            self.assertArray(arrays[8 + i], np.arange(i + 10))
        self.assertEqual((x.min(), x.max()), (2, 2))

    def test_calls_in_a_child_say_what_to_do(self) -> None:
        global held
        held = vkhmm.empty(10)
        body = """
assert not vkhmm.is_managed(held) and not vkhmm.is_managed(np.ones(3))
for call in (lambda: vkhmm.empty(3), lambda: vkhmm.wait(), lambda: vkhmm.read(held).resolve(0)):
    try:
        call()
    except vkhmm.ForkedError as error:
        assert "spawn" in str(error) and error.name == "VKHMM_ERROR_FORKED", error
    else:
        raise AssertionError("no error")
"""
        self.assertEqual(child_of_fork(body), 0)

    def test_touching_the_parents_memory_in_a_child_is_a_crash_there_and_nothing_here(self) -> None:
        global held
        held = vkhmm.array([1.0, 2.0])
        self.assertEqual(child_of_fork("import faulthandler; faulthandler.disable(); held[0]") & 127, signal.SIGSEGV)
        self.assertEqual(held.tolist(), [1, 2])

    def test_pools_of_forked_workers_run_inside_managed(self) -> None:
        with vkhmm.managed():
            mine = np.ones(2 * MIB, "u1")
            with multiprocessing.get_context("fork").Pool(2) as pool:
                self.assertEqual(pool.map(plain, [1.0, 2.0, 3.0]), [3, 5, 7])
        self.assertEqual(mine.sum(), 2 * MIB)

    def test_spawned_workers_have_runtimes_of_their_own(self) -> None:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            self.assertEqual(pool.map(managed_work, [1.0, 2.0]), [1000, 2000])
            # Arrays go to workers by value.
            self.assertEqual(pool.apply(np.sum, [vkhmm.array([1.0, 2.0])]), 3)


if __name__ == "__main__":
    unittest.main()
