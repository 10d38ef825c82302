//! The next completion as a future, without a runtime.
//!
//! Somebody has to sit by the bell for the executor: the *sentry*, a thread of the queue's own that is started for the first
//! future that has to wait. It sleeps while no future waits, and does nothing but wake.

use super::queue::{Queue, QueueError};
use crate::operation::Completion;
use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use tmem_sys::{Doorbell, poll_readable};

/// See [`Queue::next`]. Dropping it loses nothing: the completion is the next one's.
#[derive(Debug)]
#[must_use = "a future does nothing until it is awaited"]
pub struct Next<'q> {
    queue: &'q mut Queue,
}

impl<'q> Next<'q> {
    pub(crate) fn new(queue: &'q mut Queue) -> Self {
        Self { queue }
    }
}

impl Future for Next<'_> {
    type Output = Option<Result<Completion, QueueError>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let queue = &mut *self.get_mut().queue;
        loop {
            match queue.reap_one() {
                Ok(Some(completion)) => return Poll::Ready(Some(Ok(completion))),
                Err(error) => return Poll::Ready(Some(Err(error))),
                Ok(None) if queue.outstanding() == 0 => return Poll::Ready(None),
                Ok(None) => {}
            }
            if let Some(error) = queue.ended() {
                // What was posted before the end counts.
                return Poll::Ready(Some(queue.reap_one().and_then(|last| last.ok_or(error))));
            }
            if queue.sentry().is_none() {
                match Sentry::start(queue) {
                    Ok(sentry) => *queue.sentry() = Some(sentry),
                    Err(_) => return Poll::Ready(Some(Err(QueueError::NoSentry))),
                }
            }
            if queue.ask_for_bell() {
                if let Some(sentry) = queue.sentry() {
                    sentry.wake_for_bell(context.waker());
                }
                return Poll::Pending;
            }
        }
    }
}

/// The thread that sits by the bell.
#[derive(Debug)]
pub(crate) struct Sentry {
    post: Arc<Post>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Post {
    orders: Mutex<Orders>,
    changed: Condvar,
    /// Ends a sleep by the bell.
    relief: Doorbell,
}

#[derive(Debug, Default)]
struct Orders {
    /// To be woken when the bell rings.
    waker: Option<Waker>,
    ended: bool,
}

impl Sentry {
    fn start(queue: &Queue) -> std::io::Result<Self> {
        let post = Post { orders: Mutex::default(), changed: Condvar::new(), relief: Doorbell::new()? };
        let post = Arc::new(post);
        let bell = queue.bell().try_clone_to_owned()?;
        let shared = Arc::clone(&post);
        let thread = std::thread::Builder::new().name("tmem-sentry".to_owned());
        let thread = thread.spawn(move || shared.watch(&bell))?;
        Ok(Self { post, thread: Some(thread) })
    }

    /// Wakes `waker` when the bell rings or the server is gone.
    fn wake_for_bell(&self, waker: &Waker) {
        let mut orders = self.post.lock();
        orders.waker = Some(waker.clone());
        self.post.changed.notify_one();
    }
}

impl Drop for Sentry {
    fn drop(&mut self) {
        self.post.lock().ended = true;
        self.post.changed.notify_one();
        self.post.relief.ring();
        // One that panicked has said so.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Post {
    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, bell: &OwnedFd) {
        loop {
            let mut orders = self.lock();
            while orders.waker.is_none() && !orders.ended {
                orders = self.changed.wait(orders).unwrap_or_else(PoisonError::into_inner);
            }
            if orders.ended {
                return;
            }
            drop(orders);
            let rung = poll_readable(&[self.relief.as_fd(), bell.as_fd()], None);
            // An error passes; a future that is woken for nothing asks again.
            if rung != Ok(0)
                && let Some(waker) = self.lock().waker.take()
            {
                waker.wake();
            }
        }
    }
}
