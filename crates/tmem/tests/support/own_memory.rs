//! This process's own memory, as a file: to break stored bytes as failing memory would, and to change memory that was lent.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

#[derive(Debug)]
pub struct OwnMemory(File);

impl OwnMemory {
    pub fn open() -> Self {
        Self(OpenOptions::new().read(true).write(true).open("/proc/self/mem").unwrap())
    }

    /// Writes `bytes` at `address`, whoever may be looking.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.0.write_all_at(bytes, address).unwrap();
    }

    pub fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact_at(&mut bytes, address).unwrap();
        bytes
    }

    /// Flips a bit.
    pub fn flip(&self, address: u64) {
        let byte = self.read(address, 1)[0];
        self.write(address, &[byte ^ 0x10]);
    }

    /// Where `needle` lies within the first `len` bytes of the segments of this process's stores.
    pub fn find_stored(&self, needle: &[u8], len: usize) -> Option<u64> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let starts = maps.lines().filter(|line| line.contains("tmem-segments")).filter_map(|line| {
            let (start, _) = line.split_once('-')?;
            u64::from_str_radix(start, 16).ok()
        });
        starts.into_iter().find_map(|start| {
            let bytes = self.read(start, len);
            let at = bytes.windows(needle.len()).position(|window| window == needle)?;
            Some(start + at as u64)
        })
    }
}
