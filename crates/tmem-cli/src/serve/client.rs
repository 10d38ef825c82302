//! `tmem client`: does something to a client of a daemon.

use super::cli::{Client, Verb};
use super::socket;
use anyhow::Result;
use tmem_ring::client;
use tmem_ring::wire;
use tmem_ring::{ClientId, PoolId};

/// Has the daemon do it.
pub(crate) fn run(options: &Client) -> Result<()> {
    let (id, verb) = match options.verb {
        Verb::Freeze { id } => (id, wire::Verb::Freeze),
        Verb::Thaw { id } => (id, wire::Verb::Thaw),
        Verb::Flush { id } => (id, wire::Verb::Flush),
        Verb::Destroy { id } => (id, wire::Verb::Destroy),
        Verb::Cap { id, cap_bytes } => (id, wire::Verb::Cap(cap_bytes)),
        Verb::Weight { id, weight } => (id, wire::Verb::Weight(weight)),
        Verb::Authorise { pool, id } => (id, wire::Verb::Authorise(PoolId(pool))),
    };
    client::control(&socket::of_daemon(options.daemon.socket.as_deref()), ClientId(id), verb)?;
    Ok(())
}
