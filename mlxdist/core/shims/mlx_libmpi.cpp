// In C++ only because errors are thrown through MLX, which ignores the return codes of its libmpi.
#include "mlxdist/shims/mlx_libmpi.h"

#include <atomic>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <pthread.h>
#include <stdexcept>
#include <utility>

#define EXPORT __attribute__((visibility("default")))

namespace {

// Set before MLX calls MPI_Init, and so before all else.
const core_functions *core;

struct communicator {
    struct group *group;
    mlx_collective_kind kind;
    int root;
    int wire;
    int digest;
    int size;
};

// MLX's 16-bit types come as two bytes without a name; the reduction that comes with them tells which.
constexpr int UNNAMED = HALF_UNNAMED;
struct datatype {
    int type;
    size_t size;
};

// One of MPI's reductions, or a callback of MLX.
struct reducer {
    int op;
    int type;
    void (*callback)(void *in, void *inout, int *count, datatype **type);
};
constexpr int UNKNOWN = REDUCTIONS;

#define CALL_NAME(name, call, ...) call,
constexpr const char *reduction_names[] = {MLXDIST_REDUCTIONS(CALL_NAME)};
constexpr const char *kind_names[] = {"all_reduce", "all_reduce", "sum_scatter", "broadcast", "sendrecv",
                                      "all_to_all", "gather",     "scatter",     "reduce"};

// std::mutex is in LLVM's library but not in GCC's, which has it inline. A wheel is built with either's headers, so all
// that it takes from the library must be in both.
class mutex {
  public:
    void lock() {
        pthread_mutex_lock(&handle);
    }
    void unlock() {
        pthread_mutex_unlock(&handle);
    }

  private:
    pthread_mutex_t handle = PTHREAD_MUTEX_INITIALIZER;
};

// MLX frees a group with the last array that refers to it, while operations on it may still wait in a stream (MLX
// 0.32.4). So a freed communicator is kept until so many others have been freed; after that an operation on it is an
// error.
constexpr int KEPT_AFTER_FREE = 64;
mutex freed_lock;

void keep_freed(communicator *comm) {
    static communicator *freed[KEPT_AFTER_FREE];
    static int next = 0;
    group *oldest = nullptr;
    {
        std::lock_guard<mutex> guard(freed_lock);
        if (freed[next])
            std::swap(oldest, freed[next]->group);
        freed[next] = comm;
        next = (next + 1) % KEPT_AFTER_FREE;
    }
    if (oldest)
        core->group_release(oldest); // unmaps memory, which takes long: not under the lock
}

// A fork waits for the lock, so that the child, too, can free its groups.
bool watch_forks() {
    const auto unlock = [] { freed_lock.unlock(); };
    return pthread_atfork([] { freed_lock.lock(); }, unlock, unlock) == 0;
}

thread_local communicator next_split;
thread_local bool is_query;
thread_local group *queried;
void *const IN_PLACE = reinterpret_cast<void *>(1);

// MLX before 0.32.2 ends the process on an exception without printing its text, so it goes to stderr too.
[[noreturn]] void fail(const char *call, const char *text) {
    char message[1200];
    std::snprintf(message, sizeof message, "[%s] %s", call, text);
    std::fprintf(stderr, "mlxdist: %s\n", message);
    throw std::runtime_error(message);
}

// MLX counts a result as evaluated even if its operation failed, and goes on with what it has queued behind it (MLX
// 0.32.4). Nothing that is made from it may reach another rank, so all operations fail until forget_failure().
std::atomic<bool> failed{false};

// An operation under way: it holds its group, and knows where its result goes.
class evaluation {
  public:
    // count: elements of the result.
    evaluation(const communicator *comm, const char *call, void *result, const datatype &with, int64_t count)
        : evaluation(retained(comm), call, result, with.type, static_cast<size_t>(count) * with.size) {
        const char *why = "an earlier operation of MLX failed, and this one may depend on it: call it again, or "
                          "mx.distributed.init() before a compiled function";
        if (!group)
            give_up("this group was freed before the operation was evaluated: keep a reference until then");
        if (failed.load(std::memory_order_acquire)) {
            core->group_break(group, why); // the other ranks wait for this one
            give_up(why);
        }
    }
    ~evaluation() {
        if (group)
            core->group_release(group);
    }
    evaluation(const evaluation &) = delete;

