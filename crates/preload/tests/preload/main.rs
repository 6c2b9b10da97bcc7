//! `libtallow.so` as the `malloc` of programs: own ones in C and C++ (`tests/c`),
//! and those that are installed.
//!
//! Nothing here runs in this process: the library is built once, in release, and
//! every program gets it by `LD_PRELOAD`. A run passes when the exit status and the
//! output are right *and* the library's books show that it was in use. Tests of a
//! program that is not installed say so and pass.

mod abi;
mod cxx;
mod defrag;
mod library;
mod programs;
mod redis;
mod settings;
mod support;
mod torture;
