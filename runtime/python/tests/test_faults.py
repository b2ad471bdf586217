"""Threads that hold the GIL while they wait for pages: what must not deadlock, under whichever fault engine there is."""

import gc
import os
import threading
import unittest

import numpy as np

import vkhmm
from support import MIB, Case, runtime, shipped


class Threads(Case):
    def test_the_engine_is_the_one_that_was_asked_for(self) -> None:
        wanted = os.environ.get("VKHMM_FAULT_ENGINE")
        self.assertIn(runtime.fault_engine, {wanted} if wanted else {"uffd-thread", "uffd-thread-user", "segv-mprotect"})

    def test_threads_touch_what_kernels_are_writing(self) -> None:
        k = shipped("scale")
        wrong: list[object] = []

        def work(seed: int) -> None:
            try:
                random = np.random.default_rng(seed)
                x = vkhmm.array(random.random(200_000, "f4"))
                want = np.array(x)
                for turn in range(12):
                    by = np.float32(random.choice([0.5, 2.0]))
                    vkhmm.launch(k, x.size, [vkhmm.write(x)], [by])
                    want *= by
                    low = int(random.integers(0, x.size - 1000))
                    # Element by element holds the GIL at every touch; slices hold it through many.
                    if not np.array_equal(x[low : low + 1000], want[low : low + 1000]) or x[low] != want[low]:
                        wrong.append((seed, turn))
                    x[low::1013] = 1
                    want[low::1013] = 1
                if not np.array_equal(x, want):
                    wrong.append(seed)
            except BaseException as error:  # of a thread: told below
                wrong.append(error)

        threads = [threading.Thread(target=work, args=[seed]) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])

    def test_one_array_read_by_many_while_it_comes_home(self) -> None:
        x = vkhmm.array(np.arange(2 * MIB, dtype="f4"))
        for _ in range(4):
            vkhmm.launch(shipped("scale"), x.size, [vkhmm.write(x)], [1.0])
            sums: list[float] = []
            threads = [threading.Thread(target=lambda: sums.append(float(x[:100_000].sum()))) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(set(sums), {float(np.arange(100_000, dtype="f4").sum())})

    def test_eviction_below_running_numpy(self) -> None:
        """Twice the device's memory, kernels and NumPy by turns."""
        arrays = [vkhmm.array(np.full(2 * MIB, i, "f4")) for i in range(16)]
        k = shipped("scale")
        for turn in range(2):
            for array in arrays:
                vkhmm.launch(k, array.size, [vkhmm.write(array)], [2.0])
            for i, array in enumerate(arrays):
                array[::100_003] += 1
                self.assertEqual(array[1], i * 2.0 ** (turn + 1))

    def test_collections_run_while_others_wait(self) -> None:
        """Arrays die in garbage collections of any thread, between the calls of any other."""
        over = threading.Event()

        def litter() -> None:
            while not over.is_set():
                cycle: list[object] = [vkhmm.zeros(1000), None]
                cycle[1] = cycle
                del cycle
                gc.collect(0)

        thread = threading.Thread(target=litter)
        thread.start()
        try:
            for _ in range(60):
                with self.assertRaisesRegex(vkhmm.NotManagedError, "is not in managed memory"):
                    vkhmm.residency(np.zeros(3))
                with self.assertRaisesRegex(vkhmm.ArgumentError, "storage buffer"):
                    vkhmm.launch(shipped("scale"), 1, [], [2.0])
        finally:
            over.set()
            thread.join()


if __name__ == "__main__":
    unittest.main()
