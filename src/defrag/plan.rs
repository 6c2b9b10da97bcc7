//! Which slabs to empty: pure functions of how full they are.
//!
//! A slab of `c` regions of which `l` are live frees `c - l` places when it
//! stays and needs `l` when it goes: `c` in all, whatever `l` is. So of slabs
//! with `f` free regions together exactly `f / c` can be emptied into the rest,
//! and the least is moved when they are the emptiest ones.
//!
//! Emptying a slab costs `l` regions of copying and gains `c` regions of memory,
//! so its *price* is its occupancy, the same scale for all classes. When less is
//! wanted than could be had, the cheapest slabs of all classes go.

/// What a class would gain, and at what price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClassPlan {
    /// All slabs with fewer live regions than this are emptied,
    pub(crate) below: u32,
    /// and so many of those that have exactly as many.
    pub(crate) more: u32,
    /// Slabs emptied.
    pub(crate) slabs: u64,
    /// Regions to move.
    pub(crate) regions: u64,
}

/// Plans for slabs of `capacity` regions, of which `by_live[l]` have `l` live
/// ones: as many as can be emptied, the emptiest.
pub(crate) fn plan(capacity: u32, by_live: &[u32]) -> ClassPlan {
    let free: u64 =
        (0..).zip(by_live).map(|(live, &n)| u64::from(capacity - live) * u64::from(n)).sum();
    let mut left = free / u64::from(capacity.max(1));
    let mut out = ClassPlan::default();
    for (live, &n) in (0..).zip(by_live) {
        let take = left.min(n.into());
        out.slabs += take;
        out.regions += take * u64::from(live);
        left -= take;
        out.below = live;
        out.more = take as u32;
        if left == 0 {
            break;
        }
    }
    out
}

/// Steps of the scale of prices.
const PRICES: usize = 256;

/// What all classes together could gain, by price.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Market {
    gain_bytes: [u64; PRICES],
}

/// What is bought: everything below a price, and so many bytes at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    price: usize,
    bytes: u64,
}

/// The occupancy of a slab with `live` of `capacity` regions in use.
fn price(capacity: u32, live: u32) -> usize {
    (live as usize * PRICES / capacity.max(1) as usize).min(PRICES - 1)
}

impl Market {
    pub(crate) const fn new() -> Self {
        Self { gain_bytes: [0; PRICES] }
    }

    /// Offers what a class's plan would empty.
    pub(crate) fn offer(
        &mut self,
        capacity: u32,
        slab_bytes: u64,
        by_live: &[u32],
        plan: &ClassPlan,
    ) {
        for (live, &n) in (0..=plan.below).zip(by_live) {
            let slabs = if live < plan.below { n } else { plan.more };
            self.gain_bytes[price(capacity, live)] += u64::from(slabs) * slab_bytes;
        }
    }

    /// What there is in all.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.gain_bytes.iter().sum()
    }

    /// The least to pay for `wanted` bytes, or for all if there are fewer.
    pub(crate) fn bound(&self, wanted: u64) -> Bound {
        let mut left = wanted;
        for (price, &bytes) in self.gain_bytes.iter().enumerate() {
            if bytes >= left {
                return Bound { price, bytes: left };
            }
            left -= bytes;
        }
        Bound { price: PRICES, bytes: 0 }
    }
}

/// A class's plan while it is carried out, slab by slab in any order.
#[derive(Debug)]
pub(crate) struct Purchase<'a> {
    pub(crate) capacity: u32,
    pub(crate) slab_bytes: u64,
    pub(crate) plan: ClassPlan,
    pub(crate) bound: &'a mut Bound,
}

