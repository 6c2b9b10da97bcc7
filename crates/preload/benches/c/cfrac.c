/* In the manner of cfrac: numbers of a few digits, each a block of its own that
 * lives for one or two operations. The expansion of the square root of N as a
 * continued fraction, with trial division of each Q by small primes; at the end
 * it is checked that A^2 = (-1)^n Q (mod N). */
#include "bench.h"

typedef struct {
    int len; /* no zeros at the high end */
    uint32_t digit[];
} Number;

static Number *blank(int len) {
    Number *n = malloc(sizeof(Number) + (size_t)len * sizeof(uint32_t));
    MUST(n);
    n->len = len;
    return n;
}

static Number *trimmed(Number *n) {
    while (n->len > 0 && n->digit[n->len - 1] == 0) n->len--;
    return n;
}

static Number *small(uint32_t value) {
    Number *n = blank(1);
    n->digit[0] = value;
    return trimmed(n);
}

static Number *copy(const Number *a) {
    Number *n = blank(a->len);
    memcpy(n->digit, a->digit, (size_t)a->len * sizeof(uint32_t));
    return n;
}

static int compare(const Number *a, const Number *b) {
    if (a->len != b->len) return a->len < b->len ? -1 : 1;
    for (int i = a->len - 1; i >= 0; i--)
        if (a->digit[i] != b->digit[i]) return a->digit[i] < b->digit[i] ? -1 : 1;
    return 0;
}

static Number *sum(const Number *a, const Number *b) {
    int len = (a->len > b->len ? a->len : b->len) + 1;
    Number *n = blank(len);
    uint64_t carry = 0;
    for (int i = 0; i < len; i++) {
        carry += (uint64_t)(i < a->len ? a->digit[i] : 0) + (i < b->len ? b->digit[i] : 0);
        n->digit[i] = (uint32_t)carry;
        carry >>= 32;
    }
    return trimmed(n);
}

/* Of `a >= b`. */
static Number *difference(const Number *a, const Number *b) {
    Number *n = blank(a->len);
    int64_t carry = 0;
    for (int i = 0; i < a->len; i++) {
        carry += (int64_t)a->digit[i] - (i < b->len ? b->digit[i] : 0);
        n->digit[i] = (uint32_t)carry;
        carry >>= 32;
    }
    return trimmed(n);
}

static Number *product(const Number *a, const Number *b) {
    Number *n = blank(a->len + b->len);
    memset(n->digit, 0, (size_t)n->len * sizeof(uint32_t));
    for (int i = 0; i < a->len; i++) {
        uint64_t carry = 0;
        for (int j = 0; j < b->len; j++) {
            carry += (uint64_t)a->digit[i] * b->digit[j] + n->digit[i + j];
            n->digit[i + j] = (uint32_t)carry;
            carry >>= 32;
        }
        n->digit[i + b->len] = (uint32_t)carry;
    }
    return trimmed(n);
}

static Number *by_small(const Number *a, uint32_t b, uint32_t *rest) {
    Number *n = blank(a->len);
    uint64_t left = 0;
    for (int i = a->len - 1; i >= 0; i--) {
        left = left << 32 | a->digit[i];
        n->digit[i] = (uint32_t)(left / b);
        left %= b;
    }
    *rest = (uint32_t)left;
    return trimmed(n);
}

