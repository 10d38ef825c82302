//! What happens when the limit cannot hold: nothing more can be taken, and the store takes no more.

use std::time::Duration;

use rustix::process::Signal;

use crate::core::Core;
use crate::options::OnFull;
use crate::space::Program;

/// The limit cannot hold if nothing could be taken for so long.
const PATIENCE: Duration = Duration::from_secs(3);
/// The same, where it was passed before.
const IMPATIENCE: Duration = Duration::from_millis(50);

/// Whether it has happened, and what was done.
#[derive(Debug, Default)]
pub(crate) struct Full {
    told: bool,
    /// The limit under which the programs were stopped.
    stopped: Option<u64>,
}

impl Full {
    /// How long nothing can be taken before it has happened. A limit that is passed already is soon passed by more.
    pub(crate) fn patience(&self, core: &Core) -> Duration {
        if self.told && core.on_full == OnFull::Exceed { IMPATIENCE } else { PATIENCE }
    }

    /// Whether the programs are stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// Nothing can be freed, and the limit is passed.
    pub(crate) fn happened(&mut self, core: &Core) {
        if self.stopped.is_some_and(|limit| limit != core.limit()) {
            self.go_on(core);
            return;
        }
        if core.on_full == OnFull::Exceed {
            core.exceed();
        }
        if self.told {
            return;
        }
        self.told = true;
        let limit = core.limit() >> 20;
        let needed = core.needed().div_ceil(1 << 20);
        let full = format!("the limit of {limit} MiB cannot hold: {needed} MiB are needed even compressed");
        match core.on_full {
            OnFull::Stop => {
                self.stopped = Some(core.limit());
                let pid = core.spaces().iter().find_map(|space| Some(space.program.get()?.pid)).unwrap_or(0);
                core.note(format!(
                    "{full}. The program is stopped; nothing is lost. To go on: tmem limit {pid} {}M",
                    (limit * 3 / 2).max(needed * 5 / 4)
                ));
                signal_all(core, Signal::STOP);
            }
            OnFull::Kill => {
                core.note(format!("{full}. The program was killed, as --on-full=kill asks"));
                signal_all(core, Signal::KILL);
            }
            OnFull::Exceed => {
                core.note(format!(
                    "{full}. The program goes on, above the limit by as little as it can, as --on-full=exceed asks"
                ));
            }
        }
    }

    /// There is room again.
    pub(crate) fn recovered(&mut self, core: &Core) {
        if self.stopped.is_some() {
            self.go_on(core);
        }
        self.told = false;
        core.exceed_less();
    }

    fn go_on(&mut self, core: &Core) {
        core.note("the program goes on".to_owned());
        signal_all(core, Signal::CONT);
        *self = Self::default();
    }
}

/// Whether a program waits for a page in a system call. It is not stopped: with a signal pending, it would wait awake. Its
/// other threads go on until they need memory, too.
fn waits_in_system_call(program: &Program) -> bool {
    let mut threads = Vec::new();
    let _ = tmem_sys::threads(program.pid, &mut threads); // one that has gone has none
    threads.into_iter().any(tmem_sys::faults_in_system_call)
}

fn signal_all(core: &Core, signal: Signal) {
    for space in core.spaces() {
        if let Some(program) = space.program.get()
            && (signal != Signal::STOP || !waits_in_system_call(program))
        {
            let _ = program.life.kill(signal);
        }
    }
}
