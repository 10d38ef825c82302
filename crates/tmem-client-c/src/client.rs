//! Clients and their pools.

use crate::error::{Failure, guarded};
use crate::pointer::{borrow, check_room, put, take_back, text};
use core::ffi::c_char;
use std::path::Path;
use tmem_ring::client::{Client, Hello};
use tmem_ring::wire::{Key, Policy, PoolKind, PoolOptions};
use tmem_ring::{ClientId, PoolId};

/// A client of a daemon.
#[derive(Debug)]
pub struct tmem_client {
    pub(crate) client: Client,
}

/// Room for a client's key: 32 hexadecimal digits and a zero byte.
pub const TMEM_KEY_BYTES: usize = 33;

/// The data of the pool may vanish at any time: it is a cache. Without: what was accepted is returned until it is
/// flushed.
pub const TMEM_POOL_EPHEMERAL: u32 = 1;
/// Clients that are authorised may join the pool.
pub const TMEM_POOL_SHARED: u32 = 2;
/// The pool stays when its client is gone, for when it attaches again.
pub const TMEM_POOL_OUTLIVES: u32 = 4;
/// Takes less time for its data, and more memory. Without this and the next one: balanced.
pub const TMEM_POOL_FAST: u32 = 8;
/// Takes more time for its data, and less memory.
pub const TMEM_POOL_DENSE: u32 = 16;

/// Connects to the daemon at `path` as a new client. `name` is for people, at most 64 bytes. `cap_bytes` is the most
/// that it is to hold, `weight` its weight, of which the daemon may have set less; 0: what the daemon gives.
///
/// # Safety
/// `path` and `name` are NULL, or texts that end with a zero byte. `client` is NULL, or has room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_connect(
    path: *const c_char,
    name: *const c_char,
    cap_bytes: u64,
    weight: u32,
    client: *mut *mut tmem_client,
) -> i32 {
    guarded(|| {
        check_room(client, "client")?;
        // SAFETY: this function's contract.
        let path = unsafe { text(path, "path") }?;
        // SAFETY: the same.
        let name = unsafe { text(name, "name") }?.to_owned();
        let given = |number| (number != 0).then_some(number);
        let weight = (weight != 0).then_some(weight);
        let connected = Client::connect(Path::new(path), &Hello { name, cap_bytes: given(cap_bytes), weight })?;
        // SAFETY: the same.
        unsafe { put(client, Box::into_raw(Box::new(tmem_client { client: connected })), "client") }?;
        Ok(0)
    })
}

/// Connects to the daemon at `path` as the client that it was before, and has no connection now: with the number and
/// key that tmem_identity() has told. Its pools that outlive it are there, see tmem_pools(); its regions and queues
/// are gone.
///
/// # Safety
/// `path` and `key` are NULL, or texts that end with a zero byte. `client` is NULL, or has room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_attach(
    path: *const c_char,
    id: u32,
    key: *const c_char,
    client: *mut *mut tmem_client,
) -> i32 {
    guarded(|| {
        check_room(client, "client")?;
        // SAFETY: this function's contract.
        let path = unsafe { text(path, "path") }?;
        // SAFETY: the same.
        let key = Key(unsafe { text(key, "key") }?.to_owned());
        let attached = Client::attach(Path::new(path), ClientId(id), &key)?;
        // SAFETY: the same.
        unsafe { put(client, Box::into_raw(Box::new(tmem_client { client: attached })), "client") }?;
        Ok(0)
    })
}

/// Ends the connection and frees the client. Its queues end and its regions are unregistered; both are still to be
/// freed. Pools that do not outlive it are gone.
///
/// # Safety
/// `client` is NULL, or from tmem_connect() or tmem_attach(), not closed, and in use by no other thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_close(client: *mut tmem_client) {
    guarded(|| {
        // SAFETY: this function's contract.
        drop(unsafe { take_back(client) });
        Ok(0)
    });
}

