# shellcheck shell=bash disable=SC2154
# The C ABI from outside, for ./x test: installed to a prefix that is then moved, and built with what the prefix, pkg-config and
# CMake say, in a folder that is not in the tree. Uses `work`, `step` and `family` of ./x.

# Builds everything that uses the installed library, below $work/outside.
build_outside() {
    local from=$1 flags warn=(-Wall -Wextra -Wpedantic -Werror)
    export PKG_CONFIG_PATH=$from/lib/pkgconfig
    pkg-config --exact-version "$(package_version)" vkhmm || return 1
    read -ra flags < <(pkg-config --cflags --libs vkhmm)
    cd "$work/outside" || return 1
    cc -std=c11 "${warn[@]}" -O1 -g c/*.c -o c11 "${flags[@]}" -lvulkan -lpthread || return 1
    cc -std=c11 "${warn[@]}" -O1 -g -fsanitize=address c/*.c -o c11-asan "${flags[@]}" -lvulkan -lpthread || return 1
    cc -std=c11 "${warn[@]}" -O1 c/dlopen/dlopen.c -o dlopen "-I$from/include" -ldl -lpthread || return 1
    cc -std=c11 "${warn[@]}" examples/saxpy.c -o saxpy "${flags[@]}" || return 1
    cc -std=c11 "${warn[@]}" -O1 examples/engine.c -o engine "${flags[@]}" -lvulkan -lpthread || return 1
    cmake -G 'Unix Makefiles' -S cpp -B cmake -D "CMAKE_PREFIX_PATH=$from" && cmake --build cmake
}

# Installs, moves what was installed, builds; in a shell of its own, so that nothing of it stays.
outside() (
    set -e
    install_to "$work/prefix" dev
    mkdir "$work/outside"
    cp -r tests/c tests/cpp shaders/spv "$work/outside"
    cp -r examples/c "$work/outside/examples"
    mv "$work/prefix" "$work/moved"
    build_outside "$work/moved"
)

# Ends well if the program does and nothing of ours leaked. Drivers and layers leave things behind; their frames have no names any
# more, ours have: the library stays loaded. Not by the module's name alone: one that was unloaded counts as its neighbour.
sanitized() {
    local code=0
    LSAN_OPTIONS=exitcode=0 "$@" >"$work/sanitized" 2>&1 || code=$?
    cat "$work/sanitized"
    [[ $code == 0 ]] && ! grep -q ' in .*vkhmm' "$work/sanitized"
}

# engine_says CODE TEXT ARGUMENTS...: the engine ends with that code, says that, and the validation layer says nothing.
engine_says() {
    local want=$1 part=$2 code=0
    shift 2
    VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation "$work/outside/engine" "$work/outside/spv/saxpy.spv" "$@" \
        >"$work/engine" 2>&1 || code=$?
    cat "$work/engine"
    [[ $code == "$want" ]] && grep -q -- "$part" "$work/engine" && ! grep -q 'VUID\|Validation' "$work/engine"
}

# installed COMMAND...: runs it with the library that was installed.
installed() (
    export LD_LIBRARY_PATH="$work/moved/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    "$@"
)

c_abi() {
    local program spv=$work/outside/spv
    step "C ABI: install, move, build outside the tree" outside
    export work
    export -f installed sanitized engine_says
    family "C ABI: C11, pkg-config" bash -c 'installed "$@"' - "$work/outside/c11" "$spv"
    family "C ABI: C11, declared" env VKHMM_FAULT_ENGINE=declared bash -c 'installed "$@"' - "$work/outside/c11" "$spv"
    family "C ABI: C11, AddressSanitizer" bash -c 'installed sanitized "$@"' - "$work/outside/c11-asan" "$spv"
    for program in vkhmm_17 vkhmm_20 static_17 static_20; do
        family "C ABI: C++, CMake, $program" "$work/outside/cmake/test_$program" "$spv"
    done
    local engine deny=${CARGO_TARGET_DIR:-target}/debug/examples/deny_userfaultfd
    local dlopened=("$work/outside/dlopen" "$work/moved/lib/libvkhmm.so.0" "$spv")
    for engine in uffd-sigbus segv-mprotect; do
        family "C ABI: dlopen, $engine" env "VKHMM_FAULT_ENGINE=$engine" "${dlopened[@]}" "$engine"
    done
    step "a wrapper that denies userfaultfd" cargo build "${locked[@]}" -p vkhmm-linux --example deny_userfaultfd
    family "C ABI: dlopen, userfaultfd denied" "$deny" "${dlopened[@]}" segv-mprotect
    step "C ABI: examples/c/saxpy" installed "$work/outside/saxpy" "$spv/saxpy.spv"
    step "C ABI: examples/c/engine, in place" installed engine_says 0 'moved 0.0 MiB to the device, 0.0 MiB home' --in-place
    step "C ABI: examples/c/engine without sparse buffers says why" installed engine_says 3 'cannot keep its device address'
}

# The same on lavapipe 25, which has sparse buffers; after `fetch_drivers`.
c_abi_sparse() {
    driver lavapipe25 || return 0
    family "C ABI: C11 (lavapipe 25)" env "${driver_env[@]}" "${newer_layer[@]}" bash -c 'installed "$@"' - \
        "$work/outside/c11" "$work/outside/spv"
    step "C ABI: examples/c/engine at twice its limit (lavapipe 25)" env "${driver_env[@]}" "${newer_layer[@]}" \
        bash -c 'installed engine_says 0 "2.02 times the limit): right"'
}
