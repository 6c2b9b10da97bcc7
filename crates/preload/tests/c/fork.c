/* Two threads allocate without a pause while the main thread forks. A child that
 * waits for a lock of a thread that it does not have is ended by its alarm. */
#include "check.h"
#include <pthread.h>
#include <sys/wait.h>

static void *work(void *arg) {
    uint64_t random = (uintptr_t)arg;
    for (;;) {
        void *volatile block = malloc(1 + next_random(&random) % 3000);
        free(block);
    }
    return NULL;
}

int main(void) {
    pthread_t thread;
    for (uintptr_t i = 1; i <= 2; i++)
        CHECK(!pthread_create(&thread, NULL, work, (void *)i), "a thread");
    for (int i = 0; i < 300; i++) {
        pid_t pid = fork();
        CHECK(pid >= 0, "fork");
        if (pid == 0) {
            alarm(300);
            for (size_t size = 1; size < 200000; size += size / 8 + 1) {
                void *volatile block = malloc(size);
                free(block);
            }
            _exit(0);
        }
        int status = 0;
        CHECK(waitpid(pid, &status, 0) == pid && status == 0, "child %d: status %d", i, status);
    }
    puts("ok");
    exit(0);
}
