/* Broken programs, each of which must be stopped in the wrong call: `attack <way>`.
 * What they write to stdout tells what they went on after. */
#include "check.h"
#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>

enum { SIZE = 64 };
static char still[256] __attribute__((aligned(16)));

static void went_on(void) {
    puts("went on");
    fflush(stdout);
    _exit(0);
}

static void *frees(void *block) {
    free(block);
    return NULL;
}

static void twice(void) {
    void *volatile p = malloc(SIZE);
    free(p);
    free(p);
}

static void twice_with_others_between(void) {
    void *volatile p = malloc(SIZE), *volatile q = malloc(SIZE), *volatile r = malloc(SIZE);
    free(p);
    free(q);
    free(r);
    free(p);
}

static void twice_by_another_thread(void) {
    void *volatile p = malloc(SIZE);
    pthread_t thread;
    free(p);
    CHECK(!pthread_create(&thread, NULL, frees, p), "a thread");
    pthread_join(thread, NULL);
}

/* The wrong free takes the block from its new owner, who is told. */
static void twice_after_reuse(void) {
    void *volatile p = malloc(SIZE), *volatile q;
    free(p);
    q = malloc(SIZE);
    CHECK(p == q, "freed last, handed out first");
    free(p);
    free(q);
}

static void twice_large(void) {
    void *volatile p = malloc(300000);
    free(p);
    free(p);
}

static void twice_huge(void) {
    void *volatile p = malloc(50 << 20);
    free(p);
    free(p);
}

static void inside(void) {
    char *volatile p = malloc(SIZE);
    free(p + 16);
}

static void inside_large(void) {
    char *volatile p = malloc(300000);
    free(p + 4096);
}

static void inside_realloc(void) {
    char *volatile p = malloc(300000);
    p = realloc(p + 16, 100);
}

static void stack(void) {
    char local[256];
    void *volatile p = local;
    free(p);
}

static void data(void) {
    void *volatile p = still;
    free(p);
}

static void mapping(void) {
    void *volatile p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    free(p);
}

static void stack_realloc(void) {
    char local[256];
    void *volatile p = local;
    p = realloc(p, 1000);
}

static void resized(size_t from, size_t to) {
    void *volatile p = malloc(from);
    free(p);
    p = realloc(p, to);
}

static void resized_after_free(void) { resized(100, 105); }
static void resized_after_free_to_another_class(void) { resized(100, 5000); }
static void resized_after_free_large(void) { resized(300000, 310000); }
static void resized_after_free_huge(void) { resized(50 << 20, 60 << 20); }

static void at(size_t size, size_t offset) {
    char *volatile p = malloc(size), *volatile q;
    free(p);
    p[offset] = 1;
    q = malloc(size);
    CHECK(p == q, "freed last, handed out first");
}

static void written_at_the_start(void) { at(SIZE, 0); }
static void written_in_the_middle(void) { at(SIZE, 33); }
static void written_at_the_end(void) { at(SIZE, SIZE - 1); }

static void written_then_zeroed(void) {
    char *volatile p = malloc(SIZE), *volatile q;
    free(p);
    p[5] = 1;
    q = calloc(1, SIZE);
    CHECK(p == q, "freed last, handed out first");
}

/* Sampled: between pages that nobody may touch. */
static void read_after_free(void) {
    volatile char *volatile p = malloc(SIZE);
    p[0] = 1;
    free((void *)p);
    still[0] = p[0];
}

static void beyond_the_end(void) {
    volatile char *volatile p = malloc(SIZE);
    for (size_t i = 0; i <= SIZE; i++) p[i] = 1;
}

static void before_the_start(void) {
    volatile char *volatile p = malloc(300000);
    p[-1] = 1;
}

#define WAY(name) {#name, name}
static const struct {
    const char *name;
    void (*run)(void);
} ways[] = {
    WAY(twice),
    WAY(twice_with_others_between),
    WAY(twice_by_another_thread),
    WAY(twice_after_reuse),
    WAY(twice_large),
    WAY(twice_huge),
    WAY(inside),
    WAY(inside_large),
    WAY(inside_realloc),
    WAY(stack),
    WAY(data),
    WAY(mapping),
    WAY(stack_realloc),
    WAY(resized_after_free),
    WAY(resized_after_free_to_another_class),
    WAY(resized_after_free_large),
    WAY(resized_after_free_huge),
    WAY(written_at_the_start),
    WAY(written_in_the_middle),
    WAY(written_at_the_end),
    WAY(written_then_zeroed),
    WAY(read_after_free),
    WAY(beyond_the_end),
    WAY(before_the_start),
};

int main(int count, char **args) {
    CHECK(count == 2, "a way to go wrong is wanted");
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (!strcmp(ways[i].name, args[1])) {
            ways[i].run();
            went_on();
        }
    CHECK(0, "%s is no way", args[1]);
}
