//! Defragmentation that runs by itself: when it works and when it rests, what
//! it may cost, and that nothing is lost whatever the program does meanwhile.

use quickcheck::{Arbitrary, Gen, QuickCheck};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tallow::defrag::{
    Defrag, DefragStats, Mover, Options, Outcome, Pass, Relocate, Settings, Visit,
};

#[global_allocator]
static ALLOC: tallow::Tallow = tallow::Tallow::new();

/// There is one pass at a time in a process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn balanced() {
    if let Err(error) = tallow::audit() {
        panic!("{error}");
    }
}

/// Slabs that are being emptied.
fn evacuating() -> u64 {
    tallow::stats().classes.iter().map(|c| c.slabs_evacuating).sum()
}

/// A small generator, so that every run is the same.
struct Random(u64);
impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Ends the other threads, also when an assertion fails.
struct Stop<'a>(&'a AtomicBool);
impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The byte at `i` of an object tells which object it belongs to.
fn byte(id: u32, i: usize) -> u8 {
    (id as usize * 31 + i * 7) as u8
}

/// Objects, and beside each what it should be.
#[derive(Default)]
struct Data {
    list: Vec<Option<Vec<u8>>>,
    model: Vec<Option<(u32, usize)>>,
    next_id: u32,
}

impl Data {
    fn insert(&mut self, len: usize) {
        let id = self.next_id;
        self.next_id += 1;
        self.list.push(Some((0..len).map(|i| byte(id, i)).collect()));
        self.model.push(Some((id, len)));
    }

    /// Objects of that length, of which one in ten stays.
    fn sparse(count: usize, len: usize) -> Self {
        let mut data = Self::default();
        data.spike(count, len);
        data
    }

    fn spike(&mut self, count: usize, len: usize) {
        let from = self.list.len();
        (0..count).for_each(|_| self.insert(len));
        (from..from + count).filter(|i| i % 10 != 3).for_each(|i| self.remove(i));
    }

    fn remove(&mut self, at: usize) {
        if let Some(item) = self.list.get_mut(at) {
            (*item, self.model[at]) = (None, None);
        }
    }

    fn resize(&mut self, at: usize, len: usize) {
        let Some(Some(item)) = self.list.get_mut(at) else { return };
        let Some((id, old)) = &mut self.model[at] else { panic!("{at} is not in the model") };
        item.truncate(len);
        item.extend((item.len()..len).map(|i| byte(*id, i)));
        item.shrink_to_fit();
        *old = len;
    }

    /// Relocates up to `most` objects from the cursor on.
    fn visit(&mut self, at: &mut usize, most: usize, mover: &mut Mover<'_>) -> Visit {
        for _ in 0..most {
            let Some(item) = self.list.get_mut(*at) else { return Visit::Done };
            item.relocate(mover);
            *at += 1;
            if mover.out_of_time() {
                return Visit::More;
            }
        }
        if *at < self.list.len() { Visit::More } else { Visit::Done }
    }

    /// Everything is there, once, as it should be.
    fn check(&self) {
        assert_eq!(self.list.len(), self.model.len());
        let mut places = BTreeMap::new();
        for (i, (item, model)) in self.list.iter().zip(&self.model).enumerate() {
            assert_eq!(item.is_some(), model.is_some(), "object {i}");
            let (Some(item), Some((id, len))) = (item, model) else { continue };
            assert_eq!(item.len(), *len, "object {i}");
            assert!(item.iter().enumerate().all(|(i, b)| *b == byte(*id, i)), "object {i} changed");
            if item.capacity() > 0 {
                places.insert(item.as_ptr().addr(), item.capacity());
            }
        }
        let owners = self.list.iter().flatten().filter(|item| item.capacity() > 0).count();
        assert_eq!(places.len(), owners, "two objects in one place");
        let mut end = 0;
        for (start, len) in places {
            assert!(start >= end, "two objects overlap");
            end = start + len;
        }
        balanced();
    }
}

/// Works whenever there is anything to gain.
fn eager() -> Settings {
    let mut settings = Settings::default();
    (settings.ignore_bytes, settings.threshold_lower_percent) = (0, 0);
    settings.cycle_max_percent = 100;
    settings
}

