//! Defragmentation beside plain descriptions of the data that is moved: no
//! object is lost, doubled or changed, whatever happens between the steps.

use quickcheck::{Arbitrary, Gen, QuickCheck};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tallow::defrag::{Mover, Options, Outcome, Pass, Relocate};

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

fn slabs() -> u64 {
    tallow::stats().classes.iter().map(|c| c.slabs).sum()
}

/// A long time: the step looks at everything.
const ALL: Duration = Duration::from_secs(60);

/// Contents that tell which object they belong to.
fn bytes(id: u32, len: usize) -> Vec<u8> {
    (0..len).map(|i| (id as usize * 31 + i * 7) as u8).collect()
}

fn text(id: u32, len: usize) -> String {
    let mut text = format!("{id}:");
    text.extend(std::iter::repeat_n('x', len));
    text
}

/// What an object should look like.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sketch {
    id: u32,
    len: usize,
}

impl Sketch {
    fn is(self, found: &[u8]) {
        assert_eq!(found, bytes(self.id, self.len), "{self:?} changed");
    }
}

type Boxed = Option<Box<[u8]>>;
type Nested = Option<(Box<[u8]>, Option<(String, Vec<Vec<u8>>)>)>;

/// The data, and beside each part what it should be.
#[derive(Default)]
struct World {
    boxes: (Vec<Boxed>, Vec<Option<Sketch>>),
    strings: (Vec<String>, Vec<Sketch>),
    map: (HashMap<u32, Vec<u8>>, BTreeMap<u32, Sketch>),
    queue: (VecDeque<Box<u64>>, VecDeque<u64>),
    nested: (Vec<Nested>, Vec<Sketch>),
    next_id: u32,
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Boxes,
    Strings,
    Map,
    Queue,
    Nested,
}
const PARTS: [Part; 5] = [Part::Boxes, Part::Strings, Part::Map, Part::Queue, Part::Nested];

#[derive(Clone, Copy, Debug)]
enum Op {
    Push(Part, /* objects */ usize, /* bytes */ usize),
    /// Drops all but every n-th.
    Drop(Part, usize),
    /// Gives every n-th another length.
    Mutate(Part, /* n */ usize, /* bytes */ usize),
    Begin,
    /// Visits so many objects of a part from there on.
    Step(Part, /* from */ usize, /* objects */ usize),
    /// Visits everything.
    StepAll,
    Finish,
    Purge,
}

impl Arbitrary for Op {
    fn arbitrary(g: &mut Gen) -> Self {
        let part = *g.choose(&PARTS).unwrap_or(&Part::Boxes);
        let any = usize::arbitrary(g);
        // Few lengths, so that slabs fill.
        let len = *g.choose(&[0, 8, 24, 100, 100, 700, 3000]).unwrap_or(&8);
        match u8::arbitrary(g) % 20 {
            0..=5 => Self::Push(part, any % 400, len),
            6..=9 => Self::Drop(part, any % 9 + 2),
            10..=11 => Self::Mutate(part, any % 5 + 2, len),
            12..=13 => Self::Begin,
            14..=15 => Self::Step(part, any % 300, any / 300 % 300),
            16 => Self::StepAll,
            17 => Self::Finish,
            _ => Self::Purge,
        }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let none = Box::new(std::iter::empty());
        match *self {
            Self::Push(part, n, len) => {
                Box::new((n, len).shrink().map(move |(n, len)| Self::Push(part, n, len)))
            }
            Self::Drop(part, n) => Box::new((n - 2).shrink().map(move |n| Self::Drop(part, n + 2))),
            Self::Mutate(part, n, len) => {
                Box::new(len.shrink().map(move |len| Self::Mutate(part, n, len)))
            }
            Self::Step(part, from, n) => {
                Box::new((from, n).shrink().map(move |(from, n)| Self::Step(part, from, n)))
            }
            Self::Begin | Self::StepAll | Self::Finish | Self::Purge => none,
        }
    }
}

fn nested_of(s: Sketch) -> Nested {
    let inner = (!s.id.is_multiple_of(3)).then(|| {
        let parts = (0..s.id % 4).map(|i| bytes(s.id + i, s.len / 2)).collect();
        (text(s.id, s.len), parts)
    });
    Some((bytes(s.id, s.len).into_boxed_slice(), inner))
}

