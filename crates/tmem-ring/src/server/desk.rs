//! What clients ask for, and what they are told.
//!
//! A request is answered at once, or by an errand; a session has one of them at a time. Whatever comes with a packet is
//! closed by an errand: closing may take as long as whoever sent it likes.

use super::clients::{Asker, Clients, Newcomer, failed};
use super::errand::Done;
use super::limits::{MOST_AUTHORISED, MOST_POOLS};
use super::log::{About, Who};
use super::member::{Member, OwnPool, OwnQueue, Presence, Waiting, Wish, engine_options};
use crate::layout::{Layout, MOST_ENTRIES};
use crate::operation::{ClientId, PoolId};
use crate::wire::{self, PoolOptions, Reply, Request, Verb};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use tmem_sys::{Doorbell, Memfd, Region};
use tracing::Level;

use super::queue::Served;

/// What is told.
#[derive(Debug)]
pub(crate) enum Answer {
    /// This, with the descriptors beside it.
    Now(Reply, Beside),
    /// [`Clients::on_notice`] will tell.
    Later,
}

/// Descriptors beside a reply.
#[derive(Debug)]
pub(crate) enum Beside {
    Nothing,
    Queue(Arc<Served>, Doorbell),
    Stat(Memfd),
}

impl Beside {
    pub(crate) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Queue(served, bell) => vec![served.memfd(), bell.as_fd()],
            Self::Stat(memfd) => vec![memfd.as_fd()],
        }
    }
}

/// An answer, or why there is none.
type Answered = Result<Answer, String>;

const DONE: Answered = Ok(Answer::Now(Reply::Done, Beside::Nothing));

impl Clients {
    /// Answers.
    pub(crate) fn on_request(&mut self, asker: Asker, request: Request, fds: Vec<OwnedFd>) -> Answer {
        if let Request::Register { region } = request {
            return self
                .register(asker, region, fds)
                .unwrap_or_else(|message| Answer::Now(failed(message), Beside::Nothing));
        }
        if !fds.is_empty() {
            return self.refuse(asker, fds, "no descriptors come with this request".to_owned());
        }
        self.answer(asker, request).unwrap_or_else(|message| Answer::Now(failed(message), Beside::Nothing))
    }

    /// Answers what is no request.
    pub(crate) fn refuse(&mut self, asker: Asker, fds: Vec<OwnedFd>, message: String) -> Answer {
        if fds.is_empty() {
            return Answer::Now(failed(message), Beside::Nothing);
        }
        self.later(asker, move || {
            drop(fds);
            Err(message)
        })
    }

    fn answer(&mut self, asker: Asker, request: Request) -> Answered {
        match request {
            Request::Hello { version, name, cap_bytes, weight } => {
                check_version(version)?;
                let reply = self.hello(asker, Newcomer { name, cap_bytes, weight })?;
                Ok(Answer::Now(reply, Beside::Nothing))
            }
            Request::Attach { version, client, key } => {
                check_version(version)?;
                let reply = self.attach(asker, client, &key)?;
                Ok(reply.map_or(Answer::Later, |reply| Answer::Now(reply, Beside::Nothing)))
            }
            Request::CreatePool(options) => self.create_pool(asker, options),
            Request::JoinPool { pool } => {
                let member = self.member(asker)?;
                member.client.join_pool(tmem::PoolId(pool.0)).map_err(|error| error.to_string())?;
                Ok(Answer::Now(Reply::Pool { pool }, Beside::Nothing))
            }
            Request::Authorise { pool, client } => {
                self.member(asker)?;
                self.authorise(asker.client, pool, client)
            }
            Request::DestroyPool { pool } => {
                let own = self.member(asker)?.pools.remove(&pool).ok_or_else(|| no_own_pool(pool))?;
                Ok(self.later(asker, move || own.pool.destroy().map_err(|error| error.to_string())))
            }
            Request::Register { .. } => unreachable!("answered before: it comes with a descriptor"),
            Request::Unregister { region } => {
                let memory = self.member(asker)?.tenant.unregister(region);
                let memory = memory.ok_or_else(|| format!("no region is registered as {region}"))?;
                Ok(self.later(asker, move || {
                    drop(memory);
                    Ok(())
                }))
            }
            Request::OpenQueue { entries } => self.open_queue(asker, u64::from(entries)),
            Request::CloseQueue { queue } => {
                let own = self.member(asker)?.queues.remove(&queue);
                own.ok_or_else(|| format!("no queue of this client has the number {queue}"))?;
                let service = Arc::clone(&self.service);
                Ok(self.later(asker, move || {
                    service.close(queue);
                    Ok(())
                }))
            }
            Request::Stat => {
                let text = serde_json::to_vec(&self.stat()).map_err(|error| error.to_string())?;
                let memfd = Memfd::holding("tmem-stat", &text).map_err(|error| error.to_string())?;
                Ok(Answer::Now(Reply::Stat, Beside::Stat(memfd)))
            }
            Request::Control { client, verb } => self.control(asker, client, verb),
        }
    }

