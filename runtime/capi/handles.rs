//! Handles: numbers that name an object by slot and generation, so that any number a program passes has an answer.
//!
//! ```text
//!   63    60 59      52 51               24 23                0
//!  ┌────────┬──────────┬───────────────────┬───────────────────┐
//!  │  type  │  forks   │    generation     │       slot        │   never zero: types and generations count from one
//!  └────────┴──────────┴───────────────────┴───────────────────┘
//! ```
//!
//! One table per process. A forked child inherits its parent's, maybe with the lock taken: a page that the kernel wipes in children
//! is asked first. A child that makes a runtime of its own gets a table of its own; the parent's handles stay recognisable by the
//! count of forks.

use crate::error::Failure;
use crate::error::vkhmm_result::*;
use crate::parts::Ending;
use crate::runtime::Runtime;
use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vkhmm_linux::Owner;

const SLOT_BITS: u32 = 24;
const GENERATION_BITS: u32 = 28;
const FORK_BITS: u32 = 8;
const GENERATION_MAX: u64 = (1 << GENERATION_BITS) - 1;

/// What a handle can name.
pub(crate) trait Kind: Any + Send + Sync {
    const TAG: u64;

    /// The addresses that are the object's, for [`at`].
    fn addresses(&self) -> Range<usize> {
        0..0
    }
}

/// The type's name, for messages.
fn name(tag: u64) -> &'static str {
    const NAMES: [&str; 9] = [
        "nothing",
        "vkhmm_runtime",
        "vkhmm_buffer",
        "vkhmm_kernel",
        "vkhmm_launch",
        "vkhmm_guard",
        "vkhmm_acquired",
        "vkhmm_requirements",
        "vkhmm_pinned",
    ];
    NAMES.get(tag as usize).copied().unwrap_or("nothing")
}

struct Held {
    /// The runtime that the object goes with.
    runtime: u64,
    /// The first of its addresses, if it has any.
    place: Option<usize>,
    object: Arc<dyn Any + Send + Sync>,
}

#[derive(Default)]
struct Slot {
    /// Of the object that is here, or of the last that was.
    generation: u64,
    tag: u64,
    held: Option<Held>,
}

#[derive(Default)]
struct Slots {
    all: Vec<Slot>,
    free: Vec<u32>,
    /// By first address: the end, and the handle.
    places: BTreeMap<usize, (usize, u64)>,
}

struct Table {
    owner: Owner,
    forks: u64,
    /// Lock: owns the slots · blocks on nothing · never held while an object is made, used or dropped.
    slots: Mutex<Slots>,
    /// Runtimes whose handles are gone and whose devices are still at work, by those handles.
    ///
    /// Lock: owns the map · blocks on nothing · nothing is taken or dropped while it is held.
    ending: Mutex<BTreeMap<u64, Ending>>,
}

static TABLE: AtomicPtr<Table> = AtomicPtr::new(std::ptr::null_mut());

fn forked() -> Failure {
    Failure::new(
        VKHMM_ERROR_FORKED,
        "this process is a forked child: the handle belongs to its parent; use spawn or exec instead of fork",
    )
}

/// The table, made by the first call. `fresh` makes a new one also in a forked child.
fn table(fresh: bool) -> Result<&'static Table, Failure> {
    let now = TABLE.load(Ordering::Acquire);
    // SAFETY: only `Box::into_raw` below stores a pointer, and tables are never freed.
    let found = unsafe { now.as_ref() };
    match found {
        Some(table) if table.owner.owned() => return Ok(table),
        Some(_) if !fresh => return Err(forked()),
        _ => {}
    }
    let owner = Owner::new().map_err(|e| {
        Failure::new(VKHMM_ERROR_OUT_OF_HOST_MEMORY, format!("no page for the mark of this process: {e}"))
    })?;
    let forks = found.map_or(0, |t| (t.forks + 1) & ((1 << FORK_BITS) - 1));
    let made =
        Box::into_raw(Box::new(Table { owner, forks, slots: Mutex::default(), ending: Mutex::default() }));
    match TABLE.compare_exchange(now, made, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: `made` was just leaked and is never freed.
        Ok(_) => Ok(unsafe { &*made }),
        Err(theirs) => {
            // SAFETY: nobody else has seen `made`; the other thread's table is never freed.
            unsafe {
                drop(Box::from_raw(made));
                Ok(&*theirs)
            }
        }
    }
}