/// Keeps every n-th of a list and of its sketches.
fn keep<T, S>(data: &mut Vec<T>, sketches: &mut Vec<S>, n: usize) {
    for kept in [0, 1] {
        let mut i = 0;
        let mut every = || {
            i += 1;
            (i - 1) % n == 0
        };
        if kept == 0 { data.retain(|_| every()) } else { sketches.retain(|_| every()) }
    }
}

impl World {
    fn push(&mut self, part: Part, len: usize) {
        let id = self.next_id;
        self.next_id += 1;
        let s = Sketch { id, len };
        match part {
            Part::Boxes => {
                let some = !id.is_multiple_of(5);
                self.boxes.0.push(some.then(|| bytes(id, len).into_boxed_slice()));
                self.boxes.1.push(some.then_some(s));
            }
            Part::Strings => {
                self.strings.0.push(text(id, len));
                self.strings.1.push(s);
            }
            Part::Map => {
                self.map.0.insert(id, bytes(id, len));
                self.map.1.insert(id, s);
            }
            Part::Queue => {
                if id.is_multiple_of(3) {
                    self.queue.0.push_front(Box::new(id.into()));
                    self.queue.1.push_front(id.into());
                } else {
                    self.queue.0.push_back(Box::new(id.into()));
                    self.queue.1.push_back(id.into());
                }
            }
            Part::Nested => {
                self.nested.0.push(nested_of(s));
                self.nested.1.push(s);
            }
        }
    }

    fn drop_all_but(&mut self, part: Part, n: usize) {
        match part {
            Part::Boxes => {
                for (i, (item, s)) in self.boxes.0.iter_mut().zip(&mut self.boxes.1).enumerate() {
                    if i % n != 0 {
                        (*item, *s) = (None, None);
                    }
                }
            }
            Part::Strings => keep(&mut self.strings.0, &mut self.strings.1, n),
            Part::Map => {
                self.map.0.retain(|id, _| (*id as usize).is_multiple_of(n));
                self.map.1.retain(|id, _| (*id as usize).is_multiple_of(n));
            }
            Part::Queue => {
                for _ in 0..self.queue.0.len() / n {
                    assert_eq!(
                        self.queue.0.pop_front().as_deref(),
                        self.queue.1.pop_front().as_ref()
                    );
                    assert_eq!(
                        self.queue.0.pop_back().as_deref(),
                        self.queue.1.pop_back().as_ref()
                    );
                }
            }
            Part::Nested => keep(&mut self.nested.0, &mut self.nested.1, n),
        }
    }

    fn mutate(&mut self, part: Part, n: usize, len: usize) {
        let change = |s: &mut Sketch| s.len = len;
        match part {
            Part::Boxes => {
                for (item, s) in self.boxes.0.iter_mut().zip(&mut self.boxes.1).step_by(n) {
                    if let Some(s) = s {
                        change(s);
                        *item = Some(bytes(s.id, s.len).into_boxed_slice());
                    }
                }
            }
            Part::Strings => {
                for (item, s) in self.strings.0.iter_mut().zip(&mut self.strings.1).step_by(n) {
                    change(s);
                    item.clear();
                    item.push_str(&text(s.id, s.len));
                    item.shrink_to_fit();
                }
            }
            Part::Map => {
                for (id, s) in self.map.1.iter_mut().step_by(n) {
                    change(s);
                    let value = self.map.0.get_mut(id).expect("in the map");
                    value.clear();
                    value.extend_from_slice(&bytes(s.id, s.len));
                }
            }
            Part::Queue => {
                for (item, s) in self.queue.0.iter_mut().zip(&mut self.queue.1).step_by(n) {
                    *s += 1 << 32;
                    **item += 1 << 32;
                }
                self.queue.0.rotate_left(self.queue.1.len() / n);
                self.queue.1.rotate_left(self.queue.1.len() / n);
            }
            Part::Nested => {
                for (item, s) in self.nested.0.iter_mut().zip(&mut self.nested.1).step_by(n) {
                    change(s);
                    *item = nested_of(*s);
                }
            }
        }
    }

