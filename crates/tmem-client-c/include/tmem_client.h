/* Queues to a tmem daemon: asynchronous, batched, zero-copy operations on transcendent memory.
 *
 * Made from the sources by a test (tests/header.rs): what is changed here is lost. `examples/put_get.c` shows its use.
 * Whatever is not const is for one thread at a time; a const tmem_client is for any number at once. */

#ifndef TMEM_CLIENT_H
#define TMEM_CLIENT_H

#include <stddef.h>
#include <stdint.h>

/**
 * The version of this interface. A program compares it with what tmem_client_version() returns: they are of
 * different releases of the library otherwise.
 */
#define TMEM_CLIENT_VERSION 1

/**
 * Room for a client's key: 32 hexadecimal digits and a zero byte.
 */
#define TMEM_KEY_BYTES 33

/**
 * The data of the pool may vanish at any time: it is a cache. Without: what was accepted is returned until it is
 * flushed.
 */
#define TMEM_POOL_EPHEMERAL 1

/**
 * Clients that are authorised may join the pool.
 */
#define TMEM_POOL_SHARED 2

/**
 * The pool stays when its client is gone, for when it attaches again.
 */
#define TMEM_POOL_OUTLIVES 4

/**
 * Takes less time for its data, and more memory. Without this and the next one: balanced.
 */
#define TMEM_POOL_FAST 8

/**
 * Takes more time for its data, and less memory.
 */
#define TMEM_POOL_DENSE 16

/**
 * A put: the store has it.
 */
#define TMEM_STORED 1

/**
 * A put: the store does not have it, and the range is missing. `detail` says why: TMEM_REJECTED_*.
 */
#define TMEM_REJECTED 2

/**
 * A put of a frozen client: as rejected.
 */
#define TMEM_FROZEN 3

/**
 * A get or take: every byte that was asked for.
 */
#define TMEM_FILLED 4

/**
 * A get or take: `value` granules were filled, those in the map; the memory of the others was not touched.
 */
#define TMEM_PARTLY_FILLED 5

/**
 * A get or take: nothing was there, and the memory was not touched.
 */
#define TMEM_MISSING 6

/**
 * A flush: `value` granules were there.
 */
#define TMEM_FLUSHED 7

/**
 * A get or take met bytes that are not those that were put, at offset `value` of the object. Never to be taken for
 * missing.
 */
#define TMEM_CORRUPT 8

/**
 * A tier below memory failed to deliver what is at offset `value` of the object.
 */
#define TMEM_TIER_FAILED 9

/**
 * It was cancelled before it was started. The range of a put is missing; nothing else has changed.
 */
#define TMEM_CANCELLED 10

/**
 * It makes no sense, or the client may not do it; nothing was changed. `detail` says why: TMEM_REFUSED_*.
 */
#define TMEM_REFUSED 11

/**
 * Nothing more can be freed within the store's budget.
 */
#define TMEM_REJECTED_BUDGET 1

/**
 * The client is at its cap.
 */
#define TMEM_REJECTED_CAP 2

/**
 * The range is empty.
 */
#define TMEM_REFUSED_EMPTY_RANGE 1

/**
 * The offset is no multiple of 4096.
 */
#define TMEM_REFUSED_MISALIGNED 2

/**
 * The range goes beyond the end of an object.
 */
#define TMEM_REFUSED_BEYOND_END 3

/**
 * There is no such pool for this client.
 */
#define TMEM_REFUSED_UNKNOWN_POOL 4

/**
 * The client was destroyed.
 */
#define TMEM_REFUSED_CLIENT_DESTROYED 5

/**
 * No operation has this opcode.
 */
#define TMEM_REFUSED_UNKNOWN_OPERATION 16

/**
 * The region was unregistered.
 */
#define TMEM_REFUSED_UNKNOWN_REGION 17

/**
 * The slices go beyond the end of the region.
 */
#define TMEM_REFUSED_BEYOND_REGION 18

/**
 * A slice is empty, or slices to be filled overlap.
 */
#define TMEM_REFUSED_SLICES 19

/**
 * The region's memory is gone.
 */
#define TMEM_REFUSED_REGION_LOST 20

/**
 * Something that this version does not know.
 */
