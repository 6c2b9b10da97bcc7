/* A handler of SIGABRT that allocates, in a program that frees a block twice. */
#include "check.h"
#include <malloc.h>
#include <signal.h>

enum { N = 5000 };
static void *blocks[N];
static void *small, *large, *huge;

/* A block that keeps what it holds while it grows and shrinks. */
static void grow(void *block, size_t from) {
    CHECK(malloc_usable_size(block) >= from, "%zu", from);
    for (size_t size = from; size < 6000000; size = size * 3 + 1) {
        block = realloc(block, size);
        CHECK(block && is_painted(block, from, 7), "%zu", size);
    }
    block = realloc(block, from / 2);
    CHECK(block && is_painted(block, from / 2, 7), "%zu", from);
    free(block);
}

static void *painted(size_t size) {
    void *block = malloc(size);
    CHECK(block, "%zu", size);
    paint(block, 0, size, 7);
    return block;
}

static void handler(int signal) {
    (void)signal;
    grow(small, 100);
    grow(large, 100000);
    grow(huge, 5000000);
    size_t sizes[] = {16, 1500, 30000, 200000, 3000000};
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 20; j++) grow(painted(sizes[i]), sizes[i]);
    static const char told[] = "told\n";
    CHECK(write(1, told, sizeof told - 1) == sizeof told - 1, "stdout");
}

int main(void) {
    signal(SIGABRT, handler);
    alarm(300);
    small = painted(100);
    large = painted(100000);
    huge = painted(5000000);
    for (int i = 0; i < N; i++) blocks[i] = malloc(64);
    void *volatile block = blocks[0];
    free(block);
    for (int i = 0; i < N; i++) free(blocks[i]);
    return 0;
}