    // Throws; the result becomes NaN or, of integers, the number with all bits set.
    [[noreturn]] void give_up(const char *text) {
        failed.store(true, std::memory_order_release);
        if (nbytes)
            std::memset(result, type == TYPE_BOOL ? 1 : 0xff, nbytes);
        fail(call, text);
    }

    struct group *const group;

  private:
    evaluation(struct group *group, const char *call, void *result, int type, size_t nbytes)
        : group(group), call(call), result(result), type(type), nbytes(nbytes) {}

    static struct group *retained(const communicator *comm) {
        std::lock_guard<mutex> guard(freed_lock);
        return comm->group ? core->group_retain(comm->group) : nullptr;
    }

    const char *call;
    void *result;
    int type;
    size_t nbytes;
};

// MLX narrows a size_t to an int; the number that it meant is at most 2^32 - 1.
int64_t elements(int count) {
    return static_cast<uint32_t>(count);
}

union number {
    uint16_t half;
    complex64 complex;
    number(int bits) : half(static_cast<uint16_t>(bits)) {}
    number(float re, float im) : complex{re, im} {}
};

// Pairs of numbers on which the reductions of this type differ from each other and from those of the types below.
// All are finite, since MLX and our kernels may differ on NaN. bfloat16, the first, is told from float16 by numbers
// that are NaN in float16.
struct sample {
    element_type type;
    int n_pairs;
    number pairs[5][2];
};
const sample samples[] = {
    {TYPE_BFLOAT16, 5, {{0x3c00, 0x3c00}, {0x7c01, 0x4000}, {0x4000, 0x7c01}, {0xfc01, 0x4000}, {0x4000, 0xfc01}}},
    {TYPE_FLOAT16, 3, {{0x3c00, 0x3c00}, {0x4000, 0x4200}, {0x4200, 0x4000}, {0, 0}, {0, 0}}},
    {TYPE_COMPLEX64, 3, {{{1, 2}, {3, 4}}, {{1, 5}, {1, 2}}, {{2, 1}, {1, 5}}, {{0, 0}, {0, 0}}, {{0, 0}, {0, 0}}}},
};

bool agrees(const reducer &reducer, element_type type, reduction op, const number (&pair)[2]) {
    number in = pair[0], theirs = pair[1], ours = pair[1];
    datatype as{type, element_size(type)}, *as_pointer = &as;
    int one = 1;
    reducer.callback(&in, &theirs, &one, &as_pointer);
    const void *inputs[] = {&in, &ours};
    core->reduce(type, op, inputs, 2, &ours, 1);
    return std::memcmp(&theirs, &ours, as.size) == 0;
}

// Find out what a callback does by calling it, rather than by the order in which MLX registers its callbacks: it is the
// reduction of ours that gives the same on every pair, if there is one.
void identify(reducer &reducer, size_t size) {
    for (const sample &sample : samples) {
        if (element_size(sample.type) != size)
            continue;
        for (int op = 0; op < REDUCTIONS && is_reducible(sample.type, static_cast<reduction>(op)); op++) {
            bool same = true;
            for (int i = 0; i < sample.n_pairs; i++)
                same = same && agrees(reducer, sample.type, static_cast<reduction>(op), sample.pairs[i]);
            if (same) {
                reducer.type = sample.type;
                reducer.op = op;
                return;
            }
        }
    }
}

// Whether it is known.
bool resolve(reducer &reducer, const datatype &with, element_type *type, reduction *op) {
    static mutex lock;
    if (reducer.callback) {
        std::lock_guard<mutex> guard(lock);
        if (reducer.op == UNKNOWN)
            identify(reducer, with.size);
    }
    *type = static_cast<element_type>(with.type == UNNAMED ? reducer.type : with.type);
    *op = static_cast<reduction>(reducer.op);
    return reducer.op != UNKNOWN;
}

// What Python tells this side.
void override_next_split(struct group *group, mlx_collective_kind kind, int root, int wire, int digest) {
    next_split = {group, kind, root, wire, digest, 0};
}

void query_next_split() {
    is_query = true;
    queried = nullptr;
}

group *queried_group() {
    is_query = false;
    return queried;
}

int has_failed() {
    return failed.load(std::memory_order_acquire);
}

void forget_failure() {
    failed.store(false, std::memory_order_release);
}

constexpr mlx_libmpi functions = {override_next_split, query_next_split, queried_group, has_failed, forget_failure};

} // namespace

