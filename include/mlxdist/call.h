/* What a rank asks of its group: the operation and everything that the ranks must agree on, and its words. */
#ifndef MLXDIST_CALL_H
#define MLXDIST_CALL_H

#include "mlxdist/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* clang-format off */
/* name, what the user called */
#define MLXDIST_OPERATIONS(row) \
    row(ALLREDUCE, "all_reduce") \
    row(REDUCE_SCATTER, "sum_scatter") \
    row(ALLGATHER, "all_gather") \
    row(BROADCAST, "broadcast") \
    row(BARRIER, "barrier") \
    row(SPLIT, "split") \
    row(FINALIZE, "finalize") \
    row(EMPTY, "empty") \
    row(SHARE, "share memory") \
    row(SEND, "send") \
    row(RECV, "recv")
/* clang-format on */

#define MLXDIST_OPERATION(name, ...) OPERATION_##name,
enum operation { MLXDIST_OPERATIONS(MLXDIST_OPERATION) OPERATIONS };
#undef MLXDIST_OPERATION

enum { SHOWN_DIMENSIONS = 8 };

struct call {
    int operation;
    int op;        /* ALLREDUCE, REDUCE_SCATTER */
    int type;      /* an element_type, or HALF_UNNAMED */
    int peer;      /* BROADCAST: root; SEND, RECV: whom; ALLREDUCE: 0, or a digest of what the elements are */
    int64_t count; /* elements of the input */
    int on_device; /* the buffers are not the host's memory */
    int rank;      /* of the caller, filled in by core */
    int ndim;      /* for the words only: shape beyond SHOWN_DIMENSIONS is not kept */
    int64_t shape[SHOWN_DIMENSIONS];
};

/* A call whose shape nobody told: count elements in a row. */
static inline struct call flat_call(enum operation operation, int op, int type, int peer, int64_t count) {
    struct call call = {operation, op, type, peer, count, 0, 0, 1, {count}};
    return call;
}

/* All ranks of the group make it, not two. */
static inline int call_is_collective(const struct call *call) {
    return call->operation != OPERATION_SEND && call->operation != OPERATION_RECV;
}

static inline int64_t call_nbytes(const struct call *call) {
    return call->count * (int64_t)element_size((enum element_type)call->type);
}

/* NumPy's, "float32" */
const char *type_name(int type);

/* "all_sum" */
const char *call_name(const struct call *call);

/* "all_sum float32 (4, 2)" */
void call_text(const struct call *call, char *text, size_t nbytes);

/* Whether the two can be carried out together: all but the shape and, for an unnamed 16-bit type, the type. */
int calls_agree(const struct call *one, const struct call *other);
int types_agree(int one, int other);

/* Calls that agree have the same, unless one of them has an unnamed type; of others hardly two in 2^64 have. */
uint64_t call_fingerprint(const struct call *call);

/* OK where all agree; else MISMATCH, with who called what as the sequence-th call on the group. */
int calls_differ(const struct call *const *calls, int n, uint64_t sequence, struct outcome *outcome);

/* Of SEND and RECV: what is waited for; MISMATCH, since a message of another length or type has come. */
void call_awaits_peer(const struct call *call, char *text, size_t nbytes);
int call_gets_another(const struct call *call, int64_t nbytes, int type, struct outcome *outcome);

#ifdef __cplusplus
}
#endif
#endif
