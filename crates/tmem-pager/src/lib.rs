//! The monitor: page faults of unmodified programs to operations of the store.
#![forbid(unsafe_code)]