/// Tells the client's number, and its key: TMEM_KEY_BYTES bytes. Whoever of the same user has both can take its
/// place.
///
/// # Safety
/// `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed. `id` is NULL or has room for a number,
/// `key` is NULL or has room for TMEM_KEY_BYTES bytes; what is NULL is not told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_identity(client: *const tmem_client, id: *mut u32, key: *mut c_char) -> i32 {
    guarded(|| {
        // SAFETY: this function's contract.
        let client = &unsafe { borrow(client, "client") }?.client;
        let text = client.key().0.as_bytes();
        if text.len() != TMEM_KEY_BYTES - 1 {
            return Err(Failure::nonsense("the daemon has given a key of another length than it should have"));
        }
        if !id.is_null() {
            // SAFETY: the same.
            unsafe { put(id, client.id().0, "id") }?;
        }
        if !key.is_null() {
            let mut bytes = [0_u8; TMEM_KEY_BYTES];
            bytes[..text.len()].copy_from_slice(text);
            // SAFETY: the same: as many bytes, of which any values are characters.
            unsafe { put(key.cast(), bytes, "key") }?;
        }
        Ok(0)
    })
}

/// Writes the numbers of the client's own pools that were there when it attached, at most `room`, and returns how
/// many there are.
///
/// # Safety
/// `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed. `pools` has room for `room` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_pools(client: *const tmem_client, pools: *mut u32, room: usize) -> i32 {
    guarded(|| {
        // SAFETY: this function's contract.
        let own = unsafe { borrow(client, "client") }?.client.pools();
        for (at, pool) in own.iter().take(room).enumerate() {
            // Within what there is room for, if there is any; NULL is told of below.
            // SAFETY: the same.
            unsafe { put(pools.wrapping_add(at), pool.0, "pools") }?;
        }
        i32::try_from(own.len()).map_err(|_| Failure::nonsense("the daemon tells of more pools than there can be"))
    })
}

/// Makes a pool with the flags TMEM_POOL_*.
///
/// # Safety
/// `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed. `pool` is NULL, or has room for a
/// number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_create_pool(client: *const tmem_client, flags: u32, pool: *mut u32) -> i32 {
    guarded(|| {
        check_room(pool, "pool")?;
        let options = pool_options(flags)?;
        // SAFETY: this function's contract.
        let made = unsafe { borrow(client, "client") }?.client.create_pool(options)?;
        // SAFETY: the same.
        unsafe { put(pool, made.0, "pool") }?;
        Ok(0)
    })
}

fn pool_options(flags: u32) -> Result<PoolOptions, Failure> {
    let has = |flag| flags & flag != 0;
    let all = TMEM_POOL_EPHEMERAL | TMEM_POOL_SHARED | TMEM_POOL_OUTLIVES | TMEM_POOL_FAST | TMEM_POOL_DENSE;
    if flags & !all != 0 {
        return Err(Failure::argument(format!("a flag of a pool that means nothing: {:#x}", flags & !all)));
    }
    let policy = match (has(TMEM_POOL_FAST), has(TMEM_POOL_DENSE)) {
        (false, false) => Policy::Balanced,
        (true, false) => Policy::Fast,
        (false, true) => Policy::Dense,
        (true, true) => return Err(Failure::argument("a pool is fast or dense, not both")),
    };
    let kind = if has(TMEM_POOL_EPHEMERAL) { PoolKind::Ephemeral } else { PoolKind::Persistent };
    Ok(PoolOptions { kind, shared: has(TMEM_POOL_SHARED), policy, outlives: has(TMEM_POOL_OUTLIVES) })
}

/// Joins another client's shared pool, which has authorised this one.
///
/// # Safety
/// `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_join_pool(client: *const tmem_client, pool: u32) -> i32 {
    guarded(|| {
        // SAFETY: this function's contract.
        unsafe { borrow(client, "client") }?.client.join_pool(PoolId(pool))?;
        Ok(0)
    })
}

/// Lets the client with the number `other` join an own pool that is shared.
///
/// # Safety
/// `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_authorise(client: *const tmem_client, pool: u32, other: u32) -> i32 {
    guarded(|| {
        // SAFETY: this function's contract.
        unsafe { borrow(client, "client") }?.client.authorise(PoolId(pool), ClientId(other))?;
        Ok(0)
    })
}

/// Ends an own pool for everybody: all that is in it is gone when this returns.
///
/// # Safety
/// `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tmem_destroy_pool(client: *const tmem_client, pool: u32) -> i32 {
    guarded(|| {
        // SAFETY: this function's contract.
        unsafe { borrow(client, "client") }?.client.destroy_pool(PoolId(pool))?;
        Ok(0)
    })
}
