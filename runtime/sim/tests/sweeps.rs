//! Sweeps: in every flow, under several seeds, the n-th port call fails — n = 1, 2, 3 … until no call is left to fail — with every
//! error that such a call may have. Then the error was typed and nothing else had changed (I7), or what is lost is named; every
//! byte is right; everything comes to rest; nothing leaks. And no call that a flow can make has been left out.

#[path = "sweeps/flows.rs"]
#[allow(unreachable_pub)]
mod flows;

use flows::{FLOWS, Flow, SETUPS, Setup, World};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use vkhmm_port::DeviceError;
use vkhmm_port::host::Errno;
use vkhmm_sim::run;

/// What the n-th call of its kind says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Nothing: the flow as it is.
    None,
    /// A call of host memory, with this error number.
    Host(i32),
    /// A fallible call of the device.
    Device(Say),
    /// A look at the device's counters.
    Look(Say),
    /// From the n-th fallible call of the device on, it is lost.
    Lose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Say {
    NoDeviceMemory,
    NoHostMemory,
    Refused,
    Lost,
}

const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const EEXIST: i32 = 17;
const ENOENT: i32 = 2;

const TROUBLES: [Trouble; 11] = [
    Trouble::Host(ENOMEM),
    Trouble::Host(EAGAIN),
    Trouble::Host(EEXIST),
    Trouble::Host(ENOENT),
    Trouble::Device(Say::NoDeviceMemory),
    Trouble::Device(Say::NoHostMemory),
    Trouble::Device(Say::Refused),
    Trouble::Lose,
    Trouble::Look(Say::NoHostMemory),
    Trouble::Look(Say::Refused),
    Trouble::Look(Say::Lost),
];

/// A flow looks at the counters as often as its threads turn: so many are enough to have met each place that looks.
const LOOKS: u64 = 12;
const SEEDS: u64 = 5;

impl Say {
    fn error(self) -> DeviceError {
        let operation = "swept";
        match self {
            Self::NoDeviceMemory => DeviceError::OutOfDeviceMemory { operation, bytes: 1 },
            Self::NoHostMemory => DeviceError::OutOfHostMemory { operation },
            Self::Refused => DeviceError::Refused { operation, message: "told to fail".to_owned() },
            Self::Lost => DeviceError::Lost { operation },
        }
    }
}

impl Trouble {
    fn arm(self, world: &World, n: u64) {
        match self {
            Self::None => {}
            Self::Host(errno) => world.host.fail_call_with(n, Errno(errno)),
            Self::Device(say) => world.device.fail_call_with(n, say.error()),
            Self::Look(say) => world.device.fail_look(n, say.error()),
            Self::Lose => world.device.lose_at_call(n),
        }
    }

    fn disarm(self, world: &World) {
        match self {
            Self::None | Self::Look(_) => {}
            Self::Host(_) => world.host.fail_call(0),
            Self::Device(_) => world.device.fail_call(0),
            Self::Lose => world.device.lose_at_call(0),
        }
    }
}

/// What one run told.
#[derive(Default)]
struct Told {
    /// The calls that failed.
    failed: Vec<&'static str>,
    /// How often each call was made in the flow.
    made: BTreeMap<&'static str, u64>,
    lost: bool,
}

/// Plays a flow with the `n`-th call failing.
fn play(flow: Flow, setup: Setup, trouble: Trouble, n: u64, seed: u64) -> Result<Told, String> {
    let told = Arc::new(Mutex::new(Told::default()));
    let tell = Arc::clone(&told);
    let run = run(seed, move |exec| {
        let mut world = World::new(exec, setup);
        let before = world.made();
        world.troubled = trouble != Trouble::None;
        trouble.arm(&world, n);
        world.run(flow);
        let made = world.made().into_iter().map(|(call, count)| (call, count - before[call])).collect();
        let mut failed = world.host.told_to_fail();
        failed.extend(world.device.told_to_fail());
        trouble.disarm(&world);
        let lost = world.is_lost();
        *tell.lock().expect("one thread at a time") = Told { failed, made, lost };
        world.verify(lost);
        world.close(lost);
    });
    match run.failure {
        None => Ok(core::mem::take(&mut *told.lock().expect("the run is over"))),
        Some(failure) => {
            let tail = run.trace[run.trace.len().saturating_sub(40)..].join("\n");
            Err(format!("call {n}, {trouble:?}, of {flow:?} with {setup:?}, seed {seed}: {failure}\n{tail}"))
        }
    }
}