/// Takes steps to the end of the pass.
fn run_to_the_end(defrag: &mut Defrag<usize>, data: &mut Data) -> Option<Outcome> {
    while defrag.step(|at, mover| data.visit(at, usize::MAX, mover)) {}
    defrag.last_outcome()
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Insert(/* objects */ usize, /* bytes */ usize),
    Remove(usize),
    Resize(usize, /* bytes */ usize),
    /// Removes all but one in so many, at random.
    Expire(u64),
    /// Takes so many steps, each of which visits so many objects.
    Step(usize, usize),
    Poll(usize, usize),
    /// Lower threshold, highest effort, and microseconds of a step.
    Set(u32, u32, u64),
    Stop,
    Purge,
    Idle,
    /// Another thread allocates and frees from here on, or does not.
    Noise(bool),
    /// Another thread purges from here on, or does not.
    Purger(bool),
}

impl Arbitrary for Op {
    fn arbitrary(g: &mut Gen) -> Self {
        let any = usize::arbitrary(g);
        // Few lengths, so that slabs fill.
        let len = *g.choose(&[0, 8, 24, 100, 100, 700, 3000, 20_000]).unwrap_or(&8);
        match u8::arbitrary(g) % 32 {
            0..=6 => Self::Insert(any % if len > 10_000 { 60 } else { 600 }, len),
            7 => Self::Remove(any),
            8..=9 => Self::Resize(any, len),
            10..=13 => Self::Expire(any as u64 % 9 + 2),
            14..=19 => Self::Step(any % 40, any / 40 % 500),
            20..=24 => Self::Poll(any % 40, any / 40 % 500),
            25 => Self::Set(any as u32 % 2, any as u32 / 2 % 120, any as u64 / 240 % 600),
            26 => Self::Stop,
            27 => Self::Purge,
            28 => Self::Idle,
            29..=30 => Self::Noise(bool::arbitrary(g)),
            _ => Self::Purger(bool::arbitrary(g)),
        }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        match *self {
            Self::Insert(n, len) => Box::new(n.shrink().map(move |n| Self::Insert(n, len))),
            Self::Step(n, most) => Box::new(n.shrink().map(move |n| Self::Step(n, most))),
            Self::Poll(n, most) => Box::new(n.shrink().map(move |n| Self::Poll(n, most))),
            _ => Box::new(std::iter::empty()),
        }
    }
}

/// What all passes did, added up from their outcomes.
#[derive(Default)]
struct Sums {
    passes: u64,
    steps: u64,
    hits: u64,
    misses: u64,
    moved_bytes: u64,
    predicted_bytes: u64,
    released_bytes: u64,
    time: Duration,
    longest_step: Duration,
    /// The outcome of the pass before is entered.
    seen: bool,
}

impl Sums {
    /// Called after every step: enters an outcome once.
    fn note(&mut self, last: Option<Outcome>) {
        if let Some(it) = last.filter(|_| !self.seen) {
            self.passes += 1;
            self.steps += it.steps;
            self.hits += it.hits;
            self.misses += it.misses;
            self.moved_bytes += it.moved_bytes;
            self.predicted_bytes += it.predicted_bytes;
            self.released_bytes += it.released_bytes;
            self.time += it.time;
            self.longest_step = self.longest_step.max(it.longest_step);
        }
        self.seen = last.is_some();
    }

    fn check(&self, before: DefragStats) {
        let now = tallow::stats().defrag;
        assert_eq!(now.passes - before.passes, self.passes, "passes");
        assert_eq!(now.steps - before.steps, self.steps, "steps");
        assert_eq!(now.hits - before.hits, self.hits, "hits");
        assert_eq!(now.misses - before.misses, self.misses, "misses");
        assert_eq!(now.moved_bytes - before.moved_bytes, self.moved_bytes, "moved");
        assert_eq!(now.predicted_bytes - before.predicted_bytes, self.predicted_bytes, "predicted");
        assert_eq!(now.released_bytes - before.released_bytes, self.released_bytes, "released");
        let time_ns = u128::from(now.time_ns - before.time_ns);
        assert_eq!(time_ns, self.time.as_nanos(), "time");
        let longest_ns = self.longest_step.as_nanos();
        assert_eq!(u128::from(now.longest_step_ns), longest_ns.max(before.longest_step_ns.into()));
    }
}

