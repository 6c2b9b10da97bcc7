/* What the benchmark's programs share. Each is told its number of threads, and
 * prints one number: the seconds that its work took, measured inside. */
#ifndef BENCH_H
#define BENCH_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MUST(truth)                                                            \
    do {                                                                       \
        if (!(truth)) {                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #truth);        \
            _Exit(1);                                                          \
        }                                                                      \
    } while (0)

static inline double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* A block whose first and last bytes are written, as a program would. */
static inline void *block_of(size_t size) {
    char *block = malloc(size);
    MUST(block);
    block[0] = 1;
    block[size - 1] = 1;
    return block;
}

static inline int threads_of(int count, char **args) {
    return count > 1 ? atoi(args[1]) : 1;
}

/* Runs as many threads as it is told to their end. */
static inline void run_threads(int threads, void *(*work)(void *)) {
    pthread_t all[64];
    MUST(threads <= 64);
    for (intptr_t i = 0; i < threads; i++) MUST(!pthread_create(&all[i], NULL, work, (void *)i));
    for (int i = 0; i < threads; i++) pthread_join(all[i], NULL);
}

#endif
