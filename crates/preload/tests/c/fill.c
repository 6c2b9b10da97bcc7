/* What fresh blocks hold: `fill junk`, `fill zero`, `fill -` for whatever it is. */
#include "check.h"
#include <malloc.h>

int main(int count, char **args) {
    CHECK(count == 2, "junk, zero or -");
    int fills = args[1][0] != '-';
    unsigned char with = args[1][0] == 'j' ? 0xA5 : 0;
    static const size_t sizes[] = {1, 8, 100, 1000, 5000, 40000, 300000, 3 << 20, 20 << 20};
    for (int round = 0; round < 3; round++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            size_t size = sizes[i];
            void *blocks[10];
            int n = size > 1 << 20 ? 2 : 10;
            for (int j = 0; j < n; j++) {
                CHECK((blocks[j] = malloc(size)), "%zu bytes", size);
                CHECK(!fills || is_filled(blocks[j], size, with), "malloc(%zu)", size);
                memset(blocks[j], 0x11, size);
            }
            blocks[0] = realloc(blocks[0], size * 2);
            CHECK(is_filled(blocks[0], size, 0x11), "realloc to %zu", size * 2);
            CHECK(!fills || is_filled((char *)blocks[0] + size, size, with), "gained by realloc to %zu", size * 2);
            for (int j = 0; j < n; j++) free(blocks[j]);
            for (int j = 0; j < n; j++) {
                CHECK((blocks[j] = calloc(1, size)), "%zu bytes", size);
                CHECK(is_filled(blocks[j], size, 0), "calloc(%zu)", size);
            }
            for (int j = 0; j < n; j++) free(blocks[j]);
        }
    /* What a block loses where it is still lies in its segment, and is nobody's. */
    unsigned char *large = malloc(600000);
    CHECK(large, "600000 bytes");
    memset(large, 0x11, 600000);
    volatile unsigned char *lost = large + 200000;
    large = realloc(large, 100000);
    CHECK(is_filled(large, 100000, 0x11), "realloc to 100000");
    CHECK(!fills || *lost != 0x11, "lost by realloc to 100000: %x", *lost);
    free(large);
    puts("ok");
    return 0;
}
