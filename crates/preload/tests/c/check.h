/* What the tests' programs share. */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Ends the program with a line that says where, what, and why. */
#define CHECK(truth, ...)                                                      \
    do {                                                                       \
        if (!(truth)) {                                                        \
            int code = errno;                                                  \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #truth);        \
            fprintf(stderr, __VA_ARGS__);                                      \
            fprintf(stderr, " (errno %d)\n", code);                            \
            _exit(1);                                                          \
        }                                                                      \
    } while (0)

/* The bytes of a block depend on the place and a seed. */
static inline unsigned char byte_at(size_t i, unsigned seed) {
    return (unsigned char)(i * 31 + (i >> 8) + seed);
}

static inline void paint(void *block, size_t from, size_t to, unsigned seed) {
    unsigned char *p = (unsigned char *)block;
    for (size_t i = from; i < to; i++) p[i] = byte_at(i, seed);
}

static inline int is_painted(const void *block, size_t to, unsigned seed) {
    const unsigned char *p = (const unsigned char *)block;
    for (size_t i = 0; i < to; i++)
        if (p[i] != byte_at(i, seed)) return 0;
    return 1;
}

static inline int is_filled(const void *block, size_t len, unsigned char with) {
    const unsigned char *p = (const unsigned char *)block;
    for (size_t i = 0; i < len; i++)
        if (p[i] != with) return 0;
    return 1;
}

static inline uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Resident memory in bytes. */
static inline size_t resident_bytes(void) {
    unsigned long all = 0, resident = 0;
    char text[128] = {0};
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file) return 0;
    if (fgets(text, sizeof text, file)) sscanf(text, "%lu %lu", &all, &resident);
    fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

#endif
