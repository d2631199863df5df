#include "mlxdist/xla/handler.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "mlxdist/kernels/kernels.h"

static struct group *groups[XLA_GROUPS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of these, for some instructions */
static void (*after_call)(void);

int xla_add_group(struct group *group) {
    int number = 0;
    pthread_mutex_lock(&lock);
    while (number < XLA_GROUPS && groups[number])
        number++;
    if (number < XLA_GROUPS)
        groups[number] = group;
    pthread_mutex_unlock(&lock);
    return number < XLA_GROUPS ? number : -1;
}

/* NULL: it is gone. A program that runs may outlive what the program's owner has kept. */
static struct group *retained(int64_t number) {
    pthread_mutex_lock(&lock);
    struct group *group = groups[number] ? group_retain(groups[number]) : NULL;
    pthread_mutex_unlock(&lock);
    return group;
}

void xla_drop_group(int number) {
    pthread_mutex_lock(&lock);
    groups[number] = NULL;
    pthread_mutex_unlock(&lock);
}

void xla_after_call(void (*after)(void)) {
    after_call = after;
}

static int code_of(int status) {
    switch (status) {
    case STATUS_MISMATCH:
        return FFI_INVALID_ARGUMENT;
    case STATUS_PEER_DIED:
        return FFI_UNAVAILABLE;
    case STATUS_TIMED_OUT:
        return FFI_DEADLINE_EXCEEDED;
    case STATUS_INTERRUPTED:
        return FFI_CANCELLED;
    case STATUS_GROUP_CLOSED:
    case STATUS_GROUP_BROKEN:
        return FFI_FAILED_PRECONDITION;
    case STATUS_OUT_OF_MEMORY:
        return FFI_RESOURCE_EXHAUSTED;
    default:
        return FFI_INTERNAL;
    }
}

static struct ffi_error *error_of(const struct ffi_api *api, const char *called, const struct outcome *outcome) {
    char text[sizeof outcome->text + 64];
    snprintf(text, sizeof text, "[%s] %s", called, outcome->text);
    struct ffi_new_error error = {sizeof error, NULL, text, code_of(outcome->status)};
    return api->create_error(&error);
}

/* XLA asks which version the handler speaks: what is used here is the same in all of a major version, so XLA's own. */
static void answer(const struct ffi_api *api, struct ffi_metadata *metadata) {
    metadata->version.major = FFI_MAJOR_VERSION;
    metadata->version.minor = api && api->version.major == FFI_MAJOR_VERSION ? api->version.minor : 1;
}

/* The array beside the token, if there is one. */
static void *array_of(const struct ffi_buffers *buffers) {
    return buffers->size > 1 ? buffers->buffers[0]->data : NULL;
}

static const void *attribute_of(const struct ffi_frame *frame) {
    if (frame->api->version.major != FFI_MAJOR_VERSION || frame->struct_size < sizeof *frame ||
        frame->attributes.size != 1 || frame->attributes.types[0] != FFI_ATTRIBUTE_ARRAY)
        return NULL;
    const struct ffi_array *bytes = frame->attributes.values[0];
    return bytes->size == sizeof(struct xla_call) ? bytes->data : NULL;
}

struct ffi_error *xla_handler(struct ffi_frame *frame) {
    for (struct ffi_extension *extension = frame->extensions; extension; extension = extension->next)
        if (extension->type == FFI_EXTENSION_METADATA) {
            answer(frame->api, ((struct ffi_metadata_extension *)extension)->metadata);
            return NULL;
        }
    if (frame->stage != FFI_STAGE_EXECUTE)
        return NULL;
    struct xla_call made;
    struct outcome outcome;
    const void *bytes = attribute_of(frame);
    if (!bytes) {
        outcome.status = STATUS_LIBRARY_UNFIT;
        snprintf(outcome.text, sizeof outcome.text,
                 "XLA calls in a way that this version of mlxdist does not know: call it outside of jit");
        return error_of(frame->api, "jit", &outcome);
    }
    memcpy(&made, bytes, sizeof made);
    const char *called = call_rows[made.call.name].called;
    struct group *group = retained(made.group);
    if (!group) {
        outcome.status = STATUS_GROUP_CLOSED;
        snprintf(outcome.text, sizeof outcome.text, "the program's group is gone: compile it again");
        return error_of(frame->api, called, &outcome);
    }
    void *sendbuf = array_of(&frame->arguments), *recvbuf = array_of(&frame->results);
    recvbuf = recvbuf ? recvbuf : sendbuf; /* what a rank without a result passes */
    int failed =
        (call_is_collective(&made.call) ? group_run : group_p2p)(group, &made.call, sendbuf, recvbuf, &outcome);
    after_call();
    if (!failed && made.call.name == CALL_AVERAGE_GRADIENTS) /* XLA would multiply by 1 / size, rounded */
        divide_by(made.call.type, recvbuf, (size_t)made.call.count, group_size(group));
    group_release(group);
    return failed ? error_of(frame->api, called, &outcome) : NULL;
}
