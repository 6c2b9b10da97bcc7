/* A small program: 1 MB of small blocks, replaced for a while. Prints the
 * resident memory of the whole process at the end, in KiB.
 *
 * `small floor` prints instead what its blocks take at least, in KiB, with the
 * size classes of Tallow (jemalloc's, 16 bytes to 2 KiB): for each class, whole
 * pages for as many blocks as were live at its peak. */
#include "bench.h"
#include <stdbool.h>
#include <unistd.h>

#define BYTES 1000000
#define MOST 20000

/* The size of the class of a block. */
static size_t rounded(size_t size) {
    size_t step = 16;
    while (step * 8 < size) step *= 2;
    return (size + step - 1) / step * step;
}

int main(int count, char **arguments) {
    bool floor = count > 1 && strcmp(arguments[1], "floor") == 0;
    static size_t live[4096], peaks[4096];
    static void *blocks[MOST];
    static size_t sizes[MOST];
    uint64_t random = 5;
    size_t held = 0, used = 0;
    for (int i = 0; i < 300000; i++) {
        uint64_t r = next_random(&random);
        while (used == MOST || (used > 0 && held > BYTES)) {
            size_t at = next_random(&random) % used;
            free(blocks[at]);
            if (floor) live[rounded(sizes[at])]--;
            held -= sizes[at];
            blocks[at] = blocks[--used];
            sizes[at] = sizes[used];
        }
        size_t size = 16 + (r & (r >> 12) & (r >> 24) & 2047);
        blocks[used] = memset(malloc(size), 1, size);
        sizes[used++] = size;
        held += size;
        size_t class = rounded(size);
        if (floor && ++live[class] > peaks[class]) peaks[class] = live[class];
    }
    if (floor) {
        size_t pages = 0;
        for (size_t i = 0; i < 4096; i++) pages += (peaks[i] * i + 4095) / 4096;
        printf("%zu\n", pages * 4);
        return 0;
    }
    unsigned long all = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    MUST(file && fscanf(file, "%lu %lu", &all, &resident) == 2);
    fclose(file);
    printf("%lu\n", resident * (unsigned long)sysconf(_SC_PAGESIZE) / 1024);
    return 0;
}