#define TMEM_REFUSED_OTHER 255

/**
 * An argument is wrong: NULL where it may not be, a number out of its range, text that is not UTF-8.
 */
#define TMEM_E_ARGUMENT -1

/**
 * A bug in the library, which has been caught.
 */
#define TMEM_E_PANIC -2

/**
 * Nobody listens at the path.
 */
#define TMEM_E_NO_DAEMON -3

/**
 * The path may not be connected to by this user.
 */
#define TMEM_E_PERMISSION -4

/**
 * The daemon, or the library itself, refuses what was asked for.
 */
#define TMEM_E_REFUSED -5

/**
 * The daemon has not answered in time. Close the client and connect anew.
 */
#define TMEM_E_SILENT -6

/**
 * The daemon is gone, or has thrown the client out. What is not completed may or may not have been carried out.
 */
#define TMEM_E_GONE -7

/**
 * The daemon does not keep to this version of the protocol.
 */
#define TMEM_E_NONSENSE -8

/**
 * The system has no memory, descriptors or threads for it, or refuses.
 */
#define TMEM_E_SYSTEM -9

/**
 * As many operations are outstanding as the queue has entries: reap some.
 */
#define TMEM_E_FULL -10

/**
 * The daemon has closed the queue. What is not completed may or may not have been carried out.
 */
#define TMEM_E_CLOSED -11

/**
 * The daemon has closed the queue, since it found it broken.
 */
#define TMEM_E_BROKEN -12

/**
 * The most slices that an operation can have.
 */
#define TMEM_MOST_SLICES 63

/**
 * The most entries that a queue can have.
 */
#define TMEM_MOST_ENTRIES 32768

/**
 * A region of base pages, taken as they are touched.
 */
#define TMEM_BACKING_SMALL 0

/**
 * A region of huge pages as far as the system has any, all taken at once.
 */
#define TMEM_BACKING_TRANSPARENT_HUGE 1

/**
 * A region of huge pages of 2 MiB from the pool that the system's owner has set aside.
 */
#define TMEM_BACKING_HUGETLB 2

/**
 * A client of a daemon.
 */
typedef struct tmem_client tmem_client;

/**
 * A queue. One thread at a time uses it.
 */
typedef struct tmem_queue tmem_queue;

/**
 * Memory that operations name.
 */
typedef struct tmem_region tmem_region;

/**
 * The end of an operation.
 */
typedef struct tmem_completion {
  /**
   * The operation's.
   */
  uint64_t tag;
  /**
   * TMEM_STORED and so on.
   */
  uint32_t result;
  /**
   * Why, where there is a why.
   */
  uint32_t detail;
  /**
   * What it means depends on the result; 0 otherwise.
   */
  uint64_t value;
  /**
   * Of TMEM_PARTLY_FILLED: granules that the range touches; 0 otherwise.
   */
  uint64_t granules;
  /**
   * Granules that a bit of the map stands for, which is set if all of them were filled: 1 in ranges of up to 32
   * MiB.
   */
  uint64_t granules_a_bit;
  /**
   * Of TMEM_PARTLY_FILLED: which of them were filled, from the one that holds the range's first byte, in bits from
   * the lowest one of the first word on. There until the next tmem_reap() of the queue, and until it is closed.
   * NULL otherwise.
   */
  const uint64_t *map;
  /**
   * Words of the map.
   */
  size_t map_words;
} tmem_completion;

/**
 * Where the data of an operation is in the store.
 */
typedef struct tmem_place {
  /**
   * A pool that the client created or joined.
   */
  uint32_t pool;
  /**
   * 0.
   */
  uint32_t reserved;
  /**
   * An object in it: 192 bits of the program's.
   */
  uint64_t object[3];
  /**
   * Bytes from the object's start: a multiple of 4096, but for gets.
   */
  uint64_t offset;
} tmem_place;

/**
 * A part of a region.
 */
typedef struct tmem_slice {
  /**
   * First byte in the region.
   */
  uint64_t offset;
  /**
   * How many bytes; not 0.
   */
  uint64_t bytes;
} tmem_slice;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library that is linked: TMEM_CLIENT_VERSION, as it was when that was built.
 */
