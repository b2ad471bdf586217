//! Counters of everything that moves, by cause and by path. Relaxed atomics: they order nothing.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The live counters.
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: AtomicU64,)* }

        /// What has happened since the runtime was built. Bytes and events; subtract two snapshots for a delta.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Stats {
                Stats { $($name: self.$name.load(Relaxed),)* }
            }
        }

        impl Stats {
            /// Every counter with its name, in a fixed order.
            pub fn fields(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }

            /// What happened between `earlier` and this snapshot.
            #[must_use]
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($name: self.$name.wrapping_sub(earlier.$name),)* }
            }
        }
    };
}

counters! {
    /// CPU loads that found their page absent.
    faults_read,
    /// CPU stores that found their page absent or read-only.
    faults_write,
    /// Touches that were answered at once, in the threads that made them.
    faults_in_thread,
    /// Touches that had to wait for an operation.
    faults_parked,
    /// Touches of addresses that no allocation owns.
    faults_stray,
    /// Host pages born by first touch, in bytes.
    born_bytes,
    /// Bytes copied to the device because a launch needed them.
    in_launch_bytes,
    /// Bytes copied to the device by prefetch.
    in_prefetch_bytes,
    /// Bytes that prefetch left where they were; its tickets say why.
    prefetch_skipped_bytes,
    /// Bytes of fresh pages filled with zeros on the device instead of being copied.
    zeroed_bytes,
    /// Bytes copied home because a CPU thread touched them.
    out_fault_bytes,
    /// Bytes copied home to make room.
    out_evict_bytes,
    /// Bytes copied home by prefetch, guards and `declared` slices.
    out_prefetch_bytes,
    /// Bytes that were not copied home because they were discarded.
    discarded_bytes,
    /// Touches that took from the device what a launch had brought there shortly before.
    thrash_events,
    /// How often that began a block's minimum residency.
    thrash_guards,
    /// Bytes copied home on a guess: beside a touch, or ahead of a stream.
    out_ahead_bytes,
    /// Bytes moved straight between host pages and device memory.
    path_import_bytes,
    /// Bytes moved through the staging rings.
    path_staging_bytes,
    /// Bytes the CPU read from device memory directly.
    path_cpu_bytes,
    /// Blocks of spans evicted without copying anything.
    evictions_clean,
    /// Blocks of spans evicted with bytes to copy home.
    evictions_dirty,
    /// Submissions that changed what lies in sparse buffers.
    binds,
    /// Bytes that came to lie in sparse buffers.
    bound_bytes,
    /// Bytes that were taken out of sparse buffers, other than with the buffer.
    unbound_bytes,
    /// Bytes moved inside the device because of placement.
    moved_bytes,
    /// Bytes copied to the device that had been evicted from it before.
    refault_bytes,
    /// Launches.
    launches,
    /// Launches that found everything resident and took only the gates.
    launches_resident,
    /// Words of the gates' bitmaps that resident launches read: none for whole ranges.
    gate_words,
    /// Launches that worked on some argument in place.
    launches_in_place,
    /// Paged launches, which are launches, too.
    launches_paged,
    /// Rounds of paged launches.
    paged_rounds,
    /// Groups of all those rounds.
    paged_group_runs,
    /// Sub-blocks that groups of theirs asked for and did not find.
    paged_misses,
    /// How often a block that went back and forth was read in host memory from then on.
    paged_remote_blocks,
    /// Launches that had to wait for capacity or for bytes on their way.
    launches_waited,
    /// Acquires that were granted.
    acquires,
    /// Acquires that were cancelled, or dropped without release.
    acquires_cancelled,
    /// Waits of callers and parked touches; [`crate::Engine::waits`] has them by label.
    waits,
    /// Nanoseconds waited, all together.
    wait_ns,
    /// Submissions to any queue.
    submits,
    /// Barriers between commands of one submission.
    barriers,
    /// Nanoseconds spent taking mappings away.
    revoke_ns,
    /// Nanoseconds spent giving mappings.
    publish_ns,
    /// Bytes of host memory imported by the device now.
    imported_bytes,
    /// Bytes of all sparse buffers now, whatever lies in them.
    sparse_bytes,
    /// Imports refused by the driver or the import limit: those ranges are staged.
    imports_refused,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Relaxed);
    }
}

impl Stats {
    /// All bytes copied to the device.
    pub fn in_bytes(&self) -> u64 {
        self.in_launch_bytes + self.in_prefetch_bytes
    }

    /// All bytes copied home.
    pub fn out_bytes(&self) -> u64 {
        self.out_fault_bytes + self.out_evict_bytes + self.out_prefetch_bytes + self.out_ahead_bytes
    }

    /// One JSON object with every counter.
    pub fn to_json(&self) -> alloc::string::String {
        let mut out = alloc::string::String::from("{");
        for (i, (name, value)) in self.fields().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            out.push_str(&alloc::format!("{comma}\"{name}\":{value}"));
        }
        out.push('}');
        out
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(
            f,
            "to device   {:9.2} MiB  (launch {:.2}, prefetch {:.2}; zeroed there {:.2}; fetched again {:.2})",
            mib(self.in_bytes()),
            mib(self.in_launch_bytes),
            mib(self.in_prefetch_bytes),
            mib(self.zeroed_bytes),
            mib(self.refault_bytes)
        )?;
        writeln!(
            f,
            "to host     {:9.2} MiB  (touched {:.2}, ahead {:.2}, evicted {:.2}, prefetched {:.2})",
            mib(self.out_bytes()),
            mib(self.out_fault_bytes),
            mib(self.out_ahead_bytes),
            mib(self.out_evict_bytes),
            mib(self.out_prefetch_bytes)
        )?;
        writeln!(
            f,
            "by path     import {:.2} MiB, staging {:.2} MiB, CPU {:.2} MiB; moved inside the device {:.2} MiB",
            mib(self.path_import_bytes),
            mib(self.path_staging_bytes),
            mib(self.path_cpu_bytes),
            mib(self.moved_bytes)
        )?;
        writeln!(
            f,
            "faults      {} read, {} write, {} had to wait; evictions {} clean, {} dirty",
            self.faults_read,
            self.faults_write,
            self.faults_parked,
            self.evictions_clean,
            self.evictions_dirty
        )?;
        write!(
            f,
            "launches    {} ({} resident, {} in place, {} waited), {} submits, {} barriers; revoke {:.2} ms, publish {:.2} ms; waits {} ({:.2} ms)",
            self.launches,
            self.launches_resident,
            self.launches_in_place,
            self.launches_waited,
            self.submits,
            self.barriers,
            self.revoke_ns as f64 / 1e6,
            self.publish_ns as f64 / 1e6,
            self.waits,
            self.wait_ns as f64 / 1e6
        )
    }
}
