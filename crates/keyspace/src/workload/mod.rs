//! Workloads: what real cache clusters store and do, and a seeded generator of the same.

mod generator;
mod table;

pub use generator::{Generator, MAX_VALUE_BYTES, WrittenKey};
pub use table::CLUSTERS;

use std::fmt;
use std::str::FromStr;

/// What a cluster is for, in the words of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// A cache before a database.
    Storage,
    /// A cache of computed results.
    Computation,
    /// Data that live nowhere else.
    Transient,
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Storage => "storage",
            Self::Computation => "computation",
            Self::Transient => "transient",
        })
    }
}

/// An operation, as memcached (and the public traces) name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Read.
    Get,
    /// Read, with a token for a later `cas`.
    Gets,
    /// Write.
    Set,
    /// Write if absent.
    Add,
    /// Write if present.
    Replace,
    /// Write if unchanged since `gets`; keeps the key's expiry here.
    Cas,
    /// Add bytes at the end.
    Append,
    /// Add bytes at the beginning.
    Prepend,
    /// Remove.
    Delete,
    /// Count up.
    Incr,
    /// Count down.
    Decr,
}

impl Op {
    /// Every operation with its name.
    pub const ALL: [(Self, &'static str); 11] = [
        (Self::Get, "get"),
        (Self::Gets, "gets"),
        (Self::Set, "set"),
        (Self::Add, "add"),
        (Self::Replace, "replace"),
        (Self::Cas, "cas"),
        (Self::Append, "append"),
        (Self::Prepend, "prepend"),
        (Self::Delete, "delete"),
        (Self::Incr, "incr"),
        (Self::Decr, "decr"),
    ];

    /// The operation called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(op, _)| *op)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(op, _)| *op == self).map_or("?", |(_, name)| name)
    }
}

/// The figures of one cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Its number in the source.
    pub number: u8,
    /// What it is for.
    pub category: Category,
    /// Mean length of a key.
    pub key_bytes_mean: u32,
    /// Mean length of a value.
    pub value_bytes_mean: u32,
    /// Share of keys that are touched once and never again, 0 to 1.
    pub one_hit_wonder_share: f64,
    /// Skew of the popularity of keys; 0 is uniform.
    pub zipf_alpha: f64,
    /// TTLs in seconds, each with its share of the writes (rounded: they add up to about 1).
    pub ttls: &'static [(u32, f64)],
    /// Operations, each with its share.
    pub ops: &'static [(Op, f64)],
}

impl Cluster {
    /// Its name on the command line: `twitter-52`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("twitter-{}", self.number)
    }

    /// Mean TTL of a write, in seconds.
    #[must_use]
    pub fn mean_ttl_seconds(&self) -> f64 {
        let weight: f64 = self.ttls.iter().map(|(_, share)| share).sum();
        self.ttls.iter().map(|(ttl, share)| f64::from(*ttl) * share).sum::<f64>() / weight
    }
}

/// A name that is no workload.
#[derive(Debug)]
pub struct UnknownWorkload(String);

impl fmt::Display for UnknownWorkload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "there is no workload \"{}\"; names look like twitter-52, see --list-workloads",
            self.0
        )
    }
}

impl std::error::Error for UnknownWorkload {}

impl FromStr for &'static Cluster {
    type Err = UnknownWorkload;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let number = name.strip_prefix("twitter-").and_then(|digits| digits.parse::<u8>().ok());
        CLUSTERS
            .iter()
            .find(|cluster| Some(cluster.number) == number)
            .ok_or_else(|| UnknownWorkload(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_plausible() {
        for cluster in &CLUSTERS {
            let name = cluster.name();
            let found: &Cluster = name.parse().expect("its own name");
            assert_eq!(found.number, cluster.number);
            for shares in [
                cluster.ttls.iter().map(|(_, share)| share).sum::<f64>(),
                cluster.ops.iter().map(|(_, share)| share).sum::<f64>(),
            ] {
                // The source lists the ten most common TTLs; some clusters use hundreds.
                assert!((0.2..1.03).contains(&shares), "{name}: shares add up to {shares}");
            }
            assert!((0.0..=1.0).contains(&cluster.one_hit_wonder_share), "{name}");
            assert!(cluster.ttls.iter().all(|(ttl, _)| *ttl > 0), "{name}");
        }
    }

    #[test]
    fn figures_of_the_default() {
        let cluster: &Cluster = "twitter-52".parse().expect("in the table");
        assert_eq!((cluster.key_bytes_mean, cluster.value_bytes_mean), (20, 273));
        assert_eq!(cluster.ttls[1], (14 * 86_400, 0.27));
        assert!("twitter-5".parse::<&Cluster>().is_err());
        assert!("52".parse::<&Cluster>().is_err());
    }

    #[test]
    fn operations_have_names() {
        for (op, name) in Op::ALL {
            assert_eq!(Op::named(name), Some(op));
            assert_eq!(op.name(), name);
        }
        assert_eq!(Op::named("GET"), None);
    }
}
