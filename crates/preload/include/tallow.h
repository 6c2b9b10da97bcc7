/* What libtallow.so has beyond the C library's functions. */
#ifndef TALLOW_H
#define TALLOW_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Prints where every byte is to stderr. Also at exit, with TALLOW_STATS=1. */
void tallow_stats_print(void);

/* Writes the same as JSON into out, at most len bytes with the final 0, and
 * returns the length of the whole text, as snprintf does. */
size_t tallow_stats_json(char *out, size_t len);

/* Defragmentation, for programs that know all of their pointers to a block:
 *
 *   if (tallow_defrag_begin() > 0) {
 *       for (each block) if (tallow_should_move(p)) p = tallow_move(p);
 *       tallow_defrag_end();
 *   }
 *
 * begin returns the bytes that will be released if every block that should move
 * is moved, end those that were. One pass at a time. */
size_t tallow_defrag_begin(void);
int tallow_should_move(const void *block);
void *tallow_move(void *block);
size_t tallow_defrag_end(void);

#ifdef __cplusplus
}
#endif
#endif
