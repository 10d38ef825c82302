//! A PostgreSQL session with sorts, joins and aggregates in its own memory.
//!
//! One process (`--single`) without a listener. What it shares with others, the buffers, is kept small: the pages that
//! count are those of the session, which cursors that stay open keep alive.

use super::programs::{Live, PATIENCE, Place, succeed};
use crate::process::{Program, anonymous_bytes};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// Tables, then a transaction that stays open. `PROSE` is the file of prose.
const SETUP: &str = include_str!("../../programs/tables.sql");
/// Cursors, again and again with another `ROUND`, until the session is large enough.
const ROUND: &str = include_str!("../../programs/cursors.sql");
/// Rounds that should be many more than needed.
const LIMIT_ROUNDS: u32 = 200;

/// Starts a server and grows its session to the wanted size.
pub(super) fn start(place: &Place) -> Result<Live> {
    let directory = directory().context("no initdb found: apt-get install postgresql")?;
    let data = place.scratch.join("postgres");
    let mut initdb = Command::new(directory.join("initdb"));
    initdb.args(["--no-sync", "--auth=trust", "--locale=C", "--encoding=UTF8", "--username=postgres", "-D"]).arg(&data);
    let mut server = Command::new(directory.join("postgres"));
    server.args(["--single", "-D"]).arg(&data);
    for setting in ["fsync=off", "shared_buffers=16MB", "work_mem=1GB", "log_min_messages=fatal", "autovacuum=off"] {
        server.args(["-c", setting]);
    }
    server.arg("postgres");
    if rustix::process::geteuid().is_root() {
        // It refuses to run as root.
        let (user, group) = ordinary_user()?;
        fs::create_dir_all(&data).context("cannot make the data directory")?;
        chown(&data, Some(user), Some(group)).context("cannot give the data to an ordinary user")?;
        initdb.uid(user).gid(group);
        server.uid(user).gid(group);
    }
    succeed(initdb.current_dir(&place.scratch))?;
    let mut program = Program::start(server.current_dir(&place.scratch))?;
    let prose = place.prose.display().to_string().replace('\'', "''");
    query(&mut program, &SETUP.replace("PROSE", &prose))?;
    for round in 0..LIMIT_ROUNDS {
        query(&mut program, &ROUND.replace("ROUND", &round.to_string()))?;
        if anonymous_bytes(program.id()).unwrap_or(0) >= place.target_bytes() {
            return Ok(Live { id: program.id(), program });
        }
    }
    ensure!(false, "the session stayed small for {LIMIT_ROUNDS} rounds");
    unreachable!("the line above fails")
}

/// Sends queries, which end in `;`, and waits for the row of the last, which contains `READY`.
fn query(program: &mut Program, queries: &str) -> Result<()> {
    let lines = queries.lines().map(str::trim).filter(|line| !line.starts_with("--"));
    // This server takes a query to end with the line.
    let queries = lines.collect::<Vec<_>>().join(" ").replace("; ", ";\n");
    writeln!(program.stdin()?, "{queries}").context("the server reads no more")?;
    program.stdin()?.flush().context("the server reads no more")?;
    program.wait_for_line("\"READY\"", PATIENCE)
}

/// The newest server that has its tools beside it.
fn directory() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let directories = versions.map(|version| version.path().join("bin"));
    directories.filter(|directory| directory.join("initdb").is_file()).max()
}

/// User and group ids of `postgres`, or of `nobody`.
fn ordinary_user() -> Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").context("cannot read the users of this machine")?;
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    ids("postgres").or_else(|| ids("nobody")).context("this machine has neither a user postgres nor nobody")
}
