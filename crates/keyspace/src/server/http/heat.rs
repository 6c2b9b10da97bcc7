//! The slabs as a picture: for each size class a row of cells, each so many neighbouring slabs.

use serde::Serialize;
use std::collections::BTreeMap;
use tallow::SlabView;

/// Cells of a row at most.
const CELLS: usize = 96;

/// A row.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) region_bytes: u32,
    pub(super) slabs: usize,
    pub(super) slabs_per_cell: usize,
    pub(super) live: u64,
    pub(super) capacity: u64,
    /// How full each cell is, in percent, lowest address first.
    pub(super) cells: Vec<u8>,
}

/// The rows of all classes that have slabs.
pub(super) fn now() -> Vec<Row> {
    let mut views = vec![SlabView::default(); tallow::slabs(&mut []) + 64];
    let count = tallow::slabs(&mut views).min(views.len());
    rows(&views[..count])
}

fn rows(views: &[SlabView]) -> Vec<Row> {
    let mut classes: BTreeMap<u32, Vec<&SlabView>> = BTreeMap::new();
    for view in views {
        classes.entry(view.region_bytes).or_default().push(view);
    }
    let row = |(region_bytes, mut slabs): (u32, Vec<&SlabView>)| {
        slabs.sort_unstable_by_key(|slab| slab.start_address);
        let slabs_per_cell = slabs.len().div_ceil(CELLS);
        let sums = |slabs: &[&SlabView]| {
            let add = |sum: (u64, u64), it: &&SlabView| {
                (sum.0 + u64::from(it.live), sum.1 + u64::from(it.capacity))
            };
            slabs.iter().fold((0, 0), add)
        };
        let percent = |(live, capacity): (u64, u64)| (live * 100 / capacity.max(1)) as u8;
        let (live, capacity) = sums(&slabs);
        let cells = slabs.chunks(slabs_per_cell).map(|part| percent(sums(part))).collect();
        Row { region_bytes, slabs: slabs.len(), slabs_per_cell, live, capacity, cells }
    };
    classes.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_slabs_share_cells_and_nothing_is_lost() {
        let slab = |i: usize| SlabView {
            region_bytes: 64,
            start_address: (1000 - i) << 16,
            capacity: 10,
            live: if i < 500 { 10 } else { 0 },
            ..SlabView::default()
        };
        let views: Vec<_> = (0..1000).map(slab).collect();
        let rows = rows(&views);
        assert_eq!((rows.len(), rows[0].slabs, rows[0].slabs_per_cell), (1, 1000, 11));
        assert_eq!((rows[0].live, rows[0].capacity, rows[0].cells.len()), (5000, 10_000, 91));
        // The highest addresses are the full ones.
        assert_eq!((rows[0].cells[0], rows[0].cells[90]), (0, 100));
    }
}
