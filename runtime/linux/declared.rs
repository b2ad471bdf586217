//! The engine without faults: R is always mapped, so revoke, protect and publish have nothing to do, and callers bring ranges
//! home before they hand out slices. Only a stray touch is still caught, by taking access away from poisoned pages.

use crate::host::{Failed, Outcome};
use crate::ioctl::errno;
use crate::reservation::{Reservation, Span};
use vkhmm_core::units::ByteRange;

/// Makes `span` usable again after poison.
pub(crate) fn publish(reservation: &Reservation, span: Span) -> Result<(), Failed> {
    reservation.allow(span).map_err(errno).op("mprotect")
}

/// Makes every touch of `span` a SIGSEGV.
pub(crate) fn poison(reservation: &Reservation, span: Span) -> Result<(), Failed> {
    reservation.deny(span).map_err(errno).op("mprotect")
}

/// Gives the pages of `span`, which are `bytes` of the file, back; the next touch reads zeros.
pub(crate) fn punch(reservation: &Reservation, span: Span, bytes: ByteRange) -> Result<(), Failed> {
    reservation.allow(span).map_err(errno).op("mprotect")?;
    reservation.punch(bytes).map_err(errno).op("punching a hole")
}
