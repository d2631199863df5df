#include "mlxdist/copy.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>

static void copy_past_cache(void *to, const void *from, size_t nbytes) {
    enum { LINE = 64 };
    char *out = to;
    const char *in = from;
    size_t head = -(uintptr_t)out % LINE;
    if (nbytes < 4 * LINE) {
        memcpy(out, in, nbytes);
        return;
    }
    memcpy(out, in, head);
    out += head, in += head, nbytes -= head;
    for (; nbytes >= LINE; nbytes -= LINE, out += LINE, in += LINE) {
        const __m128i *line = (const __m128i *)in;
        __m128i a = _mm_loadu_si128(line), b = _mm_loadu_si128(line + 1), c = _mm_loadu_si128(line + 2),
                d = _mm_loadu_si128(line + 3);
        _mm_stream_si128((__m128i *)out, a);
        _mm_stream_si128((__m128i *)out + 1, b);
        _mm_stream_si128((__m128i *)out + 2, c);
        _mm_stream_si128((__m128i *)out + 3, d);
    }
    memcpy(out, in, nbytes);
}

void copy_fence(void) {
    _mm_sfence();
}
#else
static void copy_past_cache(void *to, const void *from, size_t nbytes) {
    memcpy(to, from, nbytes);
}

void copy_fence(void) {}
#endif

void copy(void *to, const void *from, size_t nbytes, int past_cache) {
    if (past_cache)
        copy_past_cache(to, from, nbytes);
    else
        memcpy(to, from, nbytes);
}

/* sysconf takes the caches of all sockets of a virtual machine together. */
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
