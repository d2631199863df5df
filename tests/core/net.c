/* Collectives between hosts: their results bit by bit, as plan.h promises them, in every run and on all ranks. */
#include <math.h>

#include "job.h"
#include "mlxdist/kernels/half.h"
#include "mlxdist/net/plan.h"

enum { SHORT = 7, LONG_NBYTES = 400000, MANY_HOSTS = PLAN_FLAT_HOSTS + 2 };

static const struct row {
    int operation, op, type, wire;
} rows[] = {
    {OPERATION_ALLREDUCE, REDUCE_SUM, TYPE_FLOAT32, 0},
    {OPERATION_ALLREDUCE, REDUCE_SUM, TYPE_BFLOAT16, 0},
    {OPERATION_ALLREDUCE, REDUCE_MAX, TYPE_INT16, 0},
    {OPERATION_ALLREDUCE, REDUCE_MIN, TYPE_FLOAT16, 0},
    {OPERATION_ALLREDUCE, REDUCE_SUM, TYPE_COMPLEX64, 0},
    {OPERATION_ALLREDUCE, REDUCE_SUM, TYPE_BOOL, 0},
    {OPERATION_ALLREDUCE, REDUCE_SUM, TYPE_FLOAT32, TYPE_BFLOAT16},
    {OPERATION_ALLREDUCE, REDUCE_SUM, TYPE_FLOAT32, TYPE_FLOAT16},
    {OPERATION_ALLREDUCE, REDUCE_PROD, TYPE_BFLOAT16, 0},
    {OPERATION_ALLREDUCE, REDUCE_BAND, TYPE_UINT32, 0},
    {OPERATION_REDUCE_SCATTER, REDUCE_SUM, TYPE_FLOAT32, 0},
    {OPERATION_REDUCE_SCATTER, REDUCE_SUM, TYPE_BFLOAT16, 0},
    {OPERATION_REDUCE_SCATTER, REDUCE_SUM, TYPE_COMPLEX64, 0},
    {OPERATION_REDUCE_SCATTER, REDUCE_PROD, TYPE_INT16, 0},
    {OPERATION_REDUCE_SCATTER, REDUCE_MAX, TYPE_FLOAT16, 0},
    {OPERATION_REDUCE_SCATTER, REDUCE_BOR, TYPE_BOOL, 0},
    {OPERATION_ALLGATHER, REDUCE_SUM, TYPE_BOOL, 0},
    {OPERATION_ALLGATHER, REDUCE_SUM, TYPE_COMPLEX64, 0},
    {OPERATION_BROADCAST, REDUCE_SUM, TYPE_INT16, 0},
    {OPERATION_BROADCAST, REDUCE_SUM, TYPE_FLOAT32, 0},
    {OPERATION_ALLTOALL, REDUCE_SUM, TYPE_INT16, 0},
    {OPERATION_GATHER, REDUCE_SUM, TYPE_COMPLEX64, 0},
    {OPERATION_SCATTER, REDUCE_SUM, TYPE_FLOAT32, 0},
    {OPERATION_REDUCE, REDUCE_SUM, TYPE_BFLOAT16, 0},
    {OPERATION_ALLTOALL, REDUCE_SUM, TYPE_BOOL, 0},
    {OPERATION_GATHER, REDUCE_SUM, TYPE_BOOL, 0},
    {OPERATION_SCATTER, REDUCE_SUM, TYPE_INT16, 0},
    {OPERATION_REDUCE, REDUCE_SUM, TYPE_FLOAT32, 0},
    {OPERATION_REDUCE, REDUCE_MAX, TYPE_INT16, 0},
};
enum { ROWS = sizeof rows / sizeof *rows };

static void *memory(size_t nbytes) {
    void *allocated = malloc(nbytes + !nbytes);
    CHECK(allocated);
    return allocated;
}

/* What a rank brings: floats between -1 and 1, with all their bits. */
static void *input_of(int type, int64_t count, int rank, uint32_t draw) {
    size_t size = element_size((enum element_type)type), n = (size_t)count * (type == TYPE_COMPLEX64 ? 2 : 1);
    void *input = memory((size_t)count * size);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = scramble(draw + (uint32_t)rank * 7919 + (uint32_t)i * 31);
        float number = (float)bits / 0x1p31f - 1;
        if (type == TYPE_BOOL)
            ((unsigned char *)input)[i] = bits % 2;
        else if (size == 2)
            ((uint16_t *)input)[i] = type == TYPE_INT16      ? (uint16_t)bits
                                     : type == TYPE_BFLOAT16 ? bfloat16_from_float32(number)
                                                             : float16_from_float32(number);
        else
            ((float *)input)[i] = number;
    }
    return input;
}

