//! The mutations: laws of the engine, each broken on purpose in a copy of the sources. `tests/engine_mutants` builds the copy and
//! says who notices.

mod acquires;
mod binds;
mod frames;
mod hints;
mod in_place;
mod in_thread;
mod order;
mod paged;
mod pages;
mod queues;

/// One text of one file, and what stands there instead.
pub(crate) struct Edit {
    /// From the repository's root.
    pub(crate) file: &'static str,
    /// Occurs once; white space does not count.
    pub(crate) find: &'static str,
    /// `AWAKE` in it is true while the mutant is awake; while it is not, the code must do what it did.
    pub(crate) replace: &'static str,
}

/// Whose word proves that a mutant was found.
pub(crate) enum Proof {
    /// The twin's or liveness's: the application reads a wrong byte, or waits for ever.
    Application,
    /// Any oracle's. Why the application does not notice.
    Any(&'static str),
}

/// One law broken.
pub(crate) struct Mutant {
    /// In few words.
    pub(crate) name: &'static str,
    /// Which law.
    pub(crate) law: &'static str,
    /// Who must find it.
    pub(crate) proof: Proof,
    /// Within how many seeds.
    pub(crate) seeds: u64,
    /// All of it.
    pub(crate) edits: &'static [Edit],
}

/// Every mutation, by topic.
pub(crate) fn all() -> Vec<&'static Mutant> {
    [
        order::MUTANTS,
        pages::MUTANTS,
        queues::MUTANTS,
        frames::MUTANTS,
        in_place::MUTANTS,
        in_thread::MUTANTS,
        binds::MUTANTS,
        acquires::MUTANTS,
        hints::MUTANTS,
        paged::MUTANTS,
    ]
    .into_iter()
    .flatten()
    .collect()
}
