/* The corners of the C library's functions, one function for each theme. */
#define _GNU_SOURCE
#include "check.h"
#include <dlfcn.h>
#include <malloc.h>

#define MIB ((size_t)1 << 20)
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Optimizers and warnings know no such numbers. */
static volatile size_t most = SIZE_MAX;

static void *symbol(const char *name) {
    void *at = dlsym(RTLD_DEFAULT, name);
    CHECK(at, "%s is not exported", name);
    return at;
}

#define FAILS_WITH(code, call)                                                 \
    do {                                                                       \
        errno = 0;                                                             \
        CHECK(!(call), "gave a block");                                        \
        CHECK(errno == (code), "the wrong error");                             \
    } while (0)

static void nothing(void) {
    void *blocks[100];
    for (size_t i = 0; i < COUNT(blocks); i++) {
        blocks[i] = i % 2 ? malloc(0) : calloc(0, 8);
        CHECK(blocks[i], "size 0");
        for (size_t j = 0; j < i; j++) CHECK(blocks[i] != blocks[j], "not unique");
    }
    for (size_t i = 0; i < COUNT(blocks); i++) free(blocks[i]);
    free(NULL);
    CHECK(malloc_usable_size(NULL) == 0, "null");
    void *p = malloc(10);
    CHECK(realloc(p, 0) == NULL, "realloc to 0 frees");
    p = realloc(NULL, 0);
    CHECK(p, "realloc(NULL, 0) is malloc(0)");
    free(p);
}

static void too_much(void) {
    FAILS_WITH(ENOMEM, malloc(most));
    FAILS_WITH(ENOMEM, malloc(most / 2));
    FAILS_WITH(ENOMEM, malloc(most / 2 + 1));
    FAILS_WITH(ENOMEM, malloc(most / 4));
    FAILS_WITH(ENOMEM, calloc(most, 2));
    FAILS_WITH(ENOMEM, calloc(most / 2, 3));
    FAILS_WITH(ENOMEM, calloc(most / 65536, most / 65536));
    FAILS_WITH(ENOMEM, realloc(NULL, most));
    FAILS_WITH(ENOMEM, reallocarray(NULL, most, 2));
    FAILS_WITH(ENOMEM, aligned_alloc(64, most));
    FAILS_WITH(ENOMEM, aligned_alloc(most / 2 + 1, 1));
    FAILS_WITH(ENOMEM, memalign(4096, most - 4096));
    FAILS_WITH(ENOMEM, valloc(most));
    FAILS_WITH(ENOMEM, pvalloc(most));
    /* A block survives what cannot be done to it, of whatever kind it is. */
    static const size_t sizes[] = {1, 24, 1000, 20000, 300000, 5 * MIB, 70 * MIB};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        unsigned char *p = malloc(sizes[i]);
        CHECK(p, "%zu bytes", sizes[i]);
        paint(p, 0, sizes[i], 3);
        FAILS_WITH(ENOMEM, realloc(p, most));
        FAILS_WITH(ENOMEM, realloc(p, most / 4));
        FAILS_WITH(ENOMEM, reallocarray(p, most / 2, 3));
        CHECK(is_painted(p, sizes[i], 3), "%zu bytes", sizes[i]);
        free(p);
    }
}

static void zero(void) {
    static const size_t sizes[] = {1, 8, 16, 100, 1000, 5000, 40000, 300000, 3 * MIB, 40 * MIB};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        size_t size = sizes[i];
        for (int round = 0; round < 3; round++) {
            enum { N = 20 };
            size_t n = size > MIB ? 2 : N;
            void *dirty[N], *clean[N];
            for (size_t j = 0; j < n; j++) {
                CHECK((dirty[j] = malloc(size)), "%zu bytes", size);
                memset(dirty[j], 0xFF, malloc_usable_size(dirty[j]));
            }
            for (size_t j = 0; j < n; j++) free(dirty[j]);
            for (size_t j = 0; j < n; j++) {
                clean[j] = j % 2 ? calloc(size, 1) : calloc(1, size);
                CHECK(clean[j], "%zu bytes", size);
                CHECK(is_filled(clean[j], size, 0), "%zu bytes, round %d", size, round);
            }
            for (size_t j = 0; j < n; j++) free(clean[j]);
        }
    }
    /* Also a region of the most dangerous kind: reused after memory went back. */
    for (int round = 0; round < 2; round++) {
        void *p = malloc(200000);
        memset(p, 0xFF, 200000);
        free(p);
        malloc_trim(0);
        p = calloc(1, 150000);
        CHECK(is_filled(p, 150000, 0), "after malloc_trim");
        free(p);
    }
}

