//! Work that somebody waits for who would wait for ever if it ended by a panic: operations that were claimed, an answer
//! to a request, all clients. An assertion that fails in it ends the process, as clients are told by the end of their
//! bells and connections.

/// Carries it out, or ends the process.
pub(super) fn vital<T>(work: impl FnOnce() -> T) -> T {
    let _guard = AbortOnPanic;
    work()
}

struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}
