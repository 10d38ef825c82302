//! The cases, by theme. Each is a function from the options to a digest of what it saw, which is the same in every
//! run.

mod calls;
mod direct;
mod exec;
mod fork;
mod full;
mod kinds;
mod lives;
mod locks;
mod mapping;
mod plain;
mod protection;
mod races;
mod ring;
mod signals;
mod threads;
mod userfault;

use crate::options::Options;

/// A case.
pub(crate) type Case = fn(&Options) -> u64;

/// Every case with its name.
pub(crate) const CASES: &[(&str, Case)] = &[
    ("fill-sequential", plain::fill_sequential),
    ("fill-random", plain::fill_random),
    ("fill-reverse", plain::fill_reverse),
    ("rewrite", plain::rewrite),
    ("walk", plain::walk),
    ("zero-pages", plain::zero_pages),
    ("deep-recursion", plain::deep_recursion),
    ("heap", plain::heap),
    ("break", plain::program_break),
    ("fork-both-write", fork::both_write),
    ("fork-raw-clone", fork::raw_clone),
    ("fork-grandchildren", fork::grandchildren),
    ("fork-early", fork::early),
    ("fork-repeatedly", fork::repeatedly),
    ("fork-wipe", fork::wipe),
    ("fork-dontfork", fork::dontfork),
    ("many-processes", fork::many_processes),
    ("vfork-exec", exec::vfork_exec),
    ("posix-spawn", exec::posix_spawn),
    ("exec-self", exec::exec_self),
    ("exec-clean-environment", exec::clean_environment),
    ("arguments", exec::arguments),
    ("orphan", lives::orphan),
    ("daemon", lives::daemon),
    ("close-descriptors", lives::close_descriptors),
    ("exit", lives::exit),
    ("die", lives::die),
    ("threads-exit", threads::exit),
    ("threads-exit-raw", threads::exit_raw),
    ("threads-own-stacks", threads::own_stacks),
    ("threads-locals", threads::locals),
    ("threads-stripes", threads::stripes),
    ("remap-move", mapping::remap_move),
    ("remap-grow", mapping::remap_grow),
    ("remap-shrink", mapping::remap_shrink),
    ("remap-dontunmap", mapping::remap_dontunmap),
    ("remap-repeatedly", mapping::remap_repeatedly),
    ("unmap-parts", mapping::unmap_parts),
    ("map-over", mapping::map_over),
    ("neighbours", mapping::neighbours),
    ("dontneed", mapping::dontneed),
    ("madv-free", mapping::madv_free),
    ("populate", mapping::populate),
    ("protect", protection::protect),
    ("protect-none", protection::protect_none),
    ("reserve-commit", protection::reserve_commit),
    ("dontneed-race", races::dontneed),
    ("unmap-race", races::unmap),
    ("remap-race", races::remap),
    ("fork-race", races::fork),
    ("call-file", calls::file),
    ("call-vectors", calls::vectors),
    ("call-pipe", calls::pipe),
    ("call-socket", calls::socket),
    ("call-futex", calls::futex),
    ("call-small", calls::small),
    ("call-vm-readv", calls::vm_readv),
    ("direct-io", direct::direct_io),
    ("io-uring-fixed", ring::fixed),
    ("signal-stack", signals::stack),
    ("signal-storm", signals::storm),
    ("stop-continue", signals::stop_continue),
    ("robust-mutex", locks::robust),
    ("robust-mutex-shared", locks::robust_shared),
    ("pi-mutex", locks::pi),
    ("locked", kinds::locked),
    ("locked-evicted", kinds::locked_evicted),
    ("locked-all", kinds::locked_all),
    ("shared-anonymous", kinds::shared_anonymous),
    ("memfd", kinds::memfd),
    ("private-file", kinds::private_file),
    ("hugetlb", kinds::hugetlb),
    ("huge-pages", kinds::huge_pages),
    ("huge-walk", kinds::huge_walk),
    ("own-userfaultfd", userfault::own),
    ("noise", full::noise),
    ("discard-staged", full::discard_staged),
    ("hold", full::hold),
    ("torture", crate::torture::run),
];
