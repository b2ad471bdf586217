//! In modelled time: a launch that takes much from R copies meanwhile.

use std::sync::Arc;
use vkhmm_core::policy::Adaptive;
use vkhmm_core::units::ByteRange;
use vkhmm_sim::model::{Access, Part, Placement, Trace, Transfer, Way, play, presets};

const BYTES: u64 = 64 << 20;
const PAGES: f64 = (BYTES / 4096) as f64;

/// Pages are pinned before anything is copied; then R is taken from them, beside the copies: at least half of what is shorter of the
/// two costs nothing. One after the other takes longer than the sum, by submissions and the kernel.
#[test]
fn copies_run_beside_the_revokes_of_their_launch() {
    for model in [presets::PCIE5X16_H200, presets::PCIE4X16_A5000, presets::PCIE3X16] {
        for (transfer, pin_ns) in [(Transfer::Import, model.pin_ns), (Transfer::Staging, 0.0)] {
            let mut trace = Trace::new("one launch");
            let bytes = ByteRange { start: 0, end: BYTES };
            let part = Part { allocation: trace.alloc(BYTES, true), bytes };
            trace.launch(1.0, &[(part, Access::Read)]);
            let way = Way { transfer, placement: Placement::Span, policy: Arc::new(Adaptive) };
            let outcome = play(&model, &Arc::new(trace), 2 * BYTES, &way);
            let took = outcome.unwrap_or_else(|error| panic!("{error}")).ns as f64;
            let copies = BYTES as f64 / model.h2d * 1e9;
            // Bytes that are staged are copied twice, and not by the link alone.
            let staged =
                if transfer == Transfer::Staging { BYTES as f64 / model.host_copy * 1e9 } else { 0.0 };
            let revokes = PAGES * model.revoke_ns;
            let (serial, saved) = (PAGES * pin_ns + revokes + copies + staged, 0.5 * revokes.min(copies));
            assert!(
                took < serial - saved,
                "`{}` by {transfer:?}: {took} ns, one after the other {serial}, to be saved {saved}",
                model.name
            );
        }
    }
}