static void resized(void) {
    /* Up and down over all kinds of block, each step checked in full. */
    unsigned char *p = NULL;
    size_t size = 0, steps = 0;
    for (size_t to = 8; to <= 64 * MIB; to += to / 2 + 5, steps++) {
        p = realloc(p, to);
        CHECK(p && malloc_usable_size(p) >= to, "%zu to %zu bytes", size, to);
        CHECK(is_painted(p, size, 7), "%zu to %zu bytes", size, to);
        paint(p, size, to, 7);
        size = to;
    }
    while (size > 8) {
        size_t to = size - size / 3 - 1;
        p = realloc(p, to);
        CHECK(p && malloc_usable_size(p) >= to, "%zu to %zu bytes", size, to);
        CHECK(is_painted(p, to, 7), "%zu to %zu bytes", size, to);
        size = to;
    }
    free(p);
    /* Leaps, from each kind to each. */
    static const size_t sizes[] = {1,       8,       9,       16,      17,       1024,     4096,
                                   8192,    20000,   32768,   32769,   100000,   262144,   MIB - 1,
                                   MIB + 1, 2 * MIB, 5 * MIB, 9 * MIB, 17 * MIB, 33 * MIB, 64 * MIB};
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (size_t j = 0; j < COUNT(sizes); j++) {
            size_t from = sizes[i], to = sizes[j], kept = from < to ? from : to;
            /* Both ends of what is long. */
            size_t head = kept < 70000 ? kept : 70000;
            p = malloc(from);
            CHECK(p, "%zu bytes", from);
            paint(p, 0, head, (unsigned)i);
            p[kept - 1] = 0x77;
            p = realloc(p, to);
            CHECK(p && malloc_usable_size(p) >= to, "%zu to %zu bytes", from, to);
            CHECK(p[kept - 1] == 0x77, "%zu to %zu bytes", from, to);
            CHECK(is_painted(p, head < kept ? head : kept - 1, (unsigned)i), "%zu to %zu bytes",
                  from, to);
            p[to - 1] = 1;
            CHECK(to <= 8 || (uintptr_t)p % 16 == 0, "%zu to %zu bytes", from, to);
            free(p);
        }
    p = reallocarray(NULL, 100, 10);
    paint(p, 0, 1000, 1);
    p = reallocarray(p, 1000, 100);
    CHECK(p && is_painted(p, 1000, 1), "reallocarray");
    free(p);
    /* An aligned block is a block. */
    p = aligned_alloc(4096, 10000);
    paint(p, 0, 10000, 9);
    p = realloc(p, 500000);
    CHECK(p && is_painted(p, 10000, 9), "of an aligned block");
    free(p);
}

static void alignments_refused(void) {
    static const size_t wrong[] = {0, 1, 2, 3, 4, 12, 24, 4095};
    for (size_t i = 0; i < COUNT(wrong); i++) {
        void *p = &p, *before = p;
        errno = 77;
        CHECK(posix_memalign(&p, wrong[i], 100) == EINVAL, "alignment %zu", wrong[i]);
        CHECK(errno == 77 && p == before, "left alone, alignment %zu", wrong[i]);
    }
    void *p = &p, *before = p;
    errno = 77;
    CHECK(posix_memalign(&p, 64, most) == ENOMEM, "all there is");
    CHECK(posix_memalign(&p, 64, most / 2) == ENOMEM, "half of it");
    CHECK(posix_memalign(&p, (most / 2) + 1, 64) == ENOMEM, "aligned to half of it");
    CHECK(errno == 77 && p == before, "left alone");
    FAILS_WITH(EINVAL, aligned_alloc(3, 100));
    CHECK(posix_memalign(&p, 64, 0) == 0 && p && (uintptr_t)p % 64 == 0, "size 0");
    free(p);
}

