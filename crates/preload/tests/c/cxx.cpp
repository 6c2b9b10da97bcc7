// C++'s operators, with their exceptions and handlers.
#include "check.h"
#include <algorithm>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <sys/resource.h>
#include <thread>
#include <vector>

static volatile std::size_t most = SIZE_MAX;
static const std::size_t MIB = 1 << 20;

struct alignas(256) Wide {
    char bytes[300];
};

struct Throws {
    std::string text = std::string(1000, 'x');
    Throws() { throw std::runtime_error(text); }
};

static void plain() {
    for (std::size_t size = 0; size < 5000; size += 7) {
        void *p = ::operator new(size), *q = ::operator new[](size);
        void *r = ::operator new(size, std::nothrow), *s = ::operator new[](size, std::nothrow);
        CHECK(p && q && r && s && p != q, "%zu bytes", size);
        CHECK(size <= 8 || ((std::uintptr_t)p | (std::uintptr_t)q) % 16 == 0, "%zu bytes", size);
        for (void *block : {p, q, r, s}) paint(block, 0, size, 5);
        for (void *block : {p, q, r, s}) CHECK(is_painted(block, size, 5), "%zu bytes", size);
        ::operator delete(p, size);
        ::operator delete[](q, size);
        ::operator delete(r, std::nothrow);
        ::operator delete[](s, std::nothrow);
    }
    ::operator delete(nullptr);
    ::operator delete[](nullptr);
    ::operator delete(nullptr, std::align_val_t(64));
    // C's and C++'s blocks are the same here.
    std::free(::operator new(100));
}

static void aligned() {
    for (std::size_t align = 1; align <= MIB; align *= 2) {
        auto with = std::align_val_t(align);
        for (std::size_t size : {0, 1, 8, 100, 5000, 100000}) {
            void *p = ::operator new(size, with), *q = ::operator new[](size, with);
            void *r = ::operator new(size, with, std::nothrow);
            void *s = ::operator new[](size, with, std::nothrow);
            for (void *block : {p, q, r, s}) {
                CHECK(block && (std::uintptr_t)block % align == 0, "%zu of %zu", align, size);
                paint(block, 0, size, 6);
            }
            ::operator delete(p, size, with);
            ::operator delete[](q, size, with);
            ::operator delete(r, with);
            ::operator delete[](s, with, std::nothrow);
        }
    }
    std::vector<std::unique_ptr<Wide>> wide;
    for (int i = 0; i < 1000; i++) {
        wide.push_back(std::make_unique<Wide>());
        CHECK((std::uintptr_t)wide.back().get() % 256 == 0, "%d", i);
    }
    delete[] new Wide[50];
}

// Compilers leave out an allocation that nobody looks at.
static void *volatile seen;

template <class F> static bool runs_out(F f) {
    try {
        f();
        return false;
    } catch (const std::bad_alloc &) {
        return true;
    }
}

static void out_of_memory() {
    CHECK(runs_out([] { seen = ::operator new(most); }), "new");
    CHECK(runs_out([] { seen = ::operator new[](most / 2); }), "new[]");
    CHECK(runs_out([] { seen = ::operator new(most / 4, std::align_val_t(4096)); }), "aligned new");
    CHECK(runs_out([] { seen = ::operator new[](most, std::align_val_t(64)); }), "aligned new[]");
    CHECK(runs_out([] { seen = new char[most / 4]; }), "an array");
    CHECK(!::operator new(most, std::nothrow), "nothrow");
    CHECK(!::operator new[](most / 4, std::nothrow), "nothrow");
    CHECK(!::operator new(most, std::align_val_t(64), std::nothrow), "nothrow");
    CHECK(runs_out([] { std::vector<int> v(most / 64); }), "a vector");
    // As in any thread.
    bool caught = false;
    std::thread([&] { caught = runs_out([] { seen = ::operator new(most); }); }).join();
    CHECK(caught, "in a thread");
}

struct Mine : std::bad_alloc {};
static int calls;
static void *reserve;

static void counts_down() {
    if (++calls == 3) std::set_new_handler(nullptr);
}

static void gives_reserve() {
    calls++;
    CHECK(reserve, "asked once more, with nothing left");
    std::free(reserve);
    reserve = nullptr;
}

