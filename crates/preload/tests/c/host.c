/* A program in C that loads a part in C++, for itself alone: `host <library>`. */
#include "check.h"
#include <dlfcn.h>

int main(int count, char **args) {
    CHECK(count == 2, "the library's path is wanted");
    void *library = dlopen(args[1], RTLD_NOW | RTLD_LOCAL);
    CHECK(library, "%s", dlerror());
    int (*guest)(void) = (int (*)(void))dlsym(library, "guest");
    CHECK(guest, "%s", dlerror());
    CHECK(guest() == 7, "%d", guest());
    dlclose(library);
    puts("ok");
    return 0;
}
