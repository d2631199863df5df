/* Memory that cannot be shared or is not the same; what is left of it; fewer processors than local ranks. */
#include "local_ranks.h"

#include <dirent.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>

static int signals_come;

/* In place of the C library's, as on older Linux: in /dev/shm any signal undid the whole allocation. */
int posix_fallocate(int file, off_t at, off_t nbytes) {
    static int calls;
    if (signals_come && (calls++ % 2 == 0 || nbytes > 8 << 20))
        return EINTR;
    return syscall(SYS_fallocate, file, 0, at, nbytes) ? errno : 0;
}

/* Files in /dev/shm that this process has created. */
static int n_left(void) {
    char prefix[32];
    int n = 0;
    snprintf(prefix, sizeof prefix, "mlxdist.%x.", (unsigned)getpid());
    DIR *folder = opendir("/dev/shm");
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        n += !strncmp(entry->d_name, prefix, strlen(prefix));
    if (folder)
        closedir(folder);
    return n;
}

static int n_files(void) {
    int n = 0;
    DIR *folder = opendir("/proc/self/fd");
    CHECK(folder);
    while (readdir(folder))
        n++;
    closedir(folder);
    return n;
}

static struct node *create(int local_size, struct shm_handle *published) {
    struct outcome outcome;
    struct node *node = NULL;
    CHECK(node_create(local_size, published, &node, &outcome) == STATUS_OK);
    return node;
}

static void refused(int result, const struct outcome *outcome, const char *text) {
    CHECK(result == STATUS_NOT_SHARED && outcome->status == STATUS_NOT_SHARED);
    if (strncmp(outcome->text, text, strlen(text)))
        fail(__FILE__, __LINE__, text, outcome->text);
    CHECK(n_left() == 0);
}

static void names_are_unlinked(void) {
    struct shm_handle published[3];
    int files = n_files();
    for (int i = 0; i < 3; i++) {
        struct node *node = create(1 + i * (NODE_MAX_RANKS - 1) / 2, &published[i]), *other;
        struct outcome outcome;
        CHECK(n_left() == 1);
        CHECK(node_attach(&published[i], &other, &outcome) == STATUS_OK);
        CHECK(node_local_size(other) == node_local_size(node) && n_files() == files + 2);
        segment_unlink(&published[i]);
        CHECK(n_left() == 0);
        node_close(node);
        node_close(other);
        CHECK(n_files() == files);
    }
    CHECK(strcmp(published[0].name, published[1].name) && published[0].token != published[1].token);
    CHECK(strlen(published[0].name) <= 31); /* the most on macOS */
}

static void other_memory(void) {
    struct shm_handle mine, theirs;
    struct node *node = create(2, &mine), *other;
    struct outcome outcome;
    int files = n_files();
    theirs = mine;
    theirs.token ^= 1;
    int result = node_attach(&theirs, &other, &outcome);
    segment_unlink(&mine);
    refused(result, &outcome, "another /dev/shm");
    refused(node_attach(&mine, &other, &outcome), &outcome, "shm_open: No such file");
    int file = shm_open(mine.name, O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(file >= 0 && !ftruncate(file, 8));
    result = node_attach(&mine, &other, &outcome);
    segment_unlink(&mine);
    close(file);
    refused(result, &outcome, "fstat: ");
    CHECK(n_files() == files);
    node_close(node);
}

static void limit(int status, rlim_t to) {
    struct rlimit present;
    CHECK(!getrlimit(status, &present));
    present.rlim_cur = to;
    CHECK(!setrlimit(status, &present));
}

static void too_much(void) {
    struct shm_handle published;
    struct outcome outcome;
    struct node *node;
    refused(node_create(NODE_MAX_RANKS + 1, &published, &node, &outcome), &outcome, "too many ranks on one host");
    int files = n_files();
    signal(SIGXFSZ, SIG_IGN); /* as Python does */
    limit(RLIMIT_FSIZE, 100000);
    refused(node_create(4, &published, &node, &outcome), &outcome, "ftruncate in /dev/shm: File too large");
    CHECK(n_files() == files);
    limit(RLIMIT_NOFILE, 0);
    int result = node_create(1, &published, &node, &outcome);
    limit(RLIMIT_NOFILE, 64);
    refused(result, &outcome, "shm_open: Too many open files");
}

static void signals(void) {
    struct shm_handle published;
    signals_come = 1;
    struct node *node = create(NODE_MAX_RANKS, &published);
    segment_unlink(&published);
    node_close(node);
}

/* Mount over path for this process alone. */
static void mount_over(const char *path, unsigned long flags, const char *options) {
    if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("tmpfs", path, "tmpfs", flags, options))
        skip("a tmpfs cannot be mounted here");
}

static void full(void) {
    struct shm_handle published;
    struct outcome outcome;
    struct node *node;
    mount_over("/dev/shm", 0, "size=256k");
    refused(node_create(4, &published, &node, &outcome), &outcome, "posix_fallocate in /dev/shm: No space left");
    node = create(1, &published); /* there is room for one */
    segment_unlink(&published);
    node_close(node);
}

static void read_only(void) {
    struct shm_handle published;
    struct outcome outcome;
    struct node *node;
    mount_over("/dev/shm", MS_RDONLY, "");
    refused(node_create(2, &published, &node, &outcome), &outcome, "shm_open: Read-only file system");
}

static void missing(void) {
    struct shm_handle published;
    struct outcome outcome;
    struct node *node;
    mount_over("/dev", 0, "");
    refused(node_create(2, &published, &node, &outcome), &outcome, "shm_open: ");
}

/* Ranks that may run on the first so many processors. */
static int is_oversubscribed(int local_size, int processors) {
    struct shm_handle published;
    struct node *node = create(local_size, &published);
    cpu_set_t all, some;
    CHECK(!sched_getaffinity(0, sizeof all, &all));
    CPU_ZERO(&some);
    for (int i = 0, n = 0; i < CPU_SETSIZE && n < processors; i++)
        if (CPU_ISSET(i, &all)) {
            CPU_SET(i, &some);
            n++;
        }
    CHECK(!sched_setaffinity(0, sizeof some, &some));
    for (int local_rank = 0; local_rank < local_size; local_rank++) {
        struct node mine = *node;
        node_join(&mine, local_rank, local_rank, &mine, local_rank);
    }
    CHECK(!sched_setaffinity(0, sizeof all, &all));
    int found = node_is_oversubscribed(node);
    segment_unlink(&published);
    node_close(node);
    return found;
}

static void oversubscribed(void) {
    cpu_set_t all;
    CHECK(!sched_getaffinity(0, sizeof all, &all));
    CHECK(!is_oversubscribed(1, 1));
    CHECK(is_oversubscribed(2, 1));
    CHECK(is_oversubscribed(CPU_COUNT(&all) + 1, CPU_COUNT(&all)));
    CHECK(!is_oversubscribed(CPU_COUNT(&all), CPU_COUNT(&all)));
}

PROGRAM({"names-are-unlinked", names_are_unlinked}, {"other-memory", other_memory}, {"too-much", too_much},
        {"signals", signals}, {"full", full}, {"read-only", read_only}, {"missing", missing},
        {"oversubscribed", oversubscribed})
