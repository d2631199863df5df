#include "mlxdist/shims/jax_mpiwrapper.h"
#include "mlxdist/shims/mpiabi_names.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

/* A constant of the list, or a pointer to something of ours. */
typedef uintptr_t handle;

#define NUMBER(name) NUMBER_##name,
enum { MLXDIST_MPIABI_CONSTANTS(NUMBER) NUMBERS };

/* XLA's clique of devices. Without a group every call on it fails, since XLA ignores what the split returns. */
struct communicator {
    struct group *group;
    int rank, size;
};

/* Of XLA's permutation: all of them are begun on one thread, which then waits for each. */
struct request {
    handle comm;
    struct call call;
    const void *sendbuf;
    void *recvbuf;
    struct request *next; /* among those not yet run */
    int is_done, result;
};

static _Atomic(const struct core_functions *) connected;
static _Atomic(struct group *) clique; /* of the next split; NULL: unknown */
static _Thread_local struct request *begun;
static _Thread_local char error_text[1024]; /* XLA's buffer has as many */

#define CALL_NAME(name, call, ...) call,
static const char *const reduction_names[] = {MLXDIST_REDUCTIONS(CALL_NAME)};

/* What XLA may pass, each plus 1. A PRED is a UINT8_T, of which it takes MIN and MAX. */
static const int types[NUMBERS] = {
    [NUMBER_BYTE] = 1 + TYPE_UINT8,
    [NUMBER_INT8_T] = 1 + TYPE_INT8,
    [NUMBER_INT16_T] = 1 + TYPE_INT16,
    [NUMBER_INT32_T] = 1 + TYPE_INT32,
    [NUMBER_INT64_T] = 1 + TYPE_INT64,
    [NUMBER_UINT8_T] = 1 + TYPE_UINT8,
    [NUMBER_UINT16_T] = 1 + TYPE_UINT16,
    [NUMBER_UINT32_T] = 1 + TYPE_UINT32,
    [NUMBER_UINT64_T] = 1 + TYPE_UINT64,
    [NUMBER_FLOAT] = 1 + TYPE_FLOAT32,
    [NUMBER_DOUBLE] = 1 + TYPE_FLOAT64,
    [NUMBER_C_COMPLEX] = 1 + TYPE_COMPLEX64,
    [NUMBER_C_FLOAT_COMPLEX] = 1 + TYPE_COMPLEX64,
    [NUMBER_C_DOUBLE_COMPLEX] = 1 + TYPE_COMPLEX128,
};
static const int reductions[NUMBERS] = {
    [NUMBER_SUM] = 1 + REDUCE_SUM,
    [NUMBER_MAX] = 1 + REDUCE_MAX,
    [NUMBER_MIN] = 1 + REDUCE_MIN,
    [NUMBER_PROD] = 1 + REDUCE_PROD,
};

static const char unknown_clique[] = "mlxdist does not know which processes XLA communicates in here: call "
                                     "mlxdist.jax.initialize() before computing, or "
                                     "set JAX_CPU_COLLECTIVES_IMPLEMENTATION=gloo and report it";

static const struct core_functions *core(void) {
    return atomic_load_explicit(&connected, memory_order_acquire);
}

static int has_world(void) {
    return core() && core()->core_world();
}

static int fail(const char *call, const char *text) {
    snprintf(error_text, sizeof error_text, "[%s] %.990s", call, text);
    return NUMBER_ERR_OTHER;
}

static int known(const int *table, handle number) {
    return number < NUMBERS ? table[number] - 1 : -1;
}

static struct communicator *communicator_of(handle comm) {
    return comm < NUMBERS ? NULL : (struct communicator *)comm;
}

/* XLA narrows a size_t to an int; the number that it meant is at most 2^32 - 1. */
static int64_t elements(int count) {
    return (uint32_t)count;
}

static int check(const struct communicator *comm, const char *call, int type, int op) {
    if (!comm || !comm->group)
        return fail(call, unknown_clique);
    if (type < 0 || op < 0)
        return fail(call, "jaxlib uses an element type or a reduction that mlxdist does not know: report it with "
                          "the version of jaxlib");
    return NUMBER_SUCCESS;
}

