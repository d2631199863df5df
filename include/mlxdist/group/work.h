/* A call that is carried out in the background; group_start() in core.h starts it. */
#ifndef MLXDIST_GROUP_WORK_H
#define MLXDIST_GROUP_WORK_H

#include "mlxdist/types.h"

#ifdef __cplusplus
extern "C" {
#endif

struct work;

/* It has ended, however: what it received may be read. Never waits. */
int work_is_done(const struct work *work);
/* What the call returned; or, if the call goes on, why the wait has ended: TIMED_OUT or INTERRUPTED, or WRONG_THREAD in
 * a signal handler within another wait. timeout_s: 0: do not wait; less: no timeout but that of the call. */
int work_wait(struct work *work, double timeout_s, struct outcome *outcome);
/* Write a byte to this descriptor when it is done, which may be now. -1: not any more. */
void work_notify(struct work *work, int descriptor);
/* The caller's reference; a call that is under way goes on. */
void work_release(struct work *work);

#ifdef __cplusplus
}
#endif
#endif
