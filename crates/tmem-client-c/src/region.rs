//! Memory for operations.

use crate::client::tmem_client;
use crate::error::{Failure, guarded};
use crate::pointer::{borrow, check_room, put, take_back};
use core::ffi::{c_int, c_void};
use std::os::fd::BorrowedFd;
use tmem_ring::client::Region;
use tmem_sys::{Backing, HUGE_PAGE_BYTES, PAGE_BYTES};

/// Memory that operations name.
#[derive(Debug)]
pub struct tmem_region {
    pub(crate) region: Region,
}

/// A region of base pages, taken as they are touched.
pub const TMEM_BACKING_SMALL: u32 = 0;
/// A region of huge pages as far as the system has any, all taken at once.
pub const TMEM_BACKING_TRANSPARENT_HUGE: u32 = 1;
/// A region of huge pages of 2 MiB from the pool that the system's owner has set aside.
pub const TMEM_BACKING_HUGETLB: u32 = 2;

/// The longest region.
const MOST_BYTES: usize = 1 << 40;

/// Makes a region of zeros: `bytes` is a multiple of 4096 (of 2 MiB for TMEM_BACKING_HUGETLB), at most 1 TiB.
///
/// # Safety
/// `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed. `region` is NULL, or has room for a
/// pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_create_region(
    client: *const tmem_client,
    bytes: usize,
    backing: u32,
    region: *mut *mut tmem_region,
) -> i32 {
    guarded(|| {
        check_room(region, "region")?;
        let (backing, page_bytes) = match backing {
            TMEM_BACKING_SMALL => (Backing::Small, PAGE_BYTES),
            TMEM_BACKING_TRANSPARENT_HUGE => (Backing::TransparentHuge, PAGE_BYTES),
            TMEM_BACKING_HUGETLB => (Backing::HugeTlb, HUGE_PAGE_BYTES),
            _ => return Err(Failure::argument(format!("there is no backing {backing}"))),
        };
        if bytes == 0 || !bytes.is_multiple_of(page_bytes) || bytes > MOST_BYTES {
            let wanted = format!("{bytes} bytes: a region has whole pages of {page_bytes}, and at most 1 TiB");
            return Err(Failure::argument(wanted));
        }
        // SAFETY: this function's contract.
        let made = unsafe { borrow(client, "client") }?.client.create_region(bytes, backing)?;
        // SAFETY: the same.
        unsafe { put(region, Box::into_raw(Box::new(tmem_region { region: made })), "region") }?;
        Ok(0)
    })
}

/// Makes a region of the memfd `fd`, which stays the caller's: of whole pages, sealed against shrinking.
///
/// # Safety
/// `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed. `fd` is a descriptor that stays open
/// meanwhile. `region` is NULL, or has room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_register(client: *const tmem_client, fd: c_int, region: *mut *mut tmem_region) -> i32 {
    guarded(|| {
        check_room(region, "region")?;
        if fd < 0 {
            return Err(Failure::argument(format!("{fd} is no descriptor")));
        }
        // SAFETY: this function's contract; it is not -1.
        let memfd = unsafe { BorrowedFd::borrow_raw(fd) };
        let memfd = memfd.try_clone_to_owned().map_err(|error| Failure::system(format!("descriptor {fd}: {error}")))?;
        // SAFETY: this function's contract.
        let made = unsafe { borrow(client, "client") }?.client.register(memfd)?;
        // SAFETY: the same.
        unsafe { put(region, Box::into_raw(Box::new(tmem_region { region: made })), "region") }?;
        Ok(0)
    })
}

/// The region's first byte; NULL of NULL. It is there until tmem_unregister().
///
/// # Safety
/// `region` is NULL, or from tmem_create_region() or tmem_register(), and not unregistered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_region_memory(region: *const tmem_region) -> *mut c_void {
    // SAFETY: this function's contract.
    unsafe { borrow(region, "region") }
        .map_or(core::ptr::null_mut(), |region| region.region.as_ptr().as_ptr().cast::<c_void>())
}

/// The region's size; 0 of NULL.
///
/// # Safety
/// `region` is NULL, or from tmem_create_region() or tmem_register(), and not unregistered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_region_bytes(region: *const tmem_region) -> usize {
    // SAFETY: this function's contract.
    unsafe { borrow(region, "region") }.map_or(0, |region| region.region.len())
}

/// Ends a region and frees its memory here. The daemon lets go of it when the operations on it have ended.
///
/// # Safety
/// `region` is NULL, or from tmem_create_region() or tmem_register(), not unregistered, and in use by no other
/// thread; nor is its memory used from now on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_unregister(region: *mut tmem_region) {
    guarded(|| {
        // SAFETY: this function's contract.
        drop(unsafe { take_back(region) });
        Ok(0)
    });
}