static int run(handle comm, const char *name, struct call *call, const void *sendbuf, void *recvbuf) {
    struct outcome outcome;
    struct communicator *on = communicator_of(comm);
    if (check(on, name, call->type, call->op))
        return NUMBER_ERR_OTHER;
    if (on->size == 1) { /* of an axis of length 1; XLA itself copies what it would send to itself */
        if (recvbuf && sendbuf)
            memmove(recvbuf, sendbuf, (size_t)call_nbytes(call));
        return NUMBER_SUCCESS;
    }
    if ((call_is_collective(call) ? core()->group_run : core()->group_p2p)(on->group, call, sendbuf, recvbuf, &outcome))
        return fail(name, outcome.text);
    return NUMBER_SUCCESS;
}

/* The receive together with a send, since that may be what the sender waits for. */
static void run_begun(void) {
    struct request *recv = NULL;
    for (struct request *each = begun; each; each = each->next)
        if (each->call.operation == OPERATION_RECV)
            recv = each;
    for (struct request *each = begun; each; each = each->next) {
        if (each == recv)
            continue;
        struct call call = each->call;
        if (recv && !recv->is_done) {
            call.operation = OPERATION_SENDRECV;
            call.src = recv->call.peer;
            recv->is_done = 1;
            each->result = recv->result = run(each->comm, "sendrecv", &call, each->sendbuf, recv->recvbuf);
        } else
            each->result = run(each->comm, "send", &call, each->sendbuf, NULL);
        each->is_done = 1;
    }
    if (recv && !recv->is_done)
        recv->result = run(recv->comm, "recv", &recv->call, NULL, recv->recvbuf);
    begun = NULL;
}

static void set_clique(struct group *group) {
    atomic_store_explicit(&clique, group, memory_order_release);
}

static const struct jax_mpiwrapper functions = {set_clique};

const void *mlxdist_connect(const struct core_functions *functions_of_core) {
    atomic_store_explicit(&connected, functions_of_core, memory_order_release);
    return &functions;
}

/* What jaxlib looks up. */
EXPORT const int mpiwrapper_version_major = 2;
EXPORT const int mpiwrapper_version_minor = 11;
EXPORT const int mpiwrapper_version_patch = 0;
EXPORT const int mpiabi_version_major = 2;
EXPORT const int mpiabi_version_minor = 9;
EXPORT const int mpiabi_version_patch = 0;

#define CONSTANT(name) EXPORT const uint64_t MPIABI_##name = NUMBER_##name;
MLXDIST_MPIABI_CONSTANTS(CONSTANT)

#define UNUSED(name) \
    EXPORT int MPIABI_##name(void) { \
        return fail("MPI_" #name, "mlxdist does not have this function: report it with the version of jaxlib"); \
    }
MLXDIST_MPIABI_UNUSED(UNUSED)

EXPORT void mpiwrapper_export_fortran_constants_(void) {}

/* XLA passes only memory of the host. */
#define NO_SUPPORT(device) \
    EXPORT int MPIXABI_Query_##device##_support(void) { \
        return 0; \
    }
NO_SUPPORT(cuda)
NO_SUPPORT(hip)
NO_SUPPORT(ze)

EXPORT int MPIABI_Init_thread(int *argc, char ***argv, int required, int *provided) {
    (void)argc, (void)argv, (void)required;
    *provided = NUMBER_THREAD_MULTIPLE;
    return NUMBER_SUCCESS;
}

/* XLA makes communicators on a thread of this kind only; with our core any will do. */
EXPORT int MPIABI_Is_thread_main(int *flag) {
    *flag = 1;
    return NUMBER_SUCCESS;
}

/* mlxdist ends when Python does. XLA may still free communicators afterwards. */
EXPORT int MPIABI_Finalize(void) {
    return NUMBER_SUCCESS;
}

EXPORT int MPIABI_Error_string(int code, char *text, int *length) {
    (void)code;
    *length = snprintf(text, sizeof error_text, "%s", error_text);
    return NUMBER_SUCCESS;
}

EXPORT int MPIABI_Comm_rank(handle comm, int *rank) {
    const struct communicator *of = communicator_of(comm);
    *rank = of ? of->rank : has_world() ? core()->group_rank(core()->core_world()) : 0;
    return NUMBER_SUCCESS;
}

EXPORT int MPIABI_Comm_size(handle comm, int *size) {
    const struct communicator *of = communicator_of(comm);
    *size = of ? of->size : has_world() ? core()->group_size(core()->core_world()) : 1;
    return NUMBER_SUCCESS;
}

