//! Stub.
use crate::cli::Estimate;
pub(crate) fn run(_options: &Estimate) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