uint32_t tmem_client_version(void);

/**
 * Connects to the daemon at `path` as a new client. `name` is for people, at most 64 bytes. `cap_bytes` is the most
 * that it is to hold, `weight` its weight, of which the daemon may have set less; 0: what the daemon gives.
 *
 * # Safety
 * `path` and `name` are NULL, or texts that end with a zero byte. `client` is NULL, or has room for a pointer.
 */
int32_t tmem_connect(const char *path,
                     const char *name,
                     uint64_t cap_bytes,
                     uint32_t weight,
                     struct tmem_client **client);

/**
 * Connects to the daemon at `path` as the client that it was before, and has no connection now: with the number and
 * key that tmem_identity() has told. Its pools that outlive it are there, see tmem_pools(); its regions and queues
 * are gone.
 *
 * # Safety
 * `path` and `key` are NULL, or texts that end with a zero byte. `client` is NULL, or has room for a pointer.
 */
int32_t tmem_attach(const char *path, uint32_t id, const char *key, struct tmem_client **client);

/**
 * Ends the connection and frees the client. Its queues end and its regions are unregistered; both are still to be
 * freed. Pools that do not outlive it are gone.
 *
 * # Safety
 * `client` is NULL, or from tmem_connect() or tmem_attach(), not closed, and in use by no other thread.
 */
void tmem_close(struct tmem_client *client);

/**
 * Tells the client's number, and its key: TMEM_KEY_BYTES bytes. Whoever of the same user has both can take its
 * place.
 *
 * # Safety
 * `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed. `id` is NULL or has room for a number,
 * `key` is NULL or has room for TMEM_KEY_BYTES bytes; what is NULL is not told.
 */
int32_t tmem_identity(const struct tmem_client *client, uint32_t *id, char *key);

/**
 * Writes the numbers of the client's own pools that were there when it attached, at most `room`, and returns how
 * many there are.
 *
 * # Safety
 * `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed. `pools` has room for `room` numbers.
 */
int32_t tmem_pools(const struct tmem_client *client, uint32_t *pools, size_t room);

/**
 * Makes a pool with the flags TMEM_POOL_*.
 *
 * # Safety
 * `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed. `pool` is NULL, or has room for a
 * number.
 */
int32_t tmem_create_pool(const struct tmem_client *client, uint32_t flags, uint32_t *pool);

/**
 * Joins another client's shared pool, which has authorised this one.
 *
 * # Safety
 * `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed.
 */
int32_t tmem_join_pool(const struct tmem_client *client, uint32_t pool);

/**
 * Lets the client with the number `other` join an own pool that is shared.
 *
 * # Safety
 * `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed.
 */
int32_t tmem_authorise(const struct tmem_client *client, uint32_t pool, uint32_t other);

/**
 * Ends an own pool for everybody: all that is in it is gone when this returns.
 *
 * # Safety
 * `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed.
 */
int32_t tmem_destroy_pool(const struct tmem_client *client, uint32_t pool);

/**
 * Whether a get or take has filled the granule at `index`, counted from the one that holds the range's first byte:
 * 1, or 0. In a range of more than 32 MiB, 0 also for granules of whose bit others were not filled.
 *
 * # Safety
 * `completion` is NULL, or from tmem_reap(), and its map is still there.
 */
int32_t tmem_is_filled(const struct tmem_completion *completion, uint64_t index);

/**
 * What the last call that failed in this thread says of it, for people. Valid until the next one in this thread that
 * fails; empty if none has.
 */
const char *tmem_last_error(void);

/**
 * Opens a queue of `entries`: a power of two, at most TMEM_MOST_ENTRIES. So many operations can be outstanding.
 *
 * # Safety
 * `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed. `queue` is NULL, or has room for a
 * pointer.
 */
int32_t tmem_open_queue(const struct tmem_client *client, uint32_t entries, struct tmem_queue **queue);

/**
 * Closes and frees a queue, whatever it returns. With the client that opened it: when this returns nothing of the
 * queue is in flight, and its memory may be used. With NULL for the client the queue ends by and by.
 *
 * # Safety
 * `client` is NULL, or the one that opened the queue, and not closed. `queue` is NULL, or from tmem_open_queue(),
 * not closed, and in use by no other thread.
 */