static void aligned(void) {
    static const size_t sizes[] = {0,    1,    7,    8,    9,     15,    16,    17,    24,    100,  255,
                                   1000, 4000, 4096, 5000, 16383, 20000, 32768, 50000, 65536, 99999, 100000};
    for (size_t align = 8; align <= 4 * MIB; align *= 2)
        for (size_t i = 0; i < COUNT(sizes); i++) {
            size_t size = sizes[i];
            void *blocks[4] = {0};
            CHECK(posix_memalign(&blocks[0], align, size) == 0, "%zu of %zu", align, size);
            blocks[1] = aligned_alloc(align, size);
            blocks[2] = memalign(align, size);
            blocks[3] = aligned_alloc(align, size * 2);
            for (size_t j = 0; j < COUNT(blocks); j++) {
                CHECK(blocks[j], "%zu of %zu", align, size);
                CHECK((uintptr_t)blocks[j] % align == 0, "%p: %zu of %zu", blocks[j], align, size);
                CHECK(malloc_usable_size(blocks[j]) >= size, "%zu of %zu", align, size);
                paint(blocks[j], 0, size, (unsigned)j);
            }
            for (size_t j = 0; j < COUNT(blocks); j++) {
                CHECK(is_painted(blocks[j], size, (unsigned)j), "%zu of %zu", align, size);
                free(blocks[j]);
            }
        }
    for (size_t size = 9; size < 5000; size++) {
        void *p = malloc(size), *q = calloc(1, size);
        CHECK((uintptr_t)p % 16 == 0 && (uintptr_t)q % 16 == 0, "%zu bytes", size);
        CHECK(malloc_usable_size(p) >= size, "%zu bytes", size);
        p = realloc(p, size + 40);
        CHECK((uintptr_t)p % 16 == 0, "%zu bytes", size);
        free(p);
        free(q);
    }
    for (size_t size = 5000; size < 3 * MIB; size += size / 3) {
        void *p = malloc(size);
        CHECK((uintptr_t)p % 16 == 0, "%zu bytes", size);
        free(p);
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    static const size_t some[] = {0, 1, 4095, 4096, 4097, 100000, 3 * MIB};
    for (size_t i = 0; i < COUNT(some); i++) {
        void *p = valloc(some[i]), *q = pvalloc(some[i]);
        CHECK(p && (uintptr_t)p % page == 0, "valloc(%zu)", some[i]);
        CHECK(q && (uintptr_t)q % page == 0, "pvalloc(%zu)", some[i]);
        CHECK(malloc_usable_size(p) >= some[i], "valloc(%zu)", some[i]);
        CHECK(malloc_usable_size(q) >= (some[i] + page - 1) / page * page, "pvalloc(%zu)", some[i]);
        memset(p, 1, some[i]);
        memset(q, 1, malloc_usable_size(q));
        free(p);
        free(q);
    }
}

static void usable(void) {
    /* All that is said to be usable is. */
    enum { N = 300 };
    void *blocks[N];
    for (size_t i = 0; i < N; i++) {
        blocks[i] = malloc(i * 37);
        CHECK(malloc_usable_size(blocks[i]) >= i * 37, "%zu bytes", i * 37);
        paint(blocks[i], 0, malloc_usable_size(blocks[i]), (unsigned)i);
    }
    for (size_t i = 0; i < N; i++) {
        CHECK(is_painted(blocks[i], malloc_usable_size(blocks[i]), (unsigned)i), "%zu", i * 37);
        free(blocks[i]);
    }
}

static void frees(void) {
    /* C23's are newer than many C libraries. */
    void (*free_sized)(void *, size_t) = (void (*)(void *, size_t))symbol("free_sized");
    void (*free_aligned_sized)(void *, size_t, size_t) =
        (void (*)(void *, size_t, size_t))symbol("free_aligned_sized");
    static const size_t sizes[] = {8, 100, 5000, 40000, 400000, 50 * MIB};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        void *p = malloc(sizes[i]);
        errno = 77;
        free(p);
        CHECK(errno == 77, "free of %zu bytes changes it", sizes[i]);
        free_sized(malloc(sizes[i]), sizes[i]);
        free_aligned_sized(aligned_alloc(64, sizes[i]), 64, sizes[i]);
        CHECK(errno == 77, "a free of %zu bytes changes it", sizes[i]);
    }
    free_sized(NULL, 10);
    free_aligned_sized(NULL, 64, 10);
    void (*cfree)(void *) = (void (*)(void *))symbol("cfree");
    cfree(malloc(100));
    cfree(NULL);
}

