/* A system with pages of 64 KiB, as far as it is asked: the program's own `sysconf`
 * comes before the C library's. */
#define _GNU_SOURCE
#include "check.h"
#include <dlfcn.h>
#include <malloc.h>

static int pretends;

long sysconf(int name) {
    if (name == _SC_PAGESIZE && pretends) return 65536;
    long (*next)(int) = (long (*)(int))dlsym(RTLD_NEXT, "sysconf");
    return next(name);
}

int main(void) {
    /* What the allocator itself asks is answered by now. */
    free(malloc(100));
    enum { N = 20 };
    void *blocks[2 * N];
    pretends = 1;
    for (size_t i = 0; i < N; i++) {
        size_t size = i * 7000;
        blocks[i] = valloc(size);
        CHECK(blocks[i] && (uintptr_t)blocks[i] % 65536 == 0, "valloc(%zu)", size);
        blocks[N + i] = pvalloc(size);
        CHECK(blocks[N + i] && (uintptr_t)blocks[N + i] % 65536 == 0, "pvalloc(%zu)", size);
        size_t whole = size ? (size + 65535) / 65536 * 65536 : 65536;
        CHECK(malloc_usable_size(blocks[N + i]) >= whole, "pvalloc(%zu)", size);
        memset(blocks[i], 1, size);
        memset(blocks[N + i], 2, whole);
    }
    pretends = 0;
    for (size_t i = 0; i < 2 * N; i++) free(blocks[i]);
    puts("ok");
    return 0;
}