    fn relocate(&mut self, part: Part, from: usize, n: usize, mover: &mut Mover<'_>) {
        fn some<T: Relocate>(list: &mut [T], from: usize, n: usize, mover: &mut Mover<'_>) {
            let from = from.min(list.len());
            let to = (from + n).min(list.len());
            list[from..to].relocate(mover);
        }
        match part {
            Part::Boxes => some(&mut self.boxes.0, from, n, mover),
            Part::Strings => some(&mut self.strings.0, from, n, mover),
            Part::Map => self.map.0.relocate(mover),
            Part::Queue => self.queue.0.relocate(mover),
            Part::Nested => some(&mut self.nested.0, from, n, mover),
        }
    }

    fn relocate_all(&mut self, mover: &mut Mover<'_>) {
        self.boxes.0.relocate(mover);
        self.strings.0.relocate(mover);
        self.map.0.relocate(mover);
        self.queue.0.relocate(mover);
        self.nested.0.relocate(mover);
    }

    /// What was visited lies in no slab that is being emptied.
    fn is_out_of_the_plan(&self, mover: &Mover<'_>) {
        let stays = |bytes: &[u8]| assert!(!mover.should_move(bytes), "was not moved");
        self.boxes.0.iter().flatten().for_each(|item| stays(item));
        self.strings.0.iter().for_each(|item| stays(item.as_bytes()));
        self.map.0.values().for_each(|item| stays(item));
        self.queue.0.iter().for_each(|item| assert!(!mover.should_move(&**item)));
        for (head, inner) in self.nested.0.iter().flatten() {
            stays(head);
            if let Some((name, parts)) = inner {
                stays(name.as_bytes());
                parts.iter().for_each(|part| stays(part));
            }
        }
    }

    /// Everything is there, once, as it should be.
    fn check(&self) {
        let mut places = Places::default();
        let (boxes, sketches) = &self.boxes;
        assert_eq!(boxes.len(), sketches.len());
        places.vec(boxes);
        for (item, s) in boxes.iter().zip(sketches) {
            assert_eq!(item.is_some(), s.is_some());
            if let (Some(item), Some(s)) = (item, s) {
                s.is(item);
                places.add(item.as_ptr(), item.len());
            }
        }
        assert_eq!(self.strings.0.len(), self.strings.1.len());
        places.vec(&self.strings.0);
        for (item, s) in self.strings.0.iter().zip(&self.strings.1) {
            assert_eq!(*item, text(s.id, s.len));
            places.add(item.as_ptr(), item.capacity());
        }
        assert_eq!(self.map.0.len(), self.map.1.len());
        for (id, s) in &self.map.1 {
            let value = &self.map.0[id];
            s.is(value);
            places.vec(value);
        }
        assert!(self.queue.0.iter().map(|b| **b).eq(self.queue.1.iter().copied()));
        self.queue.0.iter().for_each(|item| places.add((&raw const **item).cast(), 8));
        assert_eq!(self.nested.0.len(), self.nested.1.len());
        places.vec(&self.nested.0);
        for (item, s) in self.nested.0.iter().zip(&self.nested.1) {
            assert!(*item == nested_of(*s), "{s:?} changed");
            let Some((head, inner)) = item else { continue };
            places.add(head.as_ptr(), head.len());
            if let Some((name, parts)) = inner {
                places.add(name.as_ptr(), name.capacity());
                places.vec(parts);
                parts.iter().for_each(|part| places.vec(part));
            }
        }
        balanced();
    }
}

/// Where objects lie: no two in the same place.
#[derive(Default)]
struct Places(BTreeMap<usize, usize>);

impl Places {
    fn add(&mut self, at: *const u8, len: usize) {
        if len == 0 {
            return;
        }
        let (start, end) = (at.addr(), at.addr() + len);
        let below = self.0.range(..end).next_back();
        assert!(below.is_none_or(|(_, &e)| e <= start), "two objects in one place");
        self.0.insert(start, end);
    }

    fn vec<T>(&mut self, list: &Vec<T>) {
        self.add(list.as_ptr().cast(), list.capacity() * size_of::<T>());
    }
}

fn check_outcome(outcome: &Outcome, predicted: u64) {
    assert_eq!(outcome.predicted_bytes, predicted);
    let most = predicted + predicted / 20 + 4096;
    assert!(outcome.moved_bytes <= most, "moved {} of {predicted}", outcome.moved_bytes);
}

