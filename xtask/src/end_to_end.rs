//! The built command `tmem` on pages of live programs.

use crate::steps::{Steps, Verdict};

/// Steps that run the release build of `tmem`.
pub(crate) fn steps(steps: &mut Steps) {
    steps.step("end to end", || Ok(Verdict::Skipped("unfinished".into())));
}
