//! The page to look at, and the figures for Prometheus, over HTTP (`http 127.0.0.1:8080`).
//!
//! ```text
//!   browser  <- HTTP ->  thread "page" (serve, guard)  -- Ask, Waker -->  event loop (link)
//!                           tallow::stats(), slabs()   <-- Answer ------
//! ```
//! The thread exists only with `http`; its memory is in no account, so it is part of "server" in the
//! books. It reads Tallow's books itself, since any thread may; the loop is asked only for what it
//! alone knows, at most four times a second however many look, and not at all when nobody does. The
//! loop answers between two turns into a channel without bounds and never waits.
//!
//! `hyper` on a current-thread `tokio` runtime: both are kept, and every limit can be set (sizes,
//! times, connections). `tiny_http` has seen no release for years and starts threads of its own;
//! `axum` adds routing and middleware, of which seven fixed paths need none.
//!
//! | module | what it does |
//! |---|---|
//! | [`link`] | questions to the event loop and its answers |
//! | [`state`] | everything that the page shows, for one moment |
//! | [`heat`] | the slabs as a picture |
//! | [`metrics`] | the state for Prometheus |
//! | [`guard`] | who may ask, and who may act |
//! | [`serve`] | the thread: connections and paths |

mod guard;
mod heat;
pub(crate) mod link;
mod metrics;
mod serve;
mod state;

pub(crate) use serve::{DESCRIPTORS, start};
