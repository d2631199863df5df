/* MPI's three binary interfaces side by side: the only file that knows an MPI number.
 *
 * Open MPI: handles are addresses of the library's data. MPICH (Intel MPI, MVAPICH, Cray): handles are
 * 32-bit ints. Standard: the ABI of MPI 5.0, small pointers. The numbers are those of Open MPI 4.1 and 5.0,
 * MPICH 3.4 to 5.0, Intel MPI 2021 and of MPI 5.0, chapter 20. */
#ifndef MLXDIST_MPI_ABI_H
#define MLXDIST_MPI_ABI_H

enum abi_family { ABI_OPENMPI, ABI_MPICH, ABI_STANDARD };

/* Which of the three an opened library has; it need not be initialized. -1: it is not an MPI library. */
int abi_identify(void *library, enum abi_family *family);

/* clang-format off */
/*      name               Open MPI's symbol                MPICH       standard */
#define MPI_HANDLES(row) \
    row(COMM_WORLD,        "ompi_mpi_comm_world",           0x44000000, 0x101) \
    row(COMM_SELF,         "ompi_mpi_comm_self",            0x44000001, 0x102) \
    row(ERRORS_RETURN,     "ompi_mpi_errors_return",        0x54000001, 0x143) \
    row(OP_SUM,            "ompi_mpi_op_sum",               0x58000003, 0x21) \
    row(OP_PROD,           "ompi_mpi_op_prod",              0x58000004, 0x24) \
    row(OP_BAND,           "ompi_mpi_op_band",              0x58000006, 0x28) \
    row(OP_BOR,            "ompi_mpi_op_bor",               0x58000008, 0x29) \
    row(INFO_NULL,         "ompi_mpi_info_null",            0x1c000000, 0x130) \
    row(BYTE,              "ompi_mpi_byte",                 0x4c00010d, 0x247) \
    row(INT8_T,            "ompi_mpi_int8_t",               0x4c000137, 0x240) \
    row(INT16_T,           "ompi_mpi_int16_t",              0x4c000238, 0x248) \
    row(INT32_T,           "ompi_mpi_int32_t",              0x4c000439, 0x250) \
    row(INT64_T,           "ompi_mpi_int64_t",              0x4c00083a, 0x258) \
    row(UINT8_T,           "ompi_mpi_uint8_t",              0x4c00013b, 0x241) \
    row(UINT16_T,          "ompi_mpi_uint16_t",             0x4c00023c, 0x249) \
    row(UINT32_T,          "ompi_mpi_uint32_t",             0x4c00043d, 0x251) \
    row(UINT64_T,          "ompi_mpi_uint64_t",             0x4c00083e, 0x259) \
    row(FLOAT,             "ompi_mpi_float",                0x4c00040a, 0x210) \
    row(DOUBLE,            "ompi_mpi_double",               0x4c00080b, 0x214) \
    row(C_FLOAT_COMPLEX,   "ompi_mpi_c_float_complex",      0x4c000840, 0x212) \
    row(C_DOUBLE_COMPLEX,  "ompi_mpi_c_double_complex",     0x4c001041, 0x216)

/*      name               Open MPI  MPICH  standard */
#define MPI_NUMBERS(row) \
    row(IN_PLACE,                 1,    -1,        1) \
    row(COMM_TYPE_SHARED,         0,     1,      221) \
    row(ANY_SOURCE,              -1,    -2,       -1) \
    row(THREAD_FUNNELED,          1,     1,     1024) \
    row(THREAD_SERIALIZED,        2,     2,     2048) \
    row(THREAD_MULTIPLE,          3,     3,     4096)

/* Intel MPI 2021.18 and 2021.19 follow a draft of the standard ABI in libmpi_abi.so.1, where two error handlers are
 * swapped and LASTUSEDCODE (a number of at least 16383) is not this attribute. */
enum { LASTUSEDCODE = 506, LEAST_LASTUSEDCODE = 16383, DRAFT_ERRORS_RETURN = 0x142 };

