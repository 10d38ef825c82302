//! Memory that two processes share for data.
//!
//! A client makes it and gives it to a daemon, which reads and writes there what the client asks for. The client may
//! write to it at any time; so both sides see bytes that may change between two looks. The daemon does not depend on
//! the client for staying alive: see [`Region::is_lost`].

use crate::guard::LONGEST_BYTES;
use crate::mapped::Mapped;
use crate::{HUGE_PAGE_BYTES, Memfd, PAGE_BYTES, RegionError, SysError};
use core::ptr::NonNull;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU8, AtomicU64};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes of a word, in which regions are read and written where they can be.
const WORD: usize = size_of::<u64>();

/// What a region is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// Base pages, taken one by one as they are touched.
    Small,
    /// Huge pages as far as the system has any, and base pages for the rest; all are taken at once.
    TransparentHuge,
    /// Huge pages of 2 MiB from the pool that the system's owner has set aside; they are reserved at once.
    HugeTlb,
}

/// A memfd, mapped in this process until this is dropped.
#[derive(Debug)]
pub struct Region {
    mapped: Mapped,
    memfd: Memfd,
}

impl Region {
    /// Makes one of zeros, sealed at its size. `name` shows in `/proc/PID/maps`.
    ///
    /// # Errors
    /// [`SysError::Memfd`], [`SysError::NoMemory`]; [`SysError::HugePages`]: the pool has not as many.
    ///
    /// # Panics
    /// When `bytes` is not whole pages of the backing's size (base pages for the transparent ones), at least one and at
    /// most 1 TiB.
    pub fn create(name: &str, bytes: usize, backing: Backing) -> Result<Self, SysError> {
        let page_bytes = if backing == Backing::HugeTlb { HUGE_PAGE_BYTES } else { PAGE_BYTES };
        let whole = bytes > 0 && bytes.is_multiple_of(page_bytes);
        assert!(whole && bytes <= LONGEST_BYTES, "a region is whole pages, at most 1 TiB: {bytes}");
        let no_memory = |errno| SysError::NoMemory { bytes, errno };
        match backing {
            Backing::Small => {
                let memfd = Memfd::sealed(name, bytes)?;
                Ok(Self { mapped: Mapped::new(&memfd).map_err(no_memory)?, memfd })
            }
            Backing::TransparentHuge => {
                let memfd = Memfd::sealed(name, bytes)?;
                let mapped = Mapped::aligned(&memfd, HUGE_PAGE_BYTES).map_err(no_memory)?;
                mapped.populate()?;
                Ok(Self { mapped, memfd })
            }
            Backing::HugeTlb => {
                let none_left = |errno| SysError::HugePages { bytes, errno };
                let memfd = Memfd::huge(name, bytes).map_err(none_left)?;
                Ok(Self { mapped: Mapped::new(&memfd).map_err(none_left)?, memfd })
            }
        }
    }

    /// Maps what another process has sent, which may be anything. From then on that process can change the bytes at
    /// any time, and nothing else here.
    ///
    /// # Errors
    /// [`RegionError`], whose message is for the sender.
    pub fn map_foreign(fd: OwnedFd) -> Result<Self, RegionError> {
        let memfd = Memfd::foreign(fd, LONGEST_BYTES)?;
        let mapped = memfd.alignment().and_then(|align| Mapped::aligned(&memfd, align));
        let mapped = mapped.map_err(|errno| RegionError::Map { bytes: memfd.len(), errno })?;
        Ok(Self { mapped: mapped.guarded(), memfd })
    }

