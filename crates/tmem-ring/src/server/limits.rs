//! The most that a client may have, so that all of them together do not exhaust what the daemon's process has.

/// Pools of a client: what can be told in one packet, as it attaches again.
pub(crate) const MOST_POOLS: usize = 256;

// Each pool's number has up to ten digits and a comma; the rest of a `Welcome` less than 150 bytes.
const _: () = assert!(MOST_POOLS * 11 + 150 <= crate::wire::PACKET_BYTES, "a Welcome fits into a packet");

/// Clients that may join a pool; those that have gone still count.
pub(crate) const MOST_AUTHORISED: usize = 1024;

/// Regions of a client.
const MOST_REGIONS: usize = 256;

/// Regions of all clients: of the 65530 mappings that a process has by default, three quarters.
const REGIONS_OF_ALL: usize = 48 << 10;

/// Bytes of a client's regions.
const MOST_REGION_BYTES: usize = 1 << 40;

/// Bytes of all regions: of the 128 TiB of addresses that a process has, half.
const REGION_BYTES_OF_ALL: usize = 1 << 46;

/// Queues of a client: each costs two descriptors and a mapping, and workers a look.
const MOST_QUEUES: usize = 64;

/// Queues of all clients: an eighth of the mappings.
const QUEUES_OF_ALL: usize = 8 << 10;

/// Entries of a client's queues together: 70 MiB of memory, of 1120 bytes each.
const MOST_QUEUE_ENTRIES: u64 = 1 << 16;

const _: () = assert!(MOST_QUEUE_ENTRIES >= crate::layout::MOST_ENTRIES, "the longest queue can be opened");

/// What one client may have where there are so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) regions: usize,
    pub(crate) region_bytes: usize,
    pub(crate) queues: usize,
    pub(crate) queue_entries: u64,
}

impl Limits {
    /// Everybody's share.
    pub(crate) fn of(most_clients: usize) -> Self {
        let share = |all: usize, most: usize| (all / most_clients.max(1)).clamp(1, most);
        Self {
            regions: share(REGIONS_OF_ALL, MOST_REGIONS),
            region_bytes: share(REGION_BYTES_OF_ALL, MOST_REGION_BYTES),
            queues: share(QUEUES_OF_ALL, MOST_QUEUES),
            queue_entries: MOST_QUEUE_ENTRIES,
        }
    }
}
