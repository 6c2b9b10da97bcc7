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
            for (int j = 0; j < n; j++) free(blocks[j]);
            for (int j = 0; j < n; j++) {
                CHECK((blocks[j] = calloc(1, size)), "%zu bytes", size);
                CHECK(is_filled(blocks[j], size, 0), "calloc(%zu)", size);
            }
            for (int j = 0; j < n; j++) free(blocks[j]);
        }
    puts("ok");
    return 0;
}