static int host_at(int rank) {
    return shares ? host_of[rank] : rank;
}

/* Rounded once for each host that has several ranks, and once in the end; if it crosses as 16 bits, for each host. */
static void *reduced(const struct row *row, void *const *inputs, int64_t count) {
    enum element_type type = (enum element_type)row->type, net = (enum element_type)(row->wire ? row->wire : row->type);
    size_t nbytes = (size_t)count * element_size(type), n = (size_t)count;
    void *out = memory(nbytes), *sum = memory(nbytes);
    const void *partials[MOST];
    int n_hosts = 0;
    for (int first = 0; first < n_ranks; first++) {
        const void *of_host[MOST];
        int size = 0, is_first = 1;
        for (int rank = 0; rank < n_ranks; rank++) {
            is_first &= rank >= first || host_at(rank) != host_at(first);
            if (host_at(rank) == host_at(first))
                of_host[size++] = inputs[rank];
        }
        if (!is_first)
            continue;
        void *partial = memory(nbytes);
        if (size > 1)
            reduce(type, (enum reduction)row->op, of_host, size, partial, n);
        else
            memcpy(partial, of_host[0], nbytes);
        if (row->wire) {
            memcpy(sum, partial, nbytes);
            narrow(net, sum, partial, n);
        }
        partials[n_hosts++] = partial;
    }
    reduce(net, (enum reduction)row->op, partials, n_hosts, sum, n);
    if (row->wire)
        widen(net, sum, out, n);
    else
        memcpy(out, sum, nbytes);
    while (n_hosts)
        free((void *)partials[--n_hosts]);
    free(sum);
    return out;
}

/* Independent of all rounding. */
static void check_error(const struct row *row, void *const *inputs, const float *out, int64_t first, int64_t n) {
    double unit = row->wire == TYPE_BFLOAT16 ? 0x1p-8 : row->wire == TYPE_FLOAT16 ? 0x1p-11 : 0x1p-23;
    for (int64_t i = 0; i < n; i++) {
        double exact = 0, size = 0;
        for (int rank = 0; rank < n_ranks; rank++) {
            double x = ((const float *)inputs[rank])[first + i];
            exact += x;
            size += fabs(x);
        }
        CHECK(fabs(out[i] - exact) <= (row->wire ? 2 : n_ranks) * unit * size);
    }
}

static int has_root(int operation) {
    return operation == OPERATION_BROADCAST || operation == OPERATION_GATHER || operation == OPERATION_SCATTER ||
           operation == OPERATION_REDUCE;
}

/* What a rank gets, of so many bytes. */
static void *expected_of(const struct row *row, const struct call *call, void *const *inputs, int own, size_t *n_out) {
    size_t nbytes = (size_t)call_nbytes(call), part = nbytes / (size_t)n_ranks;
    size_t n = call_is_parted(call) ? part : nbytes, first = call_is_parted(call) ? (size_t)own * part : 0;
    *n_out = call_collects(call) ? n * (size_t)n_ranks : n;
    char *expected = memory(*n_out);
    if (call_reduces(call)) {
        void *whole = reduced(row, inputs, call->count);
        memcpy(expected, (char *)whole + first, n);
        free(whole);
    } else if (call_collects(call)) {
        for (int rank = 0; rank < n_ranks; rank++)
            memcpy(expected + (size_t)rank * n, (char *)inputs[rank] + first, n);
    } else {
        memcpy(expected, (char *)inputs[call->peer] + first, n);
    }
    return expected;
}

