//! Every mechanism brings the device's bytes, in every order and granule.

use super::*;

const ALL: [Mechanism; 5] = [
    Mechanism::Thread { handlers: 1, spin: Spin::Never, core: None },
    Mechanism::Thread { handlers: 2, spin: Spin::Micros(50), core: None },
    Mechanism::Thread { handlers: 1, spin: Spin::Always, core: None },
    Mechanism::Sigbus,
    Mechanism::Segv,
];

// One test: a signal has one owner at a time.
#[test]
fn every_mechanism_brings_the_devices_bytes() {
    for mechanism in ALL {
        // The calls check what they read.
        let mut floor = match Floor::new(mechanism, 8 << 20) {
            Err(error) if mechanism != Mechanism::Segv && error.raw_os_error() == Some(libc::EPERM) => {
                continue;
            }
            floor => floor.expect("memory and a mechanism"),
        };
        let pages: Vec<usize> = (0..64).map(|page| page * 31).collect();
        floor.device_writes(&pages);
        assert_eq!(floor.latencies(&pages).len(), 64);
        assert!(floor.parts(&pages).iter().all(|parts| parts[0] > 0.0));
        for granule in [PAGE, 64 << 10, 2 << 20] {
            for order in [Order::Forward, Order::Backward, Order::Every(17)] {
                assert!(floor.scan(granule, order, 2048) > 0.0);
            }
            assert!(floor.faults_per_ms(3, granule, &[0, 512, 1024, 1536]) > 0.0);
        }
        floor.populate();
        floor.revoke(0, 2 << 20);
        floor.copy_out(0, 2 << 20);
        floor.copy_in(0, 2 << 20);
        floor.publish(0, 2 << 20);
        assert_eq!(floor.read(3), word(3));
    }
}

#[test]
fn orders_name_each_page_once() {
    let named = |order: Order| order.pages(5).collect::<Vec<_>>();
    assert_eq!(named(Order::Forward), [0, 1, 2, 3, 4]);
    assert_eq!(named(Order::Backward), [4, 3, 2, 1, 0]);
    assert_eq!(named(Order::Every(2)), [0, 2, 4]);
}

#[test]
fn plain_touches_and_round_trips_take_time() {
    assert_eq!(anon_touches(16).expect("memory").len(), 16);
    assert_eq!(memfd_touches(16).expect("memory").len(), 16);
    assert!(ping_pong((0, 0), 100) > 0.0);
}
