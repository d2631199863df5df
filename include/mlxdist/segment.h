/* Memory that processes of a host share: made by one, opened by the others by its name, which is then taken away, so
 * that nothing is left of it whatever becomes of them. */
#ifndef MLXDIST_SEGMENT_H
#define MLXDIST_SEGMENT_H

#include "mlxdist/types.h"

/* Two cache lines, since processors fetch lines in pairs: what one process writes and others watch lies this far apart.
 */
enum { SEGMENT_LINE = 128, SEGMENT_NAME = 48 };

/* What the maker tells the others. The token proves that what they open by this name is the same memory. */
struct ticket {
    char name[SEGMENT_NAME];
    uint64_t token;
};

struct segment {
    char *memory; /* nbytes, zeros at first */
    size_t nbytes;
    int file; /* -1 once closed; the memory stays */
};

/* NOT_SHARED where there is no such memory or too little. All of it is there at once, none comes page by page. */
int segment_create(size_t nbytes, struct ticket *ticket, struct segment *segment, struct outcome *outcome);
int segment_attach(const struct ticket *ticket, struct segment *segment, struct outcome *outcome);
void segment_unlink(const struct ticket *ticket);
void segment_close_file(struct segment *segment);
void segment_free(struct segment *segment);

/* Fill in NOT_SHARED. */
int segment_fails(struct outcome *outcome, const char *call, int error);

#endif
