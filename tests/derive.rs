//! `#[derive(Relocate)]`: every field is visited but those that are skipped.
#![cfg(feature = "derive")]

use std::num::NonZeroU32;
use std::rc::Weak;
use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tallow::defrag::{Mover, Options, Pass, Relocate};

#[global_allocator]
static ALLOC: tallow::Tallow = tallow::Tallow::new();

/// There is one pass at a time in a process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// A long time: the step looks at everything.
const ALL: Duration = Duration::from_secs(60);

/// Contents that tell which object they belong to.
fn bytes(id: u32, len: usize) -> Box<[u8]> {
    (0..len).map(|i| (id as usize * 31 + i * 7) as u8).collect()
}

/// No impl of `Relocate`.
#[derive(Debug, PartialEq)]
struct Opaque(Box<[u8]>);

#[derive(Relocate, Debug, PartialEq)]
struct Node<T>
where
    T: Clone,
{
    id: u32,
    value: T,
    shape: Shape<Box<[u8]>>,
    #[relocate(skip)]
    fixed: Opaque,
    next: Option<Box<Node<T>>>,
}

#[derive(Relocate, Debug, PartialEq)]
struct Pair(String, #[relocate(skip)] Opaque, Vec<u8>);

#[derive(Relocate, Debug, PartialEq)]
enum Shape<T> {
    Nothing,
    Tuple(u8, #[relocate(skip)] Opaque, T),
    Named {
        pair: Pair,
        #[relocate(skip)]
        fixed: Box<[u8]>,
    },
}

type Item = Node<Box<[u8]>>;

impl Item {
    fn new(id: u32, next: Option<Box<Self>>) -> Self {
        let shape = match id / 10 % 3 {
            0 => Shape::Nothing,
            1 => Shape::Tuple(7, Opaque(bytes(id, 200)), bytes(id + 1, 200)),
            _ => Shape::Named {
                pair: Pair(
                    format!("{id:0>300}"),
                    Opaque(bytes(id, 300)),
                    bytes(id, 300).into_vec(),
                ),
                fixed: bytes(id, 400),
            },
        };
        Self { id, value: bytes(id, 100), shape, fixed: Opaque(bytes(id, 100)), next }
    }

    /// The blocks that may be moved, and those that may not.
    fn blocks(&self) -> (Vec<&[u8]>, Vec<&[u8]>) {
        let (mut free, mut fixed) = (vec![&*self.value], vec![&*self.fixed.0]);
        match &self.shape {
            Shape::Nothing => {}
            Shape::Tuple(_, opaque, bytes) => {
                free.push(bytes);
                fixed.push(&opaque.0);
            }
            Shape::Named { pair, fixed: bytes } => {
                free.extend([pair.0.as_bytes(), &pair.2]);
                fixed.extend([&*pair.1.0, bytes]);
            }
        }
        (free, fixed)
    }
}

/// The objects of a list, from its head.
fn items(list: &Option<Box<Item>>) -> impl Iterator<Item = &Item> {
    std::iter::successors(list.as_deref(), |item| item.next.as_deref())
}

#[test]
fn a_fragmented_list_is_healed() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Of many objects, one in ten stays.
    let mut all: Vec<_> = (0..20_000).map(|id| Some(Box::new(Item::new(id, None)))).collect();
    let mut list = None;
    for mut item in all.iter_mut().step_by(10).filter_map(Option::take) {
        item.next = list;
        list = Some(item);
    }
    drop(all);

    let slabs = || tallow::stats().classes.iter().map(|c| c.slabs).sum::<u64>();
    let places = |list: &_| -> Vec<_> {
        items(list).flat_map(|it| it.blocks().1).map(|block| block.as_ptr()).collect()
    };
    let fixed = places(&list);
    let mut pass = Pass::begin(Options::default());
    let before = slabs();
    let mut mover = pass.step(ALL);
    let planned = |list: &_, mover: &Mover<'_>| {
        let blocks = |it: &Item| it.blocks().0.iter().filter(|b| mover.should_move(**b)).count();
        items(list).map(|it| blocks(it) + usize::from(mover.should_move(it))).sum::<usize>()
    };
    assert!(planned(&list, &mover) > 1000);
    assert!(items(&list).any(|it| mover.should_move(&*it.fixed.0)));
    list.relocate(&mut mover);
    assert_eq!(planned(&list, &mover), 0);
    drop(mover);
    let outcome = pass.finish();
    assert!(outcome.slabs_released > 50, "{outcome:?}");
    assert!(slabs() + outcome.slabs_released <= before + 6, "{before}: {outcome:?}");

    assert!(places(&list) == fixed, "a skipped field has moved");
    let ids = || (0..20_000).step_by(10).rev();
    assert!(items(&list).map(|it| it.id).eq(ids()));
    for (id, it) in ids().zip(items(&list)) {
        let Item { value, shape, fixed, .. } = Item::new(id, None);
        assert_eq!((&it.value, &it.shape, &it.fixed), (&value, &shape, &fixed));
    }
    if let Err(error) = tallow::audit() {
        panic!("{error}");
    }
}

#[derive(Relocate)]
struct Unit;

#[derive(Relocate)]
struct Braces {}

#[derive(Relocate)]
enum Never {}

#[derive(Relocate)]
enum Plain {
    A = 3,
}

/// All sorts of parameters, and fields by names that the impl uses too.
#[derive(Relocate)]
struct Generic<'a, T: ?Sized + ToString, U = Opaque, const N: usize = 2>
where
    U: std::fmt::Debug,
{
    mover: [NonZeroU32; N],
    r#type: &'a str,
    #[deprecated]
    field_0: AtomicU32,
    #[relocate(skip)]
    weak: Weak<U>,
    last: T,
}

/// A field and its type from different places.
macro_rules! declared {
    ($name:ident $type:ty) => {
        #[derive(Relocate)]
        struct $name(Vec<$type>, $type);
        #[derive(Relocate)]
        enum Or<T> {
            This($type, $name),
            That { field_0: $type, mover: T },
        }
    };
}
declared!(Declared Option<Box<[u8]>>);

/// The compiler says whether the bounds are what they should be.
#[test]
fn all_sorts_of_types() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut pass = Pass::begin(Options::default());
    let mut mover = pass.step(ALL);
    let mover = &mut mover;
    Unit.relocate(mover);
    Braces {}.relocate(mover);
    None::<Never>.relocate(mover);
    let mut plain = Plain::A;
    plain.relocate(mover);
    assert_eq!(plain as u8, 3);
    #[allow(deprecated, reason = "a test of just that")]
    let mut generic = Generic::<'_, String, Opaque> {
        mover: [NonZeroU32::MIN; 2],
        r#type: "type",
        field_0: AtomicU32::new(1),
        weak: Weak::new(),
        last: "last".to_owned(),
    };
    generic.relocate(mover);
    assert_eq!((generic.mover[0].get(), generic.r#type, &*generic.last), (1, "type", "last"));
    assert!(generic.weak.upgrade().is_none());
    let declared = Declared(vec![None, Some(bytes(1, 10))], None);
    let mut both = [Or::This(None, declared), Or::That { field_0: None, mover: Box::new(5u8) }];
    both.relocate(mover);
    assert!(matches!(&both[0], Or::This(None, it) if it.0[1] == Some(bytes(1, 10))));
    assert!(matches!(&both[1], Or::That { field_0: None, mover } if **mover == 5));
}