/// Allocates and frees while it is wanted.
fn make_noise(stop: &AtomicBool, wanted: &AtomicBool) {
    let (mut random, mut live) = (Random(77), Data::default());
    while !stop.load(Ordering::Relaxed) {
        if !wanted.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_micros(200));
            continue;
        }
        for _ in 0..random.below(60) {
            live.insert([8, 24, 100, 700, 3000][random.below(5) as usize]);
        }
        for _ in 0..random.below(60) {
            live.remove(random.below(live.list.len().max(1) as u64) as usize);
        }
        if live.list.len() > 3000 {
            live.check();
            live = Data::default();
        }
    }
    live.check();
}

fn run(ops: &[Op]) {
    let _alone = alone();
    let (stop, noise, purger) =
        (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| make_noise(&stop, &noise));
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if purger.load(Ordering::Relaxed) {
                    tallow::purge_all();
                }
                thread::sleep(Duration::from_micros(300));
            }
        });
        let before = tallow::stats().defrag;
        let (mut data, mut sums, mut stopped) = (Data::default(), Sums::default(), false);
        let mut random = Random(ops.len() as u64 + 1);
        let mut defrag = Defrag::<usize>::new(eager());
        for &op in ops {
            let len = data.list.len().max(1);
            match op {
                Op::Insert(n, bytes) => (0..n).for_each(|_| data.insert(bytes)),
                Op::Remove(at) => data.remove(at % len),
                Op::Resize(at, bytes) => {
                    (at % len..len).step_by(7).for_each(|i| data.resize(i, bytes));
                }
                Op::Expire(n) => {
                    (0..len).filter(|_| random.below(n) > 0).for_each(|i| data.remove(i));
                }
                Op::Step(n, most) => {
                    for _ in 0..n {
                        defrag.step(|at, mover| data.visit(at, most, mover));
                        sums.note(defrag.last_outcome());
                    }
                }
                Op::Poll(n, most) => {
                    for _ in 0..n {
                        defrag.poll(|at, mover| data.visit(at, most, mover));
                        sums.note(defrag.last_outcome());
                    }
                }
                Op::Set(lower, max, us) => {
                    let mut settings = eager();
                    settings.threshold_lower_percent = lower;
                    settings.cycle_max_percent = max;
                    settings.step = Duration::from_micros(us);
                    defrag.set(settings);
                    assert_eq!(defrag.settings(), settings);
                }
                Op::Stop => {
                    defrag.stop();
                    stopped = true;
                    assert_eq!(defrag.effort_percent(), 0);
                    assert_eq!(defrag.predicted(), None);
                    assert_eq!(evacuating(), 0);
                }
                Op::Purge => {
                    tallow::purge();
                }
                Op::Idle => tallow::idle(),
                Op::Noise(on) => noise.store(on, Ordering::Relaxed),
                Op::Purger(on) => purger.store(on, Ordering::Relaxed),
            }
            sums.note(defrag.last_outcome());
            data.check();
        }
        defrag.stop();
        sums.note(defrag.last_outcome());
        data.check();
        sums.check(before);
        // And one more, from its beginning to its end, all in steps.
        defrag.set(eager());
        let (before, mut sums) = (tallow::stats().defrag, Sums::default());
        let outcome = run_to_the_end(&mut defrag, &mut data);
        assert!(outcome.is_some());
        sums.note(outcome);
        sums.check(before);
        assert!(!stopped || sums.passes == 1);
        data.check();
    });
}

#[test]
fn nothing_is_lost_whatever_happens_between_steps() {
    fn property(ops: Vec<Op>) -> bool {
        run(&ops);
        true
    }
    QuickCheck::new().tests(60).quickcheck(property as fn(Vec<Op>) -> bool);
}

#[test]
fn below_the_thresholds_it_rests() {
    let _alone = alone();
    let data = Data::sparse(20_000, 100);
    let before = tallow::stats().defrag;
    let mut many_bytes = eager();
    many_bytes.ignore_bytes = 1 << 40;
    let mut large_share = eager();
    large_share.threshold_lower_percent = 1_000_000;
    for settings in [many_bytes, large_share] {
        let mut defrag = Defrag::<usize>::new(settings);
        let start = Instant::now();
        let mut wait = defrag.poll(|_, _| panic!("visited"));
        assert_eq!(wait, Duration::from_millis(100));
        while start.elapsed() < Duration::from_millis(250) {
            assert_eq!(defrag.effort_percent(), 0);
            assert!(wait > Duration::ZERO && wait <= Duration::from_millis(100), "{wait:?}");
            thread::sleep(wait.min(Duration::from_millis(30)));
            wait = defrag.poll(|_, _| panic!("visited"));
        }
        assert_eq!((defrag.last_outcome(), defrag.predicted()), (None, None));
    }
    assert_eq!(tallow::stats().defrag, before);
    data.check();
}