int32_t tmem_close_queue(const struct tmem_client *client, struct tmem_queue *queue);

/**
 * Adds to the queue: store the slices of the region, one behind the other, at `place`. The daemon sees it from the
 * next tmem_submit() or tmem_wait() on; from then until its completion was reaped the memory is lent. `tag` comes
 * back in the completion.
 *
 * # Safety
 * `queue` is NULL, or from tmem_open_queue(), not closed, and in use by no other thread. `place` is NULL or points
 * to one; `region` is NULL, or from tmem_create_region() or tmem_register() with the queue's client, and not
 * unregistered; at `slices` there are `count`.
 */
int32_t tmem_put(struct tmem_queue *queue,
                 uint64_t tag,
                 const struct tmem_place *place,
                 const struct tmem_region *region,
                 const struct tmem_slice *slices,
                 size_t count);

/**
 * The same: fill the slices of the region with what is at `place`.
 *
 * # Safety
 * As tmem_put().
 */
int32_t tmem_get(struct tmem_queue *queue,
                 uint64_t tag,
                 const struct tmem_place *place,
                 const struct tmem_region *region,
                 const struct tmem_slice *slices,
                 size_t count);

/**
 * The same: fill the slices of the region with what is at `place`, and flush what was got.
 *
 * # Safety
 * As tmem_put().
 */
int32_t tmem_take(struct tmem_queue *queue,
                  uint64_t tag,
                  const struct tmem_place *place,
                  const struct tmem_region *region,
                  const struct tmem_slice *slices,
                  size_t count);

/**
 * The same: make `bytes` at `place` missing.
 *
 * # Safety
 * `queue` is NULL, or from tmem_open_queue(), not closed, and in use by no other thread. `place` is NULL or points
 * to one.
 */
int32_t tmem_flush(struct tmem_queue *queue, uint64_t tag, const struct tmem_place *place, uint64_t bytes);

/**
 * The same: make all of the object at `place` missing, whatever the offset.
 *
 * # Safety
 * As tmem_flush().
 */
int32_t tmem_flush_object(struct tmem_queue *queue, uint64_t tag, const struct tmem_place *place);

/**
 * Hands over what was added: with one doorbell if the daemon sleeps, with none if it is awake.
 *
 * # Safety
 * `queue` is NULL, or from tmem_open_queue(), not closed, and in use by no other thread.
 */
int32_t tmem_submit(struct tmem_queue *queue);

/**
 * Submits, and waits until `least` completions (at most what is outstanding) can be reaped, or for `timeout_ns`
 * nanoseconds; below 0: without end. Returns how many can be reaped, which is fewer if the time is over.
 *
 * # Safety
 * `queue` is NULL, or from tmem_open_queue(), not closed, and in use by no other thread.
 */
int32_t tmem_wait(struct tmem_queue *queue, size_t least, int64_t timeout_ns);

/**
 * Writes the completions that are there, at most `room`, and returns how many. The maps of those that were reaped
 * before are gone.
 *
 * # Safety
 * `queue` is NULL, or from tmem_open_queue(), not closed, and in use by no other thread. At `into` there is room for
 * `room` of them.
 */
int32_t tmem_reap(struct tmem_queue *queue, struct tmem_completion *into, size_t room);

/**
 * Cancels the operations with this tag that the daemon has not started, and returns how many there were. Each still
 * has its completion.
 *
 * # Safety
 * `queue` is NULL, or from tmem_open_queue(), not closed, and in use by no other thread.
 */
int32_t tmem_cancel(struct tmem_queue *queue, uint64_t tag);

/**
 * Operations that were added and not reaped.
 *
 * # Safety
 * `queue` is NULL, or from tmem_open_queue(), and not closed.
 */
int32_t tmem_outstanding(const struct tmem_queue *queue);

/**
 * For an event loop: the queue's descriptor, which is the queue's. It is readable when the completion is there that
 * tmem_ask_for_bell() asked for, and when the daemon is gone; maybe too early. Nothing is to be read from it.
 *
 * # Safety
 * `queue` is NULL, or from tmem_open_queue(), and not closed.
 */
