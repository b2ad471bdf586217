# Vulkan drivers beside the machine's own: unpacked below the target folder, never installed, kept between runs; and what runs on each.
# Sourced by ./x, whose functions and lists (family, say, not_run, work) it uses.

drivers_folder=''  # set by fetch_drivers
apt_is_fresh=''
driver_env=()
newer_layer=()

# apt with lists of its own, so that the machine's stay as they are; it checks the same signatures and hashes.
private_apt() {
    local tool=$1 apt=$drivers_folder/apt
    shift
    "$tool" -qq -o "Dir::Etc::sourcelist=$apt/sources.list" -o "Dir::Etc::sourceparts=$apt/parts" \
        -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o Debug::NoLocking=1 \
        -o APT::Sandbox::User=root -o Acquire::Retries=2 "$@"
}

# Reads the lists of the machine's own Debian mirrors and of the backports beside them, once a run.
refresh_lists() {
    local apt=$drivers_folder/apt codename keys=''
    [[ -z $apt_is_fresh ]] || return 0
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    [[ ! -e /usr/share/keyrings/debian-archive-keyring.gpg ]] ||
        keys='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] '
    mkdir -p "$apt/parts" "$apt/lists/partial" "$apt/cache/archives/partial"
    # shellcheck disable=SC2016 # apt's own variables
    apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
        awk -v keys="$keys" -v codename="$codename" '$1 == "Debian" && $4 == "main" {
            print "deb " keys $2 " " $3 " main"
            if ($3 == codename) print "deb " keys $2 " " codename "-backports main" }' | sort -u >"$apt/sources.list"
    [[ -s $apt/sources.list ]] && private_apt apt-get update && apt_is_fresh=yes
}

# unpack NAME WHAT PACKAGE[/SUITE]...: into a folder of that name, whole or not at all; notes what cannot be had.
unpack() {
    local name=$1 what=$2 folder=$drivers_folder/$1 archive
    shift 2
    [[ ! -d $folder ]] || return 0
    say "getting $what: $*"
    if (
        rm -rf "$folder.part" && mkdir -p "$folder.part/debs" && refresh_lists && cd "$folder.part/debs" &&
            private_apt apt-get download "$@" || exit 1
        for archive in *.deb; do
            dpkg-deb --extract "$archive" .. && dpkg-deb --show "$archive" >>../versions || exit 1
        done
    ) >"$work/log" 2>&1; then
        apt_is_fresh=yes
        rm -r "$folder.part/debs"
        mv "$folder.part" "$folder"
    else
        sed 's/^/    | /' "$work/log"
        not_run+=("$what: $* cannot be had here")
        return 1
    fi
}

# icd NAME LIBRARY VERSION: a driver file with the library's whole path.
icd() {
    printf '{"file_format_version": "1.0.0", "ICD": {"library_path": "%s", "api_version": "%s"}}\n' "$2" "$3" \
        >"$drivers_folder/$1.json"
}

# Debian's Chromium brings SwiftShader, the mock device and a newer validation layer; its backports a newer lavapipe.
fetch_drivers() {
    local chromium codename
    drivers_folder=$(realpath -m "${CARGO_TARGET_DIR:-target}")/drivers
    chromium=$drivers_folder/chromium/usr/lib/chromium
    codename=$(. /etc/os-release 2>/dev/null && printf '%s' "${VERSION_CODENAME:-}")
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        not_run+=("SwiftShader, the mock device, the newer validation layer and lavapipe 25: no apt to get them with")
        return
    fi
    mkdir -p "$drivers_folder/layer"
    rm -f "$drivers_folder"/*.json
    if unpack chromium "SwiftShader, the mock device, the newer validation layer" chromium-common; then
        icd swiftshader "$chromium/libvk_swiftshader.so" 1.3.0
        icd mock "$chromium/libVkICD_mock_icd.so" 1.4.0
        cat >"$drivers_folder/layer/VkLayer_khronos_validation.json" <<TEXT
{"file_format_version": "1.2.0", "layer": {"name": "VK_LAYER_KHRONOS_validation", "type": "GLOBAL",
 "library_path": "$chromium/libVkLayer_khronos_validation.so", "api_version": "1.4.300", "implementation_version": "1",
 "description": "Khronos validation layer", "instance_extensions": [
  {"name": "VK_EXT_debug_report", "spec_version": "9"}, {"name": "VK_EXT_debug_utils", "spec_version": "1"},
  {"name": "VK_EXT_validation_features", "spec_version": "2"}]}}
TEXT
        printf 'khronos_validation.%s = true\n' validate_sync syncval_full_validation \
            syncval_shader_accesses_heuristic >"$drivers_folder/layer/vk_layer_settings.txt"
        newer_layer=("VK_LAYER_PATH=$drivers_folder/layer"
            "VK_LAYER_SETTINGS_PATH=$drivers_folder/layer/vk_layer_settings.txt")
    fi
    if unpack mesa "lavapipe 25" "mesa-vulkan-drivers/$codename-backports" "libdrm2/$codename-backports" \
        "libdrm-amdgpu1/$codename-backports"; then
        icd lavapipe25 "$(compgen -G "$drivers_folder/mesa/usr/lib/*/libvulkan_lvp.so")" 1.4.0
    fi
    cat "$drivers_folder"/*/versions 2>/dev/null || true
}

# driver NAME: whether it is there; fills driver_env.
driver() {
    local json=$drivers_folder/$1.json
    [[ -n $drivers_folder && -e $json ]] || return 1
    driver_env=("VK_DRIVER_FILES=$json" "VK_ICD_FILENAMES=$json")
    [[ $1 != lavapipe25 ]] ||
        driver_env+=("LD_LIBRARY_PATH=$(dirname "$(compgen -G "$drivers_folder/mesa/usr/lib/*/libvulkan_lvp.so")")")
}

