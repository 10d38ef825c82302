//! The side that submits.

mod connection;
mod error;
mod next;
mod queue;
mod region;
mod session;

pub use error::ClientError;
pub use next::Next;
pub use queue::{Queue, QueueError};
pub use region::Region;
pub use session::{Client, Hello, control, stat};
pub use tmem_sys::Backing;
