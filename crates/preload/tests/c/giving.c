/* Holds 100 MB, frees it, and waits at most so many milliseconds as it is told
 * for the memory to go. Then the same in a child, where there is one. */
#include "check.h"
#include <sys/wait.h>
#include <time.h>

enum { N = 100000, SIZE = 1000, LARGE = 50 };
static void *blocks[N + LARGE];

static void round_trip(long patience_ms) {
    size_t before = resident_bytes();
    for (int i = 0; i < N; i++) blocks[i] = memset(malloc(SIZE), 1, SIZE);
    for (int i = N; i < N + LARGE; i++) blocks[i] = memset(malloc(400000), 1, 400000);
    size_t held = resident_bytes();
    CHECK(held > before + 110000000, "%zu to %zu", before, held);
    for (int i = 0; i < N + LARGE; i++) free(blocks[i]);
    struct timespec pause = {0, 10000000};
    size_t after = resident_bytes();
    for (long ms = 0; ms < patience_ms && after > before + 12000000; ms += 10) {
        nanosleep(&pause, NULL);
        after = resident_bytes();
    }
    CHECK(after < before + 12000000, "%zu to %zu to %zu", before, held, after);
}

int main(int count, char **args) {
    CHECK(count > 1, "milliseconds are wanted");
    round_trip(atol(args[1]));
    if (count > 2) {
        pid_t pid = fork();
        if (pid == 0) {
            /* The janitor stays with the parent. */
            void *block = malloc(100000);
            CHECK(block, "in the child");
            free(block);
            exit(0);
        }
        int status = 0;
        CHECK(waitpid(pid, &status, 0) == pid && status == 0, "child: status %d", status);
        round_trip(atol(args[1]));
    }
    puts("ok");
    return 0;
}
