/* The names of MPItrampoline's ABI 2.9. jaxlib looks up each, with MPIABI_ before it, and ends the process if one is
 * missing (0.10.2); tests/unit/test_exports.py compares them with those in jaxlib. */
#ifndef MLXDIST_SHIMS_MPIABI_NAMES_H
#define MLXDIST_SHIMS_MPIABI_NAMES_H

/* clang-format off */
/* Constants. The value of each is its place in this list: SUCCESS must be 0, and THREAD_ ascend. */
#define MLXDIST_MPIABI_CONSTANTS(row) \
    row(SUCCESS) row(2DOUBLE_PRECISION) row(2INT) row(2INTEGER) row(2REAL) row(AINT) row(ANY_SOURCE) row(ANY_TAG) \
    row(APPNUM) row(ARGVS_NULL) row(ARGV_NULL) row(BAND) row(BOR) row(BOTTOM) row(BSEND_OVERHEAD) row(BXOR) row(BYTE) \
    row(CART) row(CHAR) row(CHARACTER) row(COMBINER_CONTIGUOUS) row(COMBINER_DARRAY) row(COMBINER_DUP) \
    row(COMBINER_F90_COMPLEX) row(COMBINER_F90_INTEGER) row(COMBINER_F90_REAL) row(COMBINER_HINDEXED) \
    row(COMBINER_HINDEXED_BLOCK) row(COMBINER_HVECTOR) row(COMBINER_INDEXED) row(COMBINER_INDEXED_BLOCK) \
    row(COMBINER_NAMED) row(COMBINER_RESIZED) row(COMBINER_STRUCT) row(COMBINER_SUBARRAY) row(COMBINER_VECTOR) \
    row(COMM_DUP_FN) row(COMM_NULL) row(COMM_NULL_COPY_FN) row(COMM_NULL_DELETE_FN) row(COMM_SELF) \
    row(COMM_TYPE_SHARED) row(COMM_WORLD) row(COMPLEX) row(COMPLEX16) row(COMPLEX32) row(COMPLEX8) row(CONGRUENT) \
    row(CONVERSION_FN_NULL) row(COUNT) row(CXX_BOOL) row(CXX_DOUBLE_COMPLEX) row(CXX_FLOAT_COMPLEX) \
    row(CXX_LONG_DOUBLE_COMPLEX) row(C_BOOL) row(C_COMPLEX) row(C_DOUBLE_COMPLEX) row(C_FLOAT_COMPLEX) \
    row(C_LONG_DOUBLE_COMPLEX) row(DATATYPE_NULL) row(DISPLACEMENT_CURRENT) row(DISTRIBUTE_BLOCK) \
    row(DISTRIBUTE_CYCLIC) row(DISTRIBUTE_DFLT_DARG) row(DISTRIBUTE_NONE) row(DIST_GRAPH) row(DOUBLE) \
    row(DOUBLE_COMPLEX) row(DOUBLE_INT) row(DOUBLE_PRECISION) row(DUP_FN) row(ERRCODES_IGNORE) row(ERRHANDLER_NULL) \
    row(ERRORS_ARE_FATAL) row(ERRORS_RETURN) row(ERR_ACCESS) row(ERR_AMODE) row(ERR_ARG) row(ERR_ASSERT) \
    row(ERR_BAD_FILE) row(ERR_BASE) row(ERR_BUFFER) row(ERR_COMM) row(ERR_CONVERSION) row(ERR_COUNT) row(ERR_DIMS) \
    row(ERR_DISP) row(ERR_DUP_DATAREP) row(ERR_FILE) row(ERR_FILE_EXISTS) row(ERR_FILE_IN_USE) row(ERR_GROUP) \
    row(ERR_INFO) row(ERR_INFO_KEY) row(ERR_INFO_NOKEY) row(ERR_INFO_VALUE) row(ERR_INTERN) row(ERR_IN_STATUS) \
    row(ERR_IO) row(ERR_KEYVAL) row(ERR_LASTCODE) row(ERR_LOCKTYPE) row(ERR_NAME) row(ERR_NOT_SAME) row(ERR_NO_MEM) \
    row(ERR_NO_SPACE) row(ERR_NO_SUCH_FILE) row(ERR_OP) row(ERR_OTHER) row(ERR_PENDING) row(ERR_PORT) row(ERR_QUOTA) \
    row(ERR_RANK) row(ERR_READ_ONLY) row(ERR_REQUEST) row(ERR_RMA_ATTACH) row(ERR_RMA_CONFLICT) row(ERR_RMA_FLAVOR) \
    row(ERR_RMA_RANGE) row(ERR_RMA_SHARED) row(ERR_RMA_SYNC) row(ERR_ROOT) row(ERR_SERVICE) row(ERR_SIZE) \
    row(ERR_SPAWN) row(ERR_TAG) row(ERR_TOPOLOGY) row(ERR_TRUNCATE) row(ERR_TYPE) row(ERR_UNKNOWN) \
    row(ERR_UNSUPPORTED_DATAREP) row(ERR_UNSUPPORTED_OPERATION) row(ERR_WIN) row(FILE_NULL) row(FLOAT) row(FLOAT_INT) \
    row(F_STATUSES_IGNORE) row(F_STATUS_IGNORE) row(GRAPH) row(GROUP_EMPTY) row(GROUP_NULL) row(HOST) row(IDENT) \
    row(INFO_ENV) row(INFO_NULL) row(INT) row(INT16_T) row(INT32_T) row(INT64_T) row(INT8_T) row(INTEGER) \
    row(INTEGER1) row(INTEGER2) row(INTEGER4) row(INTEGER8) row(IN_PLACE) row(IO) row(KEYVAL_INVALID) row(LAND) \
    row(LASTUSEDCODE) row(LOCK_EXCLUSIVE) row(LOCK_SHARED) row(LOGICAL) row(LONG) row(LONG_DOUBLE) \
    row(LONG_DOUBLE_INT) row(LONG_INT) row(LONG_LONG) row(LONG_LONG_INT) row(LOR) row(LXOR) row(MAX) row(MAXLOC) \
    row(MESSAGE_NO_PROC) row(MESSAGE_NULL) row(MIN) row(MINLOC) row(MODE_APPEND) row(MODE_CREATE) \
    row(MODE_DELETE_ON_CLOSE) row(MODE_EXCL) row(MODE_NOCHECK) row(MODE_NOPRECEDE) row(MODE_NOPUT) row(MODE_NOSTORE) \
    row(MODE_NOSUCCEED) row(MODE_RDONLY) row(MODE_RDWR) row(MODE_SEQUENTIAL) row(MODE_UNIQUE_OPEN) row(MODE_WRONLY) \
    row(NO_OP) row(NULL_COPY_FN) row(NULL_DELETE_FN) row(OFFSET) row(OP_NULL) row(ORDER_C) row(ORDER_FORTRAN) \
    row(PACKED) row(PROC_NULL) row(PROD) row(REAL) row(REAL16) row(REAL4) row(REAL8) row(REPLACE) row(REQUEST_NULL) \
    row(ROOT) row(SEEK_CUR) row(SEEK_END) row(SEEK_SET) row(SHORT) row(SHORT_INT) row(SIGNED_CHAR) row(SIMILAR) \
    row(STATUSES_IGNORE) row(STATUS_IGNORE) row(SUM) row(TAG_UB) row(THREAD_SINGLE) row(THREAD_FUNNELED) \
    row(THREAD_SERIALIZED) row(THREAD_MULTIPLE) row(TYPECLASS_COMPLEX) row(TYPECLASS_INTEGER) row(TYPECLASS_REAL) \
    row(TYPE_DUP_FN) row(TYPE_NULL_COPY_FN) row(TYPE_NULL_DELETE_FN) row(UINT16_T) row(UINT32_T) row(UINT64_T) \
    row(UINT8_T) row(UNDEFINED) row(UNEQUAL) row(UNIVERSE_SIZE) row(UNSIGNED) row(UNSIGNED_CHAR) row(UNSIGNED_LONG) \
    row(UNSIGNED_LONG_LONG) row(UNSIGNED_SHORT) row(UNWEIGHTED) row(WCHAR) row(WEIGHTS_EMPTY) row(WIN_BASE) \
    row(WIN_CREATE_FLAVOR) row(WIN_DISP_UNIT) row(WIN_DUP_FN) row(WIN_FLAVOR_ALLOCATE) row(WIN_FLAVOR_CREATE) \
    row(WIN_FLAVOR_DYNAMIC) row(WIN_FLAVOR_SHARED) row(WIN_MODEL) row(WIN_NULL) row(WIN_NULL_COPY_FN) \
    row(WIN_NULL_DELETE_FN) row(WIN_SEPARATE) row(WIN_SIZE) row(WIN_UNIFIED) row(WTIME_IS_GLOBAL)

