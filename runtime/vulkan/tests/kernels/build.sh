#!/bin/sh
# Compiles the kernels of these tests; run after changing one (needs glslangValidator). The SPIR-V is committed.
set -eu
cd "$(dirname "$0")"
for source in *.comp; do
    glslangValidator --quiet -V --target-env vulkan1.2 -I../../../../shaders "$source" -o "${source%.comp}.spv"
done
