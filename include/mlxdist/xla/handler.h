/* Operations within programs that XLA has compiled for the CPU: one custom call for all of them. Which operation it is
 * and on which group, a program says in an attribute, see struct xla_call; its buffers are used where they are. */
#ifndef MLXDIST_XLA_HANDLER_H
#define MLXDIST_XLA_HANDLER_H

#include "mlxdist/group/core.h"
#include "mlxdist/xla/ffi.h"

enum { XLA_GROUPS = 1024 };

/* The only attribute, as an array of bytes. */
struct xla_call {
    int64_t group; /* its number */
    struct call call;
};

/* Programs name groups by numbers, not addresses: so they are the same in each run, and XLA can cache them. The lowest
 * that is free, or -1 if XLA_GROUPS are in use. The number is valid until the group is dropped, which is when no
 * program has it any more; the caller keeps the group until then. */
int xla_add_group(struct group *group);
void xla_drop_group(int number);

/* Arguments and results of the custom call: the array, where the operation reads or writes one, and XLA's token. It
 * runs on threads of XLA or of the program, without the GIL. The error has the text of any other call. */
struct ffi_error *xla_handler(struct ffi_frame *frame);

/* What to call after each call that may have waited, see raise_interruption() in compiled/outcome.pxi. Set once. */
void xla_after_call(void (*after)(void));

#endif
