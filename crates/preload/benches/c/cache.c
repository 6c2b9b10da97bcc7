/* In the manner of cache-thrash and cache-scratch: each thread writes a small
 * block of its own again and again. Slow where two threads' blocks share a cache
 * line: `cache N` when the allocator gives them such, `cache N passed` when it
 * gives one thread what another's neighbour was. */
#include "bench.h"

#define SIZE 8
#define WRITES 1000
#define ALL_BLOCKS 800000

static int threads;
static char *passed[64];

static void *work(void *arg) {
    free(passed[(intptr_t)arg]);
    for (int i = 0; i < ALL_BLOCKS / threads; i++) {
        volatile char *block = malloc(SIZE);
        MUST(block);
        for (int j = 0; j < WRITES; j++) block[j % SIZE]++;
        free((void *)block);
    }
    return NULL;
}

int main(int count, char **args) {
    threads = threads_of(count, args);
    for (int i = 0; count > 2 && i < threads; i++) passed[i] = block_of(SIZE);
    double start = now();
    run_threads(threads, work);
    printf("%.4f\n", now() - start);
    return 0;
}