/// Whatever is waited for has come by then, however slow and busy the machine is.
const PATIENCE: Duration = Duration::from_secs(120);

/// Polls until it has been at rest for 300 ms. Returns the passes it took.
fn poll_to_rest(defrag: &mut Defrag<usize>, data: &mut Data) -> u64 {
    let before = tallow::stats().defrag.passes;
    let start = Instant::now();
    let mut at_rest: Option<Instant> = None;
    loop {
        let wait = defrag.poll(|at, mover| data.visit(at, usize::MAX, mover));
        let passes = tallow::stats().defrag.passes - before;
        if defrag.effort_percent() > 0 {
            at_rest = None;
        } else if at_rest.get_or_insert_with(Instant::now).elapsed() > Duration::from_millis(300) {
            return passes;
        }
        let late = start.elapsed() > PATIENCE;
        assert!(passes < 20 && !late, "no rest after {passes} passes");
        thread::sleep(wait.min(Duration::from_millis(20)));
    }
}

/// Starts from a megabyte and 1 % on.
fn sensitive() -> Settings {
    let mut settings = eager();
    (settings.ignore_bytes, settings.threshold_lower_percent) = (1 << 20, 1);
    settings.cycle_max_percent = 50;
    settings
}

#[test]
fn it_comes_to_rest_and_a_new_spike_starts_it_again() {
    let _alone = alone();
    // Every slab holds objects of both lists; the second one is never visited.
    let (mut visited, mut hidden) = (Data::default(), Data::default());
    for _ in 0..60_000 {
        visited.insert(200);
        hidden.insert(200);
    }
    for i in (0..60_000).filter(|i| i % 20 != 0) {
        visited.remove(i);
        hidden.remove(i);
    }
    let mut defrag = Defrag::new(sensitive());
    for round in 0..3 {
        let hits = tallow::stats().defrag.hits;
        let passes = poll_to_rest(&mut defrag, &mut visited);
        assert!((1..=4).contains(&passes), "{passes} passes in round {round}");
        assert!(tallow::stats().defrag.hits > hits, "nothing moved in round {round}");
        assert_eq!(poll_to_rest(&mut defrag, &mut visited), 0);
        visited.check();
        hidden.check();
        // What cannot be had stays where it is: others have to be judged beside it.
        visited.spike(40_000, [600, 1500, 0][round]);
    }
}

#[test]
fn what_is_within_reach_is_gained_in_one_pass() {
    let _alone = alone();
    let mut data = Data::sparse(100_000, 100);
    let mut defrag = Defrag::new(sensitive());
    let before = tallow::stats();
    assert!(before.evacuable_bytes() > 5 << 20, "{before}");
    let passes = poll_to_rest(&mut defrag, &mut data);
    assert!((1..=2).contains(&passes), "{passes} passes");
    let after = tallow::stats();
    assert!(after.evacuable_bytes() < before.evacuable_bytes() / 5, "{before}\n{after}");
    let released = after.defrag.released_bytes - before.defrag.released_bytes;
    assert!(released > before.evacuable_bytes() / 10 * 8, "{before}\n{after}");
    data.check();
}

