/* Puts 2 MiB into a daemon's store as one operation, and gets them back: put_get SOCKET
 *
 * cc -I include examples/put_get.c -L ../../target/release -ltmem_client -o put_get */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tmem_client.h"

#define BYTES ((size_t)2 << 20)

/* Ends the program if something went wrong. */
static void check(const char *what, int32_t code) {
    if (code < 0) {
        fprintf(stderr, "%s: %s (%d)\n", what, tmem_last_error(), (int)code);
        exit(1);
    }
}

/* Submits what was added, and checks that it has ended as it should. */
static void finish(tmem_queue *queue, uint64_t tag, uint32_t result) {
    tmem_completion completion;
    check("wait", tmem_wait(queue, 1, 10000000000));
    if (tmem_reap(queue, &completion, 1) != 1 || completion.tag != tag || completion.result != result) {
        fprintf(stderr, "operation %d has not ended with result %d\n", (int)tag, (int)result);
        exit(1);
    }
}

int main(int argc, char **argv) {
    tmem_client *client;
    tmem_region *region;
    tmem_queue *queue;
    tmem_place place = {0};
    tmem_slice from = {0, BYTES}, into = {BYTES, BYTES};
    unsigned char *memory;
    size_t at;

    if (argc != 2) {
        fprintf(stderr, "usage: put_get SOCKET\n");
        return 2;
    }
    if (tmem_client_version() != TMEM_CLIENT_VERSION) {
        fprintf(stderr, "the library is of another release than its header\n");
        return 1;
    }
    check("connect", tmem_connect(argv[1], "put_get", 0, 0, &client));
    check("pool", tmem_create_pool(client, 0, &place.pool));
    check("region", tmem_create_region(client, 2 * BYTES, TMEM_BACKING_SMALL, &region));
    check("queue", tmem_open_queue(client, 8, &queue));

    memory = tmem_region_memory(region);
    for (at = 0; at < BYTES; at++)
        memory[at] = (unsigned char)(at / 7 + at / 4096);
    place.object[0] = 42;
    check("put", tmem_put(queue, 1, &place, region, &from, 1));
    finish(queue, 1, TMEM_STORED);
    check("get", tmem_get(queue, 2, &place, region, &into, 1));
    finish(queue, 2, TMEM_FILLED);
    if (memcmp(memory, memory + BYTES, BYTES) != 0) {
        fprintf(stderr, "what came back is not what was put\n");
        return 1;
    }
    printf("%zu bytes were put as one operation, and came back the same as another\n", BYTES);

    check("close queue", tmem_close_queue(client, queue));
    tmem_unregister(region);
    tmem_close(client);
    return 0;
}
