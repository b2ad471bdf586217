//! What is asked for: everything named, nothing twice, and no more than the plan for it uses.

use super::*;
use crate::parts::OwnQueue;
use crate::queues::families_of;

fn family(flags: u32, count: u32) -> vk::QueueFamilyProperties {
    vk::QueueFamilyProperties {
        queue_flags: vk::QueueFlags::from_raw(flags),
        queue_count: count,
        ..Default::default()
    }
}

const GRAPHICS: u32 = 1;
const COMPUTE: u32 = 2;
const TRANSFER: u32 = 4;
const SPARSE: u32 = 8;

/// The families of some drivers.
fn drivers() -> Vec<Vec<vk::QueueFamilyProperties>> {
    let universal = GRAPHICS | COMPUTE | TRANSFER | SPARSE;
    vec![
        vec![family(universal, 1)],
        vec![family(universal, 2)],
        vec![family(universal, 16), family(TRANSFER | SPARSE, 2), family(COMPUTE | TRANSFER | SPARSE, 8)],
        vec![family(GRAPHICS | COMPUTE | TRANSFER, 1), family(COMPUTE | TRANSFER, 4), family(SPARSE, 1)],
        vec![family(universal, 1), family(TRANSFER | 0x20, 1)],
        vec![family(GRAPHICS | TRANSFER, 1), family(COMPUTE | TRANSFER, 3)],
    ]
}

#[test]
fn with_the_queues_asked_for_the_plan_is_the_one_that_asked() {
    for (families, sparse) in drivers().into_iter().flat_map(|f| [(f.clone(), false), (f, true)]) {
        let plan = Plan::new(&families, false, sparse);
        let wanted = wanted_queues(&plan);
        assert_eq!(wanted.iter().filter(|w| w.need == Need::Required).count(), 1);
        assert!(wanted[0].need == Need::Required && wanted[0].roles.contains(&Role::Compute));
        let mut roles: Vec<Role> = wanted.iter().flat_map(|w| w.roles.clone()).collect();
        roles.sort_by_key(|role| *role as usize);
        assert_eq!(roles, Role::ALL, "each role once: {wanted:?}");
        let own: Vec<OwnQueue> = wanted
            .iter()
            .flat_map(|w| (0..w.count).map(|_| w.family))
            .map(|family| OwnQueue { family, handle: vk::Queue::null(), lock: None })
            .collect();
        assert!(own.iter().all(|q| families[q.family as usize].queue_count > 0));
        let again = Plan::new(&families_of(&families, &own), false, sparse);
        assert_eq!((again.queues, again.roles), (plan.queues, plan.roles));
    }
}

#[test]
fn needs_are_said_in_words() {
    assert_eq!(Need::Required.to_string(), "required");
    for row in crate::features::ROWS {
        match row.need {
            Need::Required => {}
            Need::Lost(words) => assert!(words.len() > 10, "{}: {words}", row.name),
        }
    }
}
