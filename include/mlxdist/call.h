/* What a rank asks of its group: the operation, everything that the ranks must agree on, and how errors describe it.
 */
#ifndef MLXDIST_CALL_H
#define MLXDIST_CALL_H

#include "mlxdist/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* clang-format off */
/* What MPI or the core does for a call. SHARE: ranks of a host set up memory that they share. */
#define MLXDIST_OPERATIONS(row) \
    row(ALLREDUCE, "all_reduce") \
    row(REDUCE_SCATTER, "sum_scatter") \
    row(ALLGATHER, "all_gather") \
    row(BROADCAST, "broadcast") \
    row(ALLTOALL, "all_to_all") \
    row(GATHER, "gather") \
    row(SCATTER, "scatter") \
    row(REDUCE, "reduce") \
    row(BARRIER, "barrier") \
    row(SPLIT, "split") \
    row(FINALIZE, "finalize") \
    row(EMPTY, "empty") \
    row(SHARE, "share memory") \
    row(SEND, "send") \
    row(RECV, "recv") \
    row(SENDRECV, "sendrecv")

/* The table of operations: what users call. ops.py has a docstring for each.
 *      name               called               operation       reduction  result     peer */
#define MLXDIST_CALLS(row) \
    row(ALL_SUM,           "all_sum",           ALLREDUCE,      SUM,       SAME,      NONE) \
    row(ALL_MAX,           "all_max",           ALLREDUCE,      MAX,       SAME,      NONE) \
    row(ALL_MIN,           "all_min",           ALLREDUCE,      MIN,       SAME,      NONE) \
    row(ALL_PROD,          "all_prod",          ALLREDUCE,      PROD,      SAME,      NONE) \
    row(ALL_BAND,          "all_band",          ALLREDUCE,      BAND,      SAME,      NONE) \
    row(ALL_BOR,           "all_bor",           ALLREDUCE,      BOR,       SAME,      NONE) \
    row(ALL_GATHER,        "all_gather",        ALLGATHER,      SUM,       GATHERED,  NONE) \
    row(SUM_SCATTER,       "sum_scatter",       REDUCE_SCATTER, SUM,       SCATTERED, NONE) \
    row(BROADCAST,         "broadcast",         BROADCAST,      SUM,       SAME,      ROOT) \
    row(ALL_TO_ALL,        "all_to_all",        ALLTOALL,       SUM,       EXCHANGED, NONE) \
    row(GATHER,            "gather",            GATHER,         SUM,       GATHERED,  DST_ROOT) \
    row(SCATTER,           "scatter",           SCATTER,        SUM,       SCATTERED, ROOT) \
    row(REDUCE,            "reduce",            REDUCE,         SUM,       SAME,      DST_ROOT) \
    row(BARRIER,           "barrier",           BARRIER,        SUM,       SAME,      NONE) \
    row(SEND,              "send",              SEND,           SUM,       SAME,      DST) \
    row(RECV,              "recv",              RECV,           SUM,       SAME,      SRC) \
    row(RECV_LIKE,         "recv_like",         RECV,           SUM,       SAME,      SRC) \
    row(SENDRECV,          "sendrecv",          SENDRECV,       SUM,       SAME,      DST_SRC) \
    row(AVERAGE_GRADIENTS, "average_gradients", ALLREDUCE,      SUM,       SAME,      NONE)
/* clang-format on */

#define MLXDIST_OPERATION(name, ...) OPERATION_##name,
#define MLXDIST_CALL(name, ...) CALL_##name,
enum operation { MLXDIST_OPERATIONS(MLXDIST_OPERATION) OPERATIONS };
enum call_name { MLXDIST_CALLS(MLXDIST_CALL) CALLS };
#undef MLXDIST_OPERATION
#undef MLXDIST_CALL

/* The shape of the result: x's; x's with axis 0 multiplied by the number of ranks (a number gives one element for each
 * rank); x's with axis 0 divided by the number of ranks, which must leave no remainder; x's, if that leaves none. */
enum result_shape { RESULT_SAME, RESULT_GATHERED, RESULT_SCATTERED, RESULT_EXCHANGED };
/* The rank that is named: none; any as the root, `src`, or as the root that alone gets a result, `dst`; another rank as
 * `dst` or `src`; or both of these. */
enum peer_rule { PEER_NONE, PEER_ROOT, PEER_DST_ROOT, PEER_DST, PEER_SRC, PEER_DST_SRC };

