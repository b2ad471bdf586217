//! The threads of one world as coroutines of the thread that called `run`: handing the baton on costs a jump, not a wake-up by
//! the system.
//!
//! A thread that gives the baton up comes back here, and the one that has it then is resumed. Once the run is over, every thread
//! that is left is resumed until it has unwound.

use crate::world::World;
use core::cell::RefCell;
use generator::{Generator, Gn};
use std::sync::Arc;
use vkhmm_port::fake::HeldRank;

/// Words of one stack; only what is touched takes memory.
const STACK_WORDS: usize = 1 << 17;

/// What a thread does.
pub(crate) type Body = Box<dyn FnOnce() + Send>;

type Coroutine = Generator<'static, (), ()>;

/// Stacks kept for the next worlds of this thread: mapping and unmapping them would cost more than a short run.
const SPARE_MAX: usize = 32;

thread_local! {
    static SPARE: RefCell<Vec<Coroutine>> = const { RefCell::new(Vec::new()) };
}

fn hire(body: Body) -> Coroutine {
    match SPARE.with_borrow_mut(Vec::pop) {
        Some(mut spare) => {
            spare.init_code(body);
            spare
        }
        None => Gn::<()>::new_opt(STACK_WORDS, body),
    }
}

fn dismiss(done: Coroutine) {
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < SPARE_MAX {
            spare.push(done);
        }
    });
}

/// Runs the threads of `world`, those that they start too, until all of them are over.
pub(crate) fn run(world: &Arc<World>) {
    let mut crew: Vec<Option<Coroutine>> = Vec::new();
    while let Some(next) = world.next_turn(|newborn| {
        crew.extend(newborn.map(|body| Some(hire(body))));
    }) {
        let thread = crew[next].as_mut().expect("whoever has the baton is not over");
        thread.resume();
        if thread.is_done() {
            dismiss(crew[next].take().expect("resumed just now"));
        }
    }
}

/// Lets others run; returns when this thread has the baton again.
#[expect(deprecated, reason = "its successor wants a handle passed down through every port call")]
pub(crate) fn switch() {
    let mut held = Vec::new();
    HeldRank::exchange(&mut held);
    generator::yield_with(());
    HeldRank::exchange(&mut held);
}
