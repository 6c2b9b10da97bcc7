// A library in C++ for a program that is not: what is thrown must be caught here.
#include <cstddef>
#include <cstdint>
#include <new>
#include <string>

static volatile std::size_t most = SIZE_MAX;
static void *volatile seen;
static int asked;

extern "C" int guest() {
    int right = 0;
    try {
        seen = ::operator new(most);
    } catch (const std::bad_alloc &) {
        right |= 1;
    }
    if (!::operator new(most, std::nothrow)) right |= 2;
    asked = 0;
    std::set_new_handler([] {
        if (++asked == 3) std::set_new_handler(nullptr);
    });
    try {
        seen = ::operator new[](most);
    } catch (const std::bad_alloc &) {
        if (asked == 3) right |= 4;
    }
    std::string *text = new std::string(1000, 'x');
    delete text;
    return right;
}
