#include "mlxdist/group/bounce.h"

#include <pthread.h>
#include <stdlib.h>

#include "mlxdist/copy.h"

/* A fresh page costs more than what is written to it: these wait for the next message. */
enum { KEPT = 16 };
static void *kept[KEPT];
static int n_kept;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void *bounce_take(void) {
    void *buffer = NULL;
    pthread_mutex_lock(&lock);
    if (n_kept)
        buffer = kept[--n_kept];
    pthread_mutex_unlock(&lock);
    return buffer ? buffer : aligned_alloc(CACHE_LINE, BOUNCE_NBYTES);
}

void bounce_put(void *buffer) {
    pthread_mutex_lock(&lock);
    if (n_kept < KEPT)
        kept[n_kept++] = buffer, buffer = NULL;
    pthread_mutex_unlock(&lock);
    free(buffer);
}
