//! The virtual clock: time that passes when the workload says so.
//!
//! A cache keeps keys for days; the demo has a minute. So nothing in the store reads the machine's
//! clock: each call is told what time it is, and days of TTL go by as fast as the operations do. It
//! also makes a run repeatable: the same seed gives the same history, however slow the machine.
//!
//! The unit is a tenth of a second, the period of Redis's cron (`hz 10`): finer than any TTL, and
//! 32 bits of it last for 13 years, which keeps an entry's expiry at four bytes.

/// Ticks of the virtual clock in one second.
pub const TICKS_PER_SECOND: u32 = 10;

/// A point in virtual time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u32);

impl Moment {
    /// The start of time. Not zero, which an [`Expiry`] keeps for "never".
    pub const START: Self = Self(1);

    /// `ticks` later than this, stopping at the end of time (13 years).
    #[must_use]
    pub const fn after_ticks(self, ticks: u32) -> Self {
        Self(self.0.saturating_add(ticks))
    }

    /// Seconds of virtual time since [`START`](Self::START).
    #[must_use]
    pub fn seconds(self) -> f64 {
        f64::from(self.0 - Self::START.0) / f64::from(TICKS_PER_SECOND)
    }

    /// The moment `seconds` after [`START`](Self::START), or `None` beyond the end of time.
    #[must_use]
    pub fn from_seconds(seconds: u64) -> Option<Self> {
        let ticks = seconds.checked_mul(u64::from(TICKS_PER_SECOND))?.checked_add(1)?;
        u32::try_from(ticks).ok().map(Self)
    }
}

/// When an entry expires: at a [`Moment`], or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry(u32);

impl Expiry {
    /// The entry stays until it is deleted.
    pub const NEVER: Self = Self(0);

    /// The entry is gone from `moment` on.
    #[must_use]
    pub const fn at(moment: Moment) -> Self {
        Self(moment.0)
    }

    /// Whether the entry has an expiry at all.
    #[must_use]
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }

    /// Whether an entry with this expiry is gone at `now`.
    #[must_use]
    pub const fn is_due(self, now: Moment) -> bool {
        self.0 != 0 && self.0 <= now.0
    }

    /// Ticks left at `now`: `None` if it never expires, 0 if it already has.
    #[must_use]
    pub const fn remaining_ticks(self, now: Moment) -> Option<u32> {
        if self.0 == 0 { None } else { Some(self.0.saturating_sub(now.0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_due_from_its_moment_on() {
        let at = Moment::START.after_ticks(5);
        assert!(!Expiry::at(at).is_due(Moment::START.after_ticks(4)));
        assert!(Expiry::at(at).is_due(at));
        assert!(!Expiry::NEVER.is_due(Moment(u32::MAX)));
        assert_eq!(Expiry::at(at).remaining_ticks(Moment::START), Some(5));
    }

    #[test]
    fn time_ends_instead_of_wrapping() {
        assert_eq!(Moment::from_seconds(u64::MAX), None);
        assert_eq!(Moment::from_seconds(500_000_000), None);
        assert_eq!(Moment::START.after_ticks(u32::MAX), Moment(u32::MAX));
        assert_eq!(Moment::from_seconds(0), Some(Moment::START));
    }
}
