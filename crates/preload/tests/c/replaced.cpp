// A program with operators of its own, which the standard allows for each of them
// alone: those that it leaves out must forward to those that it has. Which ones those
// are is chosen when it is compiled: SINGLE, ARRAY, ALIGNED, ALIGNED_ARRAY.
#include "check.h"
#include <atomic>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

static std::atomic<long> news, deletes;
static std::atomic<bool> out;

// A block of the program's own begins with its size: what forwards elsewhere brings a
// pointer that is no block, or takes one for a block that is not.
static void *give(std::size_t size, std::size_t head) {
    if (out) throw std::bad_alloc();
    char *block = (char *)(head == 16 ? std::malloc(size + head) : std::aligned_alloc(head, size + head));
    if (!block) throw std::bad_alloc();
    memcpy(block, &size, sizeof size);
    memcpy(block + sizeof size, "tallow!", 8);
    news++;
    return block + head;
}

static void take(void *p, std::size_t head) {
    if (!p) return;
    char *block = (char *)p - head;
    CHECK(memcmp(block + sizeof(std::size_t), "tallow!", 8) == 0, "%p is not of ours", p);
    deletes++;
    std::free(block);
}

#ifdef SINGLE
void *operator new(std::size_t size) { return give(size, 16); }
void operator delete(void *p) noexcept { take(p, 16); }
#endif
#ifdef ARRAY
void *operator new[](std::size_t size) { return give(size, 16); }
void operator delete[](void *p) noexcept { take(p, 16); }
#endif
#ifdef ALIGNED
void *operator new(std::size_t size, std::align_val_t) { return give(size, 256); }
void operator delete(void *p, std::align_val_t) noexcept { take(p, 256); }
#endif
#ifdef ALIGNED_ARRAY
void *operator new[](std::size_t size, std::align_val_t) { return give(size, 256); }
void operator delete[](void *p, std::align_val_t) noexcept { take(p, 256); }
#endif

// Before `main`.
static std::unique_ptr<std::string> early = std::make_unique<std::string>(1000, 'e');

// That it is the library of this test that is asked where nothing is replaced.
static long count(long before) { return news - before; }

static void one_by_one() {
    const auto wide = std::align_val_t(256);
    const std::nothrow_t &quiet = std::nothrow;
    bool single = false, array = false, aligned = false, aligned_array = false;
#ifdef SINGLE
    single = true;
#endif
#ifdef ARRAY
    array = true;
#endif
#ifdef ALIGNED
    aligned = true;
#endif
#ifdef ALIGNED_ARRAY
    aligned_array = true;
#endif
    for (std::size_t size : {1, 24, 1000, 30000, 300000, 3000000}) {
        long before = news;
        void *p[] = {::operator new(size), ::operator new(size, quiet), ::operator new(size)};
        CHECK(count(before) == (single ? 3 : 0), "%zu bytes", size);
        ::operator delete(p[0]);
        ::operator delete(p[1], quiet);
        ::operator delete(p[2], size);

        before = news;
        void *q[] = {::operator new[](size), ::operator new[](size, quiet), ::operator new[](size)};
        CHECK(count(before) == (array || single ? 3 : 0), "%zu bytes", size);
        ::operator delete[](q[0]);
        ::operator delete[](q[1], quiet);
        ::operator delete[](q[2], size);

        before = news;
        void *r[] = {::operator new(size, wide), ::operator new(size, wide, quiet),
                     ::operator new(size, wide)};
        CHECK(count(before) == (aligned ? 3 : 0), "%zu bytes", size);
        for (void *block : r) CHECK((std::uintptr_t)block % 256 == 0, "%zu bytes", size);
        ::operator delete(r[0], wide);
        ::operator delete(r[1], wide, quiet);
        ::operator delete(r[2], size, wide);

        before = news;
        void *s[] = {::operator new[](size, wide), ::operator new[](size, wide, quiet),
                     ::operator new[](size, wide)};
        CHECK(count(before) == (aligned_array || aligned ? 3 : 0), "%zu bytes", size);
        for (void *block : s) CHECK((std::uintptr_t)block % 256 == 0, "%zu bytes", size);
        ::operator delete[](s[0], wide);
        ::operator delete[](s[1], wide, quiet);
        ::operator delete[](s[2], size, wide);
    }
    ::operator delete(nullptr, std::size_t(8));
    ::operator delete[](nullptr, std::size_t(8));
}

struct alignas(256) Wide {
    ~Wide() { seen++; }
    char bytes[300];
    static int seen;
};
int Wide::seen;

struct Base {
    virtual ~Base() {}
    std::string text = std::string(100, 'b');
};
struct Derived : Base {
    std::vector<int> list = std::vector<int>(100, 7);
};

static void as_programs_do() {
    std::map<std::string, std::unique_ptr<Base>> map;
    for (int i = 0; i < 1000; i++)
        map["a key that is not short: " + std::to_string(i)] = std::make_unique<Derived>();
    delete new int(5);
    delete[] new std::string[20];
    delete new (std::nothrow) Derived;
    delete new Wide;
    delete[] new Wide[7];
    CHECK(Wide::seen == 8, "%d", Wide::seen);
}

// What the program's own throw does not get out of what must not throw.
static void quietly() {
    out = true;
    const auto wide = std::align_val_t(256);
    try {
#ifdef SINGLE
        CHECK(!::operator new(100, std::nothrow), "gave a block");
#endif
#if defined SINGLE || defined ARRAY
        CHECK(!::operator new[](100, std::nothrow), "gave a block");
#endif
#ifdef ALIGNED
        CHECK(!::operator new(100, wide, std::nothrow), "gave a block");
#endif
#if defined ALIGNED || defined ALIGNED_ARRAY
        CHECK(!::operator new[](100, wide, std::nothrow), "gave a block");
#endif
    } catch (...) {
        CHECK(false, "nothrow threw");
    }
    (void)wide;
    out = false;
}

int main() {
    CHECK(early->size() == 1000, "%zu", early->size());
    one_by_one();
    as_programs_do();
    quietly();
    std::thread([] { one_by_one(); }).join();
    early.reset();
    // The thread's state may live on.
    CHECK(news > 20 && news - deletes <= 1, "%ld taken, %ld came back", news.load(), deletes.load());
    std::puts("ok");
}
