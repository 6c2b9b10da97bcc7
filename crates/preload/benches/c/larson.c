/* In the manner of larson: a server whose threads replace blocks at random, and
 * hand all of them over to a successor when they exit. */
#include "bench.h"

#define BLOCKS 1000
#define TURNS 50000
#define ALL_OPERATIONS 24000000

typedef struct {
    char *blocks[BLOCKS];
    uint64_t random;
    int turns_left;
    pthread_mutex_t lock;
    pthread_cond_t done;
} Post;

static void *serve(void *arg) {
    Post *post = arg;
    for (int i = 0; i < TURNS; i++) {
        uint64_t r = next_random(&post->random);
        size_t at = r % BLOCKS;
        free(post->blocks[at]);
        post->blocks[at] = block_of(10 + (r >> 20) % 490);
    }
    if (--post->turns_left > 0) {
        pthread_t next;
        MUST(!pthread_create(&next, NULL, serve, post));
        pthread_detach(next);
    } else {
        pthread_mutex_lock(&post->lock);
        post->turns_left = -1;
        pthread_cond_signal(&post->done);
        pthread_mutex_unlock(&post->lock);
    }
    return NULL;
}

int main(int count, char **args) {
    int threads = threads_of(count, args);
    Post *posts = calloc((size_t)threads, sizeof(Post));
    double start = now();
    for (int i = 0; i < threads; i++) {
        Post *post = &posts[i];
        post->random = 12345 + 1000003 * (uint64_t)i;
        post->turns_left = ALL_OPERATIONS / TURNS / threads;
        pthread_mutex_init(&post->lock, NULL);
        pthread_cond_init(&post->done, NULL);
        /* The first blocks are the main thread's, in no order. */
        for (int j = 0; j < BLOCKS; j++) {
            size_t at = (size_t)j * 387 % BLOCKS;
            post->blocks[at] = block_of(10 + next_random(&post->random) % 490);
        }
    }
    for (int i = 0; i < threads; i++) {
        pthread_t first;
        MUST(!pthread_create(&first, NULL, serve, &posts[i]));
        pthread_detach(first);
    }
    for (int i = 0; i < threads; i++) {
        pthread_mutex_lock(&posts[i].lock);
        while (posts[i].turns_left >= 0) pthread_cond_wait(&posts[i].done, &posts[i].lock);
        pthread_mutex_unlock(&posts[i].lock);
    }
    printf("%.4f\n", now() - start);
    return 0;
}
