/* A fork while another thread of the rank is just freeing a group: the child can free its groups too. */
#include "local_ranks.h"

#include <dlfcn.h>

#include "mlxdist/group/core.h"

static _Thread_local int is_slow;
static atomic_int is_held;

/* In place of the C library's: the thread holds its locks for a while. */
int pthread_mutex_unlock(pthread_mutex_t *mutex) {
    static int (*unlock)(pthread_mutex_t *);
    if (!unlock)
        *(void **)&unlock = dlsym(RTLD_NEXT, "pthread_mutex_unlock");
    if (is_slow) {
        atomic_store(&is_held, 1);
        sleep_s(0.2);
    }
    return unlock(mutex);
}

static struct group *part_of_one(void) {
    struct outcome outcome;
    struct group *part;
    CHECK(group_split(core_world(), 0, 0, &part, &outcome) == STATUS_OK);
    return part;
}

static void *free_slowly(void *group) {
    is_slow = 1;
    group_release(group);
    return NULL;
}

static void freed_after_a_fork(void) {
    struct settings settings = {{WAIT_SPINS_OVERSUBSCRIBED, 0, 1, NULL, NULL, NULL}, 1, 0};
    struct outcome outcome;
    pthread_t thread;
    int status;
    CHECK(core_start(&alone, &settings, &outcome) == STATUS_OK);
    struct group *first = part_of_one(), *second = part_of_one();
    CHECK(!pthread_create(&thread, NULL, free_slowly, first));
    while (!atomic_load(&is_held))
        sleep_s(0.001);
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        alarm(2);
        group_release(second);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(!pthread_join(thread, NULL));
    group_release(second);
}

PROGRAM({"freed-after-a-fork", freed_after_a_fork})