#[test]
fn effort_stays_within_its_limits_and_never_falls_during_a_pass() {
    let _alone = alone();
    // Shares of 0 to 10,000 %: what there is to gain makes a middling effort.
    let mut settings = sensitive();
    (settings.cycle_min_percent, settings.cycle_max_percent) = (20, 60);
    settings.threshold_upper_percent = 2000;
    let mut data = Data::sparse(50_000, 100);
    let mut defrag = Defrag::<usize>::new(settings);
    let poll = |defrag: &mut Defrag<usize>, data: &mut Data| {
        let wait = defrag.poll(|at, mover| data.visit(at, 20, mover));
        thread::sleep(wait);
        defrag.effort_percent()
    };
    while defrag.predicted().is_none() {
        poll(&mut defrag, &mut data);
    }
    let first = defrag.effort_percent();
    assert!((20..60).contains(&first), "{first}");
    // More to gain: more effort, once it is judged again.
    data.spike(200_000, 700);
    let (mut high, start) = (first, Instant::now());
    while high == first || start.elapsed() < Duration::from_millis(250) {
        assert!(start.elapsed() < PATIENCE, "it stays at {high}");
        let now = poll(&mut defrag, &mut data);
        assert!(now >= high && now <= 60, "{high} then {now}");
        high = now;
    }
    // Nothing to gain any more: what has begun is ended as it was.
    (0..data.list.len()).for_each(|i| data.remove(i));
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(250) {
        assert_eq!(poll(&mut defrag, &mut data), high);
    }
    assert!(defrag.predicted().is_some(), "the pass is over: nothing was shown");
    defrag.stop();
    assert_eq!(defrag.effort_percent(), 0);
    data.check();
}

#[test]
fn waiting_pays_for_every_step() {
    let _alone = alone();
    let mut settings = eager();
    settings.threshold_upper_percent = 0;
    (settings.cycle_min_percent, settings.cycle_max_percent) = (10, 10);
    let mut data = Data::sparse(20_000, 100);
    let mut defrag = Defrag::<usize>::new(settings);
    let (start, mut visits, mut due) = (Instant::now(), 0, None::<Instant>);
    while defrag.last_outcome().is_none() {
        let (before, mut within, mut called) = (Instant::now(), Duration::ZERO, false);
        let wait = defrag.poll(|at, mover| {
            let visited = Instant::now();
            called = true;
            let visit = data.visit(at, 500, mover);
            while visited.elapsed() < Duration::from_micros(300) {}
            within = visited.elapsed();
            visit
        });
        let around = before.elapsed();
        // The work is not done before its time.
        assert!(!called || due.is_none_or(|due| before + around >= due));
        if defrag.effort_percent() > 0 && called {
            // The step took at least the visit, and at most the call.
            assert_eq!(defrag.effort_percent(), 10);
            assert!(wait <= around * 9, "{wait:?} for {around:?}");
            assert!(wait >= within * 9, "{wait:?} for {within:?}");
            visits += 1;
            // Asked too early, it does nothing.
            due = Some(before + within + wait);
            let left = defrag.poll(|_, _| {
                assert!(Instant::now() >= before + within + wait, "too early");
                Visit::More
            });
            assert!(left <= wait || Instant::now() >= before + wait);
        }
        thread::sleep(wait);
    }
    let wall = start.elapsed();
    assert!(visits > 10, "{visits} visits");
    let outcome = defrag.last_outcome().expect("the pass is over");
    assert!(outcome.released_bytes > 0);
    assert!(outcome.time * 100 <= wall * 10 * 2, "{:?} of {wall:?}", outcome.time);
    data.check();
}

#[test]
fn one_that_finds_another_at_work_does_nothing() {
    let _alone = alone();
    let mut data = Data::sparse(20_000, 100);
    let (mut first, mut second) = (Defrag::<usize>::new(eager()), Defrag::<usize>::new(eager()));
    while first.predicted().is_none() {
        assert!(first.step(|_, _| panic!("planning")));
    }
    let before = tallow::stats().defrag;
    for _ in 0..10 {
        assert!(!second.step(|_, _| panic!("visited")));
        second.poll(|_, _| panic!("visited"));
        assert_eq!((second.effort_percent(), second.last_outcome()), (0, None));
    }
    second.stop();
    drop(second);
    assert_eq!(tallow::stats().defrag, before);
    let outcome = run_to_the_end(&mut first, &mut data).expect("the pass is over");
    assert!(outcome.slabs_released > 0, "{outcome:?}");
    data.check();
}

