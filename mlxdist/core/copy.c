#include "mlxdist/copy.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#ifdef __x86_64__
#include <cpuid.h>
#include <emmintrin.h>
#endif

enum { PREFETCH_AHEAD = 2048 };

#ifdef __x86_64__
/* The processor itself does not prefetch beyond the end of a page. STORE: of 16 bytes. */
#define COPY_LINES(name, STORE) \
    static void name(char *to, const char *from, size_t nbytes) { \
        for (size_t at = 0; at < nbytes; at += CACHE_LINE) { \
            const __m128i *in = (const __m128i *)(from + at); \
            __m128i *out = (__m128i *)(to + at); \
            _mm_prefetch(from + at + PREFETCH_AHEAD, _MM_HINT_T0); \
            __m128i a = _mm_loadu_si128(in), b = _mm_loadu_si128(in + 1), c = _mm_loadu_si128(in + 2), \
                    d = _mm_loadu_si128(in + 3); \
            STORE(out, a); \
            STORE(out + 1, b); \
            STORE(out + 2, c); \
            STORE(out + 3, d); \
        } \
    }
COPY_LINES(copy_from_memory, _mm_store_si128)
COPY_LINES(copy_non_temporal, _mm_stream_si128)

/* In microcode; fast from Ivy Bridge and Zen 3 on. */
static void copy_full_lines(char *to, const char *from, size_t nbytes) {
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(nbytes) : : "memory");
}

static int has_fast_strings(void) {
    enum { ERMS = 1 << 9 };
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    return 0; /* sanitizers do not see what assembly reads and writes */
#endif
    static atomic_int known = -1;
    int has = atomic_load_explicit(&known, memory_order_relaxed);
    if (has < 0) {
        unsigned a, b = 0, c, d;
        has = __get_cpuid_count(7, 0, &a, &b, &c, &d) && b & ERMS;
        atomic_store_explicit(&known, has, memory_order_relaxed);
    }
    return has;
}

void copy(void *to, const void *from, size_t nbytes, enum copy_way way) {
    char *out = to;
    const char *in = from;
    size_t header = -(uintptr_t)out % CACHE_LINE;
    if (way == COPY_PLAIN || nbytes < 4 * CACHE_LINE || (way == COPY_FULL_LINES && !has_fast_strings())) {
        memcpy(out, in, nbytes);
        return;
    }
    size_t lines = (nbytes - header) / CACHE_LINE * CACHE_LINE, done = header + lines;
    memcpy(out, in, header);
    (way == COPY_FULL_LINES    ? copy_full_lines
     : way == COPY_FROM_MEMORY ? copy_from_memory
                               : copy_non_temporal)(out + header, in + header, lines);
    memcpy(out + done, in + done, nbytes - done);
}

void copy_fence(void) {
    _mm_sfence();
}
#else
void copy(void *to, const void *from, size_t nbytes, enum copy_way way) {
    (void)way;
    memcpy(to, from, nbytes);
}

/* memcpy does not bypass the cache, so a release orders it. */
void copy_fence(void) {}
#endif

void copy_prefetch_for_write(const void *memory, size_t nbytes) {
    for (size_t at = 0; at < nbytes; at += CACHE_LINE) {
        const char *line = (const char *)memory + at;
#ifdef __x86_64__
        __asm__ volatile("prefetchw %0"
                         :
                         : "m"(*line)); /* __builtin_prefetch(line, 1) becomes a prefetch for reading */
#else
        __builtin_prefetch(line, 1);
#endif
    }
}

void copy_use_huge_pages(void *memory, size_t nbytes) {
#ifdef MADV_HUGEPAGE
    const uintptr_t huge = (uintptr_t)2 << 20;
    uintptr_t first = ((uintptr_t)memory + huge - 1) / huge * huge, end = ((uintptr_t)memory + nbytes) / huge * huge;
    if (first < end)
        madvise((void *)first, end - first, MADV_HUGEPAGE);
#else
    (void)memory, (void)nbytes;
#endif
}

/* Not sysconf: on a virtual machine it gives the sum over all sockets. */
size_t copy_cache_nbytes(void) {
    static atomic_size_t known;
    size_t nbytes = atomic_load_explicit(&known, memory_order_relaxed), kibibytes = 0;
    if (nbytes)
        return nbytes;
    FILE *file = fopen("/sys/devices/system/cpu/cpu0/cache/index3/size", "r");
    if (file) {
        if (fscanf(file, "%zuK", &kibibytes) != 1)
            kibibytes = 0;
        fclose(file);
    }
    nbytes = kibibytes ? kibibytes << 10 : (size_t)8 << 20;
    atomic_store_explicit(&known, nbytes, memory_order_relaxed);
    return nbytes;
}
