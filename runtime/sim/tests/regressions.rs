//! The seeds of the smoke world that failed and were traced, with their stories. A seed keeps its meaning only while the scheduling
//! points stay where they are; the story stays true.

use vkhmm_sim::smoke;

/// Seeds and what they found.
const STORIES: [(&[u64], &str); 7] = [
    (
        &[192, 319, 801, 997, 307, 538, 634, 716],
        "a load of a page that an admitted launch was about to copy in was answered by publishing nothing (a hang), or a fresh \
         page was born writable under the launch's hold",
    ),
    (
        &[2474, 299, 1020, 1459],
        "eviction took only device-valid pages into account: a frame was reused while a copy home still read it",
    ),
    (
        &[512],
        "the gate called a block resident while a prefetch was still copying it in: a kernel ran before its data",
    ),
    (
        &[79],
        "a host guard published read-only where the kernel has no read-only CONTINUE: the refusal poisoned the page",
    ),
    (
        &[1078, 3212, 3542, 4308],
        "an item without a kernel was over at once, so later work did not wait for its copies out before it wrote the frames",
    ),
    (
        &[1633],
        "a late message about a freed page poisoned a page of a free block, which the next allocation inherited",
    ),
    (&[0, 1, 2], "nothing yet: the first three seeds, so that the list is never empty of plain runs"),
];

#[test]
fn no_seed_fails_twice() {
    for (seeds, story) in STORIES {
        for seed in seeds {
            let run = smoke::play(*seed);
            assert!(run.failure.is_none(), "seed {seed} fails again: {:?}\nit was: {story}", run.failure);
        }
    }
}
