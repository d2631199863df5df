/* What the same libmpi takes when C calls it: MPI_Allreduce in a loop. Handles come by address, of either width. */
#include <stddef.h>
#include <time.h>

typedef int with_int(const void *, void *, int, int, int, int);
typedef int with_pointer(const void *, void *, int, void *, void *, void *);

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds for all repeats; negative where a call failed. */
double raw_allreduce(void *function, size_t handle_size, const void *datatype, const void *op, const void *comm,
                     const void *sendbuf, void *recvbuf, int count, long repeats) {
    int failed = 0;
    double start = now();
    if (handle_size == sizeof(int)) {
        with_int *allreduce = (with_int *)function;
        int t = *(const int *)datatype, o = *(const int *)op, c = *(const int *)comm;
        for (long i = 0; i < repeats; i++)
            failed |= allreduce(sendbuf, recvbuf, count, t, o, c);
    } else {
        with_pointer *allreduce = (with_pointer *)function;
        void *t = *(void *const *)datatype, *o = *(void *const *)op, *c = *(void *const *)comm;
        for (long i = 0; i < repeats; i++)
            failed |= allreduce(sendbuf, recvbuf, count, t, o, c);
    }
    return failed ? -1 : now() - start;
}