extern "C" {

const void *mlxdist_connect(const struct core_functions *functions_of_core) {
    core = functions_of_core;
    return &functions;
}

// The names that MLX looks up. It uses the addresses of the data as handles.
#define NAMED_TYPE(symbol, name) EXPORT datatype ompi_mpi_##symbol = {TYPE_##name, element_size(TYPE_##name)};
NAMED_TYPE(c_bool, BOOL)
NAMED_TYPE(int8_t, INT8)
NAMED_TYPE(int16_t, INT16)
NAMED_TYPE(int32_t, INT32)
NAMED_TYPE(int64_t, INT64)
NAMED_TYPE(uint8_t, UINT8)
NAMED_TYPE(uint16_t, UINT16)
NAMED_TYPE(uint32_t, UINT32)
NAMED_TYPE(uint64_t, UINT64)
NAMED_TYPE(float, FLOAT32)
NAMED_TYPE(double, FLOAT64)
NAMED_TYPE(c_complex, COMPLEX64)
EXPORT reducer ompi_mpi_op_sum = {REDUCE_SUM, UNNAMED, nullptr};
EXPORT reducer ompi_mpi_op_max = {REDUCE_MAX, UNNAMED, nullptr};
EXPORT reducer ompi_mpi_op_min = {REDUCE_MIN, UNNAMED, nullptr};
EXPORT communicator ompi_mpi_comm_world = {nullptr, KIND_REDUCTION, 0, 0, 0, 0};

EXPORT int MPI_Get_library_version(char *text, int *length) {
    // MLX 0.32.4 has a buffer of 256 bytes and looks for "Open MPI" in it
    *length = std::snprintf(text, 256, "mlxdist in the place of Open MPI");
    return 0;
}

EXPORT int MPI_Init(int *, char ***) {
    if (!core || !core->core_world())
        return 1;
    [[maybe_unused]] static const bool once = watch_forks();
    ompi_mpi_comm_world.group = core->core_world();
    ompi_mpi_comm_world.size = core->group_size(core->core_world());
    return 0;
}

EXPORT int MPI_Finalize(void) {
    return 0;
}

EXPORT int MPI_Comm_rank(communicator *comm, int *rank) {
    *rank = core->group_rank(comm->group);
    return 0;
}

EXPORT int MPI_Comm_size(communicator *comm, int *size) {
    *size = comm->size;
    return 0;
}

EXPORT int MPI_Comm_split(communicator *comm, int color, int key, communicator **part) {
    if (is_query) {
        queried = comm->group;
        throw std::runtime_error("[split] a query");
    }
    outcome outcome;
    communicator wanted = next_split;
    next_split = {};
    if (wanted.group)
        core->group_retain(wanted.group);
    else if (color < 0)
        fail("split", "the color is negative: pass a number from 0 to 2147483647");
    else if (core->group_split(comm->group, color, key, &wanted.group, &outcome))
        fail("split", outcome.text);
    wanted.size = core->group_size(wanted.group);
    *part = new communicator(wanted);
    return 0;
}

EXPORT int MPI_Comm_free(communicator **comm) {
    keep_freed(*comm);
    return 0;
}

EXPORT int MPI_Type_contiguous(int count, datatype *of, datatype **created) {
    *created = new datatype{UNNAMED, of->size * static_cast<size_t>(count)};
    return 0;
}

EXPORT int MPI_Type_commit(datatype **) {
    return 0;
}

EXPORT int MPI_Op_create(void (*callback)(void *, void *, int *, datatype **), int, reducer **created) {
    *created = new reducer{UNKNOWN, UNNAMED, callback};
    return 0;
}

EXPORT int MPI_Allreduce(const void *sendbuf, void *recvbuf, int count, datatype *with, reducer *reducer,
                         communicator *comm) {
    outcome outcome;
    element_type type;
    reduction op;
    bool is_known = resolve(*reducer, *with, &type, &op);
    bool is_reduction = comm->kind == KIND_REDUCTION || comm->kind == KIND_OTHER_REDUCTION;
    if (comm->kind == KIND_OTHER_REDUCTION)
        op = static_cast<reduction>(comm->root);
    int64_t n = elements(count);
    const void *from = sendbuf == IN_PLACE ? recvbuf : sendbuf;
    const char *name = is_reduction && is_known ? reduction_names[op] : kind_names[comm->kind];
    evaluation evaluation(comm, name, recvbuf, *with, n);
    if (!is_known)
        evaluation.give_up("MLX uses a reduction that mlxdist does not know: report it with the version of MLX");
    group *group = evaluation.group;
    int rank = core->group_rank(group);
    call call = flat_call(OPERATION_ALLREDUCE, op, type, 0, n);
    size_t nbytes = static_cast<size_t>(call_nbytes(&call)), part = nbytes / static_cast<size_t>(comm->size);
    char *to = static_cast<char *>(recvbuf), *own = to + part * static_cast<size_t>(rank);
    std::unique_ptr<char[]> sum;
    switch (comm->kind) {
    case KIND_REDUCTION:
        call.digest = comm->digest;
        call.wire = comm->wire;
        call.name = call.digest ? CALL_AVERAGE_GRADIENTS : 0;
        break;
    case KIND_OTHER_REDUCTION:
        break;
    case KIND_SUM_SCATTER:
        call.operation = OPERATION_REDUCE_SCATTER;
        sum.reset(new (std::nothrow) char[part + 1]);
        if (!sum) {
            core->group_break(group, "no memory for a sum_scatter"); // the other ranks wait for this one
            evaluation.give_up("no memory for the sum: free some, or sum less");
        }
        to = sum.get();
        break;
    case KIND_SENDRECV:
        call.operation = OPERATION_SENDRECV;
        call.name = CALL_SENDRECV;
        call.peer = comm->root / comm->size, call.src = comm->root % comm->size;
        break;
    case KIND_ALL_TO_ALL:
        call = flat_call(OPERATION_ALLTOALL, 0, type, 0, n);
        break;
    case KIND_SCATTER:
        call = flat_call(OPERATION_SCATTER, 0, type, comm->root, n);
        to = own;
        break;
    case KIND_REDUCE:
        call = flat_call(OPERATION_REDUCE, comm->root % REDUCTIONS, type, comm->root / REDUCTIONS, n);
        break;
    case KIND_GATHER:
        call = flat_call(OPERATION_GATHER, 0, with->type, comm->root, n);
        break;
    case KIND_BROADCAST:
        call = flat_call(OPERATION_BROADCAST, 0, type, comm->root, n);
        call.digest = comm->digest;
        break;
    }
    // A rank without a result has its own array as that; what is broadcast travels in its result.
    if (from != recvbuf && (!call_writes(&call, rank) || (comm->kind == KIND_BROADCAST && rank == comm->root)))
        std::memcpy(recvbuf, from, nbytes);
    if (comm->kind == KIND_BROADCAST)
        from = recvbuf;
    if ((call_is_collective(&call) ? core->group_run : core->group_p2p)(group, &call, from, to, &outcome))
        evaluation.give_up(outcome.text);
    if (sum)
        std::memcpy(own, sum.get(), part);
    return 0;
}

EXPORT int MPI_Allgather(const void *sendbuf, int count, datatype *with, void *recvbuf, int, datatype *,
                         communicator *comm) {
    outcome outcome;
    bool is_for_all = comm->kind != KIND_GATHER;
    evaluation evaluation(comm, is_for_all ? "all_gather" : "gather", recvbuf, *with, elements(count) * comm->size);
    call call = flat_call(is_for_all ? OPERATION_ALLGATHER : OPERATION_GATHER, 0, with->type,
                          is_for_all ? 0 : comm->root, elements(count));
    if (core->group_run(evaluation.group, &call, sendbuf, recvbuf, &outcome))
        evaluation.give_up(outcome.text);
    return 0;
}

EXPORT int MPI_Send(const void *buf, int count, datatype *with, int dst, int, communicator *comm) {
    outcome outcome;
    evaluation evaluation(comm, "send", nullptr, *with, 0); // its result is what was sent
    call call = flat_call(OPERATION_SEND, 0, with->type, dst, elements(count));
    if (core->group_p2p(evaluation.group, &call, buf, nullptr, &outcome))
        evaluation.give_up(outcome.text);
    return 0;
}

EXPORT int MPI_Recv(void *buf, int count, datatype *with, int src, int, communicator *comm, void *) {
    outcome outcome;
    evaluation evaluation(comm, "recv", buf, *with, elements(count));
    call call = flat_call(OPERATION_RECV, 0, with->type, src, elements(count));
    if (core->group_p2p(evaluation.group, &call, nullptr, buf, &outcome))
        evaluation.give_up(outcome.text);
    return 0;
}

} // extern "C"
