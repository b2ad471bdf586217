//! Lines: what they are found in, and what not.

use super::super::line::{Line, Point};
use super::*;

fn points(groups: impl Iterator<Item = u32>, of: impl Fn(u32) -> (u32, u32)) -> Vec<Point> {
    groups.map(|group| (group, of(group))).map(|(group, (low, high))| Point { group, low, high }).collect()
}

#[test]
fn a_stride_is_found_exactly() {
    for (rise, run) in [(1, 64), (3, 64), (1, 1), (5, 1), (7, 3), (1, 1000)] {
        let of = |group: u32| (group * rise / run, (group * rise + rise - 1) / run);
        let sample = points((0..64).map(|i| i * 65_000 / 63), of);
        let line = Line::through(&sample).expect("a stride is a line");
        for group in 0..65_000 {
            let (low, high) = of(group);
            assert_eq!(line.of(group, u32::MAX), low..high + 1, "group {group} of stride {rise}/{run}");
        }
    }
}

#[test]
fn strides_go_down_and_stand_still() {
    let down = |group: u32| (1000 - group / 8, 1000 - group / 8);
    let line = Line::through(&points((0..60).map(|i| i * 101), down)).expect("a line");
    for group in 0..6000 {
        assert!(line.of(group, 2000).contains(&down(group).0), "group {group}");
    }
    let still = Line::through(&points(0..20, |_| (3, 3))).expect("a line");
    assert_eq!(still.of(u32::MAX, 10), 3..4);
}

#[test]
fn what_comes_from_data_is_no_line() {
    let mut random = random(7);
    let sample: Vec<Point> = (0..64)
        .map(|i| (i * 10, random(1000)))
        .map(|(group, sub)| Point { group, low: sub, high: sub })
        .collect();
    assert_eq!(Line::through(&sample), None);
    let wide = points((0..64).map(|i| i * 10), |group| (group / 10, group / 10 + 500));
    assert_eq!(Line::through(&wide), None, "every group asks for much of the range");
    assert_eq!(Line::through(&sample[..2]), None, "two points are always on a line");
}

#[test]
fn a_little_irregular_is_a_line() {
    let of = |group: u32| group / 4 + mix(group, 0, 0) % 3;
    let line =
        Line::through(&points((0..64).map(|i| i * 50), |group| (of(group), of(group) + 1))).expect("a line");
    let right = (0..3200).filter(|group| {
        let said = line.of(*group, 10_000);
        said.contains(&of(*group)) && said.contains(&(of(*group) + 1)) && said.count() <= 9
    });
    assert!(right.count() > 3000);
}

#[test]
fn a_line_ends_with_its_range() {
    let line = Line::through(&points((0..20).map(|i| i * 10), |group| (group, group + 1))).expect("a line");
    assert_eq!(line.of(9, 10), 9..10);
    assert!(line.of(10, 10).is_empty());
}