fn run(ops: &[Op]) {
    let _alone = alone();
    let mut world = World::default();
    let mut pass: Option<Pass> = None;
    for &op in ops {
        match op {
            Op::Push(part, n, len) => (0..n).for_each(|_| world.push(part, len)),
            Op::Drop(part, n) => world.drop_all_but(part, n),
            Op::Mutate(part, n, len) => world.mutate(part, n, len),
            Op::Begin => match &pass {
                None => pass = Some(Pass::begin(Options::default())),
                Some(_) => does_nothing(&mut world),
            },
            Op::Step(part, from, n) => {
                if let Some(pass) = &mut pass {
                    world.relocate(part, from, n, &mut pass.step(ALL));
                }
            }
            Op::StepAll => {
                if let Some(pass) = &mut pass {
                    let mut mover = pass.step(ALL);
                    world.relocate_all(&mut mover);
                    world.is_out_of_the_plan(&mover);
                }
            }
            Op::Finish => {
                if let Some(pass) = pass.take() {
                    let predicted = pass.predicted().moved_bytes;
                    check_outcome(&pass.finish(), predicted);
                }
            }
            Op::Purge => {
                tallow::purge();
            }
        }
        world.check();
    }
    drop(pass);
    world.check();
}

/// A pass begun while another runs.
fn does_nothing(world: &mut World) {
    let mut second = Pass::begin(Options::default());
    assert_eq!(second.predicted().slabs, 0);
    assert_eq!(second.predicted().moved_bytes, 0);
    world.relocate_all(&mut second.step(ALL));
    let outcome = second.finish();
    assert_eq!((outcome.hits, outcome.moved_bytes, outcome.slabs_released), (0, 0, 0));
}

#[test]
fn data_stays_the_same_whatever_happens_between_steps() {
    fn property(ops: Vec<Op>) -> bool {
        run(&ops);
        true
    }
    QuickCheck::new().tests(80).quickcheck(property as fn(Vec<Op>) -> bool);
}

/// Many objects, of which one in ten stays.
fn sparse(len: usize) -> Vec<Option<Box<[u8]>>> {
    let mut list: Vec<_> = (0..20_000).map(|i| Some(bytes(i, len).into_boxed_slice())).collect();
    for (i, item) in list.iter_mut().enumerate() {
        if i % 10 != 3 {
            *item = None;
        }
    }
    list
}

fn check_sparse(list: &[Option<Box<[u8]>>], len: usize) {
    for (i, item) in list.iter().enumerate() {
        assert_eq!(item.is_some(), i % 10 == 3);
        if let Some(item) = item {
            assert!(**item == *bytes(i as u32, len), "object {i} changed");
        }
    }
}

#[test]
fn a_whole_visit_releases_what_was_predicted() {
    let _alone = alone();
    for len in [16, 100, 1000, 5000] {
        let mut list = sparse(len);
        let mut pass = Pass::begin(Options::default());
        let (before, predicted) = (slabs(), pass.predicted());
        let held = tallow::stats();
        assert!(predicted.slabs >= 5, "{len}: {predicted:?}");
        list.relocate(&mut pass.step(ALL));
        balanced();
        // Nothing stays with the pass between two steps.
        let between = tallow::stats().allocated_bytes;
        assert!(held.allocated_bytes.abs_diff(between) < 64 << 10, "{len}");
        let outcome = pass.finish();
        check_outcome(&outcome, predicted.moved_bytes);
        check_sparse(&list, len);
        balanced();
        // Objects of the test runner lie in some, and hold one slab each at most.
        let foreign = predicted.regions - outcome.hits;
        assert!(foreign <= 64, "{len}: {outcome:?} {predicted:?}");
        assert!(
            outcome.slabs_released + foreign >= predicted.slabs,
            "{len}: {outcome:?} {predicted:?}"
        );
        let now = slabs();
        assert!(now + outcome.slabs_released <= before + 6, "{len}: {before} {now} {outcome:?}");
        let after = tallow::stats();
        assert_eq!(after.classes.iter().map(|c| c.slabs_evacuating).sum::<u64>(), 0);
        assert!(held.requested_bytes.abs_diff(after.requested_bytes) < 64 << 10);
        assert!(held.allocated_bytes.abs_diff(after.allocated_bytes) < 64 << 10);
    }
}

#[test]
fn small_gains_are_left_alone() {
    let _alone = alone();
    let mut list = sparse(100);
    let mut options = Options::default();
    options.min_gain_bytes = 1 << 40;
    let mut pass = Pass::begin(options);
    assert_eq!(pass.predicted().slabs, 0);
    list.relocate(&mut pass.step(ALL));
    assert_eq!(pass.finish().moved_bytes, 0);
    check_sparse(&list, 100);
    balanced();
}

