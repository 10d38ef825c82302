//! Robust mutexes that are held while their pages are moved away.
//!
//! When a thread exits, the kernel marks the robust mutexes that it holds, so that others learn of its death; it does
//! not wait for pages then. So the page of a held one must be there. Which are held is told by a list in the thread's
//! own memory (`set_robust_list(2)`). The lists are walked before pages are chosen, which leaves those of held ones
//! where they are, and again after each move, for what was taken meanwhile: to read an element is to fault its page
//! back in, if it was just moved. A mutex that is taken later has its page touched by that.

use tmem_agent::protocol::PAGE_BYTES;

use crate::hands::Hands;
use crate::lock;
use crate::space::Space;
use crate::units::Page;

/// Elements of a list that are looked at; the kernel's own limit is 2048.
const MOST: usize = 2048;

/// Has the pages of all held robust mutexes come back. Returns them.
pub(crate) fn touch_held(space: &Space, hands: &Hands) -> Vec<Page> {
    let heads = lock(&space.robust).clone();
    let mut held = Vec::new();
    for head in heads {
        walk(hands.pid, head, &mut held);
    }
    held
}

/// `struct robust_list_head`: the first element, the distance from an element to its lock word, and the element that
/// is being put in or taken out. The last element points back to the head.
fn walk(pid: u32, head: u64, held: &mut Vec<Page>) {
    let Some([first, offset, pending]) = read::<3>(pid, head) else { return };
    touch_lock(pid, pending, offset, held);
    let mut element = first;
    for _ in 0..MOST {
        // The lowest bit says "priority inheritance".
        let address = element & !1;
        if address == head || address == 0 {
            return;
        }
        let Some([next]) = read::<1>(pid, address) else { return };
        held.push(Page::of(address));
        touch_lock(pid, address, offset, held);
        element = next;
    }
}

/// The lock word may lie in another page than the element.
fn touch_lock(pid: u32, element: u64, offset: u64, held: &mut Vec<Page>) {
    let lock = (element & !1).wrapping_add(offset) & !7;
    if element != 0 {
        held.push(Page::of(lock));
        if lock / PAGE_BYTES != element / PAGE_BYTES {
            let _ = read::<1>(pid, lock);
        }
    }
}

fn read<const WORDS: usize>(pid: u32, address: u64) -> Option<[u64; WORDS]> {
    let mut bytes = [0; 24];
    let bytes = &mut bytes[..WORDS * 8];
    let read = tmem_sys::read_memory(pid, address, bytes).ok()?;
    (read == bytes.len()).then(|| {
        let mut words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        core::array::from_fn(|_| words.next().unwrap_or(0))
    })
}