/* Every MPI 3 library has these. */
#define MPI_FUNCTIONS(row) \
    row(Get_library_version, (char *, int *)) \
    row(Initialized, (int *)) \
    row(Finalized, (int *)) \
    row(Init_thread, (int *, char ***, int, int *)) \
    row(Query_thread, (int *)) \
    row(Finalize, (void)) \
    row(Abort, (MPI_Comm, int)) \
    row(Error_class, (int, int *)) \
    row(Error_string, (int, char *, int *)) \
    row(Comm_set_errhandler, (MPI_Comm, MPI_Errhandler)) \
    row(Comm_get_attr, (MPI_Comm, int, void *, int *)) \
    row(Comm_rank, (MPI_Comm, int *)) \
    row(Comm_size, (MPI_Comm, int *)) \
    row(Comm_idup, (MPI_Comm, MPI_Comm *, MPI_Request *)) \
    row(Comm_split, (MPI_Comm, int, int, MPI_Comm *)) \
    row(Comm_split_type, (MPI_Comm, int, int, MPI_Info, MPI_Comm *)) \
    row(Comm_create_group, (MPI_Comm, MPI_Group, int, MPI_Comm *)) \
    row(Comm_group, (MPI_Comm, MPI_Group *)) \
    row(Comm_free, (MPI_Comm *)) \
    row(Group_size, (MPI_Group, int *)) \
    row(Group_incl, (MPI_Group, int, const int *, MPI_Group *)) \
    row(Group_translate_ranks, (MPI_Group, int, const int *, MPI_Group, int *)) \
    row(Group_free, (MPI_Group *)) \
    row(Op_create, (MPI_User_function *, int, MPI_Op *)) \
    row(Op_free, (MPI_Op *)) \
    row(Type_contiguous, (int, MPI_Datatype, MPI_Datatype *)) \
    row(Type_create_struct, (int, const int *, const MPI_Aint *, const MPI_Datatype *, MPI_Datatype *)) \
    row(Type_commit, (MPI_Datatype *)) \
    row(Type_free, (MPI_Datatype *)) \
    row(Allreduce, (const void *, void *, int, MPI_Datatype, MPI_Op, MPI_Comm)) \
    row(Reduce, (const void *, void *, int, MPI_Datatype, MPI_Op, int, MPI_Comm)) \
    row(Reduce_scatter_block, (const void *, void *, int, MPI_Datatype, MPI_Op, MPI_Comm)) \
    row(Allgather, (const void *, int, MPI_Datatype, void *, int, MPI_Datatype, MPI_Comm)) \
    row(Alltoall, (const void *, int, MPI_Datatype, void *, int, MPI_Datatype, MPI_Comm)) \
    row(Gather, (const void *, int, MPI_Datatype, void *, int, MPI_Datatype, int, MPI_Comm)) \
    row(Scatter, (const void *, int, MPI_Datatype, void *, int, MPI_Datatype, int, MPI_Comm)) \
    row(Bcast, (void *, int, MPI_Datatype, int, MPI_Comm)) \
    row(Barrier, (MPI_Comm)) \
    row(Ireduce, (const void *, void *, int, MPI_Datatype, MPI_Op, int, MPI_Comm, MPI_Request *)) \
    row(Ireduce_scatter_block, (const void *, void *, int, MPI_Datatype, MPI_Op, MPI_Comm, MPI_Request *)) \
    row(Iallgather, (const void *, int, MPI_Datatype, void *, int, MPI_Datatype, MPI_Comm, MPI_Request *)) \
    row(Ialltoall, (const void *, int, MPI_Datatype, void *, int, MPI_Datatype, MPI_Comm, MPI_Request *)) \
    row(Igather, (const void *, int, MPI_Datatype, void *, int, MPI_Datatype, int, MPI_Comm, MPI_Request *)) \
    row(Iscatter, (const void *, int, MPI_Datatype, void *, int, MPI_Datatype, int, MPI_Comm, MPI_Request *)) \
    row(Ibcast, (void *, int, MPI_Datatype, int, MPI_Comm, MPI_Request *)) \
    row(Ibarrier, (MPI_Comm, MPI_Request *)) \
    row(Iallreduce, (const void *, void *, int, MPI_Datatype, MPI_Op, MPI_Comm, MPI_Request *)) \
    row(Isend, (const void *, int, MPI_Datatype, int, int, MPI_Comm, MPI_Request *)) \
    row(Irecv, (void *, int, MPI_Datatype, int, int, MPI_Comm, MPI_Request *)) \
    row(Test, (MPI_Request *, int *, MPI_Status *)) \
    row(Iprobe, (int, int, MPI_Comm, int *, MPI_Status *)) \
    row(Improbe, (int, int, MPI_Comm, int *, MPI_Message *, MPI_Status *)) \
    row(Imrecv, (void *, int, MPI_Datatype, MPI_Message *, MPI_Request *)) \
    row(Get_elements_x, (const MPI_Status *, MPI_Datatype, MPI_Count *))