#[test]
fn a_bounded_pass_takes_what_is_cheapest() {
    let _alone = alone();
    // Some slabs are nearly empty, others half full, in several classes.
    let mut data = Data::default();
    let mut random = Random(5);
    for len in [48, 100, 700, 3000] {
        let (from, count) = (data.list.len(), 8 << 20);
        (0..count / len).for_each(|_| data.insert(len));
        let chunk = (data.list.len() - from) / 20;
        for i in from..data.list.len() {
            let stays = (i - from) / chunk.max(1) * 3;
            if random.below(100) >= stays as u64 {
                data.remove(i);
            }
        }
    }
    let whole = Pass::begin(Options::default());
    let full = whole.predicted();
    drop(whole);
    assert!(full.released_bytes > 8 << 20, "{full:?}");
    let largest = tallow::stats().classes.iter().map(|c| c.slab_bytes).max().unwrap_or(0);
    for part in [4, 3, 2] {
        let mut options = Options::default();
        options.max_gain_bytes = full.released_bytes / part / 2;
        let mut pass = Pass::begin(options);
        let few = pass.predicted();
        assert!(few.released_bytes <= options.max_gain_bytes + largest, "{few:?} {options:?}");
        assert!(few.released_bytes >= options.max_gain_bytes / 10 * 9, "{few:?} {options:?}");
        // The first buys the cheapest of all.
        if part == 4 {
            let (paid, got) = (u128::from(few.moved_bytes), u128::from(few.released_bytes));
            let full_price = u128::from(full.moved_bytes) * got;
            assert!(paid * u128::from(full.released_bytes) <= full_price, "{few:?} {full:?}");
        }
        let mut at = 0;
        let visit = data.visit(&mut at, usize::MAX, &mut pass.step(Duration::from_secs(60)));
        assert_eq!(visit, Visit::Done);
        let outcome = pass.finish();
        let foreign = few.regions.saturating_sub(outcome.hits);
        assert!(outcome.slabs_released + foreign >= few.slabs, "{outcome:?} {few:?}");
        assert!(outcome.released_bytes <= few.released_bytes);
        assert!(outcome.moved_bytes <= few.moved_bytes + few.moved_bytes / 20 + 4096);
        data.check();
    }
}

#[test]
fn slabs_may_come_and_go_while_a_pass_is_planned() {
    let _alone = alone();
    // A thousand slabs of a class, some of which are marked in each step. Objects
    // beside each other lie in the same slab.
    const NEIGHBOURS: usize = 20;
    let mut settings = eager();
    settings.step = Duration::ZERO;
    let (mut random, mut defrag) = (Random(3), Defrag::<usize>::new(settings));
    let mut between = 0;
    for _ in 0..8 {
        let mut data = Data::sparse(20_000, 3000);
        let mut marked = 0;
        loop {
            assert!(defrag.step(|_, _| panic!("planning")));
            if defrag.predicted().is_some() {
                break;
            }
            // A third of the slabs become empty and go; others are filled.
            if evacuating() > marked {
                for at in (0..data.list.len()).step_by(NEIGHBOURS) {
                    if random.below(3) == 0 {
                        (at..at + NEIGHBOURS).for_each(|i| data.remove(i));
                    }
                }
                data.spike(400, 3000);
                tallow::idle();
                marked = evacuating();
                between += 1;
            }
            balanced();
        }
        data.check();
        assert!(run_to_the_end(&mut defrag, &mut data).is_some());
        data.check();
    }
    assert!(between > 20, "{between} steps in which slabs were marked");
}

#[test]
fn a_panic_in_the_visit_costs_one_step() {
    let _alone = alone();
    let mut data = Data::sparse(40_000, 100);
    let mut defrag = Defrag::<usize>::new(eager());
    let (mut panics, mut visits) = (0, 0);
    for turn in 0..100_000 {
        let visit = |at: &mut usize, mover: &mut Mover<'_>| {
            let visit = data.visit(at, 1000, mover);
            visits += 1;
            if visits % 2 == 0 {
                // Without a message.
                resume_unwind(Box::new("the visit fails"));
            }
            visit
        };
        let stepped = catch_unwind(AssertUnwindSafe(|| {
            if turn % 2 == 0 { defrag.step(visit) } else { defrag.poll(visit) > Duration::MAX }
        }));
        if stepped.is_err() {
            panics += 1;
            assert!(defrag.effort_percent() > 0, "the pass is over");
            data.check();
        }
        if defrag.last_outcome().is_some() {
            break;
        }
    }
    assert!(panics > 10, "{panics}");
    let outcome = defrag.last_outcome().expect("an end");
    let predicted = outcome.predicted_bytes;
    assert!(outcome.moved_bytes + (16 << 10) >= predicted, "{outcome:?}");
    assert!(outcome.slabs_released > 0);
    data.check();
}