#[test]
fn one_pass_at_a_time() {
    let _alone = alone();
    let mut list = sparse(100);
    let mut first = Pass::begin(Options::default());
    assert!(first.predicted().slabs > 0);
    does_nothing(&mut World::default());
    let mut second = Pass::begin(Options::default());
    list.relocate(&mut second.step(ALL));
    drop(second);
    // The end of the second is not the end of the first.
    does_nothing(&mut World::default());
    list.relocate(&mut first.step(ALL));
    let outcome = first.finish();
    assert!(outcome.slabs_released > 0);
    check_sparse(&list, 100);
    // And now there is room for another.
    let third = Pass::begin(Options::default());
    drop(third);
    let mut list = sparse(200);
    let mut fourth = Pass::begin(Options::default());
    assert!(fourth.predicted().slabs > 0);
    list.relocate(&mut fourth.step(ALL));
    assert!(fourth.finish().slabs_released > 0);
    check_sparse(&list, 200);
    balanced();
}

thread_local! {
    /// Visits until the next panic.
    static FUSE: Cell<u32> = const { Cell::new(u32::MAX) };
}

/// An owner whose `relocate` panics, between two of its fields.
struct Brittle {
    first: Box<[u8]>,
    #[allow(clippy::vec_box, reason = "small blocks of their own")]
    second: Vec<Box<u64>>,
}

impl Relocate for Brittle {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        self.first.relocate(mover);
        let left = FUSE.get();
        FUSE.set(left.wrapping_sub(1));
        assert!(left != 0, "the fuse is burnt");
        self.second.relocate(mover);
    }
}

#[test]
fn a_panic_in_relocate_leaves_everything_valid() {
    let _alone = alone();
    fn property(fuses: Vec<u8>) -> bool {
        let make = |i: u32| Brittle {
            first: bytes(i, 300).into_boxed_slice(),
            second: (0..3).map(|j| Box::new(u64::from(i * 4 + j))).collect(),
        };
        let mut list: Vec<Option<Brittle>> = (0..2000).map(|i| Some(make(i))).collect();
        list.iter_mut().enumerate().filter(|(i, _)| i % 7 != 0).for_each(|(_, b)| *b = None);
        let check = |list: &[Option<Brittle>]| {
            let mut places = Places::default();
            for (i, item) in list.iter().enumerate() {
                let Some(item) = item else { continue };
                let id = i as u32;
                assert!(*item.first == *bytes(id, 300), "object {i} changed");
                assert!(item.second.iter().map(|b| **b).eq((0..3).map(|j| u64::from(id * 4 + j))));
                places.add(item.first.as_ptr(), 300);
                places.vec(&item.second);
                item.second.iter().for_each(|b| places.add((&raw const **b).cast(), 8));
            }
            balanced();
        };
        let mut pass = Pass::begin(Options::default());
        let predicted = pass.predicted();
        for fuse in fuses.iter().take(8) {
            FUSE.set(u32::from(*fuse));
            let result = catch_unwind(AssertUnwindSafe(|| list.relocate(&mut pass.step(ALL))));
            assert!(result.is_err(), "the fuse did not burn");
            check(&list);
        }
        FUSE.set(u32::MAX);
        list.relocate(&mut pass.step(ALL));
        check(&list);
        let outcome = pass.finish();
        check_outcome(&outcome, predicted.moved_bytes);
        assert!(outcome.slabs_released > 0);
        check(&list);
        true
    }
    // The message of each panic would be printed.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|info| {
        let burnt = info.payload().downcast_ref::<&str>().is_some_and(|s| s.contains("fuse is"));
        if !burnt {
            eprintln!("{info}");
        }
    }));
    let result = catch_unwind(|| {
        QuickCheck::new().tests(25).quickcheck(property as fn(Vec<u8>) -> bool);
    });
    std::panic::set_hook(hook);
    assert!(result.is_ok());
}