static void other_names(void) {
    void *(*libc_malloc)(size_t) = (void *(*)(size_t))symbol("__libc_malloc");
    void *(*libc_calloc)(size_t, size_t) = (void *(*)(size_t, size_t))symbol("__libc_calloc");
    void *(*libc_realloc)(void *, size_t) = (void *(*)(void *, size_t))symbol("__libc_realloc");
    void *(*libc_memalign)(size_t, size_t) = (void *(*)(size_t, size_t))symbol("__libc_memalign");
    void (*libc_free)(void *) = (void (*)(void *))symbol("__libc_free");
    void *p = libc_malloc(100), *q = libc_calloc(10, 10), *r = libc_memalign(1024, 100);
    CHECK(p && is_filled(q, 100, 0) && (uintptr_t)r % 1024 == 0, "blocks");
    p = libc_realloc(p, 1000);
    /* They are ours: each side takes the other's. */
    free(p);
    free(q);
    free(r);
    libc_free(malloc(100));
}

static void books(void) {
    enum { N = 10000, SIZE = 1000 };
    static void *blocks[N];
    struct mallinfo2 before = mallinfo2();
    for (size_t i = 0; i < N; i++) blocks[i] = memset(malloc(SIZE), 1, SIZE);
    struct mallinfo2 held = mallinfo2();
    size_t grown = held.uordblks - before.uordblks;
    CHECK(grown >= N * SIZE && grown <= N * SIZE / 4 * 5, "%zu", grown);
    CHECK(held.uordblks + held.fordblks <= held.arena + held.hblkhd, "backed, but not mapped");
    CHECK(held.hblks == before.hblks && held.hblkhd == before.hblkhd, "no huge ones");
    void *huge = malloc(64 * MIB);
    struct mallinfo2 more = mallinfo2();
    CHECK(more.hblks == held.hblks + 1, "%zu", more.hblks);
    CHECK(more.hblkhd - held.hblkhd >= 64 * MIB, "%zu", more.hblkhd);
    CHECK(more.uordblks - held.uordblks >= 64 * MIB, "%zu", more.uordblks);
    struct mallinfo old = mallinfo();
    CHECK((size_t)old.uordblks == more.uordblks, "%d", old.uordblks);
    free(huge);
    for (size_t i = 0; i < N; i++) free(blocks[i]);
    struct mallinfo2 after = mallinfo2();
    CHECK(after.uordblks == before.uordblks, "%zu, was %zu", after.uordblks, before.uordblks);
    CHECK(malloc_trim(0) == 1, "10 MB were free");
    CHECK(mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1, "accepted");
    CHECK(mallinfo2().keepcost == 0, "all is given back");
}

/* The text goes to stderr, three times with the one at exit. */
static void printed(void) {
    void (*tallow_stats_print)(void) = (void (*)(void))symbol("tallow_stats_print");
    void *held = malloc(2 * MIB);
    tallow_stats_print();
    malloc_stats();
    free(held);
}

/* The JSON goes to stdout; its reader is on the other side. */
static void json(void) {
    size_t (*tallow_stats_json)(char *, size_t) =
        (size_t(*)(char *, size_t))symbol("tallow_stats_json");
    static char whole[1 << 20], part[1 << 20];
    CHECK(tallow_stats_json(NULL, 0) > 100, "the length only");
    size_t len = tallow_stats_json(whole, sizeof whole);
    CHECK(len > 100 && len < sizeof whole && strlen(whole) == len, "%zu", len);
    static const size_t rooms[] = {1, 2, 10, 100};
    for (size_t i = 0; i < COUNT(rooms); i++) {
        memset(part, 0x55, sizeof part);
        CHECK(tallow_stats_json(part, rooms[i]) > 100, "room for %zu", rooms[i]);
        CHECK(strlen(part) == rooms[i] - 1, "room for %zu", rooms[i]);
        CHECK(strncmp(part, whole, strlen(part) < 9 ? strlen(part) : 9) == 0, "%s", part);
        CHECK(part[rooms[i]] == 0x55, "written beyond, room for %zu", rooms[i]);
    }
    puts(whole);
}

int main(void) {
    nothing();
    too_much();
    zero();
    resized();
    alignments_refused();
    aligned();
    usable();
    frees();
    other_names();
    books();
    printed();
    json();
    puts("ok");
    return 0;
}
