//! The simulated world of one run: machines, the time that passes, and what befalls them. One seed decides
//! all of it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::hash::Hasher;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coreinitd::systemd::Memory;
use raft::{Forgetful, Unsynced};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::machine::{Machine, name};
use crate::world::{Shared, World};

/// What one machine does between two looks at the network. Larger is cheaper, and hides orders of events.
const TICK_MS: u64 = 2;
const LOOK_MS: u64 = 20;
const LATENCY_MS_MAX: u64 = 16;
const SLOW_MS_MAX: u64 = 300;
/// At a time.
const FAULTS_MAX: usize = 2;

/// A machine as a story wants it.
#[derive(Clone, Default)]
pub struct Wanted {
    /// It is switched on then.
    pub starts_ms: u64,
    pub expect: usize,
    pub join: Vec<usize>,
    pub works: bool,
    pub voter_grace_ms: u64,
}

/// What can be wrong for a while.
#[derive(Clone, Debug)]
enum Fault {
    Fall {
        machine: usize,
        how: Fall,
    },
    /// The power goes in the middle of some later write.
    Trip {
        machine: usize,
        after: u64,
    },
    Blackout,
    Split {
        side: Vec<usize>,
    },
    OneWay {
        from: usize,
        to: usize,
    },
    Slow {
        a: usize,
        b: usize,
    },
    BadDisk {
        machine: usize,
    },
}

#[derive(Clone, Copy, Debug)]
enum Fall {
    Kill,
    Cut(Unsynced),
    /// It comes back with an empty disk.
    Wipe,
}

pub struct Sky<'a> {
    sim: turmoil::Sim<'a>,
    pub machines: Vec<Machine>,
    pub world: Shared,
    pub chance: SmallRng,
    pub ms: u64,
    /// With the moment at which each ends.
    faults: Vec<(Fault, u64)>,
    /// Without a running daemon, and for how many reasons.
    down: BTreeSet<usize>,
    /// They never come back.
    pub gone: BTreeSet<usize>,
    wipes_left: u32,
    pub log: String,
    verbose: bool,
    _runs: tempfile::TempDir,
}

/// What a run came to: equal for two runs of one seed.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    pub digest: u64,
    pub writes: u64,
    pub reads: u64,
    pub ms: u64,
    pub both_run_ms_max: u64,
    pub unknown: u64,
}

