/* A program with an allocator of its own, of all the functions that the C library's
 * manual names: what it leaves out must work with its blocks. */
#define _GNU_SOURCE
#include "check.h"
#include <dlfcn.h>
#include <malloc.h>

enum { ROOM = 64 << 20, HEAD = 16 };
static char room[ROOM] __attribute__((aligned(64)));
static size_t used;
static long live;

static int is_own(const void *p) { return (const char *)p >= room && (const char *)p < room + ROOM; }

/* Nothing is used twice. The length stands before the block. */
static void *give(size_t align, size_t size) {
    align = align < 16 ? 16 : align;
    if (size > ROOM || align > ROOM) {
        errno = ENOMEM;
        return NULL;
    }
    size_t start = (used + HEAD + align - 1) / align * align;
    if (start + size > ROOM) _exit(3);
    used = start + size;
    live++;
    memcpy(room + start - HEAD, &size, sizeof size);
    return room + start;
}

static size_t size_of(const void *p) {
    size_t size = 0;
    if (!is_own(p)) {
        static const char text[] = "a block that is not the program's\n";
        if (write(2, text, sizeof text - 1) < 0) _exit(5);
        _exit(4);
    }
    memcpy(&size, (const char *)p - HEAD, sizeof size);
    return size;
}

void *malloc(size_t size) { return give(16, size); }
void free(void *p) {
    if (!p) return;
    size_of(p);
    live--;
}
void *calloc(size_t n, size_t size) {
    size_t all = 0;
    return __builtin_mul_overflow(n, size, &all) ? NULL : give(16, all);
}
void *realloc(void *p, size_t size) {
    void *to = give(16, size);
    if (!p || !to) return to;
    size_t kept = size_of(p);
    memcpy(to, p, kept < size ? kept : size);
    live--;
    return to;
}
void *aligned_alloc(size_t align, size_t size) { return give(align, size); }
void *memalign(size_t align, size_t size) { return give(align, size); }
void *valloc(size_t size) { return give(4096, size); }
void *pvalloc(size_t size) { return give(4096, (size + 4095) / 4096 * 4096); }
size_t malloc_usable_size(void *p) { return p ? size_of(p) : 0; }
int posix_memalign(void **out, size_t align, size_t size) {
    *out = give(align, size);
    return *out ? 0 : ENOMEM;
}

int main(void) {
    unsigned char *p = reallocarray(NULL, 10, 10);
    CHECK(is_own(p), "a new one");
    paint(p, 0, 100, 1);
    p = reallocarray(p, 100, 100);
    CHECK(is_own(p) && is_painted(p, 100, 1), "a longer one");
    p = realloc(p, 50);
    CHECK(is_painted(p, 50, 1), "a shorter one");
    errno = 0;
    volatile size_t most = SIZE_MAX;
    CHECK(!reallocarray(p, most, 2) && errno == ENOMEM, "too much");
    CHECK(is_painted(p, 50, 1), "as it was");
    free(p);
    char *text = NULL;
    CHECK(asprintf(&text, "%s", "of the C library") > 0 && is_own(text), "asprintf");
    free(text);
    /* C23's, which this C library need not have. */
    void (*sized)(void *, size_t) = (void (*)(void *, size_t))dlsym(RTLD_DEFAULT, "free_sized");
    void (*aligned)(void *, size_t, size_t) =
        (void (*)(void *, size_t, size_t))dlsym(RTLD_DEFAULT, "free_aligned_sized");
    if (sized) sized(malloc(100), 100);
    if (aligned) aligned(aligned_alloc(64, 128), 64, 128);
    puts("ok");
    return 0;
}