/* As by hand; the divisor is shifted so that its highest bit is set. */
static Number *quotient(const Number *a, const Number *b, Number **rest) {
    MUST(b->len > 0);
    if (b->len == 1) {
        uint32_t left;
        Number *n = by_small(a, b->digit[0], &left);
        *rest = small(left);
        return n;
    }
    if (compare(a, b) < 0) {
        *rest = copy(a);
        return small(0);
    }
    int shift = __builtin_clz(b->digit[b->len - 1]), m = b->len;
    Number *u = blank(a->len + 1), *v = blank(m), *q = blank(a->len - m + 1);
    for (int i = m - 1; i >= 0; i--)
        v->digit[i] = (uint32_t)((((uint64_t)b->digit[i] << 32 | (i ? b->digit[i - 1] : 0)) << shift) >> 32);
    for (int i = a->len; i >= 0; i--) {
        uint64_t high = i < a->len ? a->digit[i] : 0;
        u->digit[i] = (uint32_t)(((high << 32 | (i ? a->digit[i - 1] : 0)) << shift) >> 32);
    }
    for (int j = a->len - m; j >= 0; j--) {
        uint64_t top = (uint64_t)u->digit[j + m] << 32 | u->digit[j + m - 1];
        uint64_t guess = top / v->digit[m - 1], left = top % v->digit[m - 1];
        while (guess >> 32 || (left >> 32 == 0 && guess * v->digit[m - 2] > (left << 32 | u->digit[j + m - 2]))) {
            guess--;
            left += v->digit[m - 1];
            if (left >> 32) break;
        }
        int64_t borrow = 0;
        uint64_t carry = 0;
        for (int i = 0; i < m; i++) {
            carry += guess * v->digit[i];
            borrow += (int64_t)u->digit[i + j] - (uint32_t)carry;
            u->digit[i + j] = (uint32_t)borrow;
            borrow >>= 32;
            carry >>= 32;
        }
        borrow += (int64_t)u->digit[j + m] - (int64_t)carry;
        u->digit[j + m] = (uint32_t)borrow;
        if (borrow < 0) {
            guess--;
            carry = 0;
            for (int i = 0; i < m; i++) {
                carry += (uint64_t)u->digit[i + j] + v->digit[i];
                u->digit[i + j] = (uint32_t)carry;
                carry >>= 32;
            }
            u->digit[j + m] += (uint32_t)carry;
        }
        q->digit[j] = (uint32_t)guess;
    }
    Number *r = blank(m);
    for (int i = 0; i < m; i++)
        r->digit[i] = (uint32_t)(((uint64_t)u->digit[i + 1] << 32 | u->digit[i]) >> shift);
    free(u);
    free(v);
    *rest = trimmed(r);
    return trimmed(q);
}

static Number *remainder_of(Number *a, const Number *b) {
    Number *rest;
    free(quotient(a, b, &rest));
    free(a);
    return rest;
}

/* By Newton's method, from above. */
static Number *square_root(const Number *n) {
    Number *x = copy(n);
    for (;;) {
        Number *rest;
        uint32_t half;
        Number *q = quotient(n, x, &rest), *s = sum(x, q), *y = by_small(s, 2, &half);
        free(rest);
        free(q);
        free(s);
        if (compare(y, x) >= 0) {
            free(y);
            return x;
        }
        free(x);
        x = y;
    }
}

static uint32_t primes[60];

static void find_primes(void) {
    int found = 0;
    for (uint32_t n = 2; found < 60; n++) {
        int is = 1;
        for (int i = 0; i < found; i++) is = is && n % primes[i];
        if (is) primes[found++] = n;
    }
}

/* How often the small primes go into it. */
static int factors(const Number *of) {
    int times = 0;
    Number *left = copy(of);
    for (int i = 0; i < 60; i++) {
        for (;;) {
            uint32_t rest;
            Number *q = by_small(left, primes[i], &rest);
            if (rest || q->len == 0) {
                free(q);
                break;
            }
            free(left);
            left = q;
            times++;
        }
    }
    free(left);
    return times;
}

int main(void) {
    find_primes();
    double start = now();
    /* 153 bits. */
    Number *n = blank(5);
    static const uint32_t digits[] = {0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667};
    memcpy(n->digit, digits, sizeof digits);
    Number *root = square_root(n), *p = small(0), *q = small(1), *rest;
    Number *a = copy(root), *before = small(1), *step = copy(root);
    long all = 0;
    int steps = 700000;
    for (int i = 0; i < steps; i++) {
        /* P = step Q - P; Q = (N - P^2) / Q; step = (root + P) / Q */
        Number *t = product(step, q), *next_p = difference(t, p);
        free(t);
        Number *square = product(next_p, next_p), *d = difference(n, square);
        free(square);
        Number *next_q = quotient(d, q, &rest);
        MUST(rest->len == 0);
        free(rest);
        free(d);
        free(p);
        free(q);
        p = next_p;
        q = next_q;
        all += factors(q);
        free(step);
        t = sum(root, p);
        step = quotient(t, q, &rest);
        free(t);
        free(rest);
        if (i == steps - 1) break;
        t = product(step, a);
        Number *u = sum(t, before);
        free(t);
        free(before);
        before = a;
        a = remainder_of(u, n);
    }
    double seconds = now() - start;
    /* After an even number of steps A^2 - Q is a multiple of N. */
    Number *square = remainder_of(product(a, a), n);
    Number *other = difference(square, q), *left = remainder_of(other, n);
    MUST(all > steps && compare(square, q) >= 0 && left->len == 0);
    printf("%.4f\n", seconds);
    return 0;
}