/* Functions that XLA does not call. The others are in jax_mpiwrapper.c. */
#define MLXDIST_MPIABI_UNUSED(row) \
    row(Abort) row(Accumulate) row(Add_error_class) row(Add_error_code) row(Add_error_string) row(Aint_add) \
    row(Aint_diff) row(Allgatherv) row(Alloc_mem) row(Alltoall) row(Alltoallv) row(Alltoallw) row(Barrier) row(Bcast) \
    row(Bsend) row(Bsend_init) row(Buffer_attach) row(Buffer_detach) row(Cancel) row(Cart_coords) row(Cart_create) \
    row(Cart_get) row(Cart_map) row(Cart_rank) row(Cart_shift) row(Cart_sub) row(Cartdim_get) row(Close_port) \
    row(Comm_accept) row(Comm_c2f) row(Comm_call_errhandler) row(Comm_compare) row(Comm_connect) row(Comm_create) \
    row(Comm_create_errhandler) row(Comm_create_group) row(Comm_create_keyval) row(Comm_delete_attr) \
    row(Comm_disconnect) row(Comm_dup) row(Comm_dup_with_info) row(Comm_f2c) row(Comm_free_keyval) row(Comm_get_attr) \
    row(Comm_get_errhandler) row(Comm_get_info) row(Comm_get_name) row(Comm_get_parent) row(Comm_group) row(Comm_idup) \
    row(Comm_join) row(Comm_remote_group) row(Comm_remote_size) row(Comm_set_attr) row(Comm_set_errhandler) \
    row(Comm_set_info) row(Comm_set_name) row(Comm_spawn) row(Comm_spawn_multiple) row(Comm_split_type) \
    row(Comm_test_inter) row(Compare_and_swap) row(Dims_create) row(Dist_graph_create) row(Dist_graph_create_adjacent) \
    row(Dist_graph_neighbors) row(Dist_graph_neighbors_count) row(Errhandler_c2f) row(Errhandler_f2c) \
    row(Errhandler_free) row(Error_class) row(Exscan) row(Fetch_and_op) row(File_c2f) row(File_call_errhandler) \
    row(File_close) row(File_create_errhandler) row(File_delete) row(File_f2c) row(File_get_amode) \
    row(File_get_atomicity) row(File_get_byte_offset) row(File_get_errhandler) row(File_get_group) row(File_get_info) \
    row(File_get_position) row(File_get_position_shared) row(File_get_size) row(File_get_type_extent) \
    row(File_get_view) row(File_iread) row(File_iread_all) row(File_iread_at) row(File_iread_at_all) \
    row(File_iread_shared) row(File_iwrite) row(File_iwrite_all) row(File_iwrite_at) row(File_iwrite_at_all) \
    row(File_iwrite_shared) row(File_open) row(File_preallocate) row(File_read) row(File_read_all) \
    row(File_read_all_begin) row(File_read_all_end) row(File_read_at) row(File_read_at_all) \
    row(File_read_at_all_begin) row(File_read_at_all_end) row(File_read_ordered) row(File_read_ordered_begin) \
    row(File_read_ordered_end) row(File_read_shared) row(File_seek) row(File_seek_shared) row(File_set_atomicity) \
    row(File_set_errhandler) row(File_set_info) row(File_set_size) row(File_set_view) row(File_sync) row(File_write) \
    row(File_write_all) row(File_write_all_begin) row(File_write_all_end) row(File_write_at) row(File_write_at_all) \
    row(File_write_at_all_begin) row(File_write_at_all_end) row(File_write_ordered) row(File_write_ordered_begin) \
    row(File_write_ordered_end) row(File_write_shared) row(Finalized) row(Free_mem) row(Gather) row(Gatherv) row(Get) \
    row(Get_accumulate) row(Get_address) row(Get_count) row(Get_elements) row(Get_elements_x) row(Get_library_version) \
    row(Get_processor_name) row(Get_version) row(Graph_create) row(Graph_get) row(Graph_map) row(Graph_neighbors) \
    row(Graph_neighbors_count) row(Graphdims_get) row(Grequest_complete) row(Grequest_start) row(Group_c2f) \
    row(Group_compare) row(Group_difference) row(Group_excl) row(Group_f2c) row(Group_free) row(Group_incl) \
    row(Group_intersection) row(Group_range_excl) row(Group_range_incl) row(Group_rank) row(Group_size) \
    row(Group_translate_ranks) row(Group_union) row(Iallgather) row(Iallgatherv) row(Iallreduce) row(Ialltoall) \
    row(Ialltoallv) row(Ialltoallw) row(Ibarrier) row(Ibcast) row(Ibsend) row(Iexscan) row(Igather) row(Igatherv) \
    row(Improbe) row(Imrecv) row(Ineighbor_allgather) row(Ineighbor_allgatherv) row(Ineighbor_alltoall) \
    row(Ineighbor_alltoallv) row(Ineighbor_alltoallw) row(Info_c2f) row(Info_create) row(Info_delete) row(Info_dup) \
    row(Info_f2c) row(Info_free) row(Info_get) row(Info_get_nkeys) row(Info_get_nthkey) row(Info_get_valuelen) \
    row(Info_set) row(Init) row(Initialized) row(Intercomm_create) row(Intercomm_merge) row(Iprobe) row(Ireduce) \
    row(Ireduce_scatter) row(Ireduce_scatter_block) row(Irsend) row(Iscan) row(Iscatter) row(Iscatterv) row(Issend) \
    row(Lookup_name) row(Message_c2f) row(Message_f2c) row(Mprobe) row(Mrecv) row(Neighbor_allgather) \
    row(Neighbor_allgatherv) row(Neighbor_alltoall) row(Neighbor_alltoallv) row(Neighbor_alltoallw) row(Op_c2f) \
    row(Op_commutative) row(Op_create) row(Op_f2c) row(Op_free) row(Open_port) row(Pack) row(Pack_external) \
    row(Pack_external_size) row(Pack_size) row(Probe) row(Publish_name) row(Put) row(Query_thread) row(Raccumulate) \
    row(Recv) row(Recv_init) row(Reduce) row(Reduce_local) row(Reduce_scatter_block) row(Register_datarep) \
    row(Request_c2f) row(Request_f2c) row(Request_free) row(Request_get_status) row(Rget) row(Rget_accumulate) \
    row(Rput) row(Rsend) row(Rsend_init) row(Scan) row(Scatter) row(Scatterv) row(Send) row(Send_init) \
    row(Sendrecv_replace) row(Ssend) row(Ssend_init) row(Start) row(Startall) row(Status_c2f) row(Status_f2c) \
    row(Status_set_cancelled) row(Status_set_elements) row(Status_set_elements_x) row(Test) row(Test_cancelled) \
    row(Testall) row(Testany) row(Testsome) row(Topo_test) row(Type_c2f) row(Type_commit) row(Type_contiguous) \
    row(Type_create_darray) row(Type_create_f90_complex) row(Type_create_f90_integer) row(Type_create_f90_real) \
    row(Type_create_hindexed) row(Type_create_hindexed_block) row(Type_create_hvector) row(Type_create_indexed_block) \
    row(Type_create_keyval) row(Type_create_resized) row(Type_create_struct) row(Type_create_subarray) \
    row(Type_delete_attr) row(Type_dup) row(Type_f2c) row(Type_free) row(Type_free_keyval) row(Type_get_attr) \
    row(Type_get_contents) row(Type_get_envelope) row(Type_get_extent) row(Type_get_extent_x) row(Type_get_name) \
    row(Type_get_true_extent) row(Type_get_true_extent_x) row(Type_indexed) row(Type_match_size) row(Type_set_attr) \
    row(Type_set_name) row(Type_size) row(Type_size_x) row(Type_struct) row(Type_vector) row(Unpack) \
    row(Unpack_external) row(Unpublish_name) row(Waitall) row(Waitany) row(Waitsome) row(Win_allocate) \
    row(Win_allocate_shared) row(Win_attach) row(Win_c2f) row(Win_call_errhandler) row(Win_complete) row(Win_create) \
    row(Win_create_dynamic) row(Win_create_errhandler) row(Win_create_keyval) row(Win_delete_attr) row(Win_detach) \
    row(Win_f2c) row(Win_fence) row(Win_flush) row(Win_flush_all) row(Win_flush_local) row(Win_flush_local_all) \
    row(Win_free) row(Win_free_keyval) row(Win_get_attr) row(Win_get_errhandler) row(Win_get_group) row(Win_get_info) \
    row(Win_get_name) row(Win_lock) row(Win_lock_all) row(Win_post) row(Win_set_attr) row(Win_set_errhandler) \
    row(Win_set_info) row(Win_set_name) row(Win_shared_query) row(Win_start) row(Win_sync) row(Win_test) \
    row(Win_unlock) row(Win_unlock_all) row(Win_wait) row(Wtick) row(Wtime)
/* clang-format on */

#endif