impl Sky<'_> {
    pub fn new(seed: u64, wanted: &[Wanted], rest_ms: u64, verbose: bool) -> Sky<'static> {
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .simulation_duration(Duration::from_secs(10_000))
            .tick_duration(Duration::from_millis(TICK_MS))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(LATENCY_MS_MAX))
            .tcp_capacity(1 << 16)
            .enable_random_order()
            .build();
        let world = World::new(rest_ms);
        // What lies there dies with the power: memory is the place for it.
        let memory = Some(Path::new("/dev/shm")).filter(|dir| dir.is_dir());
        let runs = match memory {
            Some(dir) => tempfile::tempdir_in(dir),
            None => tempfile::tempdir(),
        };
        let runs = runs.expect("a temporary folder");
        let machine = |(number, wanted): (usize, &Wanted)| Machine {
            number,
            disk: Forgetful::new(seed.wrapping_mul(31).wrapping_add(number as u64)),
            systemd: Memory::new(),
            marks: runs.path().join(name(number)),
            expect: wanted.expect,
            join: wanted.join.clone(),
            voter_grace_ms: wanted.voter_grace_ms,
            works: wanted.works,
        };
        let machines: Vec<Machine> = wanted.iter().enumerate().map(machine).collect();
        let mut chance = SmallRng::seed_from_u64(seed ^ 0x5eed);
        for machine in &machines {
            machine.take_time(&mut chance);
        }
        for (machine, wanted) in machines.iter().zip(wanted) {
            let (machine, world, lives) = (machine.clone(), world.clone(), Arc::new(Mutex::new(0)));
            let starts = Duration::from_millis(wanted.starts_ms);
            sim.host(name(machine.number), move || {
                let life = {
                    let mut lives = lives.lock().expect("alone");
                    *lives += 1;
                    *lives
                };
                let (machine, world) = (machine.clone(), world.clone());
                let chance = seed.wrapping_mul(1000).wrapping_add(life * 10 + machine.number as u64);
                async move {
                    if life == 1 {
                        tokio::time::sleep(starts).await;
                    }
                    machine.live(chance, world).await
                }
            });
        }
        for machine in &machines {
            world.lock().expect("alone").rises(machine);
        }
        world.lock().expect("alone").told = verbose.then(Default::default);
        Sky {
            sim,
            machines,
            world,
            chance,
            ms: 0,
            faults: Vec::new(),
            down: BTreeSet::new(),
            gone: BTreeSet::new(),
            wipes_left: 0,
            log: String::new(),
            verbose,
            _runs: runs,
        }
    }

    /// So many machines may lose their disks.
    pub fn may_wipe(mut self, wipes: u32) -> Self {
        self.wipes_left = wipes;
        self
    }

    pub fn note(&mut self, text: &str) {
        let _ = writeln!(self.log, "{} ms: {text}", self.ms);
        if self.verbose {
            eprintln!("{} ms: {text}", self.ms);
        }
    }

    fn fails(&self, why: &str) -> String {
        format!("at {} ms: {why}\n{}", self.ms, self.log)
    }

    /// One tick for all machines, and now and then a look at them.
    fn tick(&mut self) -> Result<(), String> {
        self.sim.step().map_err(|error| self.fails(&error.to_string()))?;
        self.ms += TICK_MS;
        for machine in 0..self.machines.len() {
            if self.machines[machine].disk.has_stopped() && !self.down.contains(&machine) {
                self.note(&format!("m{machine} has tripped"));
                self.fall(machine, Fall::Cut(Unsynced::ByChance));
            }
        }
        if self.ms.is_multiple_of(LOOK_MS) {
            let mut world = self.world.lock().expect("alone");
            world.look(self.ms, &self.machines);
            if let Some(broken) = world.broken.first() {
                return Err(self.fails(broken));
            }
        }
        Ok(())
    }

    pub fn pass(&mut self, ms: u64) -> Result<(), String> {
        let until = self.ms + ms;
        while self.ms < until {
            self.tick()?;
        }
        Ok(())
    }

    /// Until that holds; fails after so many milliseconds with what it says then.
    pub fn until(
        &mut self,
        ms_max: u64,
        mut holds: impl FnMut(&World, &[&Machine]) -> Result<(), String>,
    ) -> Result<(), String> {
        let deadline = self.ms + ms_max;
        loop {
            let seen = {
                let machines: Vec<&Machine> =
                    self.machines.iter().filter(|machine| !self.gone.contains(&machine.number)).collect();
                holds(&self.world.lock().expect("alone"), &machines)
            };
            match seen {
                Ok(()) => return Ok(()),
                Err(why) if self.ms >= deadline => {
                    return Err(self.fails(&format!("Convergence: after {ms_max} ms {why}")));
                }
                Err(_) => self.pass(100)?,
            }
        }
    }

    /// Faults come and go for so long, and all have ended then.
    pub fn chaos(&mut self, ms: u64) -> Result<(), String> {
        let until = self.ms + ms;
        let mut next = self.ms + self.chance.random_range(100..1500);
        while self.ms < until {
            self.tick()?;
            self.mend(self.ms);
            if next <= self.ms && self.faults.len() < FAULTS_MAX {
                self.strike();
                next = self.ms + self.chance.random_range(100..2000);
            }
        }
        self.mend(u64::MAX);
        Ok(())
    }

    /// No more faults: everything must come right, and stay so.
    pub fn calm(&mut self, ms_max: u64) -> Result<(), String> {
        self.note("calm");
        self.world.lock().expect("alone").calm = true;
        self.until(ms_max, World::settled)?;
        self.pass(500)?;
        self.until(2_000, World::settled)
    }

    /// All that was said, checked.
    pub fn judge(self) -> Result<Run, String> {
        let world = self.world.lock().expect("alone");
        world.check_history().map_err(|broken| self.fails(&broken))?;
        let (writes, reads) = (world.writes, world.reads);
        let (both_run_ms_max, unknown) = (world.both_run_ms_max, world.unknown);
        Ok(Run { digest: world.digest.finish(), writes, reads, ms: self.ms, both_run_ms_max, unknown })
    }

    /// Machines that are there for good, and belong to the cluster as far as they know.
    pub fn members(&self) -> Vec<usize> {
        let world = self.world.lock().expect("alone");
        let all = 0..self.machines.len();
        all.filter(|machine| !self.gone.contains(machine) && !world.out.contains(machine)).collect()
    }

    fn living(&self) -> Vec<usize> {
        let all = 0..self.machines.len();
        all.filter(|machine| !self.down.contains(machine) && !self.gone.contains(machine)).collect()
    }

    fn fall(&mut self, machine: usize, how: Fall) {
        self.sim.crash(name(machine));
        self.down.insert(machine);
        let it = &self.machines[machine];
        match how {
            Fall::Kill => it.kill(),
            Fall::Cut(unsynced) => it.cut(unsynced),
            Fall::Wipe => {
                it.cut(Unsynced::Lost);
                it.disk.wipe();
            }
        }
        self.world.lock().expect("alone").fell(machine);
    }

    fn rise(&mut self, machine: usize) {
        if self.down.remove(&machine) && !self.gone.contains(&machine) {
            self.world.lock().expect("alone").rises(&self.machines[machine]);
            self.sim.bounce(name(machine));
        }
    }

    /// The machine is switched off, and never comes back.
    pub fn take_away(&mut self, machine: usize) {
        self.note(&format!("m{machine} is gone for good"));
        self.fall(machine, Fall::Cut(Unsynced::ByChance));
        self.gone.insert(machine);
    }

    /// The machine falls at its `after`th write from now, and comes back by [`Sky::mend`].
    pub fn trip(&mut self, machine: usize, after: u64, back_after_ms: u64) {
        self.begin(Fault::Trip { machine, after }, self.ms + back_after_ms);
    }

    pub fn split(&mut self, side: Vec<usize>, for_ms: u64) {
        self.begin(Fault::Split { side }, self.ms + for_ms);
    }

    pub fn wipe(&mut self, machine: usize, for_ms: u64) {
        self.begin(Fault::Fall { machine, how: Fall::Wipe }, self.ms + for_ms);
    }

    pub fn kill(&mut self, machine: usize, for_ms: u64) {
        let how = match self.chance.random_range(0..3) {
            0 => Fall::Kill,
            1 => Fall::Cut(Unsynced::Lost),
            _ => Fall::Cut(Unsynced::ByChance),
        };
        self.begin(Fault::Fall { machine, how }, self.ms + for_ms);
    }

    fn strike(&mut self) {
        let living = self.living();
        let (Some(machine), Some(other)) =
            (living.choose(&mut self.chance).copied(), living.choose(&mut self.chance).copied())
        else {
            return;
        };
        let ends = self.ms
            + match self.chance.random_range(0..8) {
                // A daemon that was killed is back before anybody has missed it.
                0 | 1 => TICK_MS,
                2..6 => self.chance.random_range(100..1500),
                _ => self.chance.random_range(3000..6000),
            };
        let fault = match self.chance.random_range(0..20) {
            0..7 => return self.kill(machine, ends - self.ms),
            7..9 => Fault::Trip { machine, after: self.chance.random_range(1..60) },
            9 => Fault::Blackout,
            10..14 => {
                let mut side: Vec<usize> =
                    (0..self.machines.len()).filter(|_| self.chance.random()).collect();
                if side.is_empty() {
                    side.push(machine);
                }
                Fault::Split { side }
            }
            14..16 if machine != other => Fault::OneWay { from: machine, to: other },
            16..18 if machine != other => Fault::Slow { a: machine, b: other },
            18 => Fault::BadDisk { machine },
            // A new disk is no fault that a cluster of three survives twice in a row. The first machine of a
            // cluster that was formed by hand would wait for that hand again.
            _ if self.wipes_left > 0 && !self.machines[machine].join.is_empty() => {
                self.wipes_left -= 1;
                Fault::Fall { machine, how: Fall::Wipe }
            }
            _ => Fault::Split { side: vec![machine] },
        };
        self.begin(fault, ends);
    }

    fn begin(&mut self, fault: Fault, ends: u64) {
        self.note(&format!("{fault:?} until {ends} ms"));
        match &fault {
            Fault::Fall { machine, how } => self.fall(*machine, *how),
            Fault::Trip { machine, after } => self.machines[*machine].disk.stop_after(*after),
            Fault::Blackout => {
                for machine in self.living() {
                    let unsynced = if self.chance.random() { Unsynced::Lost } else { Unsynced::ByChance };
                    self.fall(machine, Fall::Cut(unsynced));
                }
            }
            Fault::BadDisk { machine } => self.machines[*machine].disk.fail_syncs(),
            Fault::Split { .. } | Fault::OneWay { .. } | Fault::Slow { .. } => {}
        }
        self.faults.push((fault, ends));
        self.lay_cables();
    }

    /// Ends the faults whose time is up.
    pub fn mend(&mut self, now: u64) {
        let due: Vec<Fault> =
            self.faults.extract_if(.., |(_, ends)| *ends <= now).map(|(fault, _)| fault).collect();
        for fault in &due {
            self.note(&format!("{fault:?} has ended"));
            match fault {
                Fault::Fall { machine, .. } => self.rise(*machine),
                Fault::Trip { machine, .. } => {
                    if !self.down.contains(machine) {
                        self.fall(*machine, Fall::Cut(Unsynced::ByChance));
                    }
                    self.rise(*machine);
                }
                Fault::Blackout => (0..self.machines.len()).for_each(|machine| {
                    let has_reason = self.faults.iter().any(|(fault, _)| match fault {
                        Fault::Fall { machine: other, .. } | Fault::Trip { machine: other, .. } => {
                            *other == machine
                        }
                        _ => false,
                    });
                    if !has_reason {
                        self.rise(machine);
                    }
                }),
                Fault::BadDisk { machine } => {
                    self.machines[*machine].disk.heal();
                    self.fall(*machine, Fall::Cut(Unsynced::Lost));
                    self.rise(*machine);
                }
                Fault::Split { .. } | Fault::OneWay { .. } | Fault::Slow { .. } => {}
            }
        }
        if !due.is_empty() {
            self.lay_cables();
        }
    }

    /// Makes the network as the present faults want it.
    fn lay_cables(&mut self) {
        let count = self.machines.len();
        for a in 0..count {
            for b in a + 1..count {
                self.sim.repair(name(a), name(b));
                let is_slow = self.faults.iter().any(|(fault, _)| {
                    matches!(fault, Fault::Slow { a: x, b: y } if (*x, *y) == (a, b) || (*x, *y) == (b, a))
                });
                let latency = if is_slow { SLOW_MS_MAX } else { LATENCY_MS_MAX };
                self.sim.set_link_max_message_latency(name(a), name(b), Duration::from_millis(latency));
            }
        }
        for (fault, _) in &self.faults {
            match fault {
                Fault::Split { side } => {
                    for (a, b) in side.iter().flat_map(|a| (0..count).map(move |b| (*a, b))) {
                        if !side.contains(&b) {
                            self.sim.partition(name(a), name(b));
                        }
                    }
                }
                Fault::OneWay { from, to } => self.sim.partition_oneway(name(*from), name(*to)),
                _ => {}
            }
        }
    }
}
