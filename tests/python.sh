# shellcheck shell=bash disable=SC2154
# The Python package, for ./x test: its wheel in a virtual environment below the target folder, which is kept between runs, and its tests
# with every fault engine that it has. Uses `locked`, `not_run`, `say`, `step` and `family` of ./x.

# Makes the environment; says why not where PyPI cannot be reached.
python_environment() {
    local here=$1 wanted=(numpy 'setuptools>=77')
    [[ -x $here/bin/python ]] || python3 -m venv "$here" || return 1
    "$here/bin/python" -c 'import numpy, setuptools; assert int(setuptools.__version__.split(".")[0]) >= 77' 2>/dev/null ||
        "$here/bin/python" -m pip install --quiet --disable-pip-version-check "${wanted[@]}"
}

# Builds the wheel around the library that the tests' profile made, and installs it.
python_wheel() {
    local here=$1
    cargo build "${locked[@]}" --package vkhmm-capi || return 1
    VKHMM_PYTHON_LIBRARY=$(realpath "${CARGO_TARGET_DIR:-target}")/debug/libvkhmm_capi.so "$here/bin/python" -m pip install --quiet \
        --disable-pip-version-check --no-build-isolation --no-deps --no-index --force-reinstall ./runtime/python
}

python_package() {
    local here engine tests=runtime/python/tests/run.py
    here=$(realpath -m "${CARGO_TARGET_DIR:-target}")/python
    say "Python: an environment with NumPy"
    if ! python_environment "$here"; then
        not_run+=("Python: NumPy and setuptools cannot be had here (PyPI)")
        return
    fi
    step "Python: the wheel" python_wheel "$here"
    family "Python" "$here/bin/python" "$tests"
    for engine in uffd-sigbus segv-mprotect; do
        family "Python: $engine" env "VKHMM_FAULT_ENGINE=$engine" "$here/bin/python" "$tests" test_faults test_hints
    done
}
