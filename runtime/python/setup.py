"""Builds the C library with cargo and puts it into the wheel, which is for every Python 3 and one kind of machine.

VKHMM_PYTHON_LIBRARY=FILE takes a library that is built already; a clone of the repository is needed otherwise.
"""

import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
LIBRARY = "libvkhmm.so.0"


def version() -> str:
    """The version of the workspace; an unpacked wheel never asks."""
    manifest = REPOSITORY / "Cargo.toml"
    if not manifest.is_file():
        raise SystemExit(f"{manifest} is missing: install from a clone of the repository (pip install ./runtime/python)")
    return re.search(r'\[workspace\.package\][^[]*\nversion = "([^"]+)"', manifest.read_text())[1]


def library() -> Path:
    """The C library, built unless one is given."""
    given = os.environ.get("VKHMM_PYTHON_LIBRARY")
    if given:
        return Path(given)
    if shutil.which("cargo") is None:
        raise SystemExit("vkhmm is built with cargo: install Rust 1.85 or newer (https://rustup.rs), or name a built library in "
                         "VKHMM_PYTHON_LIBRARY")
    subprocess.run(["cargo", "build", "--locked", "--release", "--package", "vkhmm-capi"], cwd=REPOSITORY, check=True)
    return REPOSITORY / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "libvkhmm_capi.so"


class WithLibrary(build_py):
    """The modules, and the library beside them."""

    def run(self) -> None:
        super().run()
        folder = HERE / "vkhmm" if self.editable_mode else Path(self.build_lib) / "vkhmm"
        shutil.copy(library(), folder / LIBRARY)


class AnyPython(bdist_wheel):
    """No part of it is compiled against Python."""

    def get_tag(self) -> "tuple[str, str, str]":
        return "py3", "none", re.sub(r"[-.]", "_", sysconfig.get_platform())


class OfOneMachine(Distribution):
    """Installed where libraries go."""

    def has_ext_modules(self) -> bool:
        return True


# Nothing is left beside the sources, and nothing of an earlier build is taken for a part of this one.
SCRATCH = tempfile.TemporaryDirectory()

setup(
    version=version(),
    distclass=OfOneMachine,
    cmdclass={"build_py": WithLibrary, "bdist_wheel": AnyPython},
    options={"build": {"build_base": SCRATCH.name}, "egg_info": {"egg_base": SCRATCH.name}},
)