int tmem_bell(const struct tmem_queue *queue);

/**
 * Asks for the bell when the next completion is there, and returns 1. Returns 0, and asks for nothing, if one is
 * there already or none will come: reap, and wait if nothing was reaped, which tells why.
 *
 * # Safety
 * `queue` is NULL, or from tmem_open_queue(), not closed, and in use by no other thread.
 */
int32_t tmem_ask_for_bell(struct tmem_queue *queue);

/**
 * Makes a region of zeros: `bytes` is a multiple of 4096 (of 2 MiB for TMEM_BACKING_HUGETLB), at most 1 TiB.
 *
 * # Safety
 * `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed. `region` is NULL, or has room for a
 * pointer.
 */
int32_t tmem_create_region(const struct tmem_client *client,
                           size_t bytes,
                           uint32_t backing,
                           struct tmem_region **region);

/**
 * Makes a region of the memfd `fd`, which stays the caller's: of whole pages, sealed against shrinking.
 *
 * # Safety
 * `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed. `fd` is a descriptor that stays open
 * meanwhile. `region` is NULL, or has room for a pointer.
 */
int32_t tmem_register(const struct tmem_client *client, int fd, struct tmem_region **region);

/**
 * The region's first byte; NULL of NULL. It is there until tmem_unregister().
 *
 * # Safety
 * `region` is NULL, or from tmem_create_region() or tmem_register(), and not unregistered.
 */
void *tmem_region_memory(const struct tmem_region *region);

/**
 * The region's size; 0 of NULL.
 *
 * # Safety
 * `region` is NULL, or from tmem_create_region() or tmem_register(), and not unregistered.
 */
size_t tmem_region_bytes(const struct tmem_region *region);

/**
 * Ends a region and frees its memory here. The daemon lets go of it when the operations on it have ended.
 *
 * # Safety
 * `region` is NULL, or from tmem_create_region() or tmem_register(), not unregistered, and in use by no other
 * thread; nor is its memory used from now on.
 */
void tmem_unregister(struct tmem_region *region);

/**
 * What the last call that failed in this thread says of it, for people. Valid until the next one in this thread that
 * fails; empty if none has.
 */
const char *tmem_last_error(void);

/**
 * Connects to the daemon at `path` as a new client. `name` is for people, at most 64 bytes. `cap_bytes` is the most
 * that it is to hold, `weight` its weight, of which the daemon may have set less; 0: what the daemon gives.
 *
 * # Safety
 * `path` and `name` are NULL, or texts that end with a zero byte. `client` is NULL, or has room for a pointer.
 */
int32_t tmem_connect(const char *path,
                     const char *name,
                     uint64_t cap_bytes,
                     uint32_t weight,
                     struct tmem_client **client);

/**
 * Connects to the daemon at `path` as the client that it was before, and has no connection now: with the number and
 * key that tmem_identity() has told. Its pools that outlive it are there, see tmem_pools(); its regions and queues
 * are gone.
 *
 * # Safety
 * `path` and `key` are NULL, or texts that end with a zero byte. `client` is NULL, or has room for a pointer.
 */
int32_t tmem_attach(const char *path, uint32_t id, const char *key, struct tmem_client **client);

/**
 * Ends the connection and frees the client. Its queues end and its regions are unregistered; both are still to be
 * freed. Pools that do not outlive it are gone.
 *
 * # Safety
 * `client` is NULL, or from tmem_connect() or tmem_attach(), not closed, and in use by no other thread.
 */
void tmem_close(struct tmem_client *client);

/**
 * Tells the client's number, and its key: TMEM_KEY_BYTES bytes. Whoever of the same user has both can take its
 * place.
 *
 * # Safety
 * `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed. `id` is NULL or has room for a number,
 * `key` is NULL or has room for TMEM_KEY_BYTES bytes; what is NULL is not told.
 */
int32_t tmem_identity(const struct tmem_client *client, uint32_t *id, char *key);

/**
 * Writes the numbers of the client's own pools that were there when it attached, at most `room`, and returns how
 * many there are.
 *
 * # Safety
 * `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed. `pools` has room for `room` numbers.
 */
