/* A small program: 1 MB of small blocks, replaced for a while. Prints the
 * resident memory of the whole process at the end, in KiB. */
#include "bench.h"
#include <unistd.h>

#define BYTES 1000000
#define MOST 20000

int main(void) {
    static void *blocks[MOST];
    static size_t sizes[MOST];
    uint64_t random = 5;
    size_t held = 0, used = 0;
    for (int i = 0; i < 300000; i++) {
        uint64_t r = next_random(&random);
        while (used == MOST || (used > 0 && held > BYTES)) {
            size_t at = next_random(&random) % used;
            free(blocks[at]);
            held -= sizes[at];
            blocks[at] = blocks[--used];
            sizes[at] = sizes[used];
        }
        size_t size = 16 + (r & (r >> 12) & (r >> 24) & 2047);
        blocks[used] = memset(malloc(size), 1, size);
        sizes[used++] = size;
        held += size;
    }
    unsigned long all = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    MUST(file && fscanf(file, "%lu %lu", &all, &resident) == 2);
    fclose(file);
    printf("%lu\n", resident * (unsigned long)sysconf(_SC_PAGESIZE) / 1024);
    return 0;
}
