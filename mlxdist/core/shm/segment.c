#include "mlxdist/shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(sizeof(uint64_t) <= SEGMENT_LINE, "the token has the first line for itself");
_Static_assert(sizeof(struct shm_handle) == SEGMENT_NAME + 8, "no padding, whose bytes would be sent uninitialized");

int segment_fails(struct outcome *outcome, const char *call, int error) {
    outcome->status = STATUS_NOT_SHARED;
    snprintf(outcome->text, sizeof outcome->text, "%s: %s", call, strerror(error));
    return STATUS_NOT_SHARED;
}

/* The token lies before the memory that users of the segment see. */
static int map(int file, size_t nbytes, struct segment *segment, struct outcome *outcome) {
    void *memory = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) {
        int error = errno;
        close(file);
        return segment_fails(outcome, "mmap", error);
    }
    *segment = (struct segment){.memory = (char *)memory + SEGMENT_LINE, .nbytes = nbytes - SEGMENT_LINE, .file = file};
    return STATUS_OK;
}

static uint64_t *token_of(const struct segment *segment) {
    return (uint64_t *)(segment->memory - SEGMENT_LINE);
}

#ifdef __linux__
/* Needs no open file; since Linux 5.14. */
static int populate(char *memory, size_t nbytes) {
    enum { POPULATE_WRITE = 23 };
    size_t page = (size_t)sysconf(_SC_PAGESIZE), header = (size_t)((uintptr_t)memory % page);
    return madvise(memory - header, nbytes + header, POPULATE_WRITE) ? errno : 0;
}

/* A signal can undo an allocation under way. Then allocate in pieces, or it would never succeed while a timer sends
 * signals. */
static int allocate(int file, size_t at, size_t nbytes) {
    size_t piece = nbytes;
    for (size_t end = at + nbytes; at < end;) {
        size_t n = end - at < piece ? end - at : piece;
        int error = posix_fallocate(file, (off_t)at, (off_t)n);
        if (error == EINTR)
            piece = (size_t)1 << 20;
        else if (error)
            return error;
        else
            at += n;
    }
    return 0;
}

int segment_reserve(const struct segment *segment, size_t at, size_t nbytes, struct outcome *outcome) {
    int error =
        segment->file < 0 ? populate(segment->memory + at, nbytes) : allocate(segment->file, SEGMENT_LINE + at, nbytes);
    return error ? segment_fails(outcome, "posix_fallocate in /dev/shm", error) : STATUS_OK;
}
#else
int segment_reserve(const struct segment *segment, size_t at, size_t nbytes, struct outcome *outcome) {
    (void)segment, (void)at, (void)nbytes, (void)outcome;
    return STATUS_OK;
}
#endif

void segment_touch(const struct segment *segment, size_t nbytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t at = 0; at < nbytes; at += page)
        /* Atomic, since other ranks may write there already. */
        atomic_load_explicit((_Atomic char *)(segment->memory + at), memory_order_relaxed);
}

static int create_named(struct shm_handle *handle) {
    static atomic_uint created;
    /* macOS allows 31 characters */
    snprintf(handle->name, sizeof handle->name, "/mlxdist.%x.%x.%04x", (unsigned)getpid(),
             atomic_fetch_add(&created, 1), (unsigned)(handle->token & 0xffff));
    return shm_open(handle->name, O_RDWR | O_CREAT | O_EXCL, 0600);
}

static int is_name(const struct shm_handle *handle) {
    return strncmp(handle->name, "/proc/", 6) != 0;
}

