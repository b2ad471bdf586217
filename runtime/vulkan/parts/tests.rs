//! What an application's queues and families come to.

use super::*;
use crate::door::Door;
use ash::vk::Handle;
use std::sync::atomic::{AtomicU32, Ordering};

/// Counts who is inside.
#[derive(Default)]
struct Counted {
    inside: AtomicU32,
    times: AtomicU32,
}

impl QueueLock for Counted {
    fn lock(&self) {
        assert_eq!(self.inside.fetch_add(1, Ordering::SeqCst), 0);
        self.times.fetch_add(1, Ordering::SeqCst);
    }
    fn unlock(&self) {
        assert_eq!(self.inside.fetch_sub(1, Ordering::SeqCst), 1);
    }
}

/// The first device of this machine's driver.
fn physical() -> (Instance, Physical) {
    let instance = Instance::new(false).expect("a Vulkan driver");
    let handle = instance.physical_devices().expect("a device")[0];
    let physical = Physical::query(&instance.raw, handle, vk::API_VERSION_1_3, vk::BufferUsageFlags::empty());
    (instance, physical)
}

fn family(flags: vk::QueueFlags, queue_count: u32) -> vk::QueueFamilyProperties {
    vk::QueueFamilyProperties { queue_flags: flags, queue_count, ..Default::default() }
}

fn queue(family: u32, handle: u64, lock: Option<&Arc<Counted>>) -> OwnQueue {
    let lock = lock.map(|lock| Arc::clone(lock) as Arc<dyn QueueLock>);
    OwnQueue { family, handle: vk::Queue::from_raw(handle), lock }
}

fn reason<T: fmt::Debug>(result: Result<T, OpenError>) -> String {
    match result {
        Err(OpenError::Parts { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lock_is_taken_only_where_nothing_else_runs_kernels() {
    let (_instance, mut physical) = physical();
    let universal = vk::QueueFlags::GRAPHICS | vk::QueueFlags::COMPUTE | vk::QueueFlags::TRANSFER;
    physical.families = vec![family(universal, 2), family(vk::QueueFlags::TRANSFER, 2)];
    let lock = Arc::new(Counted::default());
    let families_of = |queues: Vec<OwnQueue>| -> Vec<(u32, bool)> {
        let usable = usable_queues(&physical, queues).expect("usable");
        usable.iter().map(|q| (q.family, q.lock.is_some())).collect()
    };
    assert_eq!(families_of(vec![queue(0, 1, Some(&lock)), queue(0, 2, None)]), [(0, false)]);
    assert_eq!(families_of(vec![queue(0, 1, Some(&lock)), queue(1, 2, None)]), [(0, true), (1, false)]);
    assert_eq!(families_of(vec![queue(1, 1, None), queue(0, 2, None)]), [(1, false), (0, false)]);
    let transfer = reason(usable_queues(&physical, vec![queue(1, 1, None)]));
    assert!(transfer.contains("give one of family 0"), "{transfer}");
    assert!(reason(usable_queues(&physical, vec![])).contains("none of the 0 queues"));
    assert!(reason(usable_queues(&physical, vec![queue(0, 0, None)])).contains("null"));
    let twice = reason(usable_queues(&physical, vec![queue(0, 7, None), queue(0, 7, None)]));
    assert!(twice.contains("given twice"), "{twice}");
    assert!(reason(usable_queues(&physical, vec![queue(5, 7, None)])).contains("the device has 2"));
}

#[test]
fn managed_buffers_are_shared_by_ours_and_the_applications_families() {
    let (_instance, mut physical) = physical();
    physical.families = vec![family(vk::QueueFlags::COMPUTE, 2); 4];
    let own = [queue(2, 1, None)];
    assert_eq!(families(&physical, &own, &[]).expect("families"), [2]);
    assert_eq!(families(&physical, &own, &[2, 2]).expect("families"), [2]);
    assert_eq!(families(&physical, &own, &[3, 0, 3]).expect("families"), [0, 2, 3]);
    assert!(reason(families(&physical, &own, &[4])).contains("queue family 4"));
}

#[test]
fn what_is_required_is_an_error_and_the_rest_is_words() {
    let (_instance, physical) = physical();
    let asked = Requirements::of(&physical, Level::Everything, &Config::default());
    let all: Vec<&CStr> = asked.extensions.iter().map(|e| e.what).collect();
    let on = physical.features.wanted();
    assert_eq!(not_enabled(&asked, &all, &on).expect("all is on"), Vec::<String>::new());
    let less =
        on.chosen(|row| !matches!(row.name, "timelineSemaphore" | "bufferDeviceAddress" | "shaderInt64"));
    match not_enabled(&asked, &all, &less) {
        Err(OpenError::NotEnabled { required }) => {
            assert_eq!(required, ["timelineSemaphore", "bufferDeviceAddress"]);
        }
        other => panic!("{other:?}"),
    }
    let bare = Requirements::of(&physical, Level::Required, &Config::default());
    assert!(bare.extensions.iter().all(|e| e.need == Need::Required));
    assert_eq!((bare.feature_names.len(), bare.queues.len()), (3, 1));
    // SAFETY: the chain of `bare` is alive and valid.
    let enabled = unsafe { Features::enabled(bare.features.as_ptr(), None) };
    let names: Vec<&CStr> = bare.extensions.iter().map(|e| e.what).collect();
    let words = not_enabled(&asked, &names, &enabled).expect("nothing required is missing");
    assert_eq!(words.len(), asked.extensions.len() - names.len() + asked.feature_names.len() - 3);
    assert!(words.iter().all(|w| w.contains(": without it ")), "{words:?}");
}

#[test]
fn the_door_takes_the_applications_lock_and_gives_it_back() {
    let lock = Arc::new(Counted::default());
    let door = Door::new(Some(Arc::clone(&lock) as Arc<dyn QueueLock>));
    let _section = crate::exit::section();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let _section = crate::exit::section();
                (0..100).for_each(|_| drop(door.enter()));
            });
        }
    });
    let inside = door.enter();
    assert_eq!(lock.inside.load(Ordering::SeqCst), 1);
    drop(inside);
    assert_eq!((lock.inside.load(Ordering::SeqCst), lock.times.load(Ordering::SeqCst)), (0, 401));
}
