//! Where the memory is: INFO memory, MEMORY, and the books that they are made of.
//!
//! | module | what it does |
//! |---|---|
//! | [`info`] | the section of INFO |

pub(crate) mod info;
