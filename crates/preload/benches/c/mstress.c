/* In the manner of mimalloc's stress test: waves of threads, each with a growing
 * array of blocks of all sizes, some kept for long, some exchanged with whatever
 * another thread has put down. */
#include "bench.h"

#define PLACES 1000
#define WAVES 30
#define ALL_OPERATIONS 200000

static _Atomic(uintptr_t *) places[PLACES];
static int threads, wave;

/* The first word tells how many there are; the others follow from it. */
static uintptr_t *make(uint64_t *random) {
    uint64_t r = next_random(random);
    size_t words = 1 + (r & 7);
    if ((r >> 8) % 16 == 0) words *= 8;
    if ((r >> 16) % 256 == 0) words *= 100;
    if ((r >> 24) % 4096 == 0) words *= 20;
    uintptr_t *block = (r >> 40) % 4 ? malloc(words * sizeof *block) : calloc(words, sizeof *block);
    MUST(block);
    for (size_t i = 0; i < words; i++) block[i] = words ^ i;
    return block;
}

static void unmake(uintptr_t *block) {
    if (!block) return;
    for (size_t i = 0, words = block[0]; i < words; i++) MUST(block[i] == (words ^ i));
    free(block);
}

static void *work(void *arg) {
    uint64_t random = 43 + 1000003 * (uint64_t)((intptr_t)arg + 64 * wave);
    size_t room = 64, used = 0, kept = 0;
    uintptr_t **blocks = malloc(room * sizeof *blocks);
    uintptr_t **long_lived = malloc(ALL_OPERATIONS * sizeof *long_lived);
    for (int i = 0; i < ALL_OPERATIONS / threads; i++) {
        uint64_t r = next_random(&random);
        if (r % 100 < 50) {
            if (used == room) {
                room *= 2;
                blocks = realloc(blocks, room * sizeof *blocks);
                MUST(blocks);
            }
            blocks[used++] = make(&random);
        } else {
            if (r % 100 < 60) long_lived[kept++] = make(&random);
            if (used > 0) {
                size_t at = (r >> 32) % used;
                unmake(blocks[at]);
                blocks[at] = blocks[--used];
            }
        }
        if (r % 100 >= 25 && r % 100 < 50 && used > 0) {
            size_t at = (r >> 32) % used;
            blocks[at] = atomic_exchange(&places[(r >> 16) % PLACES], blocks[at]);
        }
    }
    for (size_t i = 0; i < used; i++) unmake(blocks[i]);
    for (size_t i = 0; i < kept; i++) unmake(long_lived[i]);
    free(blocks);
    free(long_lived);
    return NULL;
}

int main(int count, char **args) {
    threads = threads_of(count, args);
    double start = now();
    for (wave = 0; wave < WAVES; wave++) {
        run_threads(threads, work);
        /* Half of what lies around goes between two waves. */
        for (int i = wave % 2; i < PLACES; i += 2) unmake(atomic_exchange(&places[i], NULL));
    }
    for (int i = 0; i < PLACES; i++) unmake(atomic_exchange(&places[i], NULL));
    printf("%.4f\n", now() - start);
    return 0;
}