/// Runs `work` in a forked child; whether it ended without a panic.
#[cfg(target_os = "linux")]
fn in_a_child(work: impl FnOnce()) -> bool {
    // SAFETY: the child works on one thread, and ends by `_exit`.
    match unsafe { libc::fork() } {
        0 => exit_child(work),
        child => ended_well(child),
    }
}

#[cfg(target_os = "linux")]
fn exit_child(work: impl FnOnce()) -> ! {
    let fine = catch_unwind(AssertUnwindSafe(work)).is_ok();
    // SAFETY: ends the child at once.
    unsafe { libc::_exit(i32::from(!fine)) }
}

#[cfg(target_os = "linux")]
fn ended_well(child: libc::pid_t) -> bool {
    let mut status = 0;
    // SAFETY: `child` is our child, `status` a valid place.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    child > 0 && waited == child && status == 0
}

/// What a child does with the pass that it has inherited, and with its own.
#[cfg(target_os = "linux")]
fn child_goes_on(defrag: &mut Defrag<usize>, data: &mut Data, gain: bool) {
    data.check();
    assert!(!defrag.step(|_, _| panic!("the parent's pass")));
    data.check();
    // Its own begins with what the parent's has marked.
    assert!(defrag.step(|_, _| panic!("planning")));
    assert_eq!(evacuating(), 0);
    let outcome = run_to_the_end(defrag, data).expect("a pass of the child's own");
    assert!(!gain || outcome.slabs_released > 0, "{outcome:?}");
    assert_eq!(evacuating(), 0);
    data.spike(5000, 100);
    assert!(run_to_the_end(defrag, data).is_some_and(|it| it.slabs_released > 0));
    tallow::purge();
    data.check();
}

#[test]
#[cfg(target_os = "linux")]
fn forked_children_have_a_whole_heap_in_each_phase() {
    let _alone = alone();
    let mut settings = eager();
    settings.step = Duration::ZERO;
    let mut data = Data::sparse(30_000, 100);
    let mut defrag = Defrag::<usize>::new(settings);
    // Planning, visiting, with a mover in hand, ending.
    let (mut forks, mut steps, mut done) = ([0; 4], 0, false);
    loop {
        let (mut child, mut visited) = (None, false);
        let more = defrag.step(|at, mover| {
            visited = true;
            let visit = data.visit(at, 60, mover);
            if steps % 7 == 0 {
                // SAFETY: the child goes on below, and ends by `_exit`.
                child = Some(unsafe { libc::fork() });
            }
            done = visit == Visit::Done;
            visit
        });
        match child {
            Some(0) => exit_child(|| child_goes_on(&mut defrag, &mut data, false)),
            Some(child) => {
                assert!(ended_well(child), "a mover in hand, step {steps}");
                forks[2] += 1;
            }
            None => {}
        }
        if !more {
            break;
        }
        let phase = match (defrag.predicted(), done) {
            (None, _) => 0,
            (Some(_), false) => 1,
            (Some(_), true) => 3,
        };
        // The first of each phase, and some behind.
        if forks[phase] == 0 || steps % 101 == 0 {
            // The child has as much to gain as the parent had.
            let gain = phase == 0;
            let fine = in_a_child(|| child_goes_on(&mut defrag, &mut data, gain));
            assert!(fine, "phase {phase}, step {steps}");
            forks[phase] += 1;
        }
        steps += 1;
    }
    assert!(forks.iter().all(|n| *n > 0), "{forks:?}");
    let outcome = defrag.last_outcome().expect("the parent's pass");
    assert!(outcome.slabs_released > 20, "{outcome:?}");
    data.check();
}

#[test]
#[cfg(target_os = "linux")]
fn leaked_movers_do_no_harm() {
    let _alone = alone();
    let mut data = Data::sparse(20_000, 100);
    let mut pass = Pass::begin(Options::default());
    let (held, mut at) = (tallow::stats().requested_bytes, 0);
    for _ in 0..5 {
        let mut mover = pass.step(Duration::from_secs(60));
        data.visit(&mut at, 2000, &mut mover);
        std::mem::forget(mover);
        data.check();
        tallow::purge();
        // A child has the regions on the desk too.
        assert!(in_a_child(|| {
            data.check();
            let mut defrag = Defrag::<usize>::new(eager());
            assert!(run_to_the_end(&mut defrag, &mut data).is_some());
            data.check();
        }));
    }
    data.visit(&mut at, usize::MAX, &mut pass.step(Duration::from_secs(60)));
    assert!(pass.finish().slabs_released > 0);
    data.check();
    assert!(tallow::stats().requested_bytes.abs_diff(held) < 64 << 10);
}