    /// Has an errand done, and its result told.
    fn later(&mut self, asker: Asker, work: impl FnOnce() -> Result<(), String> + Send + 'static) -> Answer {
        let session = asker.session;
        self.errands.run(move || {
            let reply = work().map_or_else(failed, |()| Reply::Done);
            Done::Answered { session, reply }
        });
        Answer::Later
    }

    /// Whom a connection is.
    fn member(&mut self, asker: Asker) -> Result<&mut Member, String> {
        let member = asker.client.and_then(|client| self.members.get_mut(&client));
        member.ok_or_else(|| "say Hello or Attach first: this connection is no client yet".to_owned())
    }

    fn create_pool(&mut self, asker: Asker, options: PoolOptions) -> Answered {
        let member = self.member(asker)?;
        if member.pools.len() >= MOST_POOLS {
            return Err(format!("this client has {MOST_POOLS} pools, which is the most: destroy some, or use objects"));
        }
        let pool = member.client.create_pool(engine_options(options)).map_err(|error| error.to_string())?;
        if let Err(message) = Self::has_numbers(pool.id().0) {
            // Its own, so there is nothing to refuse.
            let _ = pool.destroy();
            return Err(message);
        }
        let id = PoolId(pool.id().0);
        member.pools.insert(id, OwnPool { pool, options, authorised: 0 });
        Ok(Answer::Now(Reply::Pool { pool: id }, Beside::Nothing))
    }

    /// Lets a client join a pool; of `owner`, or of anybody if there is none.
    fn authorise(&mut self, owner: Option<ClientId>, pool: PoolId, client: ClientId) -> Answered {
        if !self.members.contains_key(&client) {
            return Err(no_client(client));
        }
        let mut owners = self.members.iter_mut().filter(|(id, _)| owner.is_none_or(|owner| owner == **id));
        let own = owners.find_map(|(_, member)| member.pools.get_mut(&pool)).ok_or_else(|| no_own_pool(pool))?;
        if own.authorised >= MOST_AUTHORISED {
            return Err(format!("{MOST_AUTHORISED} clients were authorised for pool {}, which is the most", pool.0));
        }
        own.pool.authorise(tmem::ClientId(client.0)).map_err(|error| error.to_string())?;
        own.authorised += 1;
        DONE
    }

    fn register(&mut self, asker: Asker, number: u16, mut fds: Vec<OwnedFd>) -> Answered {
        let limits = self.limits();
        let registered = self.member(asker).map(|member| Arc::clone(&member.tenant)).and_then(|tenant| {
            let regions = tenant.registered().0;
            let most =
                || format!("{regions} regions are registered, which is the most: unregister some, or use larger ones");
            if regions < limits.regions { Ok(tenant) } else { Err(most()) }
        });
        // From here on the descriptors are an errand's, whatever the answer.
        Ok(self.later(asker, move || {
            let tenant = registered?;
            let [fd] = <[OwnedFd; 1]>::try_from(std::mem::take(&mut fds))
                .map_err(|fds| format!("{} descriptors came with this request, instead of the region's", fds.len()))?;
            let region = Region::map_foreign(fd).map_err(|error| error.to_string())?;
            let bytes = tenant.registered().1;
            if bytes.saturating_add(region.len()) > limits.region_bytes {
                return Err(format!(
                    "regions of {bytes} bytes are registered, and may be {} in all",
                    limits.region_bytes
                ));
            }
            let free = tenant.register(number, region);
            if free { Ok(()) } else { Err(format!("the number {number} is taken, or for nobody: take another one")) }
        }))
    }

