/* What xnu, the kernel of macOS, does otherwise than Linux, on Linux: to be preloaded, or linked with a program, where
 * the core was compiled with -U__linux__. From its sources (posix_shm.c, kern_descrip.c; xnu 11417, macOS 15).
 *
 * Only the files of mlxdist are concerned: a libmpi goes on as it was built. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 16384, LONGEST_NAME = 31 }; /* pages of Apple silicon; PSHMNAMLEN */

static int is_shared_memory(int file) {
    static const char folder[] = "/dev/shm/mlxdist.";
    char path[32], name[sizeof folder] = "";
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    return file >= 0 && readlink(path, name, sizeof name - 1) > 0 && !strcmp(name, folder);
}

/* The C library's own function. */
#define LIBRARYS(name) \
    static __typeof__(name) *library; \
    if (!library) \
    *(void **)&library = dlsym(RTLD_NEXT, #name)

static int refuse(int error) {
    errno = error;
    return -1;
}

/* A lock needs a vnode. */
#define FCNTL(name) \
    int name(int file, int command, ...) { \
        LIBRARYS(name); \
        va_list arguments; \
        va_start(arguments, command); \
        void *argument = va_arg(arguments, void *); \
        va_end(arguments); \
        int locks = command == F_GETLK || command == F_SETLK || command == F_SETLKW || command == F_OFD_GETLK || \
                    command == F_OFD_SETLK || command == F_OFD_SETLKW; \
        return locks && is_shared_memory(file) ? refuse(EBADF) : library(file, command, argument); \
    }
FCNTL(fcntl)
FCNTL(fcntl64)

/* Once in the life of the memory, which has whole pages. */
#define FTRUNCATE(name) \
    int name(int file, off_t nbytes) { \
        LIBRARYS(name); \
        struct stat status; \
        if (!is_shared_memory(file)) \
            return library(file, nbytes); \
        if (fstat(file, &status) || status.st_size) \
            return refuse(EINVAL); \
        return library(file, (nbytes + PAGE - 1) / PAGE * PAGE); \
    }
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)

/* Shared only, and no more than there is. */
#define MMAP(name) \
    void *name(void *memory, size_t nbytes, int protection, int flags, int file, off_t at) { \
        LIBRARYS(name); \
        struct stat status; \
        if (!(flags & MAP_ANONYMOUS) && is_shared_memory(file) && \
            (!(flags & MAP_SHARED) || fstat(file, &status) || (size_t)at + nbytes > (size_t)status.st_size)) { \
            errno = EINVAL; \
            return MAP_FAILED; \
        } \
        return library(memory, nbytes, protection, flags, file, at); \
    }
MMAP(mmap)
MMAP(mmap64)

int shm_open(const char *name, int flags, mode_t mode) {
    LIBRARYS(shm_open);
    return !strncmp(name, "/mlxdist.", 9) && strlen(name) > LONGEST_NAME ? refuse(ENAMETOOLONG)
                                                                         : library(name, flags, mode);
}

/* Keep an open file open until the process ends, however many descriptors of it are closed; not in a child by fork. */
int fileport_makeport(int file, unsigned *port) {
    static unsigned made;
    if (is_shared_memory(file))
        return refuse(EINVAL);
    void *page = mmap(NULL, 1, PROT_NONE, MAP_SHARED, file, 0);
    if (page == MAP_FAILED || madvise(page, 1, MADV_DONTFORK))
        return -1;
    *port = ++made;
    return 0;
}
