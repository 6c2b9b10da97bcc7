/* One thread reads lines, for which its stream allocates, one flushes all streams, and
 * the main thread forks: each waits for the other two if they take their locks in
 * different orders. The alarm ends it then. */
#include "check.h"
#include <pthread.h>
#include <sys/wait.h>

enum { LINE = 200000, FORKS = 1500 };

static void *reads(void *arg) {
    FILE *file = arg;
    for (;;) {
        char *line = NULL;
        size_t room = 0;
        rewind(file);
        CHECK(getline(&line, &room, file) == LINE, "a line");
        free(line);
    }
    return NULL;
}

static void *flushes(void *arg) {
    for (;;) fflush(NULL);
    return arg;
}

int main(void) {
    pthread_t thread;
    alarm(300);
    /* Not a file of the system's, whose place children share. */
    static char text[LINE];
    memset(text, 'x', LINE - 1);
    text[LINE - 1] = '\n';
    FILE *file = fmemopen(text, LINE, "r");
    CHECK(file, "a stream");
    CHECK(!pthread_create(&thread, NULL, reads, file), "a thread");
    CHECK(!pthread_create(&thread, NULL, flushes, NULL), "a thread");
    for (int i = 0; i < FORKS; i++) {
        pid_t pid = fork();
        CHECK(pid >= 0, "fork");
        if (pid == 0) {
            alarm(300);
            FILE *own = tmpfile();
            if (!own || fputs("text", own) < 0 || fflush(NULL) || fclose(own)) _exit(1);
            _exit(0);
        }
        int status = 0;
        CHECK(waitpid(pid, &status, 0) == pid && status == 0, "child %d: status %d", i, status);
    }
    if (write(1, "ok\n", 3) != 3) _exit(1);
    exit(0);
}
