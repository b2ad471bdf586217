//! The engine `uffd-sigbus`: a userfaultfd that raises SIGBUS instead of sending messages, so that the thread that touched can answer.

use crate::host::{Failed, Verbs};
use crate::reservation::{Reservation, Span};
use crate::touch::{Shown, Touches};
use crate::uffd::Uffd;
use std::sync::Arc;
use vkhmm_core::units::ByteRange;
use vkhmm_port::Access;

/// A userfaultfd, and what handlers need to know beside it: which pages are poisoned, since a touch of these is SIGBUS, too.
pub(crate) struct Sigbus {
    pub(crate) uffd: Uffd,
    pub(crate) touches: Arc<Touches>,
}

impl Verbs for Sigbus {
    fn revoke(&self, reservation: &Reservation, span: Span) -> Result<(), Failed> {
        self.uffd.revoke(reservation, span)?;
        self.touches.shows(span, Shown::Absent);
        Ok(())
    }

    fn protect(&self, reservation: &Reservation, span: Span) -> Result<(), Failed> {
        self.uffd.protect(reservation, span)
    }

    fn publish(&self, reservation: &Reservation, span: Span, access: Access) -> Result<(), Failed> {
        self.uffd.publish(reservation, span, access)?;
        self.touches.shows(span, access.into());
        self.touches.wake(span);
        Ok(())
    }

    fn poison(&self, reservation: &Reservation, span: Span) -> Result<(), Failed> {
        self.touches.shows(span, Shown::Poisoned);
        self.uffd.poison(reservation, span)?;
        self.touches.wake(span);
        Ok(())
    }

    fn punch(&self, reservation: &Reservation, span: Span, bytes: ByteRange) -> Result<(), Failed> {
        self.uffd.punch(reservation, span, bytes)?;
        self.touches.shows(span, Shown::Absent);
        self.touches.wake(span);
        Ok(())
    }
}
