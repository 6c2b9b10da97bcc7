/* Says whether it runs with more rights than its user. */
#include "check.h"
#include <sys/auxv.h>

int main(void) {
    void *volatile block = malloc(100);
    free(block);
    printf("secure %lu\nok\n", getauxval(AT_SECURE));
    return 0;
}
