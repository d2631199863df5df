/* XLA's foreign function interface, as much of it as a handler needs: a plain C ABI (xla/ffi/api/c_api.h in the wheels
 * of jaxlib), declared here so that the build needs neither XLA nor JAX. Minor versions add fields at the ends of
 * structs, whose sizes say how many there are; major version 0 since the beginning (jaxlib 0.8.0 has 0.1, 0.10.2 has
 * 0.3). */
#ifndef MLXDIST_XLA_FFI_H
#define MLXDIST_XLA_FFI_H

#include <stddef.h>
#include <stdint.h>

enum { FFI_MAJOR_VERSION = 0 };
enum { FFI_STAGE_EXECUTE = 3 };
enum { FFI_ATTRIBUTE_ARRAY = 1 };
enum { FFI_EXTENSION_METADATA = 1 };
enum { /* absl's status codes */
       FFI_CANCELLED = 1,
       FFI_INVALID_ARGUMENT = 3,
       FFI_DEADLINE_EXCEEDED = 4,
       FFI_RESOURCE_EXHAUSTED = 8,
       FFI_FAILED_PRECONDITION = 9,
       FFI_INTERNAL = 13,
       FFI_UNAVAILABLE = 14,
};

struct ffi_error; /* XLA's */

struct ffi_extension {
    size_t struct_size;
    int type;
    struct ffi_extension *next;
};

struct ffi_version {
    size_t struct_size;
    struct ffi_extension *extensions;
    int major, minor;
};

struct ffi_new_error {
    size_t struct_size;
    struct ffi_extension *extensions;
    const char *message; /* copied */
    int code;
};

struct ffi_api {
    size_t struct_size;
    struct ffi_extension *extensions;
    struct ffi_version version;
    const void *internal;
    struct ffi_error *(*create_error)(struct ffi_new_error *);
};

struct ffi_buffer {
    size_t struct_size;
    struct ffi_extension *extensions;
    int dtype;
    void *data;
};

/* Arguments, or results. */
struct ffi_buffers {
    size_t struct_size;
    struct ffi_extension *extensions;
    int64_t size;
    const int *types;
    struct ffi_buffer *const *buffers;
};

struct ffi_array {
    int dtype;
    size_t size;
    const void *data;
};

struct ffi_attributes {
    size_t struct_size;
    struct ffi_extension *extensions;
    int64_t size;
    const int *types;
    const void *names;
    const void *const *values;
};

struct ffi_frame {
    size_t struct_size;
    struct ffi_extension *extensions;
    const struct ffi_api *api;
    void *context;
    int stage;
    struct ffi_buffers arguments, results;
    struct ffi_attributes attributes;
};

struct ffi_metadata {
    size_t struct_size;
    struct ffi_version version; /* to be filled in: that of the handler */
};

struct ffi_metadata_extension {
    struct ffi_extension extension;
    struct ffi_metadata *metadata;
};

_Static_assert(offsetof(struct ffi_api, create_error) == 48, "as XLA lays it out");
_Static_assert(offsetof(struct ffi_buffer, data) == 24, "as XLA lays it out");
_Static_assert(offsetof(struct ffi_array, data) == 16, "as XLA lays it out");
_Static_assert(offsetof(struct ffi_frame, arguments) == 40, "as XLA lays it out");
_Static_assert(offsetof(struct ffi_frame, attributes) == 120, "as XLA lays it out");
_Static_assert(sizeof(struct ffi_frame) == 168, "as XLA lays it out");
_Static_assert(offsetof(struct ffi_metadata, version) == 8, "as XLA lays it out");
_Static_assert(offsetof(struct ffi_metadata_extension, metadata) == 24, "as XLA lays it out");

#endif
