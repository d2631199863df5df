#include "mlxdist/share.h"

#include <errno.h>

/* What the seats tell each other. */
struct offer {
    struct ticket ticket;
    int32_t has_it;
};

static int everybody_has_it(const struct node *node) {
    for (int i = 0; i < node_seats(node); i++)
        if (!((const struct offer *)node_payload(node, i))->has_it)
            return 0;
    return 1;
}

int share(struct node *node, size_t part, size_t spare, struct segment *segment, const struct patience *patience,
          struct outcome *outcome) {
    struct offer mine = {0};
    size_t seat = (size_t)node_seat(node), nbytes = part * (size_t)node_seats(node);
    struct call call = flat_call(SHARE, 0, 0, 0, (int64_t)(nbytes + spare));
    struct outcome why;
    call.rank = node_rank(node, (int)seat);
    int is_open = seat == 0 && segment_create(nbytes + spare, &mine.ticket, segment, &why) == OK;
    mine.has_it = is_open;
    int result = node_arrive(node, &call, &mine, sizeof mine, 0, 0, patience, outcome);
    if (!result) {
        const struct offer *first = node_payload(node, 0);
        if (seat && first->has_it)
            is_open = segment_attach(&first->ticket, segment, &why) == OK;
        mine.has_it = is_open && segment_reserve(segment, seat * part, part, &why) == OK;
        result = node_arrive(node, &call, &mine, sizeof mine, 0, 0, patience, outcome);
    }
    if (seat == 0 && is_open)
        segment_unlink(&mine.ticket);
    if (!result && !everybody_has_it(node))
        result = segment_fails(outcome, "sharing memory with the other ranks of the host", ENOMEM);
    if (result && is_open) {
        segment_free(segment);
    } else if (!result) {
        segment_touch(segment, nbytes);
        segment_close_file(segment);
    }
    return result;
}