#[test]
fn what_is_not_in_a_slab_of_the_plan_stays() {
    let _alone = alone();
    static STATIC: [u8; 100] = [7; 100];
    let layout = Layout::new::<[u8; 100]>();
    // SAFETY: the layout has a size.
    let foreign = unsafe { System.alloc_zeroed(layout) };
    assert!(!foreign.is_null());
    let on_the_stack = [9u8; 100];
    let mut large = vec![5u8; 200_000];
    let mut huge = vec![6u8; 3 << 20];
    let mut list = sparse(100);
    let mut pass = Pass::begin(Options::default());
    assert!(pass.predicted().slabs > 0);
    let mut mover = pass.step(ALL);
    // SAFETY: a block of this size, written before it was shared.
    let outside = unsafe { std::slice::from_raw_parts(foreign, 1) };
    for bytes in [outside, &STATIC[..], &on_the_stack[..], &large[..], &huge[..], &[]] {
        assert!(!mover.should_move(bytes));
    }
    let (at_large, at_huge) = (large.as_ptr(), huge.as_ptr());
    let mut borrowed: (&[u8], &str) = (&STATIC, "static");
    let at_borrowed = (borrowed.0.as_ptr(), borrowed.1.as_ptr());
    large.relocate(&mut mover);
    huge.relocate(&mut mover);
    borrowed.relocate(&mut mover);
    assert_eq!((large.as_ptr(), huge.as_ptr()), (at_large, at_huge));
    assert_eq!((borrowed.0.as_ptr(), borrowed.1.as_ptr()), at_borrowed);
    // Empty ones own nothing.
    Vec::<u8>::new().relocate(&mut mover);
    String::new().relocate(&mut mover);
    Box::<[u64]>::default().relocate(&mut mover);
    Box::new(()).relocate(&mut mover);
    VecDeque::<u8>::new().relocate(&mut mover);
    // What was moved does not move again.
    list.relocate(&mut mover);
    let places: Vec<_> = list.iter().flatten().map(|b| b.as_ptr()).collect();
    assert!(list.iter().flatten().all(|block| !mover.should_move(&**block)));
    list.relocate(&mut mover);
    assert!(list.iter().flatten().map(|b| b.as_ptr()).eq(places));
    drop(mover);
    assert!(pass.finish().slabs_released > 0);
    check_sparse(&list, 100);
    // SAFETY: allocated above.
    unsafe { System.dealloc(foreign, layout) };
    balanced();
}

#[test]
fn a_step_heeds_its_budget() {
    let _alone = alone();
    let mut list = sparse(100);
    let mut pass = Pass::begin(Options::default());
    let (mut rest, mut steps) = (list.iter_mut(), 0);
    while rest.len() > 0 {
        let mut mover = pass.step(Duration::ZERO);
        for item in rest.by_ref() {
            item.relocate(&mut mover);
            if mover.out_of_time() {
                break;
            }
        }
        drop(mover);
        steps += 1;
        if steps % 50 == 0 {
            balanced();
        }
    }
    let outcome = pass.finish();
    assert_eq!(outcome.steps, steps);
    assert!(steps > 20, "{steps} steps of no time at all");
    assert!(outcome.slabs_released > 0);
    check_sparse(&list, 100);
    balanced();
}

/// An object of types that are taken apart to be visited, or partly visited.
struct Mixed {
    os: OsString,
    boxed_os: Box<OsStr>,
    path: PathBuf,
    plain: BinaryHeap<u64>,
    heap: BinaryHeap<Box<u64>>,
    rc: Rc<Box<[u8]>>,
    arc: Arc<[Box<[u8]>]>,
}

impl Mixed {
    fn new(id: u32) -> Self {
        let keys = || (0..20).map(|j| u64::from(id) * 7919 % 1009 + j * 31 % 20);
        Self {
            os: text(id, 100).into(),
            boxed_os: OsString::from(text(id, 200)).into(),
            path: text(id, 300).into(),
            plain: keys().collect(),
            heap: keys().map(Box::new).collect(),
            rc: Rc::new(bytes(id, 400).into()),
            arc: [bytes(id, 500).into()].into(),
        }
    }

    fn check(&self, id: u32) {
        let new = Self::new(id);
        assert_eq!((&self.os, &self.boxed_os, &self.path), (&new.os, &new.boxed_os, &new.path));
        assert!(self.plain.iter().eq(new.plain.iter()), "heap {id} changed");
        assert!(self.heap.iter().eq(new.heap.iter()), "heap {id} changed");
        assert_eq!((&self.rc, &self.arc), (&new.rc, &new.arc));
    }

