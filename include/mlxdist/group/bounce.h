/* Memory of our own for messages by MPI. A message that has begun cannot be taken back from MPI, which goes on reading
 * or writing it after the message was given up: so that is never a buffer of the user's, who may free it by then. */
#ifndef MLXDIST_GROUP_BOUNCE_H
#define MLXDIST_GROUP_BOUNCE_H

/* BOUNCE_NBYTES: of every buffer. */
enum { BOUNCE_NBYTES = 256 << 10 };

/* Aligned to a cache line; NULL: there is no memory. */
void *bounce_take(void);
/* MPI does not use it any more. One that MPI may still use is never put back. */
void bounce_put(void *buffer);

#endif
