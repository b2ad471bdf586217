"""Runs test modules, all of them unless named, and ends with a line that ./x test adds up."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path


class Result(unittest.TextTestResult):
    """One line a test; what was skipped says why."""

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        print(f"test {test.id()} ... ignored, {reason}")


def main() -> int:
    """The exit status."""
    sys.path.insert(0, str(Path(__file__).parent))
    names = sys.argv[1:] or sorted(path.stem for path in Path(__file__).parent.glob("test_*.py"))
    suite = unittest.defaultTestLoader.loadTestsFromNames(names)
    found = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=Result).run(suite)
    failed, ignored = len(found.failures) + len(found.errors), len(found.skipped)
    # A test whose subtests failed counts once for each of them.
    passed = max(0, found.testsRun - failed - ignored)
    print(f"test result: {'FAILED' if failed else 'ok'}. {passed} passed; {failed} failed; {ignored} ignored;")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
