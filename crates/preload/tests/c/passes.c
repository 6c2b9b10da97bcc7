/* Passes of defragmentation on one thread while another one forks. A child that
 * waits for a pass of a thread that it does not have is ended by its alarm. */
#define _GNU_SOURCE
#include "check.h"
#include "tallow.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

#define BLOCKS 100000

static void *_Atomic blocks[BLOCKS];
static atomic_int passes;

static void *work(void *arg) {
    (void)arg;
    for (;;) {
        if (tallow_defrag_begin() > 0)
            for (int i = 0; i < BLOCKS; i++)
                if (blocks[i] && tallow_should_move(blocks[i])) blocks[i] = tallow_move(blocks[i]);
        tallow_defrag_end();
        atomic_fetch_add(&passes, 1);
    }
    return NULL;
}

/* Whether a pass of its own is possible, and moves what should move. */
static void child(void) {
    alarm(300);
    tallow_defrag_end();
    for (int round = 0; round < 2; round++) {
        void *some[2000];
        for (int i = 0; i < 2000; i++) some[i] = malloc(700);
        for (int i = 0; i < 2000; i++)
            if (i % 8) free(some[i]);
        CHECK(tallow_defrag_begin() > 0, "a child's own pass, round %d", round);
        int moved = 0;
        for (int i = 0; i < 2000; i += 8) {
            void *to = tallow_should_move(some[i]) ? tallow_move(some[i]) : some[i];
            moved += to != some[i];
            some[i] = to;
        }
        CHECK(moved > 0, "round %d", round);
        tallow_defrag_end();
        for (int i = 0; i < 2000; i += 8) free(some[i]);
    }
    _exit(0);
}

int main(void) {
    for (int i = 0; i < BLOCKS; i++) blocks[i] = malloc(16 + (size_t)i % 500);
    for (int i = 0; i < BLOCKS; i++)
        if (i % 10) {
            free(blocks[i]);
            blocks[i] = NULL;
        }
    pthread_t thread;
    CHECK(!pthread_create(&thread, NULL, work, NULL), "a thread");
    while (!passes) usleep(1000);
    for (int i = 0; i < 100; i++) {
        pid_t pid = fork();
        CHECK(pid >= 0, "fork");
        if (pid == 0) child();
        int status = 0;
        CHECK(waitpid(pid, &status, 0) == pid && status == 0, "child %d: status %d", i, status);
    }
    puts("ok");
    exit(0);
}
