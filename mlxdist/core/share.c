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

int share(struct node *node, size_t nbytes, struct segment *segment, const struct patience *patience,
          struct outcome *outcome) {
    struct offer mine = {0};
    struct call call = flat_call(SHARE, 0, 0, 0, (int64_t)nbytes);
    struct outcome why;
    int seat = node_seat(node);
    call.rank = node_rank(node, seat);
    if (seat == 0)
        mine.has_it = segment_create(nbytes, &mine.ticket, segment, &why) == OK;
    int result = node_arrive(node, &call, &mine, sizeof mine, 0, 0, patience, outcome);
    if (!result) {
        const struct offer *first = node_payload(node, 0);
        if (seat && first->has_it)
            mine.has_it = segment_attach(&first->ticket, segment, &why) == OK;
        result = node_arrive(node, &call, &mine, sizeof mine, 0, 0, patience, outcome);
    }
    if (seat == 0 && mine.has_it)
        segment_unlink(&mine.ticket);
    if (!result && !everybody_has_it(node))
        result = segment_fails(outcome, "sharing memory with the other ranks of the host", ENOMEM);
    if (mine.has_it && result)
        segment_free(segment);
    else if (!result)
        segment_close_file(segment);
    return result;
}
