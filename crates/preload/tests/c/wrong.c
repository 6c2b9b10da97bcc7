/* What must not go on: `wrong twice|late|large|stack|inside`. */
#include "check.h"

enum { N = 5000 };
static void *blocks[N];

int main(int count, char **args) {
    char local[64];
    void *volatile block = malloc(64);
    CHECK(count == 2, "a way to go wrong is wanted");
    if (!strcmp(args[1], "twice")) {
        for (int i = 0; i < N; i++) blocks[i] = malloc(64);
        free(block);
        free(block);
        for (int i = 0; i < N; i++) free(blocks[i]);
    } else if (!strcmp(args[1], "late")) {
        /* Long after the first. */
        for (int i = 0; i < N; i++) blocks[i] = malloc(64);
        free(block);
        for (int i = 0; i < N; i++) free(blocks[i]);
        free(block);
        for (int i = 0; i < N; i++) blocks[i] = malloc(64);
        for (int i = 0; i < N; i++) free(blocks[i]);
    } else if (!strcmp(args[1], "large")) {
        block = malloc(1000000);
        free(block);
        free(block);
    } else if (!strcmp(args[1], "stack")) {
        block = local;
        free(block);
    } else {
        for (int i = 0; i < N; i++) blocks[i] = malloc(64);
        block = (char *)block + 16;
        free(block);
        for (int i = 0; i < N; i++) free(blocks[i]);
    }
    puts("went on");
    return 0;
}
