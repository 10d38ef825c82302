//! `cargo xtask pages`: files of the private anonymous pages of live programs.
//!
//! A codec or a predictor that was tuned on made-up data says nothing about memory. So real programs are run here,
//! filled with words, records, numbers and timestamps, stopped, and their pages written out one after the other.
//!
//! The programs come in two halves ([`programs::Half`]): constants are chosen on one and figures reported on the
//! other, so that no figure is of the data it was tuned on.

mod corpus;
mod dump;
mod postgres;
mod programs;
mod redis;

use crate::process::{self, Scratch};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use dump::{Dumped, PAGE_BYTES};
use programs::{Live, PROGRAMS, Place, Source};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Fewer programs than this are no basis for a figure.
const LEAST_PROGRAMS: usize = 6;
/// What `--quick` makes of each program.
pub(crate) const QUICK_MIB: usize = 16;

/// Makes files of raw private anonymous pages of live programs
#[derive(Args, Debug, Default)]
#[command(after_help = "Examples:
  cargo xtask pages                               every program, about 96 MiB each
  cargo xtask pages --programs redis,rustc --force
  cargo xtask pages --quick --out target/pages    three small ones that need nothing installed")]
pub(crate) struct Options {
    /// Directory of the files; NAME.pages, halves.txt, and DONE when all is written
    #[arg(long, default_value = "/var/tmp/tmem-pages")]
    pub(crate) out: PathBuf,
    /// Only these programs
    #[arg(long, value_delimiter = ',')]
    pub(crate) programs: Vec<String>,
    /// How much memory each program grows to, in MiB
    #[arg(long, default_value_t = 96)]
    pub(crate) size_mib: usize,
    /// Makes a file again that is there already
    #[arg(long)]
    pub(crate) force: bool,
    /// Three programs of 16 MiB that need nothing installed
    #[arg(long)]
    pub(crate) quick: bool,
}

/// Makes the files.
pub(crate) fn run(options: &Options) -> Result<()> {
    let chosen = choose(options)?;
    fs::create_dir_all(&options.out).with_context(|| format!("cannot make {}", options.out.display()))?;
    let done = options.out.join("DONE");
    if done.exists() {
        fs::remove_file(&done).with_context(|| format!("cannot remove {}", done.display()))?;
    }
    let halves: String = chosen.iter().map(|source| format!("{} {}\n", source.half.name(), source.name)).collect();
    fs::write(options.out.join("halves.txt"), halves).context("cannot write halves.txt")?;
    let scratch = Scratch::new("tmem-pages")?;
    let size_mib = if options.quick { QUICK_MIB } else { options.size_mib };
    let place = place(&scratch, &options.out, size_mib)?;
    println!("{:<10} {:<7} {:>5} {:>7} {:>7}", "program", "half", "MiB", "zero", "time");
    let mut made = 0;
    for source in &chosen {
        let start = Instant::now();
        match make(source, &place, options.force) {
            Ok(dumped) => {
                made += 1;
                let (mib, zero, time) = (dumped.mib(), dumped.zero_percent(), start.elapsed());
                println!(
                    "{:<10} {:<7} {mib:>5} {zero:>6}% {:>6.1}s",
                    source.name,
                    source.half.name(),
                    time.as_secs_f32()
                );
            }
            Err(error) => println!("{:<10} {:<7} failed: {error:#}", source.name, source.half.name()),
        }
    }
    let least = LEAST_PROGRAMS.min(chosen.len());
    ensure!(made >= least, "{made} of {} programs worked; fewer than {least} are no basis for a figure", chosen.len());
    fs::write(&done, format!("{made} of {} programs\n", chosen.len())).context("cannot write DONE")?;
    println!("{made} of {} programs in {}", chosen.len(), options.out.display());
    Ok(())
}

fn choose(options: &Options) -> Result<Vec<&'static Source>> {
    for name in &options.programs {
        if !PROGRAMS.iter().any(|source| source.name == name) {
            let names: Vec<&str> = PROGRAMS.iter().map(|source| source.name).collect();
            bail!("no program {name:?}; there are {}", names.join(", "));
        }
    }
    let wanted = |source: &&Source| match (options.programs.is_empty(), options.quick) {
        (true, true) => source.quick,
        (true, false) => true,
        (false, _) => options.programs.iter().any(|name| name == source.name),
    };
    Ok(PROGRAMS.iter().filter(wanted).collect())
}

/// Calls `action` with the id of a program of so much memory, which runs until it returns.
pub(crate) fn with_program<T>(name: &str, size_mib: usize, action: impl FnOnce(u32) -> Result<T>) -> Result<T> {
    let source = PROGRAMS.iter().find(|source| source.name == name).with_context(|| format!("no program {name:?}"))?;
    let scratch = Scratch::new("tmem-program")?;
    let place = place(&scratch, &scratch.path, size_mib)?;
    programs::install(source)?;
    let live = (source.start)(&place)?;
    action(live.id)
}

fn place(scratch: &Scratch, out: &Path, size_mib: usize) -> Result<Place> {
    let prose = scratch.path.join("prose.txt");
    corpus::write(&prose)?;
    Ok(Place { out: out.to_owned(), prose, scratch: scratch.path.clone(), size_mib })
}

fn make(source: &Source, place: &Place, force: bool) -> Result<Dumped> {
    let file = place.out.join(format!("{}.pages", source.name));
    if file.exists() && !force {
        return Dumped::of_file(&file);
    }
    programs::install(source)?;
    let live = (source.start)(place)?;
    dump_live(&live, &file, place)
}

fn dump_live(live: &Live, file: &Path, place: &Place) -> Result<Dumped> {
    process::stop(live.id)?;
    // A third over the target: a program may grow in steps.
    dump::dump(live.id, file, place.size_mib * (1 << 20) / PAGE_BYTES * 4 / 3)
}
