//! Bits that nobody can guess.

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

/// So many bytes of the kernel's random generator. Waits only where the system has just been started and has none yet.
///
/// # Errors
/// `NOSYS`: a filter of system calls forbids it.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], Errno> {
    // The kernel answers requests of up to 256 bytes whole, or not at all.
    const { assert!(N <= 256, "a request that is answered whole") };
    let mut bytes = [0; N];
    loop {
        match getrandom(&mut bytes, GetRandomFlags::empty()) {
            Ok(_) => return Ok(bytes),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_differ_and_fill_their_room() {
        let (one, other) = (random_bytes::<32>().unwrap(), random_bytes::<32>().unwrap());
        assert_ne!(one, other);
        // That the last 16 are all zeros happens once in 2^128 times.
        assert_ne!(one[16..], [0; 16]);
    }
}
