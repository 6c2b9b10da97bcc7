/* A library that allocates when it is loaded and frees when it is unloaded. */
#include <stdlib.h>
#include <string.h>

static void *held;
static _Thread_local char *own;

__attribute__((constructor)) static void load(void) { held = memset(malloc(5000), 1, 5000); }

__attribute__((destructor)) static void unload(void) { free(held); }

/* A block that outlives the library, with the length in front. */
void *plugin_block(size_t size) {
    own = realloc(own, 100);
    char *block = malloc(size);
    memcpy(block, &size, sizeof size);
    free(own);
    own = NULL;
    return block;
}
