#include "mlxdist/shm/handshake.h"

#include <stdio.h>

/* What each local rank publishes: the handle, from the first of them, and whether it succeeded so far. */
struct handshake {
    struct shm_handle handle;
    int32_t succeeded;
};
_Static_assert(sizeof(struct handshake) <= NODE_SLOT, "it is the payload of an arrival");

static int all_succeeded(const struct node *node) {
    for (int i = 0; i < node_local_size(node); i++)
        if (!((const struct handshake *)node_payload(node, i))->succeeded)
            return 0;
    return 1;
}

int handshake_segment(struct node *node, size_t part, size_t more, int detachable, struct segment *segment,
                      const struct wait_policy *policy, struct outcome *outcome) {
    struct handshake mine = {0};
    size_t local_rank = (size_t)node_local_rank(node), nbytes = part * (size_t)node_local_size(node);
    struct call call = flat_call(OPERATION_SHARE, 0, 0, 0, (int64_t)(nbytes + more));
    struct outcome why;
    call.rank = node_rank(node, (int)local_rank);
    int is_open = local_rank == 0 && segment &&
                  segment_create(nbytes + more, node->segment.is_named, &mine.handle, segment, &why) == STATUS_OK;
    mine.succeeded = is_open;
    int result = node_arrive(node, &call, &mine, sizeof mine, 0, 0, policy, outcome);
    if (!result) {
        mine = *(const struct handshake *)node_payload(node, 0);
        if (local_rank && segment && mine.succeeded)
            is_open = segment_attach(&mine.handle, segment, &why) == STATUS_OK;
        mine.succeeded = is_open;
        result = node_arrive(node, &call, &mine, sizeof mine, 0, 0, policy, outcome);
    }
    /* All have opened it, or some never will. Before it takes memory, and on any rank: the others may be killed. */
    if (is_open)
        segment_unlink(&mine.handle);
    if (!result) {
        mine.succeeded = all_succeeded(node) && segment_reserve(segment, local_rank * part, part, &why) == STATUS_OK &&
                         (!detachable || segment_map_spare(segment, local_rank * part, part, &why) == STATUS_OK);
        result = node_arrive(node, &call, &mine, sizeof mine, 0, 0, policy, outcome);
    }
    if (!result && !all_succeeded(node)) {
        result = outcome->status = STATUS_NOT_SHARED;
        snprintf(outcome->text, sizeof outcome->text,
                 "a rank of this host has no memory to share: enlarge /dev/shm, or start fewer ranks on the host");
    }
    if (result && is_open) {
        segment_free(segment);
    } else if (!result) {
        segment_touch(segment, nbytes);
        segment_close_file(segment);
    }
    return result;
}