/* XLA passes the clique's first device as color, and its own place in the clique as key. */
EXPORT int MPIABI_Comm_split(handle comm, int color, int key, handle *part) {
    struct group *group = atomic_load_explicit(&clique, memory_order_acquire);
    struct communicator *made = calloc(1, sizeof *made);
    (void)comm, (void)color;
    *part = made ? (handle)made : (handle)NUMBER_COMM_NULL;
    if (!made)
        return fail("split", "no memory for a communicator: free some");
    made->rank = key;
    made->size = 1;
    if (!group || core()->group_rank(group) != key)
        return fail("split", unknown_clique);
    made->group = core()->group_retain(group);
    made->size = core()->group_size(group);
    return NUMBER_SUCCESS;
}

EXPORT int MPIABI_Comm_free(handle *comm) {
    struct communicator *freed = communicator_of(*comm);
    if (freed && freed->group)
        core()->group_release(freed->group);
    free(freed);
    *comm = NUMBER_COMM_NULL;
    return NUMBER_SUCCESS;
}

EXPORT int MPIABI_Allreduce(const void *sendbuf, void *recvbuf, int count, handle datatype, handle op, handle comm) {
    struct call call =
        flat_call(OPERATION_ALLREDUCE, known(reductions, op), known(types, datatype), 0, elements(count));
    return run(comm, call.op < 0 ? "all_reduce" : reduction_names[call.op], &call, sendbuf, recvbuf);
}

EXPORT int MPIABI_Reduce_scatter(const void *sendbuf, void *recvbuf, const int *recvcounts, handle datatype, handle op,
                                 handle comm) {
    const struct communicator *of = communicator_of(comm);
    int64_t count = of ? of->size * elements(recvcounts[0]) : 0; /* XLA's parts are equal */
    struct call call = flat_call(OPERATION_REDUCE_SCATTER, known(reductions, op), known(types, datatype), 0, count);
    return run(comm, "sum_scatter", &call, sendbuf, recvbuf);
}

EXPORT int MPIABI_Allgather(const void *sendbuf, int count, handle datatype, void *recvbuf, int recvcount,
                            handle recvtype, handle comm) {
    (void)recvcount, (void)recvtype;
    struct call call = flat_call(OPERATION_ALLGATHER, 0, known(types, datatype), 0, elements(count));
    return run(comm, "all_gather", &call, sendbuf, recvbuf);
}

EXPORT int MPIABI_Sendrecv(const void *sendbuf, int count, handle datatype, int dst, int tag, void *recvbuf,
                           int recvcount, handle recvtype, int src, int recvtag, handle comm, void *status) {
    (void)tag, (void)recvcount, (void)recvtype, (void)recvtag, (void)status;
    struct call call = flat_call(OPERATION_SENDRECV, 0, known(types, datatype), dst, elements(count));
    call.src = src;
    return run(comm, "sendrecv", &call, sendbuf, recvbuf);
}

static int begin(handle comm, struct call call, const void *sendbuf, void *recvbuf, handle *request) {
    struct request *made = malloc(sizeof *made);
    if (!made)
        return fail("send", "no memory for a message: free some");
    *made = (struct request){comm, call, sendbuf, recvbuf, begun, 0, 0};
    begun = made;
    *request = (handle)made;
    return NUMBER_SUCCESS;
}

EXPORT int MPIABI_Isend(const void *buf, int count, handle datatype, int dst, int tag, handle comm, handle *request) {
    (void)tag;
    struct call call = flat_call(OPERATION_SEND, 0, known(types, datatype), dst, elements(count));
    return begin(comm, call, buf, NULL, request);
}

EXPORT int MPIABI_Irecv(void *buf, int count, handle datatype, int src, int tag, handle comm, handle *request) {
    (void)tag;
    struct call call = flat_call(OPERATION_RECV, 0, known(types, datatype), src, elements(count));
    return begin(comm, call, NULL, buf, request);
}

EXPORT int MPIABI_Wait(handle *request, void *status) {
    struct request *awaited = (struct request *)*request;
    (void)status;
    if (!awaited->is_done)
        run_begun();
    int result = awaited->result;
    free(awaited);
    *request = NUMBER_REQUEST_NULL;
    return result;
}
