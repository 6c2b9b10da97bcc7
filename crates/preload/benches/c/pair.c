/* One block at a time: `pair 1` of 64 bytes, `pair 1 mixed` of 16 to 1000 or so,
 * with the last sixteen kept. */
#include "bench.h"

static void same(void) {
    for (int i = 0; i < 100000000; i++) {
        char *volatile block = malloc(64);
        block[0] = 1;
        free(block);
    }
}

static void mixed(void) {
    void *kept[16] = {0};
    uint64_t random = 1;
    for (int i = 0; i < 50000000; i++) {
        uint64_t r = next_random(&random);
        free(kept[i & 15]);
        kept[i & 15] = block_of(16 + (r & (r >> 10) & 1023));
    }
    for (int i = 0; i < 16; i++) free(kept[i]);
}

int main(int count, char **args) {
    (void)args;
    double start = now();
    if (count > 2) mixed();
    else same();
    printf("%.4f\n", now() - start);
    return 0;
}
