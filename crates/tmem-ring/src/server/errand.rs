//! What takes its time, and is done in a thread of its own, so that nobody else waits for it: closing queues (waits for
//! what is in flight), emptying pools, freezing, unmapping, closing descriptors that a client has sent.
//!
//! A thread each: the work of one client, however long, is in nobody else's way. A session has one errand at a time and a
//! client two more (ending queues that it let go of, and clearing up behind it), so there are never more than that.

use super::vital::vital;
use crate::operation::ClientId;
use crate::wire::Reply;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use tmem_sys::Doorbell;

/// Errands under way at most. A client that makes even closing its descriptors take for ever, and comes again and
/// again, gets no further than this: what is more is done in the thread that asks, which waits.
const MOST_ERRANDS: usize = 1024;

/// An errand has ended.
#[derive(Debug)]
pub(crate) enum Done {
    /// A session has its answer.
    Answered { session: u64, reply: Reply },
    /// Queues that a client had let go of are closed.
    Closed { client: ClientId },
    /// What a client has left behind is cleared away. `gone`: with all of the client.
    Buried { client: ClientId, gone: bool },
}

/// Threads under way, and where they tell that they are done.
#[derive(Debug)]
pub(crate) struct Errands {
    sender: Sender<Done>,
    done: Receiver<Done>,
    bell: Arc<Doorbell>,
    under_way: usize,
}

impl Errands {
    /// `bell` is rung when one has ended.
    pub(crate) fn new(bell: &Arc<Doorbell>) -> Self {
        let (sender, done) = channel();
        Self { sender, done, bell: Arc::clone(bell), under_way: 0 }
    }

    /// Does something in a thread of its own.
    pub(crate) fn run(&mut self, errand: impl FnOnce() -> Done + Send + 'static) {
        self.under_way += 1;
        let (sender, bell) = (self.sender.clone(), Arc::clone(&self.bell));
        let whole = move || {
            // Nobody listens to a daemon that has ended.
            let _ = sender.send(errand());
            bell.ring();
        };
        if self.under_way > MOST_ERRANDS {
            return whole();
        }
        // Shared, since `spawn` drops what it was given when there are no threads to be had.
        let errand = Arc::new(Mutex::new(Some(whole)));
        let theirs = Arc::clone(&errand);
        let thread = thread::Builder::new().name("tmem-errand".to_owned());
        if thread.spawn(move || vital(|| run_once(&theirs))).is_err() {
            run_once(&errand);
        }
    }

    /// The next one that has ended.
    pub(crate) fn next_done(&mut self) -> Option<Done> {
        let done = self.done.try_recv().ok();
        self.under_way -= usize::from(done.is_some());
        done
    }
}

fn run_once(errand: &Mutex<Option<impl FnOnce()>>) {
    let errand = errand.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(errand) = errand {
        errand();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    /// Set in the process that is to end.
    const ENDS: &str = "TMEM_TEST_ENDS";

    #[test]
    fn an_errand_that_panics_ends_the_process_instead_of_leaving_its_session_waiting() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "server::errand::tests::one_that_panics", "--ignored"]);
        let ended = command.env(ENDS, "").stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.signal(), Some(6), "SIGABRT, not {}: {said}", ended.status);
    }

    #[test]
    #[ignore = "the process that the test above starts"]
    fn one_that_panics() {
        if std::env::var_os(ENDS).is_none() {
            return;
        }
        let bell = Arc::new(Doorbell::new().unwrap());
        Errands::new(&bell).run(|| panic!("an errand that panics"));
        // It does not ring.
        tmem_sys::poll_readable(&[bell.as_fd()], Some(std::time::Duration::from_secs(60))).unwrap();
    }
}
