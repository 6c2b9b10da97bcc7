//! Backtraces that allocate nothing: addresses, taken by the unwinder that every Rust
//! program has, and named by module and offset, as `addr2line` wants them.

use crate::config::HARDENED;
use crate::error::Line;
use core::ffi::{CStr, c_int, c_void};
use core::fmt::Write as _;

/// Frames at most.
pub(crate) const FRAMES: usize = 24;

/// Where a thread was, innermost first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trace {
    frames: [usize; FRAMES],
    len: usize,
    /// Which thread.
    thread: u64,
}

#[repr(C)]
struct Context {
    _private: [u8; 0],
}

/// Miri has no unwinder of C's.
const TRACED: bool = HARDENED && cfg!(not(miri));

/// Go on with the next frame.
const GO_ON: c_int = 0;
/// Stop here.
const STOP: c_int = 5;

unsafe extern "C" {
    fn _Unwind_Backtrace(
        each: extern "C" fn(*mut Context, *mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIP(context: *mut Context) -> usize;
}

extern "C" fn note(context: *mut Context, argument: *mut c_void) -> c_int {
    // SAFETY: the unwinder hands over what `here` gave it.
    let trace = unsafe { &mut *argument.cast::<Trace>() };
    // SAFETY: valid during this call.
    let address = unsafe { _Unwind_GetIP(context) };
    if address == 0 || trace.len == FRAMES {
        return STOP;
    }
    trace.frames[trace.len] = address;
    trace.len += 1;
    GO_ON
}

impl Trace {
    pub(crate) const NONE: Self = Self { frames: [0; FRAMES], len: 0, thread: 0 };

    /// Where the calling thread is.
    #[inline(never)]
    pub(crate) fn here() -> Self {
        let mut trace = Self { thread: super::thread_number(), ..Self::NONE };
        if TRACED {
            // SAFETY: the function takes the trace for what it is.
            unsafe { _Unwind_Backtrace(note, (&raw mut trace).cast()) };
        }
        trace
    }

    /// Writes the frames to stderr, a line each, below what they are of.
    pub(crate) fn write(&self, what: &str) {
        let mut line = Line::new();
        // A `Line` takes every write, so there is no error to look at.
        let _ = write!(line, "  {what} by thread {}:", self.thread);
        super::write_stderr(line.end().as_bytes());
        for (i, &address) in self.frames[..self.len].iter().enumerate() {
            write_frame(i, address);
        }
    }
}

/// `#1 0x7f... program+0x1234 (name+0x5)`: the offset is what `addr2line` takes.
fn write_frame(i: usize, address: usize) {
    let mut info = libc::Dl_info {
        dli_fname: core::ptr::null(),
        dli_fbase: core::ptr::null_mut(),
        dli_sname: core::ptr::null(),
        dli_saddr: core::ptr::null_mut(),
    };
    let mut line = Line::new();
    let _ = write!(line, "    #{i} {address:#x}");
    // SAFETY: any address will do, and the place is valid.
    let known = unsafe { libc::dladdr(core::ptr::without_provenance(address), &raw mut info) };
    if known != 0 && !info.dli_fname.is_null() {
        // SAFETY: a C string of the loader's.
        let module = unsafe { CStr::from_ptr(info.dli_fname) };
        let module = module.to_str().unwrap_or("?");
        let name = module.rsplit('/').next().unwrap_or(module);
        let _ = write!(line, " {name}+{:#x}", address.wrapping_sub(info.dli_fbase.addr()));
    }
    super::write_stderr(line.end().as_bytes());
}
