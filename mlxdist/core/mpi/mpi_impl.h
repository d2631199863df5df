/* All use of MPI: an ordinary MPI program over a struct of functions. mpi_int.c and mpi_ptr.c compile it, once for each
 * width of a handle; they define HANDLE, THIS_TRANSPORT and handle(). */
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mlxdist/kernels/kernels.h"
#include "mlxdist/mpi/transport.h"

typedef HANDLE MPI_Comm, MPI_Datatype, MPI_Op, MPI_Errhandler, MPI_Group, MPI_Info, MPI_Message, MPI_Request;
typedef intptr_t MPI_Aint;
typedef long long MPI_Count;
/* The largest is that of the standard ABI, 32 bytes; only MPI itself reads it. */
typedef struct {
    _Alignas(8) char opaque[64];
} MPI_Status;
typedef void MPI_User_function(void *in, void *inout, int *count, MPI_Datatype *datatype);

static struct {
#define HANDLE_MEMBER(name, ...) HANDLE name;
#define NUMBER_MEMBER(name, ...) intptr_t name;
#define FUNCTION_MEMBER(name, parameters) int(*name) parameters;
    MPI_HANDLES(HANDLE_MEMBER) MPI_NUMBERS(NUMBER_MEMBER) MPI_FUNCTIONS(FUNCTION_MEMBER)
} mpi;

static enum abi_family family_in_use;
static int64_t max_count;
static MPI_Datatype datatypes[ELEMENT_TYPES];
static MPI_Op ops[ELEMENT_TYPES][REDUCTIONS];
static await_function *await_request; /* NULL: threads may call together */

/* The one place that looks at a return code. */
static int check(int rc, const char *call, struct outcome *outcome) {
    if (rc == 0)
        return STATUS_OK;
    static const struct {
        int value[3];
        const char *name;
        int status;
        const char *meaning;
    } classes[] = {
#define CLASS_ROW(name, openmpi, mpich, standard, status, meaning) {{openmpi, mpich, standard}, #name, status, meaning},
        MPI_ERROR_CLASSES(CLASS_ROW)};
    int class_ = 0, length = 0, status = STATUS_MPI_FAILED;
    char said[1024] = "";
    mpi.Error_class(rc, &class_);
    /* MPICH 5.0.2's libmpi_abi describes another class than that of the error. */
    if (family_in_use != ABI_STANDARD)
        mpi.Error_string(rc, said, &length);
    const char *name = "an unknown class", *meaning = "no description";
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (classes[i].value[family_in_use] == class_)
            name = classes[i].name, status = classes[i].status, meaning = classes[i].meaning;
    outcome->status = status;
    outcome->mpi_code = rc;
    outcome->class_ = name;
    outcome->call = call;
    snprintf(outcome->text, sizeof outcome->text, "%s failed with %s (code %d): %s%s%.700s", call, name, rc, meaning,
             *said ? "; the library says: " : "", said);
    return status;
}

#define CALL(function, ...) check(mpi.function(__VA_ARGS__), "MPI_" #function, outcome)

static int is_missing(const char *symbol, struct outcome *outcome) {
    outcome->status = STATUS_LIBRARY_UNFIT;
    snprintf(outcome->text, sizeof outcome->text, "symbol %s is missing", symbol);
    return STATUS_LIBRARY_UNFIT;
}

static int out_of_memory(struct outcome *outcome, int64_t nbytes) {
    outcome->status = STATUS_OUT_OF_MEMORY;
    snprintf(outcome->text, sizeof outcome->text, "no memory for %lld bytes: free some, or start fewer ranks on a host",
             (long long)nbytes);
    return STATUS_OUT_OF_MEMORY;
}