/* count is a multiple of the ranks. */
static void run_row(struct group *group, const struct row *row, int64_t count, uint32_t draw) {
    int size = group_size(group), operation = row->operation, root = (int)(draw % (uint32_t)size);
    int in_place = draw / 32 % 2, own = group_rank(group);
    void *inputs[MOST];
    struct outcome outcome;
    struct call call = flat_call(operation, row->op, row->type, has_root(operation) ? root : 0, count);
    call.wire = row->wire;
    size_t nbytes = (size_t)call_nbytes(&call), n_out;
    for (int rank = 0; rank < size; rank++)
        inputs[rank] = input_of(row->type, count, rank, draw);
    void *expected = expected_of(row, &call, inputs, own, &n_out);
    int writes = call_writes(&call, own);
    /* The smaller buffer is a part of the larger, or both are apart. */
    size_t larger = n_out > nbytes ? n_out : nbytes;
    char *x = memory(in_place ? larger : nbytes), *out = in_place ? x : memory(n_out), *sent = x;
    memset(out, 0x5a, n_out);
    if (in_place && n_out > nbytes)
        sent += (size_t)own * nbytes;
    if (in_place && n_out < nbytes)
        out += (size_t)own * n_out;
    memcpy(sent, inputs[own], nbytes);
    CHECK(group_run(group, &call, sent, out, &outcome) == STATUS_OK);
    CHECK(!writes || !memcmp(out, expected, n_out));
    CHECK((in_place && writes) || !memcmp(sent, inputs[own], nbytes));
    for (size_t i = 0; !writes && !in_place && i < n_out; i++)
        CHECK(out[i] == 0x5a);
    if (call_reduces(&call) && row->type == TYPE_FLOAT32 && writes) {
        int64_t n = (int64_t)(n_out / sizeof(float));
        check_error(row, inputs, (float *)out, n < count ? own * n : 0, n);
    }
    for (int rank = 0; rank < size; rank++)
        free(inputs[rank]);
    free(expected);
    if (!in_place)
        free(out);
    free(x);
}

static int64_t long_count(const struct row *row, int64_t nbytes) {
    return (nbytes / (int64_t)element_size((enum element_type)row->type) + 37) / n_ranks * n_ranks;
}

static void run_rows(struct group *world) {
    for (uint32_t i = 0; i < ROWS; i++) {
        run_row(world, &rows[i], 0, i);
        run_row(world, &rows[i], SHORT * n_ranks, i + 32);
        run_row(world, &rows[i], long_count(&rows[i], LONG_NBYTES), i + 5 + 32 * (i / 4));
    }
    end();
}

/* In runs with other delays. */
static void on_two_hosts(void) {
    run_groups(two_hosts, run_rows, 0);
    drawn = 12345;
    run_groups(two_hosts, run_rows, 0);
}

static void on_hosts_in_a_row(void) {
    eager_nbytes = -1;
    run_groups(in_a_row, run_rows, 0);
}

static void on_three_and_one(void) {
    run_groups(three_and_one, run_rows, 0);
}

static void on_three_hosts(void) {
    run_groups(two_and_two_alone, run_rows, 0);
}

static void each_alone(void) {
    shares = 0;
    most_delay = 0;
    run_groups(one_host, run_rows, 0);
}

/* Each slot is used several times. */
static void run_longer(struct group *world) {
    static const int chosen[] = {0, 8, 12, 14, 20, 21, 22, 23};
    for (uint32_t i = 0; i < sizeof chosen / sizeof *chosen; i++)
        run_row(world, &rows[chosen[i]], long_count(&rows[chosen[i]], 4 * LONG_NBYTES), i);
    end();
}

static void more_than_the_slots(void) {
    run_groups(two_hosts, run_longer, 0);
    run_groups(two_and_two_alone, run_longer, 0);
}

/* So many that not each opens a call with each. */
static void run_many(struct group *world) {
    static const int chosen[] = {0, 6, 8, 12, 14, 20, 21, 22, 27};
    for (uint32_t i = 0; i < sizeof chosen / sizeof *chosen; i++)
        run_row(world, &rows[chosen[i]], (int64_t)MANY_HOSTS * (i % 2 ? 1 : 101), i);
    end();
}

static void many_hosts(void) {
    int hosts[MANY_HOSTS];
    for (int rank = 0; rank < MANY_HOSTS; rank++)
        hosts[rank] = MANY_HOSTS - rank;
    run_job(MANY_HOSTS, hosts, run_many, 0);
}

PROGRAM({"on-two-hosts", on_two_hosts}, {"on-hosts-in-a-row", on_hosts_in_a_row},
        {"on-three-and-one", on_three_and_one}, {"on-three-hosts", on_three_hosts}, {"each-alone", each_alone},
        {"more-than-the-slots", more_than_the_slots}, {"many-hosts", many_hosts})
