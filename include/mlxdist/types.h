/* The tables of element types and of reductions, and the outcome of an operation. */
#ifndef MLXDIST_TYPES_H
#define MLXDIST_TYPES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct complex64 {
    float re, im;
};
struct complex128 {
    double re, im;
};

/* clang-format off */
/* name, NumPy's name, type in C, arithmetic (kernel_impl.h), MPI's datatype of the same bytes (abi.h) */
#define MLXDIST_TYPES(row) \
    row(BOOL, "bool", uint8_t, LOGICAL, UINT8_T) \
    row(INT8, "int8", int8_t, INTEGER, INT8_T) \
    row(INT16, "int16", int16_t, INTEGER, INT16_T) \
    row(INT32, "int32", int32_t, INTEGER, INT32_T) \
    row(INT64, "int64", int64_t, INTEGER, INT64_T) \
    row(UINT8, "uint8", uint8_t, INTEGER, UINT8_T) \
    row(UINT16, "uint16", uint16_t, INTEGER, UINT16_T) \
    row(UINT32, "uint32", uint32_t, INTEGER, UINT32_T) \
    row(UINT64, "uint64", uint64_t, INTEGER, UINT64_T) \
    row(FLOAT16, "float16", uint16_t, HALF, UINT16_T) \
    row(BFLOAT16, "bfloat16", uint16_t, HALF, UINT16_T) \
    row(FLOAT32, "float32", float, REAL, FLOAT) \
    row(FLOAT64, "float64", double, REAL, DOUBLE) \
    row(COMPLEX64, "complex64", struct complex64, COMPLEX, C_FLOAT_COMPLEX) \
    row(COMPLEX128, "complex128", struct complex128, COMPLEX, C_DOUBLE_COMPLEX)

/* name, what users call; what follows `row` is passed on to each row */
#define MLXDIST_REDUCTIONS(row, ...) \
    MLXDIST_REDUCTIONS_OF_NUMBERS(row, __VA_ARGS__) \
    MLXDIST_REDUCTIONS_OF_BITS(row, __VA_ARGS__)
#define MLXDIST_REDUCTIONS_OF_NUMBERS(row, ...) \
    row(SUM, "all_sum", __VA_ARGS__) \
    row(MAX, "all_max", __VA_ARGS__) \
    row(MIN, "all_min", __VA_ARGS__) \
    row(PROD, "all_prod", __VA_ARGS__)
#define MLXDIST_REDUCTIONS_OF_BITS(row, ...) \
    row(BAND, "all_band", __VA_ARGS__) \
    row(BOR, "all_bor", __VA_ARGS__)

/* Which of them each arithmetic has: always the first ones. */
#define MLXDIST_LOGICAL_REDUCTIONS MLXDIST_REDUCTIONS
#define MLXDIST_INTEGER_REDUCTIONS MLXDIST_REDUCTIONS
#define MLXDIST_HALF_REDUCTIONS MLXDIST_REDUCTIONS_OF_NUMBERS
#define MLXDIST_REAL_REDUCTIONS MLXDIST_REDUCTIONS_OF_NUMBERS
#define MLXDIST_COMPLEX_REDUCTIONS MLXDIST_REDUCTIONS_OF_NUMBERS
/* clang-format on */

#define MLXDIST_TYPE(name, ...) TYPE_##name,
#define MLXDIST_REDUCTION(name, ...) REDUCE_##name,
enum element_type { MLXDIST_TYPES(MLXDIST_TYPE) ELEMENT_TYPES };
enum reduction { MLXDIST_REDUCTIONS(MLXDIST_REDUCTION) REDUCTIONS };
#undef MLXDIST_TYPE
#undef MLXDIST_REDUCTION

/* Either of the 16-bit floats: MLX moves both as two bytes and does not say which. Only moved, never added. */
enum { HALF_UNNAMED = ELEMENT_TYPES };

/* Bytes of one element. */
static inline size_t element_size(enum element_type type) {
#define MLXDIST_SIZE(name, numpy, ctype, ...) sizeof(ctype),
    static const size_t size[] = {MLXDIST_TYPES(MLXDIST_SIZE) sizeof(uint16_t)};
#undef MLXDIST_SIZE
    return size[type];
}

/* Whether elements of this type can be reduced so: not the bits of floats and of complex numbers. */
static inline int is_reducible(enum element_type type, enum reduction op) {
#define MLXDIST_ONE(...) +1
#define MLXDIST_HOW_MANY(name, numpy, ctype, arithmetic, ...) MLXDIST_##arithmetic##_REDUCTIONS(MLXDIST_ONE, ),
    static const int first[] = {MLXDIST_TYPES(MLXDIST_HOW_MANY) 0};
#undef MLXDIST_ONE
#undef MLXDIST_HOW_MANY
    return (int)op < first[type];
}

/* What became of an operation. Functions that can fail return one of these and, where it is not OK,
 * have filled in the struct. */
enum {
    STATUS_OK,
    STATUS_MPI_FAILED,
    STATUS_LIBRARY_UNFIT,
    STATUS_MISMATCH,  /* ranks ask for different things */
    STATUS_PEER_DIED, /* or can never answer */
    STATUS_TIMED_OUT,
    STATUS_INTERRUPTED, /* by SIGINT */
    STATUS_GROUP_CLOSED,
    STATUS_GROUP_BROKEN, /* by an earlier error */
    STATUS_WRONG_THREAD,
    STATUS_OUT_OF_MEMORY,
    STATUS_NOT_SHARED, /* memory cannot be shared with the other ranks of the host */
};

struct outcome {
    int status;         /* one of the above */
    int mpi_code;       /* MPI_FAILED: what the function returned */
    const char *class_; /* MPI_FAILED: its class, "MPI_ERR_TRUNCATE" */
    const char *call;   /* MPI_FAILED: the function, "MPI_Allreduce" */
    char text[1024];
};

#ifdef __cplusplus
}
#endif
#endif
