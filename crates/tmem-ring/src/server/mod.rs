//! The side that serves queues.
//!
//! ```text
//! Service     worker threads, and all queues                        service.rs
//!   Served    a queue: the ring's server side, what is in flight    queue.rs
//!     Run     what a worker has claimed and carries out             run.rs
//!     Wide    an operation that is cut into pieces                  wide.rs
//!   Tenant    whose queue it is: client, regions, time used         tenant.rs
//! Daemon      clients on a socket                                   daemon.rs
//!   Control   the thread that owns all of what follows              control.rs
//!   Session   a connection                                          session.rs
//!   Clients   everybody who is served: who may do what              clients.rs, desk.rs
//!   Member    one of them, connected or away                        member.rs
//!   Errands   threads for what takes its time                       errand.rs
//!   Log       what is told of clients, and how much at most         log.rs
//! ```
//! Fuzzers move a queue, or `Clients`, by hand (`by_hand/`).
//!
//! # Claiming
//! A worker picks the queue whose tenant has used the least time for its weight, locks it, and *claims*: takes
//! submissions off the ring in their order, up to `run::MOST_OPERATIONS` or `run::MOST_BYTES`. Then it lets go of
//! the lock, carries them out, locks again, and posts their completions. An operation of more bytes is *wide*: it is
//! claimed piece by piece, by any worker.
//!
//! **Order.** What a worker claims it carries out in order. What other workers have in flight of the same queue is
//! compared with each submission before it is claimed: if ranges overlap (of the object or of memory, and one of the
//! two is written) the claim ends there, and the queue is *blocked* until something of it has ended. So operations that
//! overlap never run at the same time, and later ones never before earlier ones.
//!
//! # Sleeping
//! One idle worker watches: it looks at the queues for a while (as long as that has paid lately), then says in each queue
//! that it sleeps (*arms* it), and waits for doorbells. The other idle workers wait until they are called, which a worker
//! does when it leaves more behind than it has claimed.
//!
//! # Clients are hostile
//! Submissions, annexes and counts are fetched once, and checked before use. A client whose counts make no sense is
//! closed. One that changes lent memory changes what its own operations store or return. Memory that cannot be read (a
//! region that was cut off) is replaced by zeros where it is, and the region is *lost*.
//!
//! Time is accounted for, whatever it was used for, so a client that floods its queue waits for its next turn as everybody
//! does. One whose queue was empty for some milliseconds, since it was not let run, makes up for them; not one that had
//! nothing to do. A doorbell is told of once for each ring, and cleared only where it ended a sleep, or before the next
//! one: a client that rings all the time fills it, and then takes no more of the workers' time.
//!
//! # Panics
//! A worker, an errand or the control thread that panics ends the process (`vital.rs`): whoever waits for it is told by
//! the end of its connection, instead of waiting for ever.
//!
//! Locks, outermost first: the list of queues, one queue's state, its tenant's regions. None is held while an operation is
//! carried out.

#[cfg(any(test, fuzzing))]
mod by_hand;
mod clients;
mod control;
mod daemon;
mod desk;
mod errand;
#[cfg(test)]
mod hostile_tests;
mod limits;
mod local;
mod log;
mod member;
mod queue;
mod run;
mod service;
mod session;
mod tenant;
mod vital;
mod wide;

#[cfg(fuzzing)]
pub use by_hand::{answer, serve};
pub use daemon::{Daemon, DaemonOptions};
pub use local::{LocalAction, LocalCompletion, LocalOperation, LocalQueue};
pub use service::{Service, ServiceStats};
