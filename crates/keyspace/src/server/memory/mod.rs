//! Where the memory is: INFO memory, MEMORY, and the books that they are made of.
//!
//! | module | what it does |
//! |---|---|
//! | [`pulse`] | what is read ten times a second, and the peak |
//! | [`meter`] | how much is used, between two looks at the exact figure |
//! | [`sample`] | all figures of one moment in plain numbers |
//! | [`books`] | the sum of everything, which is RSS |
//! | [`kernel`] | what `/proc` says |
//! | [`info`] | the section of INFO |
//! | [`background`] | giving back what is free while nothing happens |
//! | [`stats`] | MEMORY STATS and MALLOC-STATS |
//! | [`usage`] | MEMORY USAGE |
//! | [`waste`] | which size class wastes what, from some of the keys |
//! | [`doctor`] | MEMORY DOCTOR: rules over a sample |

pub(crate) mod background;
pub(crate) mod books;
pub(crate) mod doctor;
pub(crate) mod info;
pub(crate) mod kernel;
pub(crate) mod meter;
pub(crate) mod pulse;
pub(crate) mod sample;
pub(crate) mod stats;
pub(crate) mod usage;
pub(crate) mod waste;
