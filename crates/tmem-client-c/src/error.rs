//! How failures are told.

use core::cell::RefCell;
use core::ffi::c_char;
use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tmem_ring::QueueError;
use tmem_ring::client::ClientError;

/// An argument is wrong: NULL where it may not be, a number out of its range, text that is not UTF-8.
pub const TMEM_E_ARGUMENT: i32 = -1;
/// A bug in the library, which has been caught.
pub const TMEM_E_PANIC: i32 = -2;
/// Nobody listens at the path.
pub const TMEM_E_NO_DAEMON: i32 = -3;
/// The path may not be connected to by this user.
pub const TMEM_E_PERMISSION: i32 = -4;
/// The daemon, or the library itself, refuses what was asked for.
pub const TMEM_E_REFUSED: i32 = -5;
/// The daemon has not answered in time. Close the client and connect anew.
pub const TMEM_E_SILENT: i32 = -6;
/// The daemon is gone, or has thrown the client out. What is not completed may or may not have been carried out.
pub const TMEM_E_GONE: i32 = -7;
/// The daemon does not keep to this version of the protocol.
pub const TMEM_E_NONSENSE: i32 = -8;
/// The system has no memory, descriptors or threads for it, or refuses.
pub const TMEM_E_SYSTEM: i32 = -9;
/// As many operations are outstanding as the queue has entries: reap some.
pub const TMEM_E_FULL: i32 = -10;
/// The daemon has closed the queue. What is not completed may or may not have been carried out.
pub const TMEM_E_CLOSED: i32 = -11;
/// The daemon has closed the queue, since it found it broken.
pub const TMEM_E_BROKEN: i32 = -12;

/// A failure: its code, and what is said of it.
#[derive(Debug)]
pub(crate) struct Failure {
    code: i32,
    message: String,
}

impl Failure {
    pub(crate) fn argument(message: impl Into<String>) -> Self {
        Self { code: TMEM_E_ARGUMENT, message: message.into() }
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self { code: TMEM_E_REFUSED, message: message.into() }
    }

    pub(crate) fn system(message: impl Into<String>) -> Self {
        Self { code: TMEM_E_SYSTEM, message: message.into() }
    }

    pub(crate) fn nonsense(message: impl Into<String>) -> Self {
        Self { code: TMEM_E_NONSENSE, message: message.into() }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match error {
            ClientError::NoDaemon { .. } => TMEM_E_NO_DAEMON,
            ClientError::NoPermission { .. } => TMEM_E_PERMISSION,
            ClientError::Refused { .. } => TMEM_E_REFUSED,
            ClientError::Silent { .. } => TMEM_E_SILENT,
            ClientError::Gone => TMEM_E_GONE,
            ClientError::Nonsense => TMEM_E_NONSENSE,
            ClientError::Connect { .. } | ClientError::NoNumber | ClientError::System(_) => TMEM_E_SYSTEM,
        };
        let message = match &error {
            ClientError::Connect { source, .. } => format!("{error}: {source}"),
            _ => error.to_string(),
        };
        Self { code, message }
    }
}

impl From<QueueError> for Failure {
    fn from(error: QueueError) -> Self {
        let code = match error {
            QueueError::Full => TMEM_E_FULL,
            QueueError::Refused(_) => TMEM_E_REFUSED,
            QueueError::Closed => TMEM_E_CLOSED,
            QueueError::Broken => TMEM_E_BROKEN,
            QueueError::Gone => TMEM_E_GONE,
            QueueError::NoSentry => TMEM_E_SYSTEM,
            QueueError::Nonsense => TMEM_E_NONSENSE,
        };
        Self { code, message: error.to_string() }
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// What the last call that failed in this thread says of it, for people. Valid until the next one in this thread that
/// fails; empty if none has.
#[unsafe(no_mangle)]
pub extern "C" fn tmem_last_error() -> *const c_char {
    // In a thread whose locals are gone already there is nothing to be told.
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

fn remember(message: String) {
    let mut bytes = message.into_bytes();
    bytes.retain(|byte| *byte != 0);
    let message = CString::new(bytes).unwrap_or_default();
    let _ = LAST.try_with(|last| last.replace(message)); // as above
}

/// Does the work of a function of the interface: what it returns, or a negative code.
pub(crate) fn guarded(work: impl FnOnce() -> Result<i32, Failure>) -> i32 {
    // Whatever was going on when something panicked is never memory that is not there.
    let failure = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => return value,
        Ok(Err(failure)) => failure,
        Err(_) => Failure { code: TMEM_E_PANIC, message: "a bug in the library: see standard error".to_owned() },
    };
    remember(failure.message);
    failure.code
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]

    use super::*;
    use core::ffi::CStr;

    fn last() -> String {
        // SAFETY: text that is there until the next failure in this thread.
        unsafe { CStr::from_ptr(tmem_last_error()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_panic_ends_at_the_interface_and_a_failure_is_told_in_its_thread() {
        assert_eq!(last(), "");
        assert_eq!(guarded(|| Err(Failure::argument("wrong\0 text"))), TMEM_E_ARGUMENT);
        assert_eq!(last(), "wrong text");
        assert_eq!(guarded(|| panic!("as a test")), TMEM_E_PANIC);
        assert!(last().contains("a bug"));
        assert_eq!(guarded(|| Ok(3)), 3);
        assert!(last().contains("a bug"), "what goes well says nothing");
        assert_eq!(std::thread::spawn(last).join().unwrap(), "");
    }
}