    fn open_queue(&mut self, asker: Asker, entries: u64) -> Answered {
        let (limits, service, ending) = (self.limits(), Arc::clone(&self.service), self.ending);
        let member = self.member(asker)?;
        if ending {
            return Err("the daemon is ending: no more queues are opened".to_owned());
        }
        if Layout::new(entries).is_none() {
            return Err(format!("a queue of {entries} entries: a power of two is wanted, at most {MOST_ENTRIES}"));
        }
        if member.queues.len() >= limits.queues {
            return Err(format!("{} queues are open, which is the most: close some", limits.queues));
        }
        let open: u64 = member.queues.values().map(|queue| queue.entries).sum();
        if open + entries > limits.queue_entries {
            return Err(format!(
                "queues of {open} entries are open, and may be {} in all: close some",
                limits.queue_entries
            ));
        }
        let (number, served, bell) = service.open(&member.tenant, entries).map_err(|error| error.to_string())?;
        member.queues.insert(number, OwnQueue { served: Arc::clone(&served), entries });
        Ok(Answer::Now(Reply::Queue { queue: number }, Beside::Queue(served, bell)))
    }

    fn control(&mut self, asker: Asker, client: ClientId, verb: Verb) -> Answered {
        let uid = asker.peer.uid;
        if !self.is_master(uid) {
            return Err(format!("uid {uid} may not control clients: only root and the user of the daemon may"));
        }
        let member = self.members.get_mut(&client).ok_or_else(|| no_client(client))?;
        let line = format_args!("{} does to {member}: {verb:?}", Who(asker.peer));
        self.log.tell(Level::INFO, About::User(uid), line);
        let engine = member.client.clone();
        match verb {
            Verb::Freeze => Ok(self.later(asker, move || engine.freeze().map_err(|error| error.to_string()))),
            Verb::Thaw => Ok(self.later(asker, move || engine.thaw().map_err(|error| error.to_string()))),
            Verb::Cap(bytes) => {
                member.set_cap(bytes);
                DONE
            }
            Verb::Weight(weight) => {
                member.set_weight(weight);
                DONE
            }
            Verb::Flush => {
                let pools: Vec<tmem::Pool> = member.pools.values().map(|own| own.pool.clone()).collect();
                Ok(self.later(asker, move || {
                    // One that was destroyed meanwhile is as empty.
                    pools.iter().for_each(|pool| drop(pool.flush_all()));
                    Ok(())
                }))
            }
            Verb::Destroy => {
                let is_own = matches!(member.presence, Presence::Connected { session, .. } if session == asker.session);
                if is_own {
                    return Err("a client ends itself by closing its connection".to_owned());
                }
                self.destroy(client, Waiting { session: asker.session, wish: Wish::Destroyed });
                Ok(Answer::Later)
            }
            Verb::Authorise(pool) => self.authorise(None, pool, client),
        }
    }
}

fn check_version(version: u32) -> Result<(), String> {
    if version == wire::VERSION {
        return Ok(());
    }
    Err(format!("the daemon speaks version {}, this client {version}: use the same release of both", wire::VERSION))
}

fn no_client(client: ClientId) -> String {
    format!("there is no client {}: it has gone, or there never was one", client.0)
}

fn no_own_pool(pool: PoolId) -> String {
    format!("no pool {} is this client's own: it was destroyed, or is another's", pool.0)
}
