//! Stub.
use crate::cli::ScaleBench;
pub(crate) fn run(_options: &ScaleBench) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
