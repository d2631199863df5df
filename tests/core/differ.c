/* Ranks of several hosts that do not make the same call: all of them are told who called what, and none is left in it.
 */
#include "job.h"

enum { LONG = 300000, SHORT = 5 };

static const struct scene {
    const int *hosts;
    int odd; /* the rank that makes the second call */
    int count, other_count;
} scenes[] = {
    {two_hosts, 2, SHORT, SHORT + 1}, {two_hosts, 3, LONG, LONG + 1},      {two_hosts, 0, LONG, SHORT},
    {two_hosts, 1, SHORT, LONG},      {three_and_one, 3, LONG, LONG + 1},  {three_and_one, 3, LONG, SHORT},
    {three_and_one, 3, SHORT, LONG},  {two_and_two_alone, 1, LONG, SHORT}, {two_and_two_alone, 2, SHORT, LONG},
};
enum { SCENES = sizeof scenes / sizeof *scenes };
static const struct scene *scene;
static float x[LONG + 1], out[LONG + 1];

static struct call sum_of(int64_t count) {
    return flat_call(OPERATION_ALLREDUCE, REDUCE_SUM, TYPE_FLOAT32, 0, count);
}

/* Before it the group may have been used for long calls, or not. */
static void differ(struct group *world) {
    struct outcome outcome;
    struct group *part;
    char line[100];
    struct call call = sum_of(world_rank == scene->odd ? scene->other_count : scene->count);
    for (int is_used = 0; is_used < 2; is_used++) {
        struct call before = sum_of(LONG);
        CHECK(group_split(world, 0, world_rank, &part, &outcome) == STATUS_OK);
        CHECK(!is_used || group_run(part, &before, x, out, &outcome) == STATUS_OK);
        CHECK(group_run(part, &call, x, out, &outcome) == STATUS_MISMATCH && group_is_broken(part));
        snprintf(line, sizeof line, "differ in call %d on this group of 4:", 1 + is_used);
        CHECK(strstr(outcome.text, line));
        snprintf(line, sizeof line, "\n  rank %d: all_sum float32 (%d,)", scene->odd, scene->other_count);
        CHECK(strstr(outcome.text, line));
        group_release(part);
        CHECK(group_run(world, &before, x, out, &outcome) == STATUS_OK);
    }
    end();
}

static void between_and_within_hosts(void) {
    for (scene = scenes; scene < scenes + SCENES; scene++)
        run_groups(scene->hosts, differ, 0);
}

/* A rank has ended, while the others call. Its end is a call like others: no rank waits for it. */
static int ended, length;

static void end_early(struct group *world) {
    struct outcome outcome;
    struct call call = sum_of(length);
    if (world_rank != ended) {
        CHECK(group_run(world, &call, x, out, &outcome) == STATUS_MISMATCH);
        CHECK(group_run(world, &call, x, out, &outcome) == STATUS_MISMATCH);
    }
    end();
}

static void one_has_ended(void) {
    static const int *const layouts[] = {two_hosts, three_and_one, two_and_two_alone};
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        for (ended = 0; ended < RANKS; ended += 3)
            for (length = SHORT; length <= LONG; length += LONG - SHORT)
                run_groups(layouts[i], end_early, 0);
}

/* MLX does not say which 16-bit float it moves: that agrees with either, but not with both at once. */
static void do_not_name_halves(struct group *world) {
    static const int types[RANKS] = {TYPE_BFLOAT16, HALF_UNNAMED, TYPE_BFLOAT16, TYPE_BFLOAT16};
    struct outcome outcome;
    for (int count = SHORT; count <= LONG; count += LONG - SHORT) {
        uint16_t *halves = (uint16_t *)x;
        struct call call = flat_call(OPERATION_BROADCAST, 0, types[world_rank], 3, count);
        for (int i = 0; i < count; i++)
            halves[i] = world_rank == 3 ? (uint16_t)i : 0;
        CHECK(group_run(world, &call, halves, halves, &outcome) == STATUS_OK);
        for (int i = 0; i < count; i++)
            CHECK(halves[i] == (uint16_t)i);
    }
    struct call call = flat_call(OPERATION_BROADCAST, 0, world_rank == 2 ? TYPE_FLOAT16 : types[world_rank], 3, SHORT);
    CHECK(group_run(world, &call, x, x, &outcome) == STATUS_MISMATCH);
    CHECK_TEXT(outcome, "\n  rank 2: broadcast float16 (5,) from rank 3");
    end();
}

static void unnamed_halves(void) {
    run_groups(two_hosts, do_not_name_halves, 0);
    run_groups(two_and_two_alone, do_not_name_halves, 0);
}

PROGRAM({"between-and-within-hosts", between_and_within_hosts}, {"one-has-ended", one_has_ended},
        {"unnamed-halves", unnamed_halves})
