/* A daemon: closes all files, and has others by their numbers when it exits. */
#include "check.h"
#include <fcntl.h>
#include <sys/stat.h>

int main(int count, char **args) {
    CHECK(count == 2, "the path of a file is wanted");
    CHECK(write(1, "ok\n", 3) == 3, "stdout");
    for (int file = 0; file < 4096; file++) close(file);
    int data = open(args[1], O_RDWR | O_CREAT | O_EXCL, 0600);
    if (data != 0) _exit(1);
    for (int file = 1; file < 2000; file++)
        if (dup2(data, file) != file) _exit(2);
    exit(0);
}