/// Prepares for handles of a new runtime: the one call that may come first in a forked child.
pub(crate) fn begin() -> Result<(), Failure> {
    table(true).map(|_| ())
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The slot that a handle of type `tag` names.
    fn index(&self, slots: &Slots, id: u64, tag: u64) -> Result<usize, Failure> {
        let invalid = |why: &str| {
            let text = format!("{id:#x} is no {}: {why}", name(tag));
            Failure::new(VKHMM_ERROR_INVALID_HANDLE, text)
        };
        let found = id >> (SLOT_BITS + GENERATION_BITS + FORK_BITS);
        if id == 0 {
            return Err(invalid("zero names nothing"));
        }
        if found != tag {
            return Err(invalid(&format!("it is a {}", name(found))));
        }
        if (id >> (SLOT_BITS + GENERATION_BITS)) & ((1 << FORK_BITS) - 1) != self.forks {
            return Err(forked());
        }
        let index = (id & ((1 << SLOT_BITS) - 1)) as usize;
        let generation = (id >> SLOT_BITS) & GENERATION_MAX;
        match slots.all.get(index) {
            Some(slot) if slot.generation == generation && slot.tag == tag && slot.held.is_some() => {
                Ok(index)
            }
            Some(slot) if generation > 0 && generation <= slot.generation => Err(Failure::new(
                VKHMM_ERROR_STALE_HANDLE,
                format!("this {} ({id:#x}) was destroyed, or its runtime was", name(tag)),
            )),
            _ => Err(invalid("no such handle was ever given out")),
        }
    }
}

/// Gives an object a handle. `runtime` is the runtime that it goes with; zero for an object of its own.
pub(crate) fn insert<T: Kind>(runtime: u64, object: T) -> Result<u64, Failure> {
    let table = table(false)?;
    let addresses = object.addresses();
    let object: Arc<dyn Any + Send + Sync> = Arc::new(object);
    let mut slots = table.lock();
    // Whose runtime was destroyed meanwhile has nobody left to free it.
    if runtime != 0 {
        table.index(&slots, runtime, Runtime::TAG)?;
    }
    let index = match slots.free.pop() {
        Some(index) => index,
        None if slots.all.len() < 1 << SLOT_BITS => {
            slots.all.push(Slot::default());
            slots.all.len() as u32 - 1
        }
        None => {
            let text = format!("{} handles are open: destroy those that are not needed", 1 << SLOT_BITS);
            return Err(Failure::new(VKHMM_ERROR_OUT_OF_HOST_MEMORY, text));
        }
    };
    let slot = &mut slots.all[index as usize];
    slot.generation += 1;
    slot.tag = T::TAG;
    let id = T::TAG << (SLOT_BITS + GENERATION_BITS + FORK_BITS)
        | table.forks << (SLOT_BITS + GENERATION_BITS)
        | slot.generation << SLOT_BITS
        | u64::from(index);
    let place = (!addresses.is_empty()).then_some(addresses.start);
    slot.held = Some(Held { runtime: if runtime == 0 { id } else { runtime }, place, object });
    if let Some(start) = place {
        slots.places.insert(start, (addresses.end, id));
    }
    Ok(id)
}

/// The handle of the object whose addresses `address` is one of, and the first of them.
pub(crate) fn at(address: usize) -> Result<Option<(u64, usize)>, Failure> {
    let table = table(false)?;
    let slots = table.lock();
    let before = slots.places.range(..=address).next_back();
    Ok(before.filter(|(_, (end, _))| address < *end).map(|(start, (_, id))| (*id, *start)))
}

/// The object and the runtime that it goes with.
pub(crate) fn get<T: Kind>(id: u64) -> Result<(Arc<T>, u64), Failure> {
    let table = table(false)?;
    let slots = table.lock();
    let held = slots.all[table.index(&slots, id, T::TAG)?].held.as_ref().expect("index found it");
    Ok((typed(&held.object), held.runtime))
}

/// Takes the object out; its handle is stale from now on.
pub(crate) fn remove<T: Kind>(id: u64) -> Result<Arc<T>, Failure> {
    let table = table(false)?;
    let mut slots = table.lock();
    let index = table.index(&slots, id, T::TAG)?;
    let held = take(&mut slots, index);
    drop(slots);
    Ok(typed(&held.object))
}

/// Takes out whatever the handle names; a runtime with everything that goes with it. The caller drops it.
pub(crate) fn remove_any(id: u64) -> Result<Vec<Arc<dyn Any + Send + Sync>>, Failure> {
    let tag = id >> (SLOT_BITS + GENERATION_BITS + FORK_BITS);
    if tag == Runtime::TAG {
        return remove_runtime(id);
    }
    let table = table(false)?;
    let mut slots = table.lock();
    let index = table.index(&slots, id, tag)?;
    Ok(vec![take(&mut slots, index).object])
}

