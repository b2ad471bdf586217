#version 460
// What no paged kernel may do: it waits for a word that somebody else has to store.
layout(local_size_x = 64) in;
layout(set = 0, binding = 0, std430) buffer Words { uint words[]; };

void main() {
    for (bool more = true; more;) {
        more = atomicAdd(words[0], 0u) == 0u;
    }
}
