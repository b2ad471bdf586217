#!/usr/bin/env bash
# Where userfaultfd is refused: test programs under `segv-mprotect`, chosen by itself, in what containers have. Called by ./x test:
#
#   tests/containers.sh FOLDER-WITH-PROGRAMS DENY_USERFAULTFD [PROGRAM...]
#
# DENY_USERFAULTFD is the wrapper of runtime/linux/examples; the programs are e2e_basic and hmm unless named. Each runs under a seccomp
# filter that forbids userfaultfd and its device node, as this user and (from root) as an ordinary one, and under gVisor (`runsc` of
# Debian), whose kernel has neither. Prints as test programs do: a line for each run, what failed, and a result.
set -uo pipefail

programs=$1 deny=$2
shift 2
[[ $# != 0 ]] || set -- e2e_basic hmm
passed=0 failed=0
log=$(mktemp)
home=$(mktemp -d)
trap 'rm -rf "$log" "$home"' EXIT
chmod 777 "$home"
# Everyone may run this copy: the target folder need not be open to all.
install -m 755 "$deny" "$home/deny"

# run NAME COMMAND...: one line; the program must succeed, and say that it ran under segv-mprotect.
run() {
    local name=$1
    shift
    if "$@" >"$log" 2>&1 </dev/null && grep -qa 'fault engine segv-mprotect' "$log"; then
        passed=$((passed + 1))
        echo "test $name ... ok"
    else
        failed=$((failed + 1))
        echo "test $name ... FAILED"
        sed 's/^/    | /' "$log"
    fi
}

# What the programs need; nothing of the caller's says which engine is to be taken.
settings=("HOME=$home" "TMPDIR=$home" "VK_DRIVER_FILES=${VK_DRIVER_FILES:-}" "VK_ICD_FILENAMES=${VK_ICD_FILENAMES:-}"
    "VK_LAYER_SETTINGS_PATH=${VK_LAYER_SETTINGS_PATH:-}" "RUST_BACKTRACE=${RUST_BACKTRACE:-0}")
inside() {
    env -u VKHMM_FAULT_ENGINE -C "$home" "${settings[@]}" "$@"
}

for program in "$@"; do
    run "$program, userfaultfd denied" inside "$home/deny" "$programs/$program" --show-output
    if [[ $(id -u) == 0 ]]; then
        run "$program, userfaultfd denied, ordinary user" inside setpriv --reuid=65534 --regid=65534 --clear-groups \
            --no-new-privs "$home/deny" "$programs/$program" --show-output
    fi
done

# --network=none: nothing is needed of it, and making one needs more privileges.
sandbox=(runsc --network=none)
[[ $(id -u) == 0 ]] || sandbox+=(--rootless)
sandbox+=("do")
if ! command -v runsc >/dev/null; then
    echo "exempt: gVisor: runsc is not installed (apt-get install runsc)"
elif ! "${sandbox[@]}" true >"$log" 2>&1 </dev/null; then
    echo "exempt: gVisor: runsc does not start here: $(tail -1 "$log")"
else
    for program in "$@"; do
        run "$program, gVisor" "${sandbox[@]}" env -u VKHMM_FAULT_ENGINE -C "$home" "${settings[@]}" \
            "$programs/$program" --show-output
    done
fi

if [[ $failed == 0 ]]; then result=ok; else result=FAILED; fi
echo "test result: $result. $passed passed; $failed failed; 0 ignored; 0 measured; 0 filtered out"
[[ $failed == 0 ]]