#ifdef __linux__
static int create(int is_named, struct shm_handle *handle) {
    if (is_named)
        return create_named(handle);
    int file = open("/dev/shm", O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    snprintf(handle->name, sizeof handle->name, "/proc/%d/fd/%d", (int)getpid(), file);
    return file;
}

static int open_again(const struct shm_handle *handle) {
    struct stat status;
    if (is_name(handle))
        return shm_open(handle->name, O_RDWR, 0);
    /* In another pid namespace this is another process, and to open its descriptor may do anything. */
    if (stat(handle->name, &status))
        return -1;
    if (S_ISREG(status.st_mode))
        return open(handle->name, O_RDWR | O_CLOEXEC);
    errno = ESTALE;
    return -1;
}

/* The lock belongs to an open file, not to the process, and a mapping keeps that open: so neither the program, whatever
 * descriptors it closes, nor a child by fork, which does not get the mapping, ends it earlier or later than this
 * process. */
int segment_lock(const struct shm_handle *handle, size_t at, struct segment *segment, struct outcome *outcome) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)at, .l_len = 1};
    int file = open_again(handle);
    if (file < 0)
        return segment_fails(outcome, "opening a file in /dev/shm", errno);
    void *page = mmap(NULL, 1, PROT_NONE, MAP_SHARED, file, 0);
    int error = page == MAP_FAILED || madvise(page, 1, MADV_DONTFORK) || fcntl(file, F_OFD_SETLK, &lock) ? errno : 0;
    close(file);
    if (!error)
        segment->lock = page;
    else if (page != MAP_FAILED)
        munmap(page, 1);
    return error ? segment_fails(outcome, "F_OFD_SETLK in /dev/shm", error) : STATUS_OK;
}

int segment_hides_pids(const struct segment *segment) {
    return segment->is_named;
}

void segment_unlink(const struct shm_handle *handle) {
    shm_unlink(handle->name);
}
#else
#ifndef F_OFD_SETLK
#define F_OFD_SETLK 90 /* known to macOS since 10.12, to its headers since 14 */
#endif
int fileport_makeport(int file, unsigned *port); /* sys/fileport.h of macOS, which some SDKs lack */

enum { LOCKS_NAME = SEGMENT_NAME + sizeof "/tmp" };

static int create(int is_named, struct shm_handle *handle) {
    (void)is_named;
    return create_named(handle);
}

static int open_again(const struct shm_handle *handle) {
    return shm_open(handle->name, O_RDWR, 0);
}

static void name_locks(const struct shm_handle *handle, char name[LOCKS_NAME]) {
    snprintf(name, LOCKS_NAME, "/tmp%s", handle->name);
}

/* Whoever comes first creates it. */
static int open_locks(const struct shm_handle *handle) {
    char name[LOCKS_NAME];
    struct stat status;
    name_locks(handle, name);
    int file = open(name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0 || (!fstat(file, &status) && status.st_uid == geteuid()))
        return file;
    close(file);
    errno = EPERM;
    return -1;
}

/* As on Linux, but on shared memory xnu refuses record locks (EBADF), so they are those of a file in /tmp, and what
 * keeps that open is a Mach port, which is not inherited by fork either. It is never given back: only the memory of the
 * whole job is locked, until the process ends. */
int segment_lock(const struct shm_handle *handle, size_t at, struct segment *segment, struct outcome *outcome) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)at, .l_len = 1};
    unsigned port;
    int own = open_locks(handle), all = open_locks(handle);
    int failed = own < 0 || all < 0 || fcntl(own, F_OFD_SETLK, &lock) || fileport_makeport(own, &port) ||
                 dup2(all, segment->file) < 0 || fcntl(segment->file, F_SETFD, FD_CLOEXEC);
    int error = failed ? errno : 0;
    close(own);
    close(all);
    return error ? segment_fails(outcome, "F_OFD_SETLK in /tmp", error) : STATUS_OK;
}

int segment_hides_pids(const struct segment *segment) {
    (void)segment;
    return 0;
}

void segment_unlink(const struct shm_handle *handle) {
    char name[LOCKS_NAME];
    name_locks(handle, name);
    unlink(name);
    shm_unlink(handle->name);
}
#endif

int segment_is_locked(const struct segment *segment, size_t at) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)at, .l_len = 1};
    return !fcntl(segment->file, F_GETLK, &lock) && lock.l_type != F_UNLCK;
}