/// Takes everything out that goes with a runtime, and it. The caller drops them.
pub(crate) fn remove_runtime(id: u64) -> Result<Vec<Arc<dyn Any + Send + Sync>>, Failure> {
    let table = table(false)?;
    let mut slots = table.lock();
    table.index(&slots, id, Runtime::TAG)?;
    let of_it = |slot: &Slot| slot.held.as_ref().is_some_and(|held| held.runtime == id);
    let all: Vec<usize> = (0..slots.all.len()).filter(|i| of_it(&slots.all[*i])).collect();
    Ok(all.into_iter().map(|index| take(&mut slots, index).object).collect())
}

/// Takes a runtime and everything that goes with it out, to be closed; or finds one that was taken out before.
pub(crate) fn end_runtime(id: u64) -> Result<Ending, Failure> {
    let table = table(false)?;
    if let Some(ending) = table.ending.lock().unwrap_or_else(PoisonError::into_inner).remove(&id) {
        return Ok(ending);
    }
    let mut all = remove_runtime(id)?;
    let runtime = all.iter().position(|object| object.is::<Runtime>()).expect("a runtime goes with itself");
    let runtime = typed(&all.swap_remove(runtime));
    drop(all);
    Ok(Ending::Used(runtime))
}

/// Keeps a runtime that is not closed yet for the next try.
pub(crate) fn still_ending(id: u64, ending: Ending) -> Result<(), Failure> {
    table(false)?.ending.lock().unwrap_or_else(PoisonError::into_inner).insert(id, ending);
    Ok(())
}

fn take(slots: &mut Slots, index: usize) -> Held {
    let held = slots.all[index].held.take().expect("the caller found it");
    // A slot whose generations are used up is never used again.
    if slots.all[index].generation < GENERATION_MAX {
        slots.free.push(index as u32);
    }
    if let Some(start) = held.place {
        slots.places.remove(&start);
    }
    held
}

fn typed<T: Kind>(object: &Arc<dyn Any + Send + Sync>) -> Arc<T> {
    Arc::clone(object).downcast::<T>().expect("the tag says what it is")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing(u32);
    impl Kind for Thing {
        const TAG: u64 = 7;
    }
    struct Other;
    impl Kind for Other {
        const TAG: u64 = 6;

        fn addresses(&self) -> Range<usize> {
            100..110
        }
    }

    fn code<T>(result: Result<T, Failure>) -> crate::error::vkhmm_result {
        result.map(|_| ()).expect_err("an error").code
    }

    #[test]
    fn every_number_has_an_answer() {
        let a = insert(0, Thing(1)).expect("inserted");
        assert_eq!(get::<Thing>(a).expect("there").0.0, 1);
        for wrong in [0, 1, u64::MAX, a ^ (1 << 40), a + (1 << SLOT_BITS), a + (1 << 20)] {
            let code = code(get::<Thing>(wrong));
            assert!(
                code == VKHMM_ERROR_INVALID_HANDLE || code == VKHMM_ERROR_STALE_HANDLE,
                "{wrong:#x}: {code:?}"
            );
        }
        assert_eq!(code(get::<Other>(a)), VKHMM_ERROR_INVALID_HANDLE);
        assert_eq!(code(get::<Thing>(a ^ (1 << 52))), VKHMM_ERROR_FORKED);
        assert_eq!(code(insert(a, Thing(3))), VKHMM_ERROR_INVALID_HANDLE, "a runtime is a runtime");
        assert_eq!(remove::<Thing>(a).expect("there").0, 1);
        for stale in [code(get::<Thing>(a)), code(remove::<Thing>(a))] {
            assert_eq!(stale, VKHMM_ERROR_STALE_HANDLE);
        }
        // Whoever takes the slot next, the old number does not name it.
        let b = insert(0, Other).expect("inserted");
        assert_ne!(a, b);
        assert_eq!(code(get::<Thing>(a)), VKHMM_ERROR_STALE_HANDLE);
        let found = |address| at(address).expect("the owner asks");
        assert_eq!([99, 100, 109, 110].map(found), [None, Some((b, 100)), Some((b, 100)), None]);
        assert_eq!(code(remove_any(a)), VKHMM_ERROR_STALE_HANDLE);
        assert_eq!(remove_any(b).expect("there").len(), 1);
        assert_eq!(found(105), None);
    }
}
