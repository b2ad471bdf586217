//! Which queues devices of known shapes get, and which role uses which. Places are in the order of [`Role::ALL`]: copies in,
//! copies out, kernels, binds, grants, releases.

use super::*;

const GRAPHICS: u32 = 1;
const COMPUTE: u32 = 2;
const TRANSFER: u32 = 4;
const SPARSE: u32 = 8;
const DECODE: u32 = 0x20;
const ALL: u32 = GRAPHICS | COMPUTE | TRANSFER;

fn family(flags: u32, count: u32) -> vk::QueueFamilyProperties {
    vk::QueueFamilyProperties {
        queue_flags: vk::QueueFlags::from_raw(flags),
        queue_count: count,
        ..Default::default()
    }
}

fn plan(families: &[vk::QueueFamilyProperties]) -> Plan {
    Plan::new(families, false, true)
}

/// The VkQueue of each role.
fn places(plan: &Plan) -> [(u32, u32); 6] {
    plan.roles.map(|place| plan.queues[place])
}

/// Binds, grants and releases share no timeline with anyone.
fn has_own_timelines(plan: &Plan) -> bool {
    [Role::Bind, Role::Grant, Role::Release].into_iter().all(|role| {
        let own = plan.roles[role as usize];
        plan.roles.iter().filter(|place| **place == own).count() == 1
    })
}

#[test]
fn nvidia_copies_both_ways_on_the_transfer_family_and_has_queues_to_spare() {
    let plan = plan(&[
        family(ALL | SPARSE, 16),
        family(TRANSFER | SPARSE, 2),
        family(COMPUTE | TRANSFER | SPARSE, 8),
        family(TRANSFER | DECODE, 1),
    ]);
    assert_eq!(places(&plan), [(1, 0), (1, 1), (0, 0), (0, 1), (0, 3), (0, 2)]);
    assert!(has_own_timelines(&plan) && plan.binds());
    assert_eq!(plan.families(), [(0, 4), (1, 2)], "no more families than without binds");
    let words = "binds family 0 queue 1, releases family 0 queue 2, grants family 0 queue 3";
    assert!(plan.words.ends_with(words), "{}", plan.words);
}

#[test]
fn amd_binds_on_the_family_that_only_binds() {
    let plan = plan(&[family(ALL, 1), family(COMPUTE | TRANSFER, 4), family(DECODE, 1), family(SPARSE, 1)]);
    assert_eq!(places(&plan), [(1, 0), (1, 1), (0, 0), (3, 0), (1, 3), (1, 2)]);
    assert!(has_own_timelines(&plan));
    assert_eq!(plan.families(), [(0, 1), (1, 4), (3, 1)]);
}

#[test]
fn intel_binds_on_another_queue_of_a_family_with_the_bit() {
    let families = [family(ALL | SPARSE, 1), family(COMPUTE | TRANSFER | SPARSE, 2), family(TRANSFER, 1)];
    let plan = plan(&families);
    assert_eq!(places(&plan), [(2, 0), (2, 0), (0, 0), (1, 0), (0, 0), (1, 1)]);
    assert!(has_own_timelines(&plan));
    let one = Plan::new(&[family(ALL | SPARSE, 1)], false, true);
    assert_eq!(places(&one), [(0, 0); 6]);
    assert!(has_own_timelines(&one) && one.binds());
    assert_eq!(one.families(), [(0, 1)]);
}

#[test]
fn without_the_bit_or_the_wish_there_are_no_binds() {
    for (families, sparse) in [(vec![family(ALL, 4)], true), (vec![family(ALL | SPARSE, 4)], false)] {
        let plan = Plan::new(&families, false, sparse);
        assert!(!plan.binds(), "{}", plan.words);
        assert_eq!(plan.roles[Role::Bind as usize], plan.roles[Role::Compute as usize]);
        assert_eq!(plan.queues.len(), 5);
        assert!(!plan.split().binds());
    }
    let forced = Plan::new(&[family(ALL, 4), family(SPARSE, 1)], true, true);
    assert!(!forced.binds(), "one queue, and it cannot bind: {}", forced.words);
}

#[test]
fn the_bit_may_be_on_a_copy_queue_alone() {
    let plan = plan(&[family(ALL, 1), family(TRANSFER | SPARSE, 1)]);
    assert_eq!(places(&plan), [(1, 0), (1, 0), (0, 0), (1, 0), (0, 0), (0, 0)]);
    assert!(has_own_timelines(&plan));
}

#[test]
fn without_a_transfer_family_the_second_compute_family_copies() {
    let plan = plan(&[family(ALL, 1), family(COMPUTE | TRANSFER, 4)]);
    assert_eq!(places(&plan)[..3], [(1, 0), (1, 1), (0, 0)]);
    assert_eq!(plan.families(), [(0, 1), (1, 4)]);
}

#[test]
fn other_queues_of_the_compute_family_come_next_and_releases_before_grants() {
    let two = plan(&[family(ALL, 2)]);
    assert_eq!(places(&two), [(0, 1), (0, 1), (0, 0), (0, 0), (0, 0), (0, 0)]);
    let three = plan(&[family(ALL, 3)]);
    assert_eq!(places(&three)[..3], [(0, 1), (0, 2), (0, 0)]);
    let four = plan(&[family(ALL, 4)]);
    assert_eq!(places(&four)[4..], [(0, 0), (0, 3)]);
}

#[test]
fn a_video_family_is_the_last_choice_and_one_queue_serves_all() {
    let video = plan(&[family(GRAPHICS | COMPUTE, 1), family(TRANSFER | DECODE, 1)]);
    assert_eq!(places(&video), [(1, 0), (1, 0), (0, 0), (0, 0), (0, 0), (0, 0)]);
    let one = plan(&[family(ALL, 1)]);
    assert_eq!((places(&one), &one.roles[..3]), ([(0, 0); 6], &[0; 3][..]));
    let split = plan(&[family(ALL | SPARSE, 1)]).split();
    assert_eq!((split.families(), places(&split)), (vec![(0, 1)], [(0, 0); 6]));
    let mut timelines = split.roles;
    timelines.sort_unstable();
    assert_eq!(timelines, [0, 1, 2, 3, 4, 5]);
    let forced = Plan::new(&[family(ALL | SPARSE, 16), family(TRANSFER, 2)], true, true);
    assert_eq!((places(&forced), forced.binds()), ([(0, 0); 6], true));
    assert!(has_own_timelines(&forced));
}