int segment_create(size_t nbytes, int is_named, struct shm_handle *handle, struct segment *segment,
                   struct outcome *outcome) {
    if (getentropy(&handle->token, sizeof handle->token))
        return segment_fails(outcome, "getentropy", errno);
    int file = create(is_named, handle);
    if (file < 0)
        return segment_fails(outcome, "opening a file in /dev/shm", errno);
    if (ftruncate(file, (off_t)(nbytes + SEGMENT_LINE))) {
        int error = errno;
        segment_unlink(handle);
        close(file);
        return segment_fails(outcome, "ftruncate in /dev/shm", error);
    }
    if (map(file, nbytes + SEGMENT_LINE, segment, outcome)) {
        segment_unlink(handle);
        return STATUS_NOT_SHARED;
    }
    if (segment_reserve(segment, 0, 1, outcome)) {
        segment_unlink(handle);
        segment_free(segment);
        return STATUS_NOT_SHARED;
    }
    *token_of(segment) = handle->token;
    segment->is_named = is_name(handle);
    return STATUS_OK;
}

int segment_attach(const struct shm_handle *handle, struct segment *segment, struct outcome *outcome) {
    struct stat status;
    int file = open_again(handle);
    if (file < 0)
        return segment_fails(outcome, "opening a file in /dev/shm", errno);
    if (fstat(file, &status) || status.st_size < SEGMENT_LINE) {
        close(file);
        return segment_fails(outcome, "fstat", EINVAL);
    }
    if (map(file, (size_t)status.st_size, segment, outcome))
        return STATUS_NOT_SHARED;
    segment->is_named = is_name(handle);
    if (*token_of(segment) == handle->token)
        return STATUS_OK;
    segment_free(segment);
    return segment_fails(outcome, "another /dev/shm", ESTALE);
}

int segment_map_spare(struct segment *segment, size_t at, size_t nbytes, struct outcome *outcome) {
#ifdef __linux__
    void *memory = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, segment->file, (off_t)at);
#else
    void *memory = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
#endif
    if (memory == MAP_FAILED)
        return segment_fails(outcome, "mmap", errno);
    segment->spare.memory = memory;
    segment->spare.at = at;
    segment->spare.nbytes = nbytes;
    return STATUS_OK;
}

#ifdef __linux__
/* A page of a private mapping that has never been written is the page of the file. So at the moment at which the spare
 * takes the place of the shared mapping nothing changes, and no store of another thread is lost. */
static int replace(char *memory, char *spare, size_t nbytes) {
    /* After mlockall(MCL_FUTURE) the system has written to all of them. */
    munlock(spare, nbytes);
    madvise(spare, nbytes, MADV_DONTNEED);
    return mremap(spare, nbytes, nbytes, MREMAP_MAYMOVE | MREMAP_FIXED, memory) == MAP_FAILED ? errno : 0;
}
#else
/* Not at one moment: a system that maps shared memory only as shared has nothing better. */
static int replace(char *memory, char *spare, size_t nbytes) {
    memcpy(spare, memory, nbytes);
    if (mmap(memory, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_ANON, -1, 0) == MAP_FAILED)
        return errno;
    memcpy(memory, spare, nbytes);
    munmap(spare, nbytes);
    return 0;
}
#endif

/* The first write to a page of a private mapping makes it this process's own. A byte is replaced by itself, atomically,
 * since another thread may write there. */
static void own_pages(char *memory, size_t nbytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (char *end = memory + nbytes; memory < end; memory += page - (uintptr_t)memory % page) {
        char present = 0;
        while (!atomic_compare_exchange_weak((volatile _Atomic char *)memory, &present, present))
            continue;
    }
}

int segment_detach(struct segment *segment, char *memory, size_t nbytes) {
    if (segment->spare.memory) {
        int error =
            replace(segment->memory - SEGMENT_LINE + segment->spare.at, segment->spare.memory, segment->spare.nbytes);
        if (error)
            return error;
        segment->spare.memory = NULL;
    }
    own_pages(memory, nbytes);
    return 0;
}

void segment_close_file(struct segment *segment) {
    if (segment->file >= 0)
        close(segment->file);
    segment->file = -1;
}

void segment_free(struct segment *segment) {
    segment_close_file(segment);
    if (segment->spare.memory)
        munmap(segment->spare.memory, segment->spare.nbytes);
    if (segment->lock)
        munmap(segment->lock, 1);
    munmap(segment->memory - SEGMENT_LINE, segment->nbytes + SEGMENT_LINE);
}
