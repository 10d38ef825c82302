//! What a monitor tells while programs run, and at their end.

use serde::{Deserialize, Serialize};

/// A moment of a tree of programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// Memory of the programs that is in their address spaces.
    pub resident_bytes: u64,
    /// Memory of the programs that is held in the store, as the programs see it.
    pub stored_bytes: u64,
    /// Memory that the store takes for it.
    pub store_bytes: u64,
    /// Bytes that the store holds, as the programs see them, those of resident pages' copies among them, per byte of
    /// `store_bytes`; 0 with an empty store.
    pub density: f64,
    /// Faults served since the start.
    pub faults: u64,
    /// The limit now.
    pub limit_bytes: u64,
    /// Address spaces that are managed now.
    pub processes: u32,
}

/// A tree of programs from its start until now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The limit now.
    pub limit_bytes: u64,
    /// The most that the programs held at one time, resident and stored together: what they would have had without a
    /// limit.
    pub wanted_peak_bytes: u64,
    /// The most that they were given at one time: resident memory and the memory of the store together.
    pub given_peak_bytes: u64,
    /// The most that was resident at one time.
    pub resident_peak_bytes: u64,
    /// The most that the store took at one time, the monitor's own memory with it.
    pub store_peak_bytes: u64,
    /// Bytes of programs per byte of the store, when it held most of them; 0 if nothing was stored.
    pub density: f64,
    /// Faults served.
    pub faults: u64,
    /// How long they took.
    pub fault_us: FaultTimes,
    /// Time that threads waited because the limit was reached and nothing was free yet, in seconds, summed over
    /// threads.
    pub stalled_s: f64,
    /// Bytes that were moved out.
    pub evicted_bytes: u64,
    /// Of these, bytes that had come back and were unchanged: their blocks had been kept, and nothing was encoded.
    pub unchanged_bytes: u64,
    /// Bytes copied, besides encoding and decoding, to move pages out, or to bring 64 KiB or more back at once. Smaller
    /// pieces that come back are copied into place by the kernel (`UFFDIO_COPY`), and are not among these.
    pub copied_bytes: u64,
    /// Huge pages that came back whole.
    pub huge_pages_restored: u64,
    /// Address spaces that there were, managed or not.
    pub processes: u64,
    /// Of these, those that were managed.
    pub managed_processes: u64,
    /// Of these, those that connected and were not.
    pub unmanaged_processes: u64,
    /// Memory that is never moved out, by why; at its peak.
    pub left_alone_bytes: LeftAlone,
    /// Pages that were to be moved out and stayed, by why.
    pub evictions_refused: Refused,
    /// Errors that were made up, and some that were not, by name: how often.
    #[cfg(feature = "fault-injection")]
    pub injected: std::collections::BTreeMap<String, u64>,
    /// Seconds from the start of the program to its end. The command fills it in.
    pub wall_s: f64,
    /// What the program's end was: its exit status, or 128 and the signal it died of. The command fills it in.
    pub exit_status: Option<u8>,
}

/// How long a fault takes, from its message to its answer, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct FaultTimes {
    /// Half of them are faster.
    pub p50: f64,
    /// 99 % of them are faster.
    pub p99: f64,
    /// 99.9 % of them are faster.
    pub p999: f64,
}

/// Memory that is never moved out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftAlone {
    /// Shared memory and files.
    pub shared: u64,
    /// Pages of hugetlbfs.
    pub hugetlb: u64,
    /// Locked by `mlock`.
    pub locked: u64,
}

/// Pages that were to be moved out and stayed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Pinned, shared with a child, or locked by the kernel for a moment.
    pub busy: u64,
    /// Gone by then.
    pub gone: u64,
    /// Left because the address space changed meanwhile.
    pub cancelled: u64,
    /// Their mapping did not allow it.
    pub by_kernel: u64,
}
