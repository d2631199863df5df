/* What goes where between hosts: every number once, and no more than there is room for, whatever the hosts. */
#include "mlxdist/net/plan.h"
#include "local_ranks.h"

enum { MOST_HOSTS = 20, MOST_RANKS = 100, MOST_CHUNKS = 40 };

/* Ranks of each host, up to a zero. */
static const int layouts[][MOST_HOSTS + 1] = {
    {1, 1},
    {2, 2},
    {3, 1},
    {1, 3},
    {2, 1, 1},
    {1, 1, 1, 1},
    {8, 8},
    {5, 5, 5},
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {64, 1},
    {4, 1, 9, 2, 2, 16, 3, 1, 1, 7, 5, 12, 1, 2, 6, 3, 8, 1, 1, 10},
};
enum { LAYOUTS = sizeof layouts / sizeof *layouts };

static const struct {
    int operation, type, wire;
} kinds[] = {
    {OPERATION_ALLREDUCE, TYPE_FLOAT32, 0},
    {OPERATION_ALLREDUCE, TYPE_BOOL, 0},
    {OPERATION_ALLREDUCE, TYPE_BFLOAT16, 0},
    {OPERATION_ALLREDUCE, TYPE_COMPLEX128, 0},
    {OPERATION_ALLREDUCE, TYPE_FLOAT32, TYPE_FLOAT16},
    {OPERATION_REDUCE_SCATTER, TYPE_FLOAT32, 0},
    {OPERATION_REDUCE_SCATTER, TYPE_INT8, 0},
    {OPERATION_REDUCE_SCATTER, TYPE_COMPLEX128, 0},
    {OPERATION_ALLGATHER, TYPE_INT16, 0},
    {OPERATION_ALLGATHER, TYPE_COMPLEX128, 0},
    {OPERATION_BROADCAST, TYPE_FLOAT64, 0},
    {OPERATION_ALLTOALL, TYPE_INT16, 0},
    {OPERATION_ALLTOALL, TYPE_COMPLEX128, 0},
    {OPERATION_GATHER, TYPE_FLOAT32, 0},
    {OPERATION_SCATTER, TYPE_FLOAT32, 0},
    {OPERATION_REDUCE, TYPE_INT8, 0},
    {OPERATION_REDUCE, TYPE_COMPLEX128, 0},
};

static struct hosts *hosts_of(const int *sizes) {
    static int ranks[MOST_RANKS];
    struct hosts *hosts = calloc(1, sizeof *hosts + MOST_HOSTS * sizeof *hosts->each);
    CHECK(hosts);
    for (int n; (n = sizes[hosts->n]); hosts->n++) {
        hosts->each[hosts->n] = (struct host){.first = hosts->size, .size = n};
        hosts->size += n;
        hosts->largest = n > hosts->largest ? n : hosts->largest;
    }
    CHECK(hosts->size <= MOST_RANKS);
    for (int i = 0; i < hosts->size; i++)
        ranks[i] = hosts->size - 1 - i; /* in any order */
    hosts->ranks = ranks;
    hosts->rails = hosts->largest < HOSTS_MAX_RAILS ? hosts->largest : HOSTS_MAX_RAILS;
    return hosts;
}

/* It begins where the one before it ended. */
static void follow(int64_t *end, struct range range) {
    CHECK(range.at == *end && range.n >= 0);
    *end += range.n;
}

/* A message of one host to another. */
static void check_message(const struct plan *plan, struct range block) {
    enum { UNASKED = 64 << 10 }; /* that Open MPI sends: see PLAN_MESSAGE */
    CHECK(block.n * (int64_t)plan->net_item <= UNASKED);
}

