/* A service that blocks its signals in `main` and waits for them: those that were
 * started before it must not take them. */
#include "check.h"
#include <signal.h>
#include <time.h>

int main(void) {
    sigset_t wanted;
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGTERM);
    sigaddset(&wanted, SIGHUP);
    CHECK(sigprocmask(SIG_BLOCK, &wanted, NULL) == 0, "the mask");
    int signals[] = {SIGTERM, SIGHUP, SIGTERM};
    for (int i = 0; i < 3; i++) {
        CHECK(kill(getpid(), signals[i]) == 0, "to this process");
        struct timespec patience = {300, 0};
        int got = sigtimedwait(&wanted, NULL, &patience);
        CHECK(got == signals[i], "%d", got);
    }
    puts("ok");
    return 0;
}