struct call_row {
    const char *called;
    int operation, op, result, peer;
};
extern const struct call_row call_rows[CALLS];

enum { SHOWN_DIMENSIONS = 8 };

struct call {
    int operation;
    int op;        /* ALLREDUCE, REDUCE_SCATTER, REDUCE: a reduction that the type has, is_reducible() */
    int type;      /* an element_type, or HALF_UNNAMED */
    int peer;      /* BROADCAST, GATHER, SCATTER, REDUCE: root; SEND, RECV: the other rank; SENDRECV: where to send */
    int64_t count; /* elements of the input */
    int on_device; /* the buffers are not the host's memory */
    int rank;      /* of the caller, filled in by group.c */
    int ndim;      /* for error texts only: shape beyond SHOWN_DIMENSIONS is not kept */
    int src;       /* SENDRECV: the rank to receive from */
    int64_t shape[SHOWN_DIMENSIONS];
    int name;   /* a call_name; 0: the first of this operation and op */
    int digest; /* of what the elements are, which must be the same on every rank; 0: no more than the rest says */
    int wire;   /* ALLREDUCE, SUM of FLOAT32: the 16-bit float as which it crosses between hosts; 0: as it is */
};

/* The digest of a sum that the caller divides by the number of ranks. */
enum { DIGEST_OF_MEAN = 1 };

/* A call on count elements without a shape. */
static inline struct call flat_call(enum operation operation, int op, int type, int peer, int64_t count) {
    struct call call = {operation, op, type, peer, count, 0, 0, 1, 0, {count}, 0, 0, 0};
    return call;
}

/* All ranks of the group make it, not two. */
static inline int call_is_collective(const struct call *call) {
    return call->operation != OPERATION_SEND && call->operation != OPERATION_RECV &&
           call->operation != OPERATION_SENDRECV;
}

static inline int call_reduces(const struct call *call) {
    return call->operation == OPERATION_ALLREDUCE || call->operation == OPERATION_REDUCE_SCATTER ||
           call->operation == OPERATION_REDUCE;
}
/* The input consists of a part for each rank. */
static inline int call_is_parted(const struct call *call) {
    return call->operation == OPERATION_REDUCE_SCATTER || call->operation == OPERATION_SCATTER ||
           call->operation == OPERATION_ALLTOALL;
}
/* The result consists of a part from each rank. */
static inline int call_collects(const struct call *call) {
    return call->operation == OPERATION_ALLGATHER || call->operation == OPERATION_GATHER ||
           call->operation == OPERATION_ALLTOALL;
}
/* Whether this rank's input of a collective is used; whether it gets a result. */
static inline int call_reads(const struct call *call, int rank) {
    return call->peer == rank || (call->operation != OPERATION_BROADCAST && call->operation != OPERATION_SCATTER);
}
static inline int call_writes(const struct call *call, int rank) {
    return call->peer == rank || (call->operation != OPERATION_GATHER && call->operation != OPERATION_REDUCE);
}

static inline int64_t call_nbytes(const struct call *call) {
    return call->count * (int64_t)element_size((enum element_type)call->type);
}

/* As far as there is room. */
__attribute__((format(printf, 3, 4))) void text_append(char *text, size_t nbytes, const char *format, ...);

/* "all_sum float32 (4, 2)" */
void call_text(const struct call *call, char *text, size_t nbytes);

/* Whether they are the same, or may be: HALF_UNNAMED and a 16-bit float. */
int types_agree(int one, int other);

/* For digests of several numbers in order: that those of other numbers are the same is as likely as one in 2^64. */
uint64_t digest_mix(uint64_t digest, uint64_t with);

/* Calls that agree in all but the shape and the name have the same, unless one of them is of HALF_UNNAMED. That two
 * others have the same is as likely as one in 2^64. */
uint64_t call_fingerprint(const struct call *call);

/* OK if all agree; otherwise MISMATCH, with who called what as the sequence-th call on the group. */
int calls_differ(const struct call *const *calls, int n, uint64_t sequence, struct outcome *outcome);

/* What a SEND or RECV waits for. host: of the peer; NULL: this one. */
void call_awaits_peer(const struct call *call, const char *host, char *text, size_t nbytes);
/* Whether such a message is what a RECV is for. */
int call_expects(const struct call *call, int64_t nbytes, int type);
/* It is not: fill in outcome, and return MISMATCH. */
int call_gets_another(const struct call *call, int64_t nbytes, int type, struct outcome *outcome);

#ifdef __cplusplus
}
#endif
#endif
