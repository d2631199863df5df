/* The collectives of a transport; a part of mpi_impl.h. */

static int completed(int result, MPI_Request *begun, struct outcome *outcome) {
    if (result)
        return result;
    request_handle request = (request_handle)*begun;
    return await_request(&request, outcome);
}

/* Where one thread at a time may call, the others must be let in while a collective waits for other ranks: so it is
 * only started, by its non-blocking form, and then awaited. */
#define COLLECTIVE(blocking, starting, ...) \
    (await_request ? completed(CALL(starting, __VA_ARGS__, &begun), &begun, outcome) : CALL(blocking, __VA_ARGS__))

static int64_t piece(int64_t left) {
    return left < max_count ? left : max_count;
}

/* Open MPI has no functions with counts beyond an int (5.0.11), so long arrays go in pieces, with every library. */
static int allreduce(struct comm *comm, const void *sendbuf, void *recvbuf, int64_t count, enum element_type type,
                     enum reduction op, struct outcome *outcome) {
    const char *from = sendbuf;
    char *to = recvbuf;
    MPI_Request begun;
    int64_t done = 0;
    do {
        int64_t n = piece(count - done), offset = done * (int64_t)element_size(type);
        const void *piece_in = sendbuf == recvbuf ? (const void *)mpi.IN_PLACE : from + offset;
        if (COLLECTIVE(Allreduce, Iallreduce, piece_in, to + offset, (int)n, datatypes[type], ops[type][op],
                       comm_of(comm)))
            return outcome->status;
        done += n;
    } while (done < count);
    return STATUS_OK;
}

static int reduce_to_root(struct comm *comm, const void *sendbuf, void *recvbuf, int64_t count, enum element_type type,
                          enum reduction op, int root, struct outcome *outcome) {
    int is_root = comm->rank == root, is_in_place = is_root && sendbuf == recvbuf;
    MPI_Request begun;
    int64_t done = 0;
    do {
        int64_t n = piece(count - done), offset = done * (int64_t)element_size(type);
        const void *piece_in = is_in_place ? (const void *)mpi.IN_PLACE : (const char *)sendbuf + offset;
        void *piece_out = is_root ? (char *)recvbuf + offset : NULL;
        if (COLLECTIVE(Reduce, Ireduce, piece_in, piece_out, (int)n, datatypes[type], ops[type][op], root,
                       comm_of(comm)))
            return outcome->status;
        done += n;
    } while (done < count);
    return STATUS_OK;
}

/* The end of a call whose result went to memory of its own, NULL if there is none. */
static int copied_back(int result, void *apart, void *recvbuf, int64_t nbytes, struct outcome *outcome) {
    if (!apart)
        return out_of_memory(outcome, nbytes);
    if (!result)
        memcpy(recvbuf, apart, (size_t)nbytes);
    free(apart);
    return result;
}

static int reduce_scatter(struct comm *comm, const void *sendbuf, void *recvbuf, int64_t count, enum element_type type,
                          enum reduction op, struct outcome *outcome) {
    const char *from = sendbuf;
    char *to = recvbuf;
    MPI_Request begun;
    int64_t size = (int64_t)element_size(type);
    if (to == from + comm->rank * count * size && count) {
        /* With MPI_IN_PLACE the result would be at the beginning of the input. */
        void *apart = malloc((size_t)(count * size));
        int result = apart ? reduce_scatter(comm, sendbuf, apart, count, type, op, outcome) : STATUS_OUT_OF_MEMORY;
        return copied_back(result, apart, recvbuf, count * size, outcome);
    }
    if (count * comm->size <= max_count)
        return COLLECTIVE(Reduce_scatter_block, Ireduce_scatter_block, sendbuf, recvbuf, (int)count, datatypes[type],
                          ops[type][op], comm_of(comm));
    for (int root = 0; root < comm->size; root++)
        if (reduce_to_root(comm, from + root * count * size, to, count, type, op, root, outcome))
            return outcome->status;
    return STATUS_OK;
}

static int allgather(struct comm *comm, const void *sendbuf, void *recvbuf, int64_t nbytes, struct outcome *outcome) {
    struct span span;
    MPI_Request begun;
    const void *own = (const char *)recvbuf + comm->rank * nbytes;
    const void *from = sendbuf == own ? (const void *)mpi.IN_PLACE : sendbuf;
    if (make_span(nbytes, &span, outcome))
        return outcome->status;
    return free_span(COLLECTIVE(Allgather, Iallgather, from, span.count, span.datatype, recvbuf, span.count,
                                span.datatype, comm_of(comm)),
                     &span, outcome);
}

static int alltoall(struct comm *comm, const void *sendbuf, void *recvbuf, int64_t nbytes, struct outcome *outcome) {
    struct span span;
    MPI_Request begun;
    if (sendbuf == recvbuf && nbytes) {
        /* MPI_IN_PLACE is for all ranks or none. */
        void *apart = malloc((size_t)(comm->size * nbytes));
        int result = apart ? alltoall(comm, sendbuf, apart, nbytes, outcome) : STATUS_OUT_OF_MEMORY;
        return copied_back(result, apart, recvbuf, comm->size * nbytes, outcome);
    }
    if (make_span(nbytes, &span, outcome))
        return outcome->status;
    return free_span(COLLECTIVE(Alltoall, Ialltoall, sendbuf, span.count, span.datatype, recvbuf, span.count,
                                span.datatype, comm_of(comm)),
                     &span, outcome);
}

static int gather(struct comm *comm, const void *sendbuf, void *recvbuf, int64_t nbytes, int root,
                  struct outcome *outcome) {
    struct span span;
    MPI_Request begun;
    int is_in_place = comm->rank == root && sendbuf == (const char *)recvbuf + root * nbytes;
    if (make_span(nbytes, &span, outcome))
        return outcome->status;
    return free_span(COLLECTIVE(Gather, Igather, is_in_place ? (const void *)mpi.IN_PLACE : sendbuf, span.count,
                                span.datatype, recvbuf, span.count, span.datatype, root, comm_of(comm)),
                     &span, outcome);
}

static int scatter(struct comm *comm, const void *sendbuf, void *recvbuf, int64_t nbytes, int root,
                   struct outcome *outcome) {
    struct span span;
    MPI_Request begun;
    int is_in_place = comm->rank == root && recvbuf == (const char *)sendbuf + root * nbytes;
    if (make_span(nbytes, &span, outcome))
        return outcome->status;
    return free_span(COLLECTIVE(Scatter, Iscatter, sendbuf, span.count, span.datatype,
                                is_in_place ? (void *)mpi.IN_PLACE : recvbuf, span.count, span.datatype, root,
                                comm_of(comm)),
                     &span, outcome);
}

static int broadcast(struct comm *comm, void *buf, int64_t nbytes, int root, struct outcome *outcome) {
    struct span span;
    MPI_Request begun;
    if (make_span(nbytes, &span, outcome))
        return outcome->status;
    return free_span(COLLECTIVE(Bcast, Ibcast, buf, span.count, span.datatype, root, comm_of(comm)), &span, outcome);
}

static int barrier(struct comm *comm, struct outcome *outcome) {
    MPI_Request begun;
    return COLLECTIVE(Barrier, Ibarrier, comm_of(comm));
}
