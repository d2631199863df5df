#include "mlxdist/call.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

_Static_assert(sizeof(struct call) == 56 + 8 * SHOWN_DIMENSIONS,
               "ranks exchange it: when it changes, raise SHM_LAYOUT");

#define ROW(name, called, operation, op, result, peer) \
    {called, OPERATION_##operation, REDUCE_##op, RESULT_##result, PEER_##peer},
const struct call_row call_rows[CALLS] = {MLXDIST_CALLS(ROW)};

/* "all_sum" */
static const char *call_name(const struct call *call) {
#define NAME(name, called) called,
    static const char *const operations[] = {MLXDIST_OPERATIONS(NAME)};
    if (call->name)
        return call_rows[call->name].called;
    for (int i = 0; i < CALLS; i++)
        if (call_rows[i].operation == call->operation && call_rows[i].op == call->op)
            return call_rows[i].called;
    return operations[call->operation];
}

/* NumPy's, "float32" */
static const char *type_name(int type) {
#define NUMPY_NAME(name, numpy, ...) numpy,
    static const char *const names[] = {MLXDIST_TYPES(NUMPY_NAME) "16-bit float"};
    return names[type];
}

/* "sum" */
static const char *reduction_name(int op) {
#define REDUCTION_NAME(name, called, ...) called,
    static const char *const called[] = {MLXDIST_REDUCTIONS(REDUCTION_NAME, )};
    return called[op] + strlen("all_");
}

void text_append(char *text, size_t nbytes, const char *format, ...) {
    size_t used = strlen(text);
    va_list values;
    va_start(values, format);
    vsnprintf(text + used, nbytes - used, format, values);
    va_end(values);
}

void call_text(const struct call *call, char *text, size_t nbytes) {
    *text = 0;
    text_append(text, nbytes, "%s", call_name(call));
    if (call->operation == OPERATION_REDUCE)
        text_append(text, nbytes, " %s", reduction_name(call->op));
    if (call->operation == OPERATION_BARRIER || call->operation == OPERATION_SPLIT ||
        call->operation == OPERATION_FINALIZE || call->operation == OPERATION_SHARE)
        return;
    text_append(text, nbytes, " %s (", type_name(call->type));
    for (int i = 0; i < call->ndim && i < SHOWN_DIMENSIONS; i++)
        text_append(text, nbytes, "%s%lld", i ? ", " : "", (long long)call->shape[i]);
    text_append(text, nbytes, call->ndim > SHOWN_DIMENSIONS ? ", ...)" : call->ndim == 1 ? ",)" : ")");
    if (call->on_device)
        text_append(text, nbytes, " on a GPU");
    if (call->operation == OPERATION_BROADCAST || call->operation == OPERATION_SCATTER ||
        call->operation == OPERATION_RECV)
        text_append(text, nbytes, " from rank %d", call->peer);
    else if (call->operation == OPERATION_SEND || call->operation == OPERATION_GATHER ||
             call->operation == OPERATION_REDUCE)
        text_append(text, nbytes, " to rank %d", call->peer);
    if (call->digest == DIGEST_OF_MEAN)
        text_append(text, nbytes, " for a mean");
    else if (call->digest)
        text_append(text, nbytes, " of tree %08x", (unsigned)call->digest);
    if (call->wire)
        text_append(text, nbytes, " as %s between hosts", type_name(call->wire));
}

static int is_half(int type) {
    return type == TYPE_FLOAT16 || type == TYPE_BFLOAT16 || type == HALF_UNNAMED;
}

int types_agree(int one, int other) {
    return one == other || (is_half(one) && is_half(other) && (one == HALF_UNNAMED || other == HALF_UNNAMED));
}

/* Whether the two can be carried out together: all but the shape and, for an unnamed 16-bit type, the type. */
static int calls_agree(const struct call *one, const struct call *other) {
    return one->operation == other->operation && one->op == other->op && types_agree(one->type, other->type) &&
           one->peer == other->peer && one->count == other->count && one->on_device == other->on_device &&
           one->digest == other->digest && one->wire == other->wire;
}

/* The finalizer of splitmix64: every bit of the input reaches every bit of the output. */
static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

uint64_t digest_mix(uint64_t digest, uint64_t with) {
    return mix(digest + 0x9e3779b97f4a7c15u + with);
}

uint64_t call_fingerprint(const struct call *call) {
    uint64_t small = (uint64_t)call->wire << 57 ^ (uint64_t)call->on_device << 56 ^ (uint64_t)call->operation << 48 ^
                     (uint64_t)call->op << 40 ^ (uint64_t)call->type << 32 ^ (uint32_t)call->peer;
    uint64_t fingerprint = mix(digest_mix(0, small) + (uint64_t)call->count);
    return call->digest ? mix(fingerprint + (uint64_t)call->digest) : fingerprint;
}

static int look_alike(const struct call *one, const struct call *other) {
    return calls_agree(one, other) && one->type == other->type && one->ndim == other->ndim &&
           !memcmp(one->shape, other->shape, sizeof one->shape);
}

/* Each with each: an unnamed type agrees with two that do not agree with each other. */
static int all_agree(const struct call *const *calls, int n) {
    for (int i = 0; i < n; i++)
        for (int other = 0; other < i; other++)
            if (!calls_agree(calls[other], calls[i]))
                return 0;
    return 1;
}

int calls_differ(const struct call *const *calls, int n, uint64_t sequence, struct outcome *outcome) {
    if (all_agree(calls, n))
        return STATUS_OK;
    char *text = outcome->text;
    size_t nbytes = sizeof outcome->text;
    outcome->status = STATUS_MISMATCH;
    snprintf(text, nbytes, "the ranks differ in call %llu on this group of %d:", (unsigned long long)sequence, n);
    for (int i = 0; i < n; i++) {
        char called[200];
        int first = 0;
        while (!look_alike(calls[first], calls[i]))
            first++;
        if (first < i)
            continue;
        call_text(calls[i], called, sizeof called);
        text_append(text, nbytes, "\n  rank %d", calls[i]->rank);
        for (int other = i + 1; other < n; other++)
            if (look_alike(calls[i], calls[other]))
                text_append(text, nbytes, ", %d", calls[other]->rank);
        text_append(text, nbytes, ": %s", called);
    }
    text_append(text, nbytes, "\nmake the same call on every rank; this group is now broken");
    return STATUS_MISMATCH;
}

void call_awaits_peer(const struct call *call, const char *host, char *text, size_t nbytes) {
    char called[200];
    call_text(call, called, sizeof called);
    snprintf(text, nbytes, "%s, rank %d: rank %d%s%s has not %s", called, call->rank, call->peer, host ? " on " : "",
             host ? host : "", call->operation == OPERATION_SEND ? "received" : "sent");
}

int call_expects(const struct call *call, int64_t nbytes, int type) {
    return nbytes == call_nbytes(call) && types_agree(type, call->type);
}

int call_gets_another(const struct call *call, int64_t nbytes, int type, struct outcome *outcome) {
    outcome->status = STATUS_MISMATCH;
    snprintf(outcome->text, sizeof outcome->text,
             "rank %d sent %lld bytes of %s, rank %d expected %lld of %s: pass recv the shape and dtype that were sent",
             call->peer, (long long)nbytes, type_name(type), call->rank, (long long)call_nbytes(call),
             type_name(call->type));
    return STATUS_MISMATCH;
}
