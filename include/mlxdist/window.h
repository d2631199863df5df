/* Memory for long messages between the ranks of a host: each has a few chunks in it, and says how far it is.
 *
 * Whoever waits for another's progress can be interrupted, timed out, and told that a peer has died, also in the middle
 * of a message: no buffer is in anybody else's hands. */
#ifndef MLXDIST_WINDOW_H
#define MLXDIST_WINDOW_H

#include "mlxdist/method.h"
#include "mlxdist/node.h"

/* At most so many bytes for all ranks of a group together; a rank's chunks that are under way, and their length where
 * that is not too much. */
enum { WINDOW_NBYTES = 32 << 20, WINDOW_SLOTS = 4, WINDOW_CHUNK = 512 << 10, WINDOW_SEATS = 64 };

/* What a rank has done with a chunk: brought its part; reduced its share. */
enum stage { BROUGHT, REDUCED, STAGES };

struct window;

/* Every seat of the node calls it. window is NULL afterwards where the memory is not to be had or
 * there are more than WINDOW_SEATS. */
int window_open(struct node *node, struct window **window, const struct patience *patience, struct outcome *outcome);
void window_close(struct window *window);

/* Bytes of a chunk, a multiple of SEGMENT_LINE, and where a seat's k-th one lies: chunk k + WINDOW_SLOTS lies there
 * too. */
size_t window_chunk(const struct window *window);
char *window_slot(const struct window *window, int seat, size_t k);

struct trial *window_trial(struct window *window);

/* A call of so many chunks. All have arrived at it, so that all slots are free. */
void window_begin(struct window *window, const struct call *call, size_t chunks, const struct patience *patience);
/* This rank is through with the first so many chunks; wait until all are. */
void window_announce(struct window *window, enum stage stage, size_t chunks);
int window_await(struct window *window, enum stage stage, size_t chunks, struct outcome *outcome);

#endif
