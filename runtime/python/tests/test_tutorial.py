"""docs/PYTHON.md: every block runs as it stands, in order, and prints what stands behind its prints."""

import os
import subprocess
import sys
import unittest
from pathlib import Path

from blocks import BLOCK, TUTORIAL


class Tutorial(unittest.TestCase):
    def test_the_blocks_run_as_written(self) -> None:
        # In a process of its own: it configures the default runtime.
        run = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("blocks.py"))],
            capture_output=True,
            text=True,
            timeout=200,
            env={**os.environ, "VKHMM_VALIDATION": "1"},
        )
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        blocks = len(BLOCK.findall(TUTORIAL.read_text()))
        self.assertGreater(blocks, 8)
        self.assertEqual(run.stdout.count("as written"), blocks)


if __name__ == "__main__":
    unittest.main()
