"""What the tests share: the default runtime under validation, shipped kernels, processes of their own."""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
import textwrap
import unittest
from pathlib import Path

# Before the first runtime, as docs/PYTHON.md says.
faulthandler.enable()
faulthandler.dump_traceback_later(300, exit=True)

import numpy as np  # noqa: E402

import vkhmm  # noqa: E402

SPV = Path(__file__).resolve().parents[3] / "shaders" / "spv"
MIB = 1 << 20
PAGE = 4096

runtime = vkhmm.configure(validation=True, device_memory_limit=64 * MIB)


def shipped(name: str, **options: object) -> vkhmm.Kernel:
    """A kernel of shaders/, of the default runtime."""
    return vkhmm.kernel((SPV / f"{name}.spv").read_bytes(), **options)


def alone(text: str, *, says: str = "", code: int = 0, **variables: str) -> str:
    """Runs a program in a process of its own, which must end with that code and print that."""
    before = f"import numpy as np, vkhmm\nfrom pathlib import Path\nSPV = Path({str(SPV)!r})\n"
    run = subprocess.run(
        [sys.executable, "-c", before + textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **variables},
    )
    both = run.stdout + run.stderr
    if run.returncode != code or says not in both:
        raise AssertionError(f"ended with {run.returncode}, not {code}, or did not say {says!r}:\n{both}")
    return both


class Case(unittest.TestCase):
    """A test after which the validation layers have nothing to say."""

    def tearDown(self) -> None:
        vkhmm.wait()
        self.assertEqual(runtime.validation_messages(), [])

    def assertArray(self, found: np.ndarray, want: object) -> None:
        """All elements are exactly that."""
        np.testing.assert_array_equal(found, want)