# programs_with LABEL TARGETS NAME=VALUE...: runs these test programs of the vulkan crate or of the whole with these variables.
programs_with() {
    local label=$1 targets=$2 folder target program
    shift 2
    while IFS=$'\t' read -r folder target program; do
        [[ $folder == */runtime/vulkan || $folder == "$PWD" ]] && [[ " $targets " == *" $target "* ]] || continue
        family "$target ($label)" env -C "$folder" "CARGO_MANIFEST_DIR=$folder" "$@" "$program" --show-output
    done <"$work/list"
}

# The table of docs/TESTING.md, "Drivers".
other_drivers() {
    local device='vkhmm_vulkan open copies kernels failures conformance shapes sparse in_place paged paged_workloads' short
    local guarded=(VKHMM_FRAME_GUARD=1 VKHMM_SPLIT_QUEUE=1)
    # A look is enough here: each of these ran at full length on the machine's own driver.
    short=("VKHMM_TORTURE_SECONDS=${VKHMM_TORTURE_SECONDS:-3}" "VKHMM_MODEL_SECONDS=${VKHMM_MODEL_SECONDS:-5}")
    say "other drivers"
    fetch_drivers
    if driver lavapipe25; then
        local here=("${driver_env[@]}" "${newer_layer[@]}" "${short[@]}")
        programs_with "lavapipe 25" "$device guard e2e_own_device workloads" "${here[@]}"
        # Asked for, so that no runtime is built without it: nothing passes by having been placed in spans.
        programs_with "lavapipe 25, sparse" "e2e_basic e2e_model e2e_torture e2e_placement e2e_paged" VKHMM_PLACEMENT=sparse "${here[@]}"
        programs_with "lavapipe 25, spans" "e2e_basic e2e_model e2e_placement" VKHMM_PLACEMENT=span "${here[@]}"
    fi
    if driver swiftshader; then
        # Of the sizes of the workloads the largest.
        programs_with SwiftShader "$device e2e_basic e2e_paged workloads" VKHMM_WORKLOADS_AT=4 "${driver_env[@]}" "${newer_layer[@]}"
        # It does not report that buffers may lie in imported memory, though they may; the newer layer would say so.
        programs_with "SwiftShader, frame guard" "guard e2e_guard e2e_basic e2e_model" \
            "${driver_env[@]}" "${guarded[@]}" "${short[@]}"
    fi
    if driver mock; then
        programs_with "mock device" shapes VKHMM_TEST_DRIVER=mock "${driver_env[@]}" "${newer_layer[@]}"
        not_run+=("mock device: everything that looks at bytes; it executes nothing")
    fi
    programs_with "unified memory" "e2e_basic e2e_model e2e_torture e2e_placement e2e_paged" VKHMM_MEMORY_KIND=unified-memory "${short[@]}"
    programs_with "frame guard" "e2e_basic e2e_model e2e_torture e2e_paged" "${guarded[@]}" "${short[@]}"
    programs_with "nothing coherent" "e2e_basic e2e_model e2e_paged" VKHMM_COHERENT=0 VKHMM_SPLIT_QUEUE=1 "${short[@]}"
}