static int load(void *library, enum abi_family family, int64_t limit, struct outcome *outcome) {
    family_in_use = family;
    max_count = limit < INT_MAX ? limit : INT_MAX;
#define LOAD_HANDLE(name, openmpi, mpich, standard) \
    mpi.name = handle(library, family, openmpi, mpich, standard); \
    if (!mpi.name) \
        return is_missing(openmpi, outcome);
    MPI_HANDLES(LOAD_HANDLE)
#define LOAD_NUMBER(name, openmpi, mpich, standard) mpi.name = (intptr_t[]){openmpi, mpich, standard}[family];
    MPI_NUMBERS(LOAD_NUMBER)
#define LOAD_FUNCTION(name, parameters) \
    mpi.name = (int(*) parameters)dlsym(library, "MPI_" #name); \
    if (!mpi.name) \
        return is_missing("MPI_" #name, outcome);
    MPI_FUNCTIONS(LOAD_FUNCTION)
#define SET_DATATYPE(name, numpy, ctype, arithmetic, datatype) datatypes[TYPE_##name] = mpi.datatype;
    MLXDIST_TYPES(SET_DATATYPE)
    return STATUS_OK;
}

static void version(char *text, size_t nbytes) {
    /* MPICH 4 writes up to 8192 bytes however long the buffer is. */
    int length = 0;
    char *whole = calloc(1, 1 << 16);
    if (whole)
        mpi.Get_library_version(whole, &length);
    snprintf(text, nbytes, "%.*s", whole ? (int)strcspn(whole, "\r\n") : 0, whole ? whole : "");
    free(whole);
}

/* libmpi's own reductions. All others are ours, since libraries lack them or give wrong or different results: 16-bit
 * floats, order of complex numbers and their products with infinities, NaN in max and min; integer sums and products
 * wrap, and Open MPI 4.1.4, 4.1.8 and 5.0.11 saturate sums (8 and 16 bits, seen with AVX-512); unsigned max and min are
 * signed in Debian's MPICH 4.0.2. */
#define LIBMPIS_LOGICAL {NULL}
#define LIBMPIS_INTEGER {[REDUCE_BAND] = &mpi.OP_BAND, [REDUCE_BOR] = &mpi.OP_BOR}
#define LIBMPIS_HALF {NULL}
#define LIBMPIS_REAL {[REDUCE_SUM] = &mpi.OP_SUM, [REDUCE_PROD] = &mpi.OP_PROD}
#define LIBMPIS_COMPLEX {[REDUCE_SUM] = &mpi.OP_SUM}
#define LIBMPIS_OF(name, numpy, ctype, arithmetic, datatype) LIBMPIS_##arithmetic,
static const MPI_Op *const libmpis[ELEMENT_TYPES][REDUCTIONS] = {MLXDIST_TYPES(LIBMPIS_OF)};

#define CALLBACK(op, called, name) \
    static void own_##name##_##op(void *in, void *inout, int *count, MPI_Datatype *datatype) { \
        (void)datatype; \
        reduce(TYPE_##name, REDUCE_##op, (const void *const[]){in, inout}, 2, inout, (size_t)*count); \
    }
#define CALLBACKS(name, numpy, ctype, arithmetic, datatype) MLXDIST_##arithmetic##_REDUCTIONS(CALLBACK, name)
MLXDIST_TYPES(CALLBACKS)

#define CALLBACK_OF(op, called, name) own_##name##_##op,
#define CALLBACK_ROW(name, numpy, ctype, arithmetic, datatype) {MLXDIST_##arithmetic##_REDUCTIONS(CALLBACK_OF, name)},
static MPI_User_function *const own_ops[ELEMENT_TYPES][REDUCTIONS] = {MLXDIST_TYPES(CALLBACK_ROW)};

static int is_own(int type, int op) {
    return own_ops[type][op] && !libmpis[type][op];
}

static int create_ops(struct outcome *outcome) {
    for (int type = 0; type < ELEMENT_TYPES; type++)
        for (int op = 0; op < REDUCTIONS; op++) {
            if (libmpis[type][op])
                ops[type][op] = *libmpis[type][op];
            if (is_own(type, op) && CALL(Op_create, own_ops[type][op], 1, &ops[type][op]))
                return outcome->status;
        }
    return STATUS_OK;
}

static int free_ops(struct outcome *outcome) {
    int result = STATUS_OK;
    for (int type = 0; type < ELEMENT_TYPES; type++)
        for (int op = 0; op < REDUCTIONS; op++)
            if (is_own(type, op) && CALL(Op_free, &ops[type][op]))
                result = outcome->status;
    return result;
}

static enum thread_level thread_level(intptr_t provided) {
    return provided >= mpi.THREAD_MULTIPLE     ? THREADS_MULTIPLE
           : provided >= mpi.THREAD_SERIALIZED ? THREADS_SERIALIZED
           : provided >= mpi.THREAD_FUNNELED   ? THREADS_FUNNELED
                                               : THREADS_SINGLE;
}

static int use_numbering(struct outcome *outcome) {
    int *value = NULL, found = 0;
    if (family_in_use != ABI_STANDARD)
        return STATUS_OK;
    if (CALL(Comm_get_attr, mpi.COMM_WORLD, LASTUSEDCODE, &value, &found))
        return outcome->status;
    if (!found || *value < LEAST_LASTUSEDCODE)
        mpi.ERRORS_RETURN = handle(NULL, ABI_STANDARD, "", 0, DRAFT_ERRORS_RETURN);
    return STATUS_OK;
}

static int is_over(void) {
    int finalized = 0;
    mpi.Finalized(&finalized);
    return finalized;
}

#include "mpi_comms.h"

static int start(comm_handle of, await_function *await_world, await_function *await_collective, int *ours,
                 enum thread_level *threads, struct comm **world, struct outcome *outcome) {
    static int is_ours;
    int initialized = 0, provided = 0;
    *ours = is_ours;
    if (CALL(Initialized, &initialized))
        return outcome->status;
    if (is_over()) {
        outcome->status = STATUS_LIBRARY_UNFIT;
        snprintf(outcome->text, sizeof outcome->text,
                 "MPI has been finalized in this process and cannot start again: call init() before");
        return STATUS_LIBRARY_UNFIT;
    }
    if (initialized ? CALL(Query_thread, &provided)
                    : CALL(Init_thread, NULL, NULL, (int)mpi.THREAD_MULTIPLE, &provided))
        return outcome->status;
    *ours = is_ours |= !initialized;
    *threads = thread_level(provided);
    await_request = *threads == THREADS_SERIALIZED ? await_collective : NULL;
    if (use_numbering(outcome))
        return outcome->status;
    /* Errors of calls without a communicator go to the handler of MPI_COMM_WORLD, in some libraries to that of
     * MPI_COMM_SELF. A program that initialized MPI itself keeps its own handlers. */
    if (*ours && (CALL(Comm_set_errhandler, mpi.COMM_WORLD, mpi.ERRORS_RETURN) ||
                  CALL(Comm_set_errhandler, mpi.COMM_SELF, mpi.ERRORS_RETURN)))
        return outcome->status;
    if (duplicate_world(of ? (MPI_Comm)of : mpi.COMM_WORLD, await_world, outcome) || create_ops(outcome))
        return outcome->status;
    return wrap(world_comm, world, outcome);
}

static int finish(int ours, struct outcome *outcome) {
    if (is_over())
        return STATUS_OK;
    int result = free_ops(outcome);
    return (ours ? CALL(Finalize) : CALL(Comm_free, &world_comm)) ? outcome->status : result;
}

static void abort_job(int status) {
    mpi.Abort(mpi.COMM_WORLD, status);
}

/* nbytes as a datatype and an int count of it; see free_span. */
struct span {
    MPI_Datatype datatype;
    int count, is_own;
};

static int make_span(int64_t nbytes, struct span *span, struct outcome *outcome) {
    *span = (struct span){mpi.BYTE, (int)nbytes, 0};
    if (nbytes <= max_count)
        return STATUS_OK;
    MPI_Datatype parts[2] = {mpi.BYTE, mpi.BYTE}, block;
    MPI_Aint offsets[2] = {0, (MPI_Aint)(nbytes - nbytes % max_count)};
    int counts[2] = {1, (int)(nbytes % max_count)};
    if (nbytes / max_count > INT_MAX) {
        outcome->status = STATUS_OUT_OF_MEMORY;
        snprintf(outcome->text, sizeof outcome->text, "%lld bytes are more than one message can carry",
                 (long long)nbytes);
        return STATUS_OUT_OF_MEMORY;
    }
    if (CALL(Type_contiguous, (int)max_count, mpi.BYTE, &block) ||
        CALL(Type_contiguous, (int)(nbytes / max_count), block, &parts[0]) ||
        CALL(Type_create_struct, 2, counts, offsets, parts, &span->datatype) || CALL(Type_commit, &span->datatype) ||
        CALL(Type_free, &block) || CALL(Type_free, &parts[0]))
        return outcome->status;
    span->count = span->is_own = 1;
    return STATUS_OK;
}

static int free_span(int result, struct span *span, struct outcome *outcome) {
    struct outcome second;
    int freed = STATUS_OK;
    if (span->is_own)
        freed = check(mpi.Type_free(&span->datatype), "MPI_Type_free", result ? &second : outcome);
    return result ? result : freed;
}

#include "mpi_collectives.h"
#include "mpi_messages.h"

const struct transport THIS_TRANSPORT = {
    .load = load,
    .version = version,
    .start = start,
    .is_over = is_over,
    .finish = finish,
    .abort = abort_job,
    .split = split,
    .create = create,
    .ranks_of = ranks_of,
    .split_host = split_host,
    .release = release,
    .allreduce = allreduce,
    .reduce_scatter = reduce_scatter,
    .allgather = allgather,
    .alltoall = alltoall,
    .gather = gather,
    .scatter = scatter,
    .reduce = reduce_to_root,
    .broadcast = broadcast,
    .barrier = barrier,
    .send = send,
    .test = test,
    .recv = recv,
    .probe = probe,
    .look = look,
    .recv_found = recv_found,
};