static void in_vain() {
    if (++calls == 1000) {
        std::puts("asked for ever");
        std::_Exit(1);
    }
}

static void throws_mine() {
    calls++;
    throw Mine();
}

static void handlers() {
    calls = 0;
    std::set_new_handler(counts_down);
    CHECK(runs_out([] { seen = ::operator new(most); }), "in the end");
    CHECK(calls == 3, "%d calls", calls);

    // No memory helps where the alignment is none.
    calls = 0;
    std::set_new_handler(in_vain);
    for (std::size_t align : {0, 3, 48, 4095}) {
        auto none = std::align_val_t(align);
        CHECK(runs_out([&] { seen = ::operator new(8, none); }), "%zu", align);
        CHECK(runs_out([&] { seen = ::operator new[](8, none); }), "%zu", align);
        CHECK(!::operator new(8, none, std::nothrow), "%zu", align);
        CHECK(!::operator new[](8, none, std::nothrow), "%zu", align);
    }
    CHECK(calls == 0, "%d calls", calls);

    calls = 0;
    std::set_new_handler(throws_mine);
    bool mine = false;
    try {
        seen = ::operator new(most);
    } catch (const Mine &) {
        mine = true;
    }
    CHECK(mine && calls == 1, "what the handler throws, %d calls", calls);

    // With an end to the address space: what the handler frees is enough.
    calls = 0;
    reserve = std::malloc(512 * MIB);
    CHECK(reserve, "512 MiB");
    unsigned long pages = 0;
    FILE *file = std::fopen("/proc/self/statm", "r");
    CHECK(file && std::fscanf(file, "%lu", &pages) == 1, "statm");
    std::fclose(file);
    rlimit limit = {pages * 4096 + 64 * MIB, RLIM_INFINITY}, before;
    getrlimit(RLIMIT_AS, &before);
    limit.rlim_max = before.rlim_max;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0, "a limit");
    std::set_new_handler(gives_reserve);
    void *block = ::operator new(300 * MIB);
    CHECK(block && calls == 1, "%d calls", calls);
    ::operator delete(block, 300 * MIB);
    std::set_new_handler(nullptr);
    // And smaller blocks too, down to the last.
    std::vector<void *> all;
    all.reserve(100000);
    CHECK(runs_out([&] { for (;;) all.push_back(::operator new(3 * MIB)); }), "3 MiB");
    CHECK(runs_out([&] { for (;;) all.push_back(::operator new(20000)); }), "20 kB");
    CHECK(all.size() > 50, "%zu", all.size());
    for (void *p : all) ::operator delete(p);
    setrlimit(RLIMIT_AS, &before);
    ::operator delete(::operator new(300 * MIB));
}

/// `new (std::nothrow)` never throws, whatever the handler does.
static void quiet_handlers() {
    calls = 0;
    std::set_new_handler(throws_mine);
    void *block = &calls;
    try {
        block = ::operator new(most, std::nothrow);
    } catch (...) {
        CHECK(false, "nothrow threw");
    }
    CHECK(!block && calls == 1, "%d calls", calls);
    std::set_new_handler(nullptr);
}

static void workload() {
    std::map<std::string, std::vector<int>> map;
    std::uint64_t random = 1;
    for (int i = 0; i < 200000; i++) {
        auto key = "a key that is not short: " + std::to_string(next_random(&random) % 20000);
        auto &list = map[key];
        list.push_back(i);
        if (list.size() > 20) map.erase(key);
    }
    std::size_t sum = 0;
    for (auto &[key, list] : map) {
        CHECK(key.size() > 25 && std::is_sorted(list.begin(), list.end()), "%s", key.c_str());
        sum += list.size();
    }
    CHECK(sum > map.size(), "%zu", sum);
    int caught = 0;
    for (int i = 0; i < 10000; i++) {
        try {
            std::string local(500, 'y');
            delete new Throws;
        } catch (const std::runtime_error &error) {
            caught += std::string(error.what()).size() == 1000;
        }
    }
    CHECK(caught == 10000, "%d", caught);
}

int main(int count, char **args) {
    if (count > 1 && std::string(args[1]) == "quiet") {
        quiet_handlers();
    } else {
        plain();
        aligned();
        out_of_memory();
        workload();
        handlers();
    }
    std::puts("ok");
}
