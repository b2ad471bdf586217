//! Binds on their way to the device: one submission per item, before its kernel.

use super::{Item, Submit};
use crate::binds::Binds;
use crate::op::Flight;
use crate::stats::Counters;
use crate::{Engine, Ports};
use alloc::sync::Arc;
use vkhmm_core::units::Ticket;
use vkhmm_core::uses::Uses;
use vkhmm_port::{Command, Role};

impl<P: Ports> Engine<P> {
    /// Submits what the item changes in sparse buffers, after `waits`. Its kernel waits for the ticket; its copies need not, as
    /// they reach frames through the arena's own buffers.
    ///
    /// No kernel uses a stretch while it is unbound, and none that was launched before finds other frames there: whoever may
    /// still use it is in `waits`. Launches that took holds hold the pages that they use until they are over, and who evicts
    /// waits for every holder of a page of the sub-block (`hold_block`), also where the page is Host by now. Launches that took
    /// only the gate are in its uses, which are waited for as well; one that has yet to get its ticket counts as deciding, and
    /// then there is no eviction. No later one passes the gate: its bits are cleared under the block's lock, and are not set
    /// again before the block is resident anew, by an item whose own bind comes after this one on the same timeline.
    ///
    /// No frame lies in two places: its unbind is in this submission, or in an earlier one of the timeline, since items come here
    /// in the order in which `rebind` was asked; or its buffer was destroyed before the frame was to be had.
    pub(super) fn submit_binds(
        &self,
        submit: &mut Submit<P>,
        item: &mut Item<P>,
        waits: Uses,
    ) -> Option<Ticket> {
        if item.binds.is_empty() {
            return None;
        }
        let Binds { gone, come } = core::mem::take(&mut item.binds);
        let (copy, evict) = (Arc::clone(&item.copy), Arc::clone(&item.evict));
        let (unbinds, binds) = (!gone.is_empty(), !come.is_empty());
        Counters::add(&self.counters.binds, 1);
        let commands = alloc::vec![Command::Bind { binds: gone.into_iter().chain(come).collect() }];
        // Holds end, and frames are anybody's, after the bind: it is a piece of the copies in, and of the evictions.
        Some(self.submit_locked(submit, Role::Bind, waits, commands, |ticket| {
            if unbinds && binds {
                self.fly(Flight::of(ticket, &evict));
            }
            Flight::of(ticket, if binds { &copy } else { &evict })
        }))
    }
}