    /// The first byte. All of [`Self::len`] can be read and written until this is dropped; other processes may
    /// write to it meanwhile, so there can be no references into it but to atomics.
    #[must_use]
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.mapped.start()
    }

    /// Its size in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a region is never empty")]
    pub fn len(&self) -> usize {
        self.mapped.len()
    }

    /// What another process maps.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }

    /// Whether this is a foreign region whose memory could not be had when it was touched: its owner has punched a hole
    /// into huge pages of which there are no more, the machine is full, a page is broken. It is zeros of our own since
    /// then, which nobody else sees. To be asked *after* reading from it, and before what was read is taken for the
    /// client's, or what was written for delivered.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.mapped.is_lost()
    }

    /// Copies bytes at `offset` out of it. Each is what it was at some moment during the call.
    ///
    /// # Panics
    /// When not all of them are within the region.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        let words = self.words(offset, into.len());
        let (head, into) = into.split_at_mut(words.head);
        let (body, tail) = into.split_at_mut(words.count * WORD);
        // Relaxed, here and below: bytes, which publish nothing; what says that they are there orders them.
        self.bytes(offset, head.len()).iter().zip(head).for_each(|(from, to)| *to = from.load(Relaxed));
        let (at, after) = (offset + words.head, offset + words.head + body.len());
        for (from, to) in self.aligned(at, words.count).iter().zip(body.chunks_exact_mut(WORD)) {
            // As they lie in memory, whatever the machine's order. Relaxed: as above.
            to.copy_from_slice(&from.load(Relaxed).to_le().to_le_bytes());
        }
        self.bytes(after, tail.len()).iter().zip(tail).for_each(|(from, to)| *to = from.load(Relaxed)); // as above
    }

    /// Copies bytes to `offset` in it.
    ///
    /// # Panics
    /// When not all of them would be within the region.
    pub fn write(&self, offset: usize, from: &[u8]) {
        let words = self.words(offset, from.len());
        let (head, from) = from.split_at(words.head);
        let (body, tail) = from.split_at(words.count * WORD);
        // Relaxed, here and below: as in `read`.
        self.bytes(offset, head.len()).iter().zip(head).for_each(|(to, from)| to.store(*from, Relaxed));
        let (at, after) = (offset + words.head, offset + words.head + body.len());
        for (to, from) in self.aligned(at, words.count).iter().zip(body.chunks_exact(WORD)) {
            let word = from.try_into().map_or(0, u64::from_le_bytes);
            to.store(u64::from_le(word), Relaxed); // as above
        }
        self.bytes(after, tail.len()).iter().zip(tail).for_each(|(to, from)| to.store(*from, Relaxed)); // as above
    }

    /// How `len` bytes at `offset`, which are asserted to be in the region, fall into words.
    fn words(&self, offset: usize, len: usize) -> Words {
        let within = offset <= self.len() && len <= self.len() - offset;
        assert!(within, "{len} bytes at {offset} are not within {} bytes", self.len());
        let head = (offset.next_multiple_of(WORD) - offset).min(len);
        Words { head, count: (len - head) / WORD }
    }

    /// Bytes within the region.
    fn bytes(&self, offset: usize, len: usize) -> &[AtomicU8] {
        debug_assert!(offset + len <= self.len());
        // SAFETY: within the mapping.
        let at = unsafe { self.as_ptr().add(offset) };
        // SAFETY: mapped as long as self; any bytes are atomics, and nobody in this process may see them as others.
        unsafe { core::slice::from_raw_parts(at.cast().as_ptr(), len) }
    }

    /// Words within the region, at a multiple of a word's size.
    fn aligned(&self, offset: usize, count: usize) -> &[AtomicU64] {
        debug_assert!(offset + count * WORD <= self.len() && (count == 0 || offset.is_multiple_of(WORD)));
        // The region itself for no words: it is aligned, and `offset` need not be.
        // SAFETY: within the mapping.
        let at = unsafe { self.as_ptr().add(if count == 0 { 0 } else { offset }) };
        // SAFETY: as for bytes; aligned since the mapping is, to a page.
        unsafe { core::slice::from_raw_parts(at.cast().as_ptr(), count) }
    }
}

/// A range as words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Words {
    /// Bytes before the first whole word.
    head: usize,
    /// Whole words.
    count: usize,
}

#[cfg(test)]
mod tests;
