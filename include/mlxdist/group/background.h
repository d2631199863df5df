/* What the thread of a queue does: collectives one after the other, messages together. */
#ifndef MLXDIST_GROUP_BACKGROUND_H
#define MLXDIST_GROUP_BACKGROUND_H

#include "mlxdist/group/queue.h"

/* All that is in the queue, and what is added meanwhile. */
void carry_out_collectives(struct work_queue *queue);
void carry_out_messages(struct work_queue *queue);

#endif
