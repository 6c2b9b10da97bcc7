/* Everything at once: eight threads that pass blocks to each other, a thousand
 * that live for a moment, forks, libraries that come and go, destructors of
 * thread keys, exit handlers. Each block says how long it is and what is in it. */
#define _GNU_SOURCE
#include "check.h"
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>

#define WORKERS 8
#define SLOTS 4096
#define SHORT_THREADS 1000
#define FORKS 30
#define SECONDS 3

typedef struct {
    size_t size;
    unsigned seed;
} Block;

static _Atomic(Block *) slots[SLOTS];
static atomic_int stop;
static atomic_int ended;
static pthread_key_t key;
static const char *plugin;

static size_t some_size(uint64_t *random) {
    uint64_t r = next_random(random);
    size_t limit = r % 1000 == 0 ? 2 << 20 : r % 100 < 2 ? 100000 : r % 10 == 0 ? 4000 : 300;
    return sizeof(Block) + (r >> 20) % limit;
}

static Block *make(uint64_t *random) {
    size_t size = some_size(random);
    unsigned seed = (unsigned)next_random(random);
    void *block = NULL;
    switch (seed % 6) {
    case 0:
        block = calloc(1, size);
        CHECK(is_filled(block, size < 5000 ? size : 5000, 0), "calloc(%zu)", size);
        break;
    case 1: block = realloc(malloc(size / 2), size); break;
    case 2: CHECK(posix_memalign(&block, 64, size) == 0, "%zu bytes", size); break;
    default: block = malloc(size);
    }
    CHECK(block, "%zu bytes", size);
    Block *made = block;
    made->size = size;
    made->seed = seed;
    paint(made + 1, 0, size - sizeof(Block), seed);
    return made;
}

static void unmake(Block *block) {
    if (!block) return;
    CHECK(malloc_usable_size(block) >= block->size, "%zu bytes", block->size);
    CHECK(is_painted(block + 1, block->size - sizeof(Block), block->seed), "%zu bytes", block->size);
    free(block);
}

static void exchange(uint64_t *random, int times) {
    for (int i = 0; i < times; i++) {
        size_t at = next_random(random) % SLOTS;
        Block *mine = next_random(random) % 8 ? make(random) : NULL;
        unmake(atomic_exchange(&slots[at], mine));
    }
}

static void *worker(void *arg) {
    uint64_t random = 1000003 * ((uintptr_t)arg + 1);
    while (!atomic_load(&stop)) exchange(&random, 100);
    return NULL;
}

/* Called again as long as it leaves something: three rounds, then it is counted. */
static void destroy(void *value) {
    Block *block = value;
    uint64_t random = block->seed | 1;
    unsigned rounds = *(unsigned *)(block + 1);
    unsigned seed = block->seed;
    free(block);
    free(malloc(some_size(&random)));
    if (rounds == 3) {
        atomic_fetch_add(&ended, 1);
        return;
    }
    block = malloc(100);
    block->seed = seed + 1;
    *(unsigned *)(block + 1) = rounds + 1;
    pthread_setspecific(key, block);
}

static void *short_thread(void *arg) {
    uint64_t random = 77777 * ((uintptr_t)arg + 1);
    Block *block = malloc(100);
    block->seed = (unsigned)random;
    *(unsigned *)(block + 1) = 1;
    pthread_setspecific(key, block);
    exchange(&random, 20);
    return NULL;
}

static void *breeder(void *arg) {
    (void)arg;
    for (uintptr_t i = 0; i < SHORT_THREADS; i += 10) {
        pthread_t threads[10];
        for (uintptr_t j = 0; j < 10; j++)
            CHECK(!pthread_create(&threads[j], NULL, short_thread, (void *)(i + j)), "a thread");
        for (int j = 0; j < 10; j++) pthread_join(threads[j], NULL);
    }
    return NULL;
}

/* A child has all of the parent's blocks, but none of its threads. */
static void child(int generations) {
    uint64_t random = 31 + (uint64_t)getpid();
    exchange(&random, 300);
    while (generations-- > 0) {
        pid_t pid = fork();
        CHECK(pid >= 0, "fork");
        if (pid == 0) continue;
        int status = 0;
        CHECK(waitpid(pid, &status, 0) == pid && status == 0, "grandchild: status %d", status);
        break;
    }
    pthread_t thread;
    CHECK(!pthread_create(&thread, NULL, short_thread, NULL), "a thread");
    pthread_join(thread, NULL);
    for (int i = 0; i < SLOTS; i++) unmake(atomic_exchange(&slots[i], NULL));
    exchange(&random, 300);
    _exit(0);
}

static void *forker(void *arg) {
    (void)arg;
    for (int i = 0; i < FORKS; i++) {
        pid_t pid = fork();
        CHECK(pid >= 0, "fork");
        if (pid == 0) child(i % 4 ? 0 : 2);
        int status = 0;
        CHECK(waitpid(pid, &status, 0) == pid && status == 0, "child %d: status %d", i, status);
    }
    return NULL;
}

static void *loader(void *arg) {
    (void)arg;
    for (int i = 0; i < 300; i++) {
        void *maths = dlopen("libm.so.6", RTLD_NOW), *other = dlopen("libz.so.1", RTLD_NOW);
        void *ours = dlopen(plugin, RTLD_NOW | RTLD_LOCAL);
        CHECK(maths && ours, "%s", dlerror());
        void *(*block_of)(size_t) = (void *(*)(size_t))dlsym(ours, "plugin_block");
        size_t size = 0;
        void *block = block_of(3000);
        dlclose(ours);
        memcpy(&size, block, sizeof size);
        CHECK(size == 3000, "of an unloaded library: %zu", size);
        free(block);
        if (other) dlclose(other);
        dlclose(maths);
    }
    return NULL;
}

static char *kept;

static void last(void) {
    free(kept);
    char *block = malloc(100000);
    CHECK(block, "at exit");
    memset(block, 1, 100000);
    free(block);
    puts("ok");
}

static void last_but_one(void) {
    kept = realloc(kept, 5000);
    CHECK(kept && strcmp(kept, "kept") == 0, "at exit");
}

int main(int count, char **args) {
    CHECK(count == 2, "the plugin's path is wanted");
    plugin = args[1];
    kept = strdup("kept");
    atexit(last);
    atexit(last_but_one);
    CHECK(!pthread_key_create(&key, destroy), "a key");
    pthread_t workers[WORKERS], others[3];
    for (uintptr_t i = 0; i < WORKERS; i++)
        CHECK(!pthread_create(&workers[i], NULL, worker, (void *)i), "a thread");
    void *(*roles[])(void *) = {breeder, forker, loader};
    for (int i = 0; i < 3; i++) CHECK(!pthread_create(&others[i], NULL, roles[i], NULL), "a thread");
    struct timespec pause = {SECONDS, 0};
    nanosleep(&pause, NULL);
    for (int i = 0; i < 3; i++) pthread_join(others[i], NULL);
    atomic_store(&stop, 1);
    for (int i = 0; i < WORKERS; i++) pthread_join(workers[i], NULL);
    CHECK(atomic_load(&ended) == SHORT_THREADS, "destructors: %d", atomic_load(&ended));
    for (int i = 0; i < SLOTS; i++) unmake(atomic_exchange(&slots[i], NULL));
    /* What is left is small: the books agree that everything came back. */
    struct mallinfo2 books = mallinfo2();
    CHECK(books.uordblks < 1 << 20, "%zu bytes are still held", books.uordblks);
    return 0;
}