int32_t tmem_pools(const struct tmem_client *client, uint32_t *pools, size_t room);

/**
 * Makes a pool with the flags TMEM_POOL_*.
 *
 * # Safety
 * `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed. `pool` is NULL, or has room for a
 * number.
 */
int32_t tmem_create_pool(const struct tmem_client *client, uint32_t flags, uint32_t *pool);

/**
 * Joins another client's shared pool, which has authorised this one.
 *
 * # Safety
 * `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed.
 */
int32_t tmem_join_pool(const struct tmem_client *client, uint32_t pool);

/**
 * Lets the client with the number `other` join an own pool that is shared.
 *
 * # Safety
 * `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed.
 */
int32_t tmem_authorise(const struct tmem_client *client, uint32_t pool, uint32_t other);

/**
 * Ends an own pool for everybody: all that is in it is gone when this returns.
 *
 * # Safety
 * `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed.
 */
int32_t tmem_destroy_pool(const struct tmem_client *client, uint32_t pool);

/**
 * Makes a region of zeros: `bytes` is a multiple of 4096 (of 2 MiB for TMEM_BACKING_HUGETLB), at most 1 TiB.
 *
 * # Safety
 * `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed. `region` is NULL, or has room for a
 * pointer.
 */
int32_t tmem_create_region(const struct tmem_client *client,
                           size_t bytes,
                           uint32_t backing,
                           struct tmem_region **region);

/**
 * Makes a region of the memfd `fd`, which stays the caller's: of whole pages, sealed against shrinking.
 *
 * # Safety
 * `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed. `fd` is a descriptor that stays open
 * meanwhile. `region` is NULL, or has room for a pointer.
 */
int32_t tmem_register(const struct tmem_client *client, int fd, struct tmem_region **region);

/**
 * The region's first byte; NULL of NULL. It is there until tmem_unregister().
 *
 * # Safety
 * `region` is NULL, or from tmem_create_region() or tmem_register(), and not unregistered.
 */
void *tmem_region_memory(const struct tmem_region *region);

/**
 * The region's size; 0 of NULL.
 *
 * # Safety
 * `region` is NULL, or from tmem_create_region() or tmem_register(), and not unregistered.
 */
size_t tmem_region_bytes(const struct tmem_region *region);

/**
 * Ends a region and frees its memory here. The daemon lets go of it when the operations on it have ended.
 *
 * # Safety
 * `region` is NULL, or from tmem_create_region() or tmem_register(), not unregistered, and in use by no other
 * thread; nor is its memory used from now on.
 */
void tmem_unregister(struct tmem_region *region);

/**
 * Whether a get or take has filled the granule at `index`, counted from the one that holds the range's first byte:
 * 1, or 0. In a range of more than 32 MiB, 0 also for granules of whose bit others were not filled.
 *
 * # Safety
 * `completion` is NULL, or from tmem_reap(), and its map is still there.
 */
int32_t tmem_is_filled(const struct tmem_completion *completion, uint64_t index);

/**
 * Opens a queue of `entries`: a power of two, at most TMEM_MOST_ENTRIES. So many operations can be outstanding.
 *
 * # Safety
 * `client` is NULL, or from tmem_connect() or tmem_attach(), and not closed. `queue` is NULL, or has room for a
 * pointer.
 */
int32_t tmem_open_queue(const struct tmem_client *client, uint32_t entries, struct tmem_queue **queue);

/**
 * Closes and frees a queue, whatever it returns. With the client that opened it: when this returns nothing of the
 * queue is in flight, and its memory may be used. With NULL for the client the queue ends by and by.
 *
 * # Safety
 * `client` is NULL, or the one that opened the queue, and not closed. `queue` is NULL, or from tmem_open_queue(),
 * not closed, and in use by no other thread.
 */
int32_t tmem_close_queue(const struct tmem_client *client, struct tmem_queue *queue);

/**
 * Adds to the queue: store the slices of the region, one behind the other, at `place`. The daemon sees it from the
 * next tmem_submit() or tmem_wait() on; from then until its completion was reaped the memory is lent. `tag` comes
 * back in the completion.
 *
 * # Safety
 * `queue` is NULL, or from tmem_open_queue(), not closed, and in use by no other thread. `place` is NULL or points
 * to one; `region` is NULL, or from tmem_create_region() or tmem_register() with the queue's client, and not
 * unregistered; at `slices` there are `count`.
 */
