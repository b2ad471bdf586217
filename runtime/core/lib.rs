//! vkhmm-core: the pure page-state machine. No clock, thread, system call, pointer or address; `no_std`, no unsafe code.
//!
//! ```text
//!            first touch            launch(read): copy in
//!   Absent ──────────────► Host ─────────────────────────► Shared ──┐
//!     │                     ▲ ▲◄──────── CPU write ──────────┘      │
//!     │ launch              │ │                                     │ launch(write): no copy
//!     │ (zeros on device)   │ └──── CPU write, evict: copy home ──┐ ▼
//!     └─────────────────────┼──────────────────────────────────► Device ──── device lost ──► Lost
//!                           └──────────── launch(write): copy in ──┘  └─ CPU read: copy home ─► Shared
//! ```
//!
//! A page has a *location* (which side holds the current bytes) and *holds* (who is using it); the application's view of a page
//! is never more permissive than both allow. [`block`] has the two tables.
//!
//! | word | meaning |
//! |---|---|
//! | page | 4 KiB of host address space, the unit of residency |
//! | sub-block | 64 KiB, the usual unit of transfer, the size of a frame |
//! | block | aligned 2 MiB, the unit of bookkeeping and locking |
//! | range | what one allocation reserves: whole blocks |
//! | frame | a sub-block's place in device memory |
//! | pagemap | the registered description of one device memory, after Linux's `dev_pagemap` |
//! | hold | who is using a page, until its operation is done |
//! | uses | timeline → last value: what must be reached before a thing is free |
//!
//! Reading order: [`units`], [`mask`], [`block`], [`pagemap`], [`placement`], [`binding`], [`check`].

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

pub mod advice;
pub mod binding;
pub mod block;
pub mod check;
pub mod mask;
pub mod pagemap;
pub mod paging;
pub mod placement;
pub mod policy;
pub mod runmap;
pub mod stream;
pub mod thrash;
pub mod units;
pub mod uses;
