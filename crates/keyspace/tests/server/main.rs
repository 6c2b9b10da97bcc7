//! The server as its clients see it: started on a free port, driven over sockets.
//!
//! One file per area; [`support`] starts servers and talks to them.

mod books;
mod clients;
mod commands;
mod config;
mod connections;
mod crowded;
mod differential;
mod evict;
mod expiry;
mod heal;
mod info;
mod load;
mod page;
mod protocol;
mod real_clients;
mod redis_server;
mod sockets;
mod strangers;
mod support;
