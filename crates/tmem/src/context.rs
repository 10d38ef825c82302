//! Contexts: what a thread needs for the length of a call.
//!
//! A context is an epoch slot, codec scratch, and the heads of the log that its puts append to. There are about as
//! many as threads that can run at once; they are made when first wanted and taken for one call. A thread goes back
//! to the context that it had last, so on a quiet store each thread has its own.
//!
//! Lock: a context's mutex is taken before every other lock but the cleaner's. Whoever holds one context may try
//! another, but never waits for it.

use crate::budget::{Budget, Claim, NoRoom, Use};
use crate::row::Class;
use crate::segment::OpenSegment;
use crate::table::{ObjectId, ObjectRef, PoolId};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use tmem_codec::{MAX_BLOCK, Workspace};

/// A thread's belongings for one call.
#[derive(Debug)]
pub(crate) struct Context {
    /// The epoch slot, and the number of its statistics cells.
    pub(crate) slot: usize,
    /// Where puts append, by class. Only persistent and probation are ever put to.
    pub(crate) heads: [Option<OpenSegment>; 2],
    pub(crate) workspace: Box<Workspace>,
    /// For blocks of which the caller wants a part, and for granules that are scattered.
    pub(crate) scratch: Box<[u8; MAX_BLOCK]>,
    /// The object of the last operation: a hint, for it may be gone.
    pub(crate) last: Option<((PoolId, ObjectId), ObjectRef)>,
    /// Bytes counted in the budget.
    charged: usize,
}

impl Context {
    pub(crate) fn new(slot: usize, budget: &Budget, claim: Claim) -> Result<Self, NoRoom> {
        // Asked for before it is taken: the workspace's own size is known only once it exists.
        let least = size_of::<Self>() + MAX_BLOCK + size_of::<Workspace>();
        budget.take(least, Use::Scratch, claim)?;
        let mut context = Self {
            slot,
            heads: [None, None],
            workspace: Workspace::boxed(),
            scratch: vec![0; MAX_BLOCK].into_boxed_slice().try_into().unwrap_or_else(|_| unreachable!("of that size")),
            last: None,
            charged: least,
        };
        context.recount(budget);
        Ok(context)
    }

    /// On the heap, if there is room. Never inlined: a context is built on the stack, and whoever has that in its
    /// frame pays for probing it at every call.
    #[cold]
    #[inline(never)]
    fn boxed(slot: usize, budget: &Budget) -> Option<Box<Self>> {
        Self::new(slot, budget, Claim::Put).ok().map(Box::new)
    }

    /// Counts what the codecs have allocated since the last time.
    pub(crate) fn recount(&mut self, budget: &Budget) {
        let held = size_of::<Self>() + MAX_BLOCK + self.workspace.footprint_bytes();
        if held != self.charged {
            budget.adjust(self.charged, held, Use::Scratch);
            self.charged = held;
        }
    }

    /// The head that blocks of `class` are appended to.
    pub(crate) fn head(&mut self, class: Class) -> &mut Option<OpenSegment> {
        &mut self.heads[class as usize]
    }
}

/// All contexts of a store.
#[derive(Debug)]
pub(crate) struct Contexts(Box<[Seat]>);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Seat(Mutex<Option<Box<Context>>>);

/// A context, taken.
#[derive(Debug)]
pub(crate) struct Taken<'a>(MutexGuard<'a, Option<Box<Context>>>);

impl Contexts {
    /// Room for `count`, of which one is made at once, so that there is always one to wait for.
    pub(crate) fn new(count: usize, budget: &Budget) -> Result<Self, NoRoom> {
        let seats: Box<[Seat]> = (0..count).map(|_| Seat::default()).collect();
        *lock(&seats[0].0) = Some(Box::new(Context::new(0, budget, Claim::Put)?));
        Ok(Self(seats))
    }

    /// A context for the calling thread; waits only when all are taken.
    pub(crate) fn take(&self, budget: &Budget) -> Taken<'_> {
        let hint = thread_number() % self.0.len();
        for nth in 0..self.0.len() {
            let at = (hint + nth) % self.0.len();
            let Some(mut seat) = try_lock(&self.0[at].0) else {
                continue;
            };
            if seat.is_none() {
                *seat = Context::boxed(at, budget);
            }
            if seat.is_some() {
                return Taken(seat);
            }
        }
        let seat = lock(&self.0[hint].0);
        if seat.is_some() { Taken(seat) } else { Taken(lock(&self.0[0].0)) }
    }

    /// Bytes that are left in the heads of contexts that are not in use.
    pub(crate) fn idle_room(&self) -> usize {
        let room_of = |context: &Context| -> usize { context.heads.iter().flatten().map(OpenSegment::room).sum() };
        let seats = self.0.iter().filter_map(|seat| try_lock(&seat.0));
        seats.filter_map(|seat| seat.as_deref().map(room_of)).sum()
    }

    /// Takes the heads out of every context that is not in use, so that they can be sealed.
    pub(crate) fn take_idle_heads(&self) -> Vec<OpenSegment> {
        let seats = self.0.iter().filter_map(|seat| try_lock(&seat.0));
        let contexts = seats.filter_map(|mut seat| seat.as_mut().map(|context| std::mem::take(&mut context.heads)));
        contexts.flatten().flatten().collect()
    }
}

impl core::ops::Deref for Taken<'_> {
    type Target = Context;

    fn deref(&self) -> &Context {
        self.0.as_ref().unwrap_or_else(|| unreachable!("a taken seat holds a context"))
    }
}

impl core::ops::DerefMut for Taken<'_> {
    fn deref_mut(&mut self) -> &mut Context {
        self.0.as_mut().unwrap_or_else(|| unreachable!("a taken seat holds a context"))
    }
}

/// A small number for each thread, so that threads spread over the contexts.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        // Relaxed: only the number matters.
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

/// A context whose holder panicked is as good as any: its uncommitted blocks are rewound when its head is next used.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
