//! The engine without faults: R is always mapped, so revoke, protect and publish have nothing to do, and callers bring ranges
//! home before they hand out slices. Only a stray touch is still caught, by taking access away from poisoned pages.

use crate::host::{Failed, Outcome, Verbs};
use crate::ioctl::errno;
use crate::reservation::{Reservation, Span};
use vkhmm_core::units::ByteRange;
use vkhmm_port::Access;

/// R as it is.
pub(crate) struct Declared;

impl Verbs for Declared {
    fn revoke(&self, _: &Reservation, _: Span) -> Result<(), Failed> {
        Ok(())
    }

    fn protect(&self, _: &Reservation, _: Span) -> Result<(), Failed> {
        Ok(())
    }

    /// Makes `span` usable again after poison.
    fn publish(&self, reservation: &Reservation, span: Span, _: Access) -> Result<(), Failed> {
        reservation.allow(span).map_err(errno).op("mprotect")
    }

    /// Makes every touch of `span` a SIGSEGV.
    fn poison(&self, reservation: &Reservation, span: Span) -> Result<(), Failed> {
        reservation.deny(span).map_err(errno).op("mprotect")
    }

    /// Gives the pages back; the next touch reads zeros.
    fn punch(&self, reservation: &Reservation, span: Span, bytes: ByteRange) -> Result<(), Failed> {
        reservation.allow(span).map_err(errno).op("mprotect")?;
        reservation.punch(bytes).map_err(errno).op("punching a hole")
    }
}
