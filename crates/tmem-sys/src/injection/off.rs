//! The seam in what is shipped: not there.

use super::Call;
use crate::uffd::Event;
use rustix::io::Errno;

/// What a call that fills pages returned, and its field that says how many bytes.
type Filled = (Result<(), Errno>, i64);

#[inline(always)]
pub(crate) fn filling(_: Call, bytes: usize, real: impl FnOnce(usize) -> Filled) -> Filled {
    real(bytes)
}

#[inline(always)]
pub(crate) fn refused(_: Call) -> Result<(), Errno> {
    Ok(())
}

#[inline(always)]
pub(crate) fn refused_if(_: Call, _: impl FnOnce() -> bool) -> Result<(), Errno> {
    Ok(())
}

#[inline(always)]
pub(crate) fn shorter(_: Call, count: usize) -> usize {
    count
}

#[inline(always)]
pub(crate) fn repeat(_: Call, _: &mut Vec<Event>, _: usize) {}
