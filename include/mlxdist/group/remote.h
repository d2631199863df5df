/* A message by MPI: pieces of some length, several of them under way, through memory of our own (bounce.h). Only memory
 * of a device is MPI's itself, since we cannot copy it.
 *
 * | tag             | content                                                                    |
 * | REMOTE_HEADER   | struct header, and the first piece: what a receiver looks for              |
 * | of the header   | the other pieces, in order; of a device's memory: all data as one message  |
 * | REMOTE_GIVEN_UP | nothing: its sender gave up a message with this rank. It is never received, |
 * |                 | so all that still wait for a message with that rank see it.                |
 *
 * Each message of a rank has a tag of its own for its further pieces. So when one is given up in the middle, what is
 * left of it is never taken for a part of another. */
#ifndef MLXDIST_GROUP_REMOTE_H
#define MLXDIST_GROUP_REMOTE_H

#include "mlxdist/copy.h"
#include "mlxdist/group/members.h"

/* MPI has at least the tags up to 32767; those from 16384 on are of collectives, but for the last. */
enum { REMOTE_IN_FLIGHT = 4, REMOTE_HEADER = 0, REMOTE_TAGS = 16383, REMOTE_GIVEN_UP = 32767 };

struct remote_piece {
    char *memory; /* NULL: none yet */
    request_handle request;
};

/* A message under way, on the side of its sender or its receiver. Only what has a comment is for others to read. */
struct remote {
    struct members *members;
    const struct call *call;
    char *buf, *device, *whole;
    int (*step)(struct remote *, int slow_check, struct outcome *);
    struct remote_piece pieces[REMOTE_IN_FLIGHT];
    int depth, tag, is_expected, polls_after_end;
    int64_t n, begun, finished;
    double end_s;
    enum copy_way way;
    int is_done;
    int is_begun;   /* a failure now is one in the middle */
    int is_whole;   /* the data come in one message, which is received into device if that is not NULL */
    int64_t nbytes; /* of what was received; thrown away if call_expects() another */
    int type;
};

/* call: a SEND or a RECV. buf: memory of the host or, for a SEND of call->on_device, the device. device: memory of a
 * device for what comes from one; NULL: buf is for that, too. OUT_OF_MEMORY: nothing was communicated. */
int remote_begin(struct members *members, const struct call *call, void *buf, void *device, struct remote *remote,
                 struct outcome *outcome);
/* Do what can be done without waiting. 1: some progress. 0: none. -1: it will never be done, see outcome. */
int remote_advance(struct remote *remote, int slow_check, struct outcome *outcome);
/* Always, when it is done or given up with this status. */
void remote_end(struct remote *remote, int status);
void remote_describe(const struct remote *remote, char *text, size_t nbytes);

/* From 1 to REMOTE_TAGS, of no other message of this rank that is under way. */
int remote_next_tag(void);
/* There is no memory for a message of nbytes: fill in outcome, and return OUT_OF_MEMORY. */
int remote_out_of_memory(int64_t nbytes, struct outcome *outcome);

#endif
