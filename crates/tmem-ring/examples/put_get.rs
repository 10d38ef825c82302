//! Puts 512 pages into a daemon's store, 2 MiB, gets half of them and takes the others: `put_get SOCKET`.
//!
//! All operations are handed over at once, wherever in memory their pages are, and completed in any order.

use std::error::Error;
use std::path::Path;
use tmem_ring::client::{Backing, Client, Hello, Region};
use tmem_ring::wire::PoolOptions;
use tmem_ring::{Action, Operation, Outcome, PoolId, Queue, Slice};

const PAGE: u64 = 4096;
const PAGES: u64 = 512;

fn main() -> Result<(), Box<dyn Error>> {
    let socket = std::env::args_os().nth(1).ok_or("usage: put_get SOCKET")?;
    println!("{}", put_get(Path::new(&socket))?);
    Ok(())
}

/// Does it at the daemon that listens there.
pub fn put_get(socket: &Path) -> Result<String, Box<dyn Error>> {
    let client = Client::connect(socket, &Hello { name: "put_get".to_owned(), ..Hello::default() })?;
    let pool = client.create_pool(PoolOptions::persistent())?;
    // The daemon compresses from, and decompresses to, this memory. Pages are put from the first half, and come back to the
    // second.
    let region = client.create_region(usize::try_from(2 * PAGES * PAGE)?, Backing::Small)?;
    let mut queue = client.open_queue(u32::try_from(PAGES)?)?;

    let written: Vec<u8> = (0..PAGES * PAGE / 8).flat_map(|word| (word / 3).to_le_bytes()).collect();
    region.write(0, &written);
    for page in 0..PAGES {
        push(&mut queue, pool, &region, (page, Does::Put))?;
    }
    finish(&mut queue, &Outcome::Stored)?;
    for page in 0..PAGES {
        // What is taken is not in the store any more.
        push(&mut queue, pool, &region, (page, if page % 2 == 0 { Does::Get } else { Does::Take }))?;
    }
    finish(&mut queue, &Outcome::Filled)?;
    let mut back = vec![0; written.len()];
    region.read(written.len(), &mut back);
    if back != written {
        return Err("what came back is not what was put".into());
    }
    Ok(format!("{PAGES} pages were put and came back the same, with {} doorbells", queue.doorbells()))
}

#[derive(Clone, Copy)]
enum Does {
    Put,
    Get,
    Take,
}

/// Adds an operation on a page of object 42 to the queue. The memory is the daemon's until it is completed.
fn push(queue: &mut Queue, pool: PoolId, region: &Region, (page, does): (u64, Does)) -> Result<(), Box<dyn Error>> {
    let offset = page * PAGE;
    let (from, into) = ([Slice { offset, len: PAGE }], [Slice { offset: (PAGES + page) * PAGE, len: PAGE }]);
    let action = match does {
        Does::Put => Action::Put { offset, from: region.memory(&from) },
        Does::Get => Action::Get { offset, into: region.memory(&into) },
        Does::Take => Action::Take { offset, into: region.memory(&into) },
    };
    Ok(queue.push(&Operation { tag: page, pool, object: 42.into(), action })?)
}

/// Submits what was added, and waits until all of it has ended as it should.
fn finish(queue: &mut Queue, expected: &Outcome) -> Result<(), Box<dyn Error>> {
    // (Or `queue.next().await`, or `queue.bell()` in an event loop.)
    queue.wait(queue.outstanding(), None)?;
    while let Some(completion) = queue.reap_one()? {
        if completion.outcome != *expected {
            return Err(format!("page {} has ended as {:?}", completion.tag, completion.outcome).into());
        }
    }
    Ok(())
}
