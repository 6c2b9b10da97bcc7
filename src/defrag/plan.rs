//! Which slabs to empty: a pure function of how full they are.
//!
//! A slab of `c` regions of which `l` are live frees `c - l` places when it
//! stays and needs `l` when it goes: `c` in all, whatever `l` is. So of slabs
//! with `f` free regions together exactly `f / c` can be emptied into the rest,
//! and the least is moved when they are the emptiest ones.

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
/// ones: empties up to `wanted` slabs, the emptiest.
pub(crate) fn plan(capacity: u32, by_live: &[u32], wanted: u64) -> ClassPlan {
    let free: u64 =
        (0..).zip(by_live).map(|(live, &n)| u64::from(capacity - live) * u64::from(n)).sum();
    let mut left = (free / u64::from(capacity.max(1))).min(wanted);
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    /// Tries every set of slabs.
    fn brute_force(capacity: u32, slabs: &[u32]) -> (u64, u64) {
        let mut best = (0, 0);
        for set in 0u32..1 << slabs.len() {
            let chosen = |i: &usize| set & (1 << i) != 0;
            let moved: u32 = (0..slabs.len()).filter(chosen).map(|i| slabs[i]).sum();
            let room: u32 =
                (0..slabs.len()).filter(|i| !chosen(i)).map(|i| capacity - slabs[i]).sum();
            let emptied = u64::from(set.count_ones());
            if moved <= room && (emptied > best.0 || emptied == best.0 && u64::from(moved) < best.1)
            {
                best = (emptied, moved.into());
            }
        }
        best
    }

    quickcheck! {
        fn empties_the_most_for_the_least(capacity: u8, lives: Vec<u8>) -> bool {
            let capacity = u32::from(capacity) % 12 + 2;
            let slabs: Vec<u32> =
                lives.iter().take(10).map(|&l| u32::from(l) % (capacity - 1) + 1).collect();
            let mut by_live = vec![0; capacity as usize];
            slabs.iter().for_each(|&l| by_live[l as usize] += 1);
            let plan = plan(capacity, &by_live, u64::MAX);
            let below: u64 = by_live[..plan.below as usize].iter().map(|&n| u64::from(n)).sum();
            (plan.slabs, plan.regions) == brute_force(capacity, &slabs)
                && below + u64::from(plan.more) == plan.slabs
        }

        fn never_more_than_wanted(lives: Vec<u8>, wanted: u8) -> bool {
            let mut by_live = vec![0; 256];
            lives.iter().for_each(|&l| by_live[usize::from(l.max(1))] += 1);
            plan(256, &by_live, wanted.into()).slabs <= wanted.into()
        }
    }
}
