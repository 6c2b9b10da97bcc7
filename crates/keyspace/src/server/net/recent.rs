//! The largest buffers of the last seconds, which INFO clients tells.
//!
//! What is there at the moment of asking is mostly nothing: requests come and replies go between two
//! looks. As in Redis, each of the last eight seconds has a place with the largest that was seen in
//! it; buffers are looked at when they have grown.

use super::client::Client;
use crate::server::db::UnixMs;

const SECONDS: usize = 8;

/// The largest query and output buffers.
#[derive(Debug, Default)]
pub(crate) struct RecentMax {
    /// Which second, and the largest of both kinds in it.
    seconds: [(UnixMs, [usize; 2]); SECONDS],
}

impl RecentMax {
    /// Looks at a client's buffers.
    #[inline]
    pub(crate) fn note(&mut self, client: &Client, now: UnixMs) {
        self.note_bytes([client.query.len(), client.reply.unsent().len()], now);
    }

    fn note_bytes(&mut self, bytes: [usize; 2], now: UnixMs) {
        let second = now / 1000;
        let place = &mut self.seconds[second.rem_euclid(SECONDS as UnixMs) as usize];
        if place.0 != second {
            *place = (second, [0; 2]);
        }
        place.1 = [place.1[0].max(bytes[0]), place.1[1].max(bytes[1])];
    }

    /// The largest of the last seconds: query buffer, output buffer.
    pub(crate) fn largest(&self, now: UnixMs) -> [usize; 2] {
        let recent = |second: UnixMs| (0..SECONDS as UnixMs).contains(&(now / 1000 - second));
        let all = self.seconds.iter().filter(|(second, _)| recent(*second));
        all.fold([0; 2], |most, (_, it)| [most[0].max(it[0]), most[1].max(it[1])])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_large_is_told_for_eight_seconds() {
        let mut recent = RecentMax::default();
        let start = 1_700_000_000_000;
        recent.note_bytes([500, 7], start);
        recent.note_bytes([3, 900], start + 1000);
        recent.note_bytes([1, 1], start + 7999);
        assert_eq!(recent.largest(start + 7999), [500, 900]);
        assert_eq!(recent.largest(start + 8000), [3, 900]);
        assert_eq!(recent.largest(start + 9000), [1, 1]);
        recent.note_bytes([2, 2], start + 8000);
        assert_eq!(recent.largest(start + 8000), [3, 900]);
        assert_eq!(recent.largest(start + 60_000), [0, 0]);
    }
}