#[derive(Default)]
struct Table {
    runs: u64,
    /// How often each call of each flow was made when nothing was armed, and in all runs was told to fail.
    made: BTreeMap<(Flow, &'static str), u64>,
    hit: BTreeMap<(Flow, &'static str), u64>,
    lost: BTreeMap<Flow, u64>,
}

impl Table {
    fn sweep(&mut self, flow: Flow, failures: &mut Vec<String>) {
        for (i, setup) in SETUPS.into_iter().enumerate() {
            for seed in (0..SEEDS).map(|s| s * 5 + i as u64) {
                match play(flow, setup, Trouble::None, 0, seed) {
                    Ok(told) => {
                        for (call, count) in told.made {
                            *self.made.entry((flow, call)).or_default() += count;
                        }
                    }
                    Err(failure) => failures.push(failure),
                }
                for trouble in TROUBLES {
                    for n in 1.. {
                        assert!(n < 300, "{trouble:?} of {flow:?} with {setup:?}: no end");
                        self.runs += 1;
                        let told = match play(flow, setup, trouble, n, seed) {
                            Ok(told) => told,
                            Err(failure) => {
                                failures.push(failure);
                                break;
                            }
                        };
                        *self.lost.entry(flow).or_default() += u64::from(told.lost);
                        let untouched = match trouble {
                            Trouble::Lose => !told.lost || flow == Flow::Loss,
                            _ => told.failed.is_empty(),
                        };
                        for call in told.failed {
                            let call = if call.starts_with("publish") { "publish" } else { call };
                            *self.hit.entry((flow, call)).or_default() += 1;
                        }
                        if untouched || matches!(trouble, Trouble::Look(_)) && n >= LOOKS {
                            break;
                        }
                    }
                }
            }
        }
    }

    fn print(&self) {
        let calls: BTreeSet<_> = self.made.keys().chain(self.hit.keys()).map(|(_, call)| *call).collect();
        print!("{:10}", "failed");
        calls.iter().for_each(|call| print!(" {call:>11}"));
        println!(" {:>11}", "device lost");
        for flow in FLOWS {
            print!("{:10}", format!("{flow:?}"));
            for call in &calls {
                let hit = self.hit.get(&(flow, *call)).copied().unwrap_or(0);
                let made = self.made.get(&(flow, *call)).copied().unwrap_or(0);
                print!(" {:>11}", if hit == 0 && made == 0 { "·".to_owned() } else { hit.to_string() });
            }
            println!(" {:>11}", self.lost.get(&flow).copied().unwrap_or(0));
        }
    }

    /// Every call that a flow makes was failed in it.
    fn is_complete(&self) -> Result<(), String> {
        for ((flow, call), made) in &self.made {
            if *made > 0 && !self.hit.contains_key(&(*flow, *call)) {
                return Err(format!("{flow:?} makes {call}, and it never failed there"));
            }
        }
        // And over all flows, every fallible call of the ports that the engine makes. (It never calls `write_frames`: bytes go to
        // the device by copies alone.)
        let all = [
            "populate",
            "revoke",
            "protect",
            "publish",
            "poison",
            "punch",
            "grow",
            "buffer",
            "import",
            "submit",
            "read_frames",
            "completed",
            "wait",
        ];
        let hit: BTreeSet<_> = self.hit.keys().map(|(_, call)| *call).collect();
        all.into_iter()
            .find(|call| !hit.contains(call))
            .map_or(Ok(()), |call| Err(format!("{call} never failed")))
    }
}

#[test]
fn every_port_call_of_every_flow_fails_once() {
    let (mut table, mut failures) = (Table::default(), Vec::new());
    for flow in FLOWS {
        table.sweep(flow, &mut failures);
    }
    println!("{} runs", table.runs);
    table.print();
    assert!(failures.is_empty(), "{} runs failed; the first:\n{}", failures.len(), failures[0]);
    table.is_complete().unwrap_or_else(|missing| panic!("{missing}"));
}
