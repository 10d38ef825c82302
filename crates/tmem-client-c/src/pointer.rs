//! Pointers that a C program gives us, and that we give it.

use crate::error::Failure;
use core::ffi::{CStr, c_char};

fn check<T>(pointer: *const T, what: &str) -> Result<(), Failure> {
    if pointer.is_null() {
        return Err(Failure::argument(format!("{what} is NULL")));
    }
    if !pointer.is_aligned() {
        return Err(Failure::argument(format!("{what} is not aligned: it points to something else")));
    }
    Ok(())
}

/// What `pointer` points to, or that it is NULL.
///
/// # Safety
/// It is NULL, or a `T` is there that lives for `'a` and is not changed meanwhile.
pub(crate) unsafe fn borrow<'a, T>(pointer: *const T, what: &str) -> Result<&'a T, Failure> {
    check(pointer, what)?;
    // SAFETY: the caller's contract; it is not null and aligned.
    Ok(unsafe { &*pointer })
}

/// The same, to be changed.
///
/// # Safety
/// As above, and nobody else uses it meanwhile.
pub(crate) unsafe fn borrow_mut<'a, T>(pointer: *mut T, what: &str) -> Result<&'a mut T, Failure> {
    check(pointer, what)?;
    // SAFETY: as above.
    Ok(unsafe { &mut *pointer })
}

/// `count` of them; none may be at NULL.
///
/// # Safety
/// It is NULL, or as many are there that live for `'a` and are not changed meanwhile.
pub(crate) unsafe fn borrow_many<'a, T>(pointer: *const T, count: usize, what: &str) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    check(pointer, what)?;
    // SAFETY: the caller's contract; not null, aligned, and as many as were there are not too many.
    Ok(unsafe { core::slice::from_raw_parts(pointer, count) })
}

/// Text that ends with a zero byte.
///
/// # Safety
/// It is NULL, or such text is there that lives for `'a` and is not changed meanwhile.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, what: &str) -> Result<&'a str, Failure> {
    check(pointer, what)?;
    // SAFETY: the caller's contract.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|_| Failure::argument(format!("{what} is not UTF-8")))
}

/// Checks that something can be put to `pointer` before it is made.
pub(crate) fn check_room<T>(pointer: *mut T, what: &str) -> Result<(), Failure> {
    check(pointer, what)
}

/// Puts `value` to where `pointer` says.
///
/// # Safety
/// It is NULL, or there is room for a `T`, which nobody else uses meanwhile. What is there need not be initialised.
pub(crate) unsafe fn put<T>(pointer: *mut T, value: T, what: &str) -> Result<(), Failure> {
    check(pointer, what)?;
    // SAFETY: the caller's contract; not null, aligned.
    unsafe { pointer.write(value) };
    Ok(())
}

/// Takes back what [`Box::into_raw`] gave; NULL is nothing.
///
/// # Safety
/// It is NULL, or from `Box::into_raw` and not taken back before.
pub(crate) unsafe fn take_back<T>(pointer: *mut T) -> Option<Box<T>> {
    // SAFETY: the caller's contract.
    (!pointer.is_null()).then(|| unsafe { Box::from_raw(pointer) })
}