static void check_chunk(const struct plan *plan, int64_t k) {
    const struct hosts *hosts = plan->hosts;
    int64_t piece = plan_piece(plan, k).n, sub_end = 0, share_end = 0;
    CHECK(plan->parts * piece * (int64_t)plan->item <= (int64_t)plan_chunk_nbytes(hosts));
    CHECK(plan->parts * piece * (int64_t)plan->net_item <= (int64_t)plan_chunk_nbytes(hosts));
    for (int rail = 0; rail < hosts->rails; rail++) {
        struct range share = plan_share(plan, k, rail);
        int64_t end = share.at;
        follow(&sub_end, plan_sub(plan, k, rail));
        follow(&share_end, share);
        for (int host = 0; host < hosts->n; host++) {
            struct range block = plan_block(plan, k, rail, host);
            check_message(plan, block);
            if (plan->is_exchange || plan->chains)
                CHECK(block.at == share.at && block.n == share.n);
            else
                follow(&end, block);
        }
        CHECK(end == share.at + share.n || plan->is_exchange || plan->chains);
    }
    CHECK(sub_end == piece && share_end == plan->parts * piece);
    for (int host = 0; plan->reduces && host < hosts->n; host++) {
        int64_t incoming = 0;
        for (int rail = 0; rail < hosts->rails; rail++)
            incoming += (hosts->n - 1) * plan_block(plan, k, rail, host).n;
        CHECK(incoming * (int64_t)plan->net_item <= (int64_t)plan_incoming_nbytes(hosts));
    }
}

static void check_plan(const struct hosts *hosts, const struct call *call) {
    struct plan plan;
    int64_t end = 0;
    plan_make(hosts, call, &plan);
    CHECK(plan.piece >= 1);
    for (int64_t k = 0; k < plan.chunks; k++) {
        follow(&end, plan_piece(&plan, k));
        CHECK(plan_piece(&plan, k).n > 0);
        check_chunk(&plan, k);
    }
    CHECK(end == plan.length);
    CHECK(plan.length * plan.parts * (int64_t)plan.item ==
          call_nbytes(call) * (call_collects(call) && !call_is_parted(call) ? hosts->size : 1) * plan.each);
}

/* Of every length about those of cache lines and of chunks. */
static void each_once(void) {
    for (int layout = 0; layout < LAYOUTS; layout++) {
        struct hosts *hosts = hosts_of(layouts[layout]);
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
            struct plan plan;
            int operation = kinds[i].operation;
            struct call call = flat_call(operation, REDUCE_SUM, kinds[i].type, hosts->size / 2, 0);
            int is_apart = call_is_parted(&call);
            call.wire = kinds[i].wire;
            plan_make(hosts, &call, &plan);
            int64_t piece = plan.reduces ? plan.piece : plan.piece / (int64_t)element_size(kinds[i].type);
            int64_t lengths[] = {0,
                                 1,
                                 63,
                                 64,
                                 65,
                                 1001,
                                 piece > 0 ? piece - 1 : 0,
                                 piece,
                                 piece + 1,
                                 7 * piece / 2,
                                 MOST_CHUNKS * piece + 13};
            for (size_t n = 0; n < sizeof lengths / sizeof *lengths; n++) {
                call.count = lengths[n] * (is_apart ? hosts->size : 1);
                check_plan(hosts, &call);
            }
        }
        free(hosts);
    }
}

/* The root is found wherever it is, and the data of a call that opens with them fit where they go. */
static void roots_and_openings(void) {
    for (int layout = 0; layout < LAYOUTS; layout++) {
        struct hosts *hosts = hosts_of(layouts[layout]);
        for (int root = 0; root < hosts->size; root++) {
            struct call call = flat_call(OPERATION_BROADCAST, 0, TYPE_FLOAT32, root, 100);
            struct plan plan;
            plan_make(hosts, &call, &plan);
            CHECK(plan.root >= 0 && plan.root < hosts->each[plan.root_host].size);
            CHECK(hosts->ranks[hosts->each[plan.root_host].first + plan.root] == root);
        }
        int64_t most = plan_opening_nbytes(hosts, OPERATION_ALLREDUCE);
        CHECK(most <= PLAN_OPENING && (hosts->largest == 1 || most <= SHM_PAYLOAD));
        CHECK((most > 0) == (hosts->n <= PLAN_FLAT_HOSTS));
        CHECK(plan_opening_nbytes(hosts, OPERATION_ALLGATHER) * hosts->size <= most);
        CHECK(plan_opening_nbytes(hosts, OPERATION_ALLTOALL) * hosts->size <= most);
        free(hosts);
    }
}

PROGRAM({"each-once", each_once}, {"roots-and-openings", roots_and_openings})