/* Described by us: the descriptions of MPICH 5.0.2's libmpi_abi are those of other classes. */
/*      class          Open MPI  MPICH  standard  outcome, meaning */
#define MPI_ERROR_CLASSES(row) \
    row(MPI_ERR_BUFFER,       1,     1,        1, STATUS_MPI_FAILED, "a buffer is not valid") \
    row(MPI_ERR_COUNT,        2,     2,        2, STATUS_MPI_FAILED, "a count is not valid") \
    row(MPI_ERR_TYPE,         3,     3,        3, STATUS_MPI_FAILED, "a datatype is not valid") \
    row(MPI_ERR_TAG,          4,     4,        4, STATUS_MPI_FAILED, "a tag is not valid") \
    row(MPI_ERR_COMM,         5,     5,        5, STATUS_MPI_FAILED, "a communicator is not valid") \
    row(MPI_ERR_RANK,         6,     6,        6, STATUS_MPI_FAILED, "a rank is not valid") \
    row(MPI_ERR_REQUEST,      7,    19,        7, STATUS_MPI_FAILED, "a request is not valid") \
    row(MPI_ERR_ROOT,         8,     7,        8, STATUS_MPI_FAILED, "a root is not valid") \
    row(MPI_ERR_GROUP,        9,     8,        9, STATUS_MPI_FAILED, "a group is not valid") \
    row(MPI_ERR_OP,          10,     9,       10, STATUS_MPI_FAILED, "a reduction is not valid for this datatype") \
    row(MPI_ERR_ARG,         13,    12,       13, STATUS_MPI_FAILED, "an argument is not valid") \
    row(MPI_ERR_UNKNOWN,     14,    13,       14, STATUS_MPI_FAILED, "an error that the library does not name") \
    row(MPI_ERR_TRUNCATE,    15,    14,       15, STATUS_MPI_FAILED, "a message is longer than the buffer for it") \
    row(MPI_ERR_OTHER,       16,    15,       16, STATUS_MPI_FAILED, "an error outside MPI's classes, often of the network") \
    row(MPI_ERR_INTERN,      17,    16,       17, STATUS_MPI_FAILED, "an internal error of the library, often memory ran out") \
    row(MPI_ERR_NO_MEM,      39,    34,       39, STATUS_MPI_FAILED, "memory ran out") \
    row(MPI_ERR_UNSUPPORTED_OPERATION, 52, 44, 55, STATUS_MPI_FAILED, "the library does not support this") \
    row(MPI_ERR_PROC_ABORTED, 74,   76,       58, STATUS_PEER_DIED, "a peer has aborted") \
    row(MPI_ERR_PROC_FAILED,  75,  101,       -1, STATUS_PEER_DIED, "a peer has died") \
    row(MPI_ERR_PROC_FAILED_PENDING, 76, 102, -1, STATUS_PEER_DIED, "a peer has died, and a receive may still succeed") \
    row(MPI_ERR_REVOKED,      77,  103,       -1, STATUS_PEER_DIED, "another rank has found that a peer died")
/* clang-format on */

#endif