int32_t tmem_put(struct tmem_queue *queue,
                 uint64_t tag,
                 const struct tmem_place *place,
                 const struct tmem_region *region,
                 const struct tmem_slice *slices,
                 size_t count);

/**
 * The same: fill the slices of the region with what is at `place`.
 *
 * # Safety
 * As tmem_put().
 */
int32_t tmem_get(struct tmem_queue *queue,
                 uint64_t tag,
                 const struct tmem_place *place,
                 const struct tmem_region *region,
                 const struct tmem_slice *slices,
                 size_t count);

/**
 * The same: fill the slices of the region with what is at `place`, and flush what was got.
 *
 * # Safety
 * As tmem_put().
 */
int32_t tmem_take(struct tmem_queue *queue,
                  uint64_t tag,
                  const struct tmem_place *place,
                  const struct tmem_region *region,
                  const struct tmem_slice *slices,
                  size_t count);

/**
 * The same: make `bytes` at `place` missing.
 *
 * # Safety
 * `queue` is NULL, or from tmem_open_queue(), not closed, and in use by no other thread. `place` is NULL or points
 * to one.
 */
int32_t tmem_flush(struct tmem_queue *queue, uint64_t tag, const struct tmem_place *place, uint64_t bytes);

/**
 * The same: make all of the object at `place` missing, whatever the offset.
 *
 * # Safety
 * As tmem_flush().
 */
int32_t tmem_flush_object(struct tmem_queue *queue, uint64_t tag, const struct tmem_place *place);

/**
 * Hands over what was added: with one doorbell if the daemon sleeps, with none if it is awake.
 *
 * # Safety
 * `queue` is NULL, or from tmem_open_queue(), not closed, and in use by no other thread.
 */
int32_t tmem_submit(struct tmem_queue *queue);

/**
 * Submits, and waits until `least` completions (at most what is outstanding) can be reaped, or for `timeout_ns`
 * nanoseconds; below 0: without end. Returns how many can be reaped, which is fewer if the time is over.
 *
 * # Safety
 * `queue` is NULL, or from tmem_open_queue(), not closed, and in use by no other thread.
 */
int32_t tmem_wait(struct tmem_queue *queue, size_t least, int64_t timeout_ns);

/**
 * Writes the completions that are there, at most `room`, and returns how many. The maps of those that were reaped
 * before are gone.
 *
 * # Safety
 * `queue` is NULL, or from tmem_open_queue(), not closed, and in use by no other thread. At `into` there is room for
 * `room` of them.
 */
int32_t tmem_reap(struct tmem_queue *queue, struct tmem_completion *into, size_t room);

/**
 * Cancels the operations with this tag that the daemon has not started, and returns how many there were. Each still
 * has its completion.
 *
 * # Safety
 * `queue` is NULL, or from tmem_open_queue(), not closed, and in use by no other thread.
 */
int32_t tmem_cancel(struct tmem_queue *queue, uint64_t tag);

/**
 * Operations that were added and not reaped.
 *
 * # Safety
 * `queue` is NULL, or from tmem_open_queue(), and not closed.
 */
int32_t tmem_outstanding(const struct tmem_queue *queue);

/**
 * For an event loop: the queue's descriptor, which is the queue's. It is readable when the completion is there that
 * tmem_ask_for_bell() asked for, and when the daemon is gone; maybe too early. Nothing is to be read from it.
 *
 * # Safety
 * `queue` is NULL, or from tmem_open_queue(), and not closed.
 */
int tmem_bell(const struct tmem_queue *queue);

/**
 * Asks for the bell when the next completion is there, and returns 1. Returns 0, and asks for nothing, if one is
 * there already or none will come: reap, and wait if nothing was reaped, which tells why.
 *
 * # Safety
 * `queue` is NULL, or from tmem_open_queue(), not closed, and in use by no other thread.
 */
int32_t tmem_ask_for_bell(struct tmem_queue *queue);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TMEM_CLIENT_H */
