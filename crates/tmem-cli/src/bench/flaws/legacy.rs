//! The shape of 2011, honestly built: `tmem_put_page` and `tmem_get_page`.
//!
//! The caller's pages are memory that the other process can reach, as a guest's are for a hypervisor. A call names one
//! page; the other process copies it into a bounce buffer of its own and puts that, or gets into the bounce buffer and
//! copies it out; then it answers, and the caller goes on. Both run on one CPU, as a hypercall does: waking another CPU
//! takes longer.

use super::{LegacyServer, Pass, Rounds};
use crate::bench::clock::process_cpu;
use crate::bench::daemon::cpu_of;
use crate::bench::scratch::{Folder, Process};
use anyhow::{Context, Result, bail, ensure};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tmem::{ClientOptions, GRANULE_BYTES, Outcome, PoolOptions, Store, StoreOptions};
use tmem_sys::{Backing, Channel, Listener, Region, poll_readable};

/// Bytes of a call: what to do, and with which page.
const CALL_BYTES: usize = 9;

const PUT: u8 = 1;
const GET: u8 = 2;
const FLUSH: u8 = 3;

/// How long the other process may take to connect.
const START: Duration = Duration::from_secs(20);

/// The caller's side.
pub(super) struct Legacy {
    channel: Channel,
    server: Process,
    _folder: Folder,
    pages: Region,
    cpus: Vec<u32>,
}

impl Legacy {
    pub(super) fn start(pages: &[u8], budget: usize, policy: tmem::Policy) -> Result<Self> {
        let folder = Folder::make("tmem-legacy")?;
        let socket = folder.path("socket");
        let listener = Listener::bind(&socket, 0o600)?;
        let program = std::env::current_exe().context("cannot find this program itself")?;
        let mut command = Command::new(program);
        command
            .args(["bench", "legacy-server"])
            .arg(&socket)
            .arg(budget.to_string())
            .arg(policy.name())
            .stdin(Stdio::null());
        let server = Process(command.spawn().context("cannot start the process that is called")?);
        let region = Region::create("tmem-legacy", pages.len(), Backing::TransparentHuge)?;
        let channel = accept(&listener)?;
        channel.send(&[0], &[region.fd()]).context("cannot hand over the pages")?;
        Ok(Self { channel, server, _folder: folder, pages: region, cpus: tmem_sys::own_cpus()? })
    }

    pub(super) fn round(&mut self, pages: &[u8], rounds: &mut Rounds) -> Result<()> {
        let one = *self.cpus.first().context("a thread has a CPU")?;
        for thread in [0, self.server.0.id()] {
            tmem_sys::run_on(thread, &[one]).context("cannot bind the caller and the called to one CPU")?;
        }
        let ran = self.passes(pages, rounds);
        tmem_sys::run_on(0, &self.cpus).context("cannot let the caller run everywhere again")?;
        ran
    }

    fn passes(&self, pages: &[u8], rounds: &mut Rounds) -> Result<()> {
        let count = pages.len() / GRANULE_BYTES;
        self.pages.write(0, pages);
        let put = self.pass(PUT, count, &mut Vec::new())?;
        let zeros = vec![0; pages.len()];
        self.pages.write(0, &zeros);
        let get = self.pass(GET, count, &mut rounds.latencies_us)?;
        let mut back = zeros;
        self.pages.read(0, &mut back);
        ensure!(back == pages, "the process that is called returned other bytes than were put");
        self.call(FLUSH, 0)?;
        rounds.puts.push(put);
        rounds.gets.push(get);
        // Each page once into the bounce buffer, and once out of it.
        rounds.copied_bytes += 2 * pages.len() as u64;
        Ok(())
    }

    /// One call for each page.
    fn pass(&self, what: u8, count: usize, latencies_us: &mut Vec<f64>) -> Result<Pass> {
        let (start, cpu) = (Instant::now(), self.cpu()?);
        let mut last = start;
        for page in 0..count {
            self.call(what, page as u64)?;
            let now = Instant::now();
            latencies_us.push((now - last).as_secs_f64() * 1e6);
            last = now;
        }
        Ok(Pass { wall: start.elapsed(), cpu: self.cpu()?.saturating_sub(cpu), doorbells: count as u64 })
    }

    fn cpu(&self) -> Result<Duration> {
        Ok(process_cpu() + cpu_of(self.server.0.id())?)
    }

    fn call(&self, what: u8, page: u64) -> Result<()> {
        let mut call = [0; CALL_BYTES];
        call[0] = what;
        call[1..].copy_from_slice(&page.to_le_bytes());
        self.channel.send(&call, &[]).context("the process that is called is gone")?;
        let mut answer = [0; 1];
        let received = self.channel.receive(&mut answer).context("the process that is called is gone")?;
        ensure!(received.len == 1 && answer == [0], "the process that is called failed at page {page}");
        Ok(())
    }
}

fn accept(listener: &Listener) -> Result<Channel> {
    let start = Instant::now();
    while start.elapsed() < START {
        poll_readable(&[listener.as_fd()], Some(START.saturating_sub(start.elapsed())))?;
        if let Some((channel, _)) = listener.accept()? {
            // A call waits for its answer in the kernel, as one to a hypervisor does.
            rustix::fs::fcntl_setfl(channel.as_fd(), rustix::fs::OFlags::empty())?;
            return Ok(channel);
        }
    }
    bail!("the process that is called did not connect within {} s", START.as_secs())
}

/// The process that is called. Ends when the caller is gone.
pub(crate) fn serve(options: &LegacyServer) -> Result<()> {
    let channel = Channel::connect(&options.socket).context("cannot find the caller")?;
    let received = channel.receive(&mut [0])?;
    let memory = received.fds.into_iter().next().context("the caller sent no pages")?;
    let pages = Region::map_foreign(memory)?;
    let store = Store::new(StoreOptions::with_budget(options.budget))?;
    let client = store.client(ClientOptions::named("legacy"));
    let pool = client.create_pool(PoolOptions::persistent().policy(options.policy))?;
    let mut bounce = [0; GRANULE_BYTES];
    loop {
        let mut call = [0; CALL_BYTES];
        if channel.receive(&mut call)?.len != CALL_BYTES {
            return Ok(());
        }
        let page = u64::from_le_bytes(call[1..].try_into().context("eight bytes")?);
        let at = usize::try_from(page)? * GRANULE_BYTES;
        let done = match call[0] {
            PUT => {
                pages.read(at, &mut bounce);
                pool.put(1, at as u64, &bounce) == Outcome::Stored
            }
            GET => {
                let filled = pool.get(1, at as u64, &mut bounce) == Outcome::Filled;
                pages.write(at, &bounce);
                filled
            }
            _ => matches!(pool.flush_object(1), Outcome::Flushed { .. }),
        };
        channel.send(&[u8::from(!done)], &[])?;
    }
}
