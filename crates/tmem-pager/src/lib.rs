//! The monitor: page faults of unmodified programs to operations of the store.
#![forbid(unsafe_code)]

mod control;
mod image;
mod monitor;
mod options;
mod report;
mod rights;

pub use control::set_limit;
pub use image::agent_image;
pub use monitor::{Monitor, MonitorError};
pub use options::{OnFull, Options, UnknownOnFull};
pub use report::{FaultTimes, LeftAlone, Live, Refused, Report};
pub use rights::{Check, Door, Lack, Rights, Verdict, checks, rights};
