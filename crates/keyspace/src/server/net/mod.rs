//! The network: listeners, clients, and the loop that serves them.
//!
//! | module | what it does |
//! |---|---|
//! | [`event_loop`] | waits, reads, executes, writes; the only place that blocks |
//! | [`serve`] | what is done for one client |
//! | [`wait`] | looking for events a little before sleeping |
//! | [`listen`] | which addresses, and who may connect |
//! | [`stream`] | TCP and unix sockets as one |
//! | [`client`] | a client's state and its buffers |
//! | [`clients`] | all of them |
//! | [`name`] | what they call themselves |
//! | [`cron`] | what is done `hz` times a second |
//! | [`expire`] | removing keys whose time has come, in slices |
//! | [`limits`] | who is cut off, and when |
//! | [`recent`] | the largest buffers of the last seconds |
//! | [`log`] | the server's log |

pub(crate) mod client;
pub(crate) mod clients;
pub(crate) mod cron;
pub(crate) mod event_loop;
pub(crate) mod expire;
pub(crate) mod limits;
pub(crate) mod listen;
pub(crate) mod log;
pub(crate) mod name;
pub(crate) mod recent;
mod serve;
pub(crate) mod stream;
mod wait;