    /// Whether each part lies in a slab that is being emptied.
    fn in_the_plan(&self, mover: &Mover<'_>) -> [bool; 7] {
        [
            mover.should_move(&*self.os),
            mover.should_move(&*self.boxed_os),
            mover.should_move(&*self.path),
            self.plain.peek().is_some_and(|it| mover.should_move(it)),
            self.heap.iter().any(|it| mover.should_move(it) || mover.should_move(&**it)),
            mover.should_move(&**self.rc),
            mover.should_move(&*self.arc[0]),
        ]
    }
}

impl Relocate for Mixed {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        self.os.relocate(mover);
        self.boxed_os.relocate(mover);
        self.path.relocate(mover);
        self.plain.relocate(mover);
        self.heap.relocate(mover);
        self.rc.relocate(mover);
        self.arc.relocate(mover);
    }
}

#[test]
fn what_is_taken_apart_is_put_together_again() {
    let _alone = alone();
    let mut list: Vec<_> = (0..5000).map(|id| Some(Mixed::new(id))).collect();
    list.iter_mut().enumerate().filter(|(id, _)| id % 10 != 3).for_each(|(_, it)| *it = None);
    // Somebody looks at the contents of some.
    let seen: Vec<_> = list
        .iter()
        .flatten()
        .step_by(5)
        .map(|it| (it.rc.clone(), Arc::downgrade(&it.arc)))
        .collect();
    let at = |it: &(Rc<Box<[u8]>>, _)| (Rc::as_ptr(&it.0), it.0.as_ptr());
    let places: Vec<_> = seen.iter().map(at).collect();
    let mut pass = Pass::begin(Options::default());
    let mut mover = pass.step(ALL);
    let planned = |list: &[Option<Mixed>], mover: &Mover<'_>, i: usize| {
        list.iter().flatten().filter(|it| it.in_the_plan(mover)[i]).count()
    };
    let before: Vec<_> = (0..7).map(|i| planned(&list, &mover, i)).collect();
    assert!(before.iter().all(|n| *n > 100), "{before:?}");
    let blocks: Vec<_> = list.iter().flatten().map(|it| Rc::as_ptr(&it.rc)).collect();
    list.relocate(&mut mover);
    for (i, it) in list.iter().flatten().enumerate() {
        let shared = i % 5 == 0;
        let left = it.in_the_plan(&mover);
        assert_eq!(left[..5], [false; 5]);
        assert!(shared || left[5..] == [false; 2]);
    }
    assert!(list.iter().flatten().map(|it| Rc::as_ptr(&it.rc)).eq(blocks));
    assert!(seen.iter().map(at).eq(places));
    drop(mover);
    assert!(pass.finish().slabs_released > 0);
    for (id, it) in list.iter().enumerate() {
        it.iter().for_each(|it| it.check(id as u32));
    }
    balanced();
}

/// A key whose `relocate` panics when the fuse is burnt.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fused(Box<u64>);

impl Relocate for Fused {
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        let left = FUSE.get();
        FUSE.set(left.wrapping_sub(1));
        if left == 0 {
            // Without a message.
            std::panic::resume_unwind(Box::new("the fuse is burnt"));
        }
        self.0.relocate(mover);
    }
}

#[test]
fn a_panic_in_relocate_loses_nothing_of_a_heap() {
    let _alone = alone();
    let mut all: Vec<_> = (0..20_000).map(|i| Some(Fused(Box::new(i * 7919 % 20_011)))).collect();
    let mut heap: BinaryHeap<_> = all.iter_mut().step_by(10).filter_map(Option::take).collect();
    drop(all);
    let order = |heap: &BinaryHeap<Fused>| heap.iter().map(|it| *it.0).collect::<Vec<_>>();
    let before = order(&heap);
    let mut pass = Pass::begin(Options::default());
    for fuse in [0, 1, 1000, 1999] {
        FUSE.set(fuse);
        let visit = AssertUnwindSafe(|| heap.relocate(&mut pass.step(ALL)));
        assert!(catch_unwind(visit).is_err(), "the fuse did not burn");
        assert_eq!(order(&heap), before);
        balanced();
    }
    FUSE.set(u32::MAX);
    heap.relocate(&mut pass.step(ALL));
    assert!(pass.finish().slabs_released > 0);
    assert_eq!(order(&heap), before);
    let mut sorted = before;
    sorted.sort_unstable();
    assert!(heap.into_sorted_vec().iter().map(|it| *it.0).eq(sorted));
    balanced();
}
