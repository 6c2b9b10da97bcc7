/* In the manner of xmalloc-test: one half of the threads allocates only, the
 * other half frees only what it is given, in batches. */
#include "bench.h"

#define BATCH 500
#define WAITING_MOST 60
#define ALL_BATCHES 24000

typedef struct Batch {
    struct Batch *next;
    void *blocks[BATCH];
} Batch;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER, fewer = PTHREAD_COND_INITIALIZER;
static Batch *first;
static int waiting, to_take, producers;

static void produce(uint64_t random) {
    for (int n = 0; n < ALL_BATCHES / producers; n++) {
        Batch *batch = malloc(sizeof(Batch));
        MUST(batch);
        for (int i = 0; i < BATCH; i++) {
            uint64_t r = next_random(&random);
            batch->blocks[i] = block_of(16 + (r & (r >> 10) & (r >> 20) & 1023));
        }
        pthread_mutex_lock(&lock);
        while (waiting >= WAITING_MOST) pthread_cond_wait(&fewer, &lock);
        batch->next = first;
        first = batch;
        waiting++;
        pthread_cond_signal(&more);
        pthread_mutex_unlock(&lock);
    }
}

static void consume(void) {
    for (;;) {
        pthread_mutex_lock(&lock);
        while (!first && to_take > 0) pthread_cond_wait(&more, &lock);
        if (to_take == 0) {
            pthread_cond_broadcast(&more);
            pthread_mutex_unlock(&lock);
            return;
        }
        Batch *batch = first;
        first = batch->next;
        waiting--;
        if (--to_take == 0) pthread_cond_broadcast(&more);
        pthread_cond_signal(&fewer);
        pthread_mutex_unlock(&lock);
        for (int i = 0; i < BATCH; i++) free(batch->blocks[i]);
        free(batch);
    }
}

static void *work(void *arg) {
    intptr_t i = (intptr_t)arg;
    if (i % 2) consume();
    else produce(7 + 1000003 * (uint64_t)i);
    return NULL;
}

int main(int count, char **args) {
    int threads = threads_of(count, args);
    producers = threads / 2;
    to_take = ALL_BATCHES / producers * producers;
    double start = now();
    run_threads(threads, work);
    printf("%.4f\n", now() - start);
    return 0;
}
