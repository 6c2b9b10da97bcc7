//! `libtallow.so` as the `malloc` of programs: own ones in C and C++ (`tests/c`),
//! and those that are installed.
//!
//! Nothing here runs in this process: the library is built twice, in release, plain and
//! hardened, and every program gets each by `LD_PRELOAD`; the hardened one also with
//! every block sampled. A run passes when the exit status and the
//! output are right *and* the library's books show that it was in use. Tests of a
//! program that is not installed say so and pass.

mod abi;
mod code;
mod cxx;
mod defrag;
mod library;
mod programs;
mod redis;
mod settings;
mod support;
mod torture;
mod wrong;
