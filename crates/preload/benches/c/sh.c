/* In the manner of sh6bench and sh8bench: sizes of 1 to 1000 bytes, small ones
 * far more often; a batch is freed in another order than it was allocated in, and
 * a third of it lives on into the next. */
#include "bench.h"

#define BATCH 6000
#define ALL_BATCHES 3000

static int threads;

static void *work(void *arg) {
    uint64_t random = 99 + 1000003 * (uint64_t)(intptr_t)arg;
    void **blocks = calloc(BATCH, sizeof(void *)), **older = calloc(BATCH / 3, sizeof(void *));
    for (int batch = 0; batch < ALL_BATCHES / threads; batch++) {
        for (int i = 0; i < BATCH; i++) {
            uint64_t r = next_random(&random);
            /* Each doubling half as often as the one before. */
            int lg = __builtin_ctzll(r >> 32 | 1 << 6);
            blocks[i] = block_of(1 + (r & 15) + ((16u << lg) - 16) * ((r >> 4) & 255) / 256);
        }
        for (int i = 0; i < BATCH / 3; i++) {
            free(older[i]);
            older[i] = blocks[i * 3];
            blocks[i * 3] = NULL;
        }
        switch (batch % 3) {
        case 0:
            for (int i = 0; i < BATCH; i++) free(blocks[i]);
            break;
        case 1:
            for (int i = BATCH; i-- > 0;) free(blocks[i]);
            break;
        default:
            /* 6000 and 1001 have no common factor. */
            for (int i = 0, at = 0; i < BATCH; i++, at = (at + 1001) % BATCH) free(blocks[at]);
        }
    }
    for (int i = 0; i < BATCH / 3; i++) free(older[i]);
    free(older);
    free(blocks);
    return NULL;
}

int main(int count, char **args) {
    threads = threads_of(count, args);
    double start = now();
    run_threads(threads, work);
    printf("%.4f\n", now() - start);
    return 0;
}