impl Purchase<'_> {
    /// Whether a slab with so many live regions goes: takes note of it.
    pub(crate) fn takes(&mut self, live: u32) -> bool {
        let (plan, bound) = (&mut self.plan, &mut *self.bound);
        let last = live == plan.below;
        // What has become emptier since the plan was made does not make it larger.
        if plan.slabs == 0 || live > plan.below || last && plan.more == 0 {
            return false;
        }
        let price = price(self.capacity, live);
        if price > bound.price || price == bound.price && bound.bytes == 0 {
            return false;
        }
        if price == bound.price {
            bound.bytes = bound.bytes.saturating_sub(self.slab_bytes);
        }
        plan.slabs -= 1;
        plan.more -= u32::from(last);
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    /// Tries every set of slabs: the most emptied, and the least moved for it.
    fn brute_force(capacity: u32, slabs: &[u32]) -> (u64, u64) {
        let mut best = (0, 0);
        for set in 0u32..1 << slabs.len() {
            let (emptied, moved, room) = weigh(capacity, slabs, set);
            if moved <= room && (emptied > best.0 || emptied == best.0 && moved < best.1) {
                best = (emptied, moved);
            }
        }
        best
    }

    /// Slabs emptied, regions moved, and room for them, if the slabs in `set` go.
    fn weigh(capacity: u32, slabs: &[u32], set: u32) -> (u64, u64, u64) {
        let chosen = |i: &usize| set & (1 << i) != 0;
        let moved: u32 = (0..slabs.len()).filter(chosen).map(|i| slabs[i]).sum();
        let room: u32 = (0..slabs.len()).filter(|i| !chosen(i)).map(|i| capacity - slabs[i]).sum();
        (set.count_ones().into(), moved.into(), room.into())
    }

    fn lives(capacity: u32, seeds: &[u8], most: usize) -> Vec<u32> {
        seeds.iter().take(most).map(|&l| u32::from(l) % (capacity - 1) + 1).collect()
    }

    fn by_live(capacity: u32, slabs: &[u32]) -> Vec<u32> {
        let mut by_live = vec![0; capacity as usize];
        slabs.iter().for_each(|&l| by_live[l as usize] += 1);
        by_live
    }

    /// Calls `f` with every ascending list of up to `most` live counts.
    fn each_list(capacity: u32, most: usize, list: &mut Vec<u32>, f: &mut impl FnMut(&[u32])) {
        f(list);
        if list.len() < most {
            for live in list.last().copied().unwrap_or(0)..capacity {
                list.push(live);
                each_list(capacity, most, list, f);
                list.pop();
            }
        }
    }

    #[test]
    fn every_small_bin_is_planned_and_bought_at_its_best() {
        let mut bins = 0;
        for capacity in 1..=6 {
            each_list(capacity, 6, &mut Vec::new(), &mut |slabs| {
                bins += 1;
                let by_live = by_live(capacity, slabs);
                let plan = plan(capacity, &by_live);
                let best = brute_force(capacity, slabs);
                assert_eq!((plan.slabs, plan.regions), best, "{capacity}: {slabs:?}");
                // Bought whole, whatever order the slabs come in.
                for turn in 0..slabs.len().max(1) {
                    let mut market = Market::new();
                    market.offer(capacity, 10, &by_live, &plan);
                    assert_eq!(market.total_bytes(), plan.slabs * 10);
                    let mut bound = market.bound(u64::MAX);
                    let mut purchase =
                        Purchase { capacity, slab_bytes: 10, plan, bound: &mut bound };
                    let mut turned = slabs.to_vec();
                    turned.rotate_left(turn);
                    turned.retain(|&live| purchase.takes(live));
                    let moved: u32 = turned.iter().sum();
                    assert_eq!((turned.len() as u64, u64::from(moved)), best, "{slabs:?}");
                }
            });
        }
        assert!(bins > 1500, "{bins}");
    }

    /// As many slabs as a class of a large heap has: beside a plain sorted list.
    #[test]
    fn large_bins_are_planned_as_a_sorted_list_says() {
        fn property(capacity: u16, seeds: Vec<u16>) -> bool {
            let capacity = u32::from(capacity) % 4096 + 1;
            let seeds = seeds.iter().flat_map(|&seed| (0..8).map(move |i| u32::from(seed) * i / 3));
            let mut slabs: Vec<u32> = seeds.map(|live| live % capacity).collect();
            let plan = plan(capacity, &by_live(capacity, &slabs));
            slabs.sort_unstable();
            // Empties from the left as long as there is room on the right.
            let (mut emptied, mut moved) = (0, 0);
            let mut room: u64 = slabs.iter().map(|&live| u64::from(capacity - live)).sum();
            for live in slabs.into_iter().map(u64::from) {
                room -= u64::from(capacity) - live;
                if moved + live > room {
                    break;
                }
                (emptied, moved) = (emptied + 1, moved + live);
            }
            (plan.slabs, plan.regions) == (emptied, moved)
        }
        quickcheck::QuickCheck::new().tests(2000).quickcheck(property as fn(u16, Vec<u16>) -> bool);
    }

    quickcheck! {
        fn empties_the_most_for_the_least(capacity: u8, seeds: Vec<u8>) -> bool {
            let capacity = u32::from(capacity) % 12 + 2;
            let slabs = lives(capacity, &seeds, 10);
            let by_live = by_live(capacity, &slabs);
            let plan = plan(capacity, &by_live);
            let below: u64 = by_live[..plan.below as usize].iter().map(|&n| u64::from(n)).sum();
            (plan.slabs, plan.regions) == brute_force(capacity, &slabs)
                && below + u64::from(plan.more) == plan.slabs
        }

        // Two classes, of regions of 3 and 5 bytes: no choice of slabs that gains
        // as much moves fewer bytes.
        fn what_is_wanted_is_had_for_the_least(seeds: (Vec<u8>, Vec<u8>), wanted: u8) -> bool {
            let classes = [(8, 3, lives(8, &seeds.0, 6)), (12, 5, lives(12, &seeds.1, 6))];
            let mut market = Market::new();
            let plans = classes.clone().map(|(capacity, region, slabs)| {
                let by_live = by_live(capacity, &slabs);
                let plan = plan(capacity, &by_live);
                market.offer(capacity, u64::from(capacity * region), &by_live, &plan);
                plan
            });
            let wanted = u64::from(wanted).min(market.total_bytes());
            let mut bound = market.bound(wanted);
            let (mut gained, mut paid) = (0, 0);
            for ((capacity, region, slabs), plan) in classes.iter().zip(plans) {
                let (capacity, slab_bytes) = (*capacity, u64::from(capacity * region));
                let mut purchase = Purchase { capacity, slab_bytes, plan, bound: &mut bound };
                for &live in slabs {
                    if purchase.takes(live) {
                        gained += slab_bytes;
                        paid += u64::from(live * region);
                    }
                }
            }
            let [(a, ra, sa), (b, rb, sb)] = &classes;
            let mut least = u64::MAX;
            for set in 0u32..1 << (sa.len() + sb.len()) {
                let (ea, ma, room_a) = weigh(*a, sa, set & ((1 << sa.len()) - 1));
                let (eb, mb, room_b) = weigh(*b, sb, set >> sa.len());
                let gain = ea * u64::from(a * ra) + eb * u64::from(b * rb);
                if ma <= room_a && mb <= room_b && gain >= gained {
                    least = least.min(ma * u64::from(*ra) + mb * u64::from(*rb));
                }
            }
            gained >= wanted && paid == least
        }
    }
}
