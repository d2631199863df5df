/* Memory that cannot be shared or is not the same; what is left of it; fewer processors than local ranks. */
#include "local_ranks.h"

#include "mlxdist/shm/handshake.h"
#include <dirent.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>

static int signals_come;

/* In place of the C library's, as on older Linux: in /dev/shm any signal undid the whole allocation. */
int posix_fallocate(int file, off_t at, off_t nbytes) {
    static int calls;
    if (signals_come && (calls++ % 2 == 0 || nbytes > 8 << 20))
        return EINTR;
    return syscall(SYS_fallocate, file, 0, at, nbytes) ? errno : 0;
}

/* Files in /dev/shm that a process has created. */
static int n_left_by(pid_t pid) {
    char prefix[32];
    int n = 0;
    snprintf(prefix, sizeof prefix, "mlxdist.%x.", (unsigned)pid);
    DIR *folder = opendir("/dev/shm");
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        n += !strncmp(entry->d_name, prefix, strlen(prefix));
    if (folder)
        closedir(folder);
    return n;
}

static int n_left(void) {
    return n_left_by(getpid());
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

static struct node *create(int local_size, int is_named, struct shm_handle *published) {
    struct outcome outcome;
    struct node *node = NULL;
    CHECK(node_create(local_size, is_named, published, &node, &outcome) == STATUS_OK);
    return node;
}

static void refused(int result, const struct outcome *outcome, const char *text) {
    CHECK(result == STATUS_NOT_SHARED && outcome->status == STATUS_NOT_SHARED);
    if (strncmp(outcome->text, text, strlen(text)))
        fail(__FILE__, __LINE__, text, outcome->text);
    CHECK(n_left() == 0);
}

/* In either way in which others can attach. */
static void cannot_create(int local_size, const char *text) {
    struct shm_handle published;
    struct outcome outcome;
    struct node *node;
    for (int is_named = 0; is_named < 2; is_named++)
        refused(node_create(local_size, is_named, &published, &node, &outcome), &outcome, text);
}

static void names_are_unlinked(void) {
    struct shm_handle published[4];
    int files = n_files();
    for (int i = 0; i < 4; i++) {
        int is_named = !IS_LINUX || i % 2;
        struct node *node = create(1 + i * (NODE_MAX_RANKS - 1) / 3, is_named, &published[i]), *other;
        struct outcome outcome;
        CHECK(n_left() == is_named && node->segment.is_named == is_named);
        CHECK(node_attach(&published[i], &other, &outcome) == STATUS_OK && other->segment.is_named == is_named);
        CHECK(node_local_size(other) == node_local_size(node) && n_files() == files + 2);
        node_seal(node, &published[i]);
        CHECK(n_left() == 0);
        node_close(node);
        node_close(other);
        CHECK(n_files() == files);
    }
    CHECK(strcmp(published[1].name, published[3].name) && published[1].token != published[3].token);
    CHECK(strlen(published[1].name) <= 31); /* the most on macOS */
}

static void other_memory(void) {
    struct shm_handle mine, theirs;
    struct node *node = create(2, 1, &mine), *other;
    struct outcome outcome;
    int files = n_files();
    theirs = mine;
    theirs.token ^= 1;
    int result = node_attach(&theirs, &other, &outcome);
    segment_unlink(&mine);
    refused(result, &outcome, "another /dev/shm");
    refused(node_attach(&mine, &other, &outcome), &outcome, "opening a file in /dev/shm: No such file");
    int file = shm_open(mine.name, O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(file >= 0 && !ftruncate(file, 8));
    result = node_attach(&mine, &other, &outcome);
    segment_unlink(&mine);
    close(file);
    refused(result, &outcome, IS_LINUX ? "fstat: " : "another /dev/shm"); /* which has a page at least */
    CHECK(n_files() == files);
    node_close(node);
}

/* As in another pid namespace, where the number is another process's. */
static void other_descriptor(void) {
    struct shm_handle published;
    struct node *node = create(2, 0, &published), *other;
    struct outcome outcome;
    int ends[2];
    node_seal(node, &published);
    refused(node_attach(&published, &other, &outcome), &outcome, "opening a file in /dev/shm: No such file");
    CHECK(!pipe(ends));
    snprintf(published.name, sizeof published.name, "/proc/%d/fd/%d", (int)getpid(), ends[0]);
    refused(node_attach(&published, &other, &outcome), &outcome, "opening a file in /dev/shm: Stale file handle");
    FILE *large = tmpfile();
    CHECK(large && !ftruncate(fileno(large), 1 << 20));
    snprintf(published.name, sizeof published.name, "/proc/%d/fd/%d", (int)getpid(), fileno(large));
    refused(node_attach(&published, &other, &outcome), &outcome, "another /dev/shm");
    node_close(node);
}

static void limit(int status, rlim_t to) {
    struct rlimit present;
    CHECK(!getrlimit(status, &present));
    present.rlim_cur = to;
    CHECK(!setrlimit(status, &present));
}

static void too_much(void) {
    cannot_create(NODE_MAX_RANKS + 1, "too many ranks on one host");
    int files = n_files();
    signal(SIGXFSZ, SIG_IGN); /* as Python does */
    limit(RLIMIT_FSIZE, 100000);
    cannot_create(4, "ftruncate in /dev/shm: File too large");
    CHECK(n_files() == files);
    struct shm_handle published;
    struct outcome outcome;
    struct node *node;
    limit(RLIMIT_NOFILE, 0);
    int result = node_create(1, 0, &published, &node, &outcome);
    limit(RLIMIT_NOFILE, 64);
    refused(result, &outcome, "opening a file in /dev/shm: Too many open files");
}

static const struct wait_policy for_ever = {WAIT_SPINS_OVERSUBSCRIBED, 0, 1, NULL, NULL, NULL};
static int round_of_kills;
static pid_t *first_pid; /* shared: the board is gone after run_ranks */

static void share_until_killed(struct node *node, int local_rank) {
    const int most_us = 5000; /* a few rounds */
    struct itimerval at = {{0, 0}, {0, 1 + (int)(scramble((uint32_t)(2 * round_of_kills + local_rank)) % most_us)}};
    struct segment segment;
    struct outcome outcome;
    board->dies[local_rank] = SIGALRM;
    *first_pid = board->pids[0];
    meet();
    setitimer(ITIMER_REAL, &at, NULL);
    while (!handshake_segment(node, 1 << 16, 0, 0, &segment, &for_ever, &outcome))
        segment_free(&segment);
    raise(SIGALRM);
}

/* Both at any instant, of which their launcher could be the cause: nothing has a name. */
static void killed_at_any_instant(void) {
    first_pid = mmap(NULL, sizeof *first_pid, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(first_pid != MAP_FAILED);
    for (round_of_kills = 0; round_of_kills < 100; round_of_kills++) {
        run_ranks(PROCESSES, 2, share_until_killed, SIGALRM);
        CHECK(n_left_by(*first_pid) == 0);
    }
}

/* The first is killed while it waits for the last to open what it has created, with a name. */
static void first_is_killed(struct node *node, int local_rank) {
    struct segment segment;
    struct outcome outcome;
    node->segment.is_named = 1;
    board->dies[local_rank] = SIGKILL;
    meet();
    if (local_rank == 0 && !fork()) {
        sleep_s(0.05);
        kill(getppid(), SIGKILL);
        _exit(0);
    }
    if (local_rank)
        sleep_s(0.2);
    CHECK(handshake_segment(node, 1 << 16, 0, 0, &segment, &for_ever, &outcome) == STATUS_PEER_DIED);
    CHECK(n_left_by(board->pids[0]) == 0);
    raise(SIGKILL);
}

static void killed_while_it_has_a_name(void) {
    run_ranks(PROCESSES, 2, first_is_killed, SIGKILL);
}

static void signals(void) {
    struct shm_handle published;
    signals_come = 1;
    struct node *node = create(NODE_MAX_RANKS, 0, &published);
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
    mount_over("/dev/shm", 0, "size=256k");
    cannot_create(4, "posix_fallocate in /dev/shm: No space left");
    node_close(create(1, 0, &published)); /* there is room for one */
}

static void read_only(void) {
    mount_over("/dev/shm", MS_RDONLY, "");
    cannot_create(2, "opening a file in /dev/shm: Read-only file system");
}

static void missing(void) {
    mount_over("/dev", 0, "");
    cannot_create(2, "opening a file in /dev/shm: ");
}

/* As Linux does with a set that is smaller than what it was configured for. */
static size_t configured_for;
int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set) {
    if (8 * size < configured_for) {
        errno = EINVAL;
        return -1;
    }
    memset(set, 0, size);
    return syscall(SYS_sched_getaffinity, pid, size, set) < 0 ? -1 : 0;
}

/* Ranks that may run on the first so many processors. */
static int is_oversubscribed(int local_size, int processors) {
    struct shm_handle published;
    struct node *node = create(local_size, 0, &published);
    struct outcome outcome;
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
        CHECK(node_join(&mine, &published, local_rank, local_rank, &mine, local_rank, &outcome) == STATUS_OK);
    }
    CHECK(!sched_setaffinity(0, sizeof all, &all));
    segment_unlink(&published);
    int found = node_is_oversubscribed(node);
    node_close(node);
    return found;
}

static void oversubscribed(void) {
    cpu_set_t all;
    CHECK(!sched_getaffinity(0, sizeof all, &all));
    int most = IS_LINUX ? CPU_COUNT(&all) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    CHECK(!is_oversubscribed(1, 1));
    CHECK(!IS_LINUX || is_oversubscribed(2, 1));
    CHECK(is_oversubscribed(most + 1, most));
    CHECK(!is_oversubscribed(most, most));
}

static void more_processors_than_fit(void) {
    struct shm_handle published;
    struct node *node = create(2, 0, &published);
    struct outcome outcome;
    configured_for = CPU_SETSIZE + 1;
    for (int local_rank = 0; local_rank < 2; local_rank++) {
        struct node mine = *node;
        CHECK(node_join(&mine, &published, local_rank, local_rank, &mine, local_rank, &outcome) == STATUS_OK);
    }
    CHECK(!node_is_oversubscribed(node));
    node_close(node);
}

PROGRAM({"names-are-unlinked", names_are_unlinked}, {"other-memory", other_memory},
        {"other-descriptor", other_descriptor}, {"too-much", too_much}, {"signals", signals},
        {"killed-at-any-instant", killed_at_any_instant}, {"killed-while-it-has-a-name", killed_while_it_has_a_name},
        {"full", full}, {"read-only", read_only}, {"missing", missing}, {"oversubscribed", oversubscribed},
        {"more-processors-than-fit", more_processors_than_fit})
