"""Runs the blocks of docs/PYTHON.md, in order, and compares what they print with what stands behind their prints."""

import contextlib
import io
import re
import sys
from pathlib import Path

TUTORIAL = Path(__file__).resolve().parents[3] / "docs" / "PYTHON.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
# What a line prints, behind it; or a line of comment alone, for prints in loops.
SAID = re.compile(r"^\s*print\(.*\)\s+# (.*)$|^# (.*)$")


def play() -> None:
    """Runs the blocks in this process."""
    text = TUTORIAL.read_text()
    names = {"__name__": "tutorial"}
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(1))
        want = [m[1] or m[2] for m in map(SAID.match, block[1].splitlines()) if m]
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile("\n" * line + block[1], str(TUTORIAL), "exec"), names)
        found = said.getvalue().splitlines()
        if found != want:
            raise AssertionError(f"{TUTORIAL.name}:{line}: printed\n  " + "\n  ".join(found) + "\nand not\n  " + "\n  ".join(want))
        print(f"block at line {line}: {len(found)} lines as written")
    messages = names["rt"].validation_messages()
    if messages:
        raise AssertionError(messages)


if __name__ == "__main__":
    play()
