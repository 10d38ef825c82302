//! Stub.
use crate::cli::ChurnBench;
pub(crate) fn run(_options: &ChurnBench) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