#[test]
#[cfg(target_os = "linux")]
fn after_a_leaked_defrag_the_others_do_nothing() {
    let _alone = alone();
    let mut data = Data::sparse(20_000, 100);
    let fine = in_a_child(|| {
        let mut leaked = Box::new(Defrag::<usize>::new(eager()));
        while leaked.predicted().is_none() {
            assert!(leaked.step(|_, _| panic!("planning")));
        }
        assert!(leaked.step(|at, mover| data.visit(at, 5000, mover)));
        std::mem::forget(leaked);
        data.check();
        assert_eq!(Pass::begin(Options::default()).predicted().slabs, 0);
        let mut other = Defrag::<usize>::new(eager());
        for _ in 0..5 {
            assert!(!other.step(|_, _| panic!("visited")));
            other.poll(|_, _| panic!("visited"));
        }
        assert_eq!(other.last_outcome(), None);
        // Memory is given out and taken back as ever.
        data.spike(20_000, 100);
        (0..10_000).for_each(|i| data.remove(i));
        tallow::purge();
        data.check();
        // A child of the child is free of it.
        assert!(in_a_child(|| {
            assert!(run_to_the_end(&mut other, &mut data).is_some_and(|it| it.slabs_released > 0));
            data.check();
        }));
    });
    assert!(fine);
    data.check();
    let mut defrag = Defrag::<usize>::new(eager());
    assert!(run_to_the_end(&mut defrag, &mut data).is_some_and(|it| it.slabs_released > 0));
}

#[test]
fn mutators_janitor_and_passes_get_along() {
    let _alone = alone();
    tallow::set_decay(Some(Duration::from_millis(64)));
    tallow::janitor::start().expect("a thread");
    let (stop, shared) = (AtomicBool::new(false), Mutex::new(Data::sparse(30_000, 100)));
    let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
    let passes = thread::scope(|scope| {
        let _stop = Stop(&stop);
        for seed in 1..=2 {
            let stop = &stop;
            scope.spawn(move || {
                let (mut random, mut own) = (Random(seed), Data::default());
                while !stop.load(Ordering::Relaxed) {
                    (0..random.below(3000)).for_each(|i| own.insert(20 + i as usize % 5 * 190));
                    let len = own.list.len() as u64;
                    (0..len / 2).for_each(|_| own.remove(random.below(len) as usize));
                    if len > 20_000 {
                        own.check();
                        own = Data::default();
                        // Long enough for the janitor to see the process at rest.
                        thread::sleep(Duration::from_millis(40));
                    }
                }
                own.check();
            });
        }
        let runner = scope.spawn(|| {
            let mut settings = eager();
            settings.step = Duration::from_micros(100);
            let (mut defrag, mut passes) = (Defrag::<usize>::new(settings), 0);
            while !stop.load(Ordering::Relaxed) {
                let mut data = lock();
                passes += u32::from(!defrag.step(|at, mover| data.visit(at, 1000, mover)));
            }
            passes
        });
        let (mut random, start, mut round) = (Random(9), Instant::now(), 0);
        while start.elapsed() < Duration::from_millis(2500) {
            thread::sleep(Duration::from_millis(1));
            let mut data = lock();
            for _ in 0..200 {
                let at = random.below(data.list.len() as u64) as usize;
                data.resize(at, 20 + random.below(5) as usize * 190);
                data.remove(at / 2);
                data.insert(100);
            }
            if data.list.len() > 60_000 {
                *data = Data::sparse(30_000, 100);
            }
            round += 1;
            if round % 50 == 0 {
                tallow::janitor::stop();
                data.check();
                tallow::janitor::start().expect("a thread");
            } else if round % 5 == 0 {
                tallow::purge_all();
            }
        }
        stop.store(true, Ordering::Relaxed);
        runner.join().unwrap_or_else(|panic| resume_unwind(panic))
    });
    tallow::janitor::stop();
    tallow::set_decay(Some(Duration::from_secs(10)));
    assert!(passes > 3, "{passes} passes");
    lock().check();
}
