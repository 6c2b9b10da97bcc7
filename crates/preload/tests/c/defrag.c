/* A program that heals itself: it knows all of its pointers. */
#define _GNU_SOURCE
#include "check.h"
#include "tallow.h"
#include <malloc.h>

#define BLOCKS 200000

typedef struct {
    unsigned char *at;
    size_t size;
} Entry;

static Entry entries[BLOCKS];

static void check_all(void) {
    for (unsigned i = 0; i < BLOCKS; i++)
        CHECK(!entries[i].at || is_painted(entries[i].at, entries[i].size, i), "block %u", i);
}

static size_t backed(void) {
    struct mallinfo2 books = mallinfo2();
    return books.uordblks + books.fordblks;
}

int main(void) {
    CHECK(tallow_defrag_end() == 0, "no pass has begun");
    CHECK(tallow_move(NULL) == NULL && !tallow_should_move(NULL), "null");
    uint64_t random = 12345;
    for (unsigned i = 0; i < BLOCKS; i++) {
        entries[i].size = 8 + next_random(&random) % (i % 10 ? 300 : 3000);
        entries[i].at = malloc(entries[i].size);
        CHECK(entries[i].at, "block %u", i);
        paint(entries[i].at, 0, entries[i].size, i);
    }
    for (unsigned i = 0; i < BLOCKS; i++)
        if (i % 16) {
            free(entries[i].at);
            entries[i].at = NULL;
        }
    malloc_trim(0);
    size_t before = backed(), resident_before = resident_bytes();

    size_t planned = tallow_defrag_begin();
    CHECK(planned > before / 2, "%zu of %zu bytes", planned, before);
    unsigned should = 0, moved = 0;
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (!entries[i].at || !tallow_should_move(entries[i].at)) continue;
        should++;
        unsigned char *at = tallow_move(entries[i].at);
        CHECK(at, "block %u", i);
        CHECK(malloc_usable_size(at) >= entries[i].size, "block %u", i);
        CHECK(entries[i].size <= 8 || (uintptr_t)at % 16 == 0, "block %u", i);
        moved += at != entries[i].at;
        entries[i].at = at;
    }
    CHECK(moved > 0 && moved >= should - should / 100, "%u of %u", moved, should);
    size_t released = tallow_defrag_end();
    CHECK(released >= planned / 10 * 9, "%zu of %zu bytes", released, planned);
    check_all();

    size_t after = backed(), resident_after = resident_bytes();
    printf("backed %zu to %zu, resident %zu to %zu\n", before, after, resident_before,
           resident_after);
    CHECK(after < before / 2, "%zu to %zu bytes are backed", before, after);
    /* The table above is resident too. */
    CHECK(resident_before - resident_after > before / 3, "%zu to %zu bytes are resident",
          resident_before, resident_after);
    CHECK(!tallow_should_move(entries[0].at), "the pass is over");

    /* The blocks are as good as any. */
    for (unsigned i = 0; i < BLOCKS; i += 16) {
        entries[i].at = realloc(entries[i].at, entries[i].size + 500);
        CHECK(entries[i].at, "block %u", i);
    }
    check_all();
    for (unsigned i = 0; i < BLOCKS; i += 16) free(entries[i].at);
    puts("ok");
    return 0;
}
