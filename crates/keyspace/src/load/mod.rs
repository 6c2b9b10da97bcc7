//! `keyspace load`: drives any Redis-compatible server through the phases of [`churn`](crate::churn),
//! over the wire.
