/* Messages of a transport, and their requests; a part of mpi_impl.h. */

static int send(struct comm *comm, const void *sent, int64_t nbytes, int dst, int tag, request_handle *request,
                struct outcome *outcome) {
    struct span span;
    MPI_Request begun;
    if (make_span(nbytes, &span, outcome))
        return outcome->status;
    int result = CALL(Isend, sent, span.count, span.datatype, dst, tag, comm_of(comm), &begun);
    *request = (request_handle)begun;
    return free_span(result, &span, outcome);
}

static int test(request_handle *request, int *done, struct outcome *outcome) {
    MPI_Request begun = (MPI_Request)*request;
    MPI_Status status;
    int result = CALL(Test, &begun, done, &status);
    *request = (request_handle)begun;
    return result;
}

static int recv(struct comm *comm, void *recvbuf, int64_t nbytes, int src, int tag, request_handle *request,
                struct outcome *outcome) {
    struct span span;
    MPI_Request begun;
    if (make_span(nbytes, &span, outcome))
        return outcome->status;
    int result = CALL(Irecv, recvbuf, span.count, span.datatype, src, tag, comm_of(comm), &begun);
    *request = (request_handle)begun;
    return free_span(result, &span, outcome);
}

static int probe(struct comm *comm, int src, int tag, int *found, struct message *message, struct outcome *outcome) {
    MPI_Message arrived;
    MPI_Status status;
    MPI_Count nbytes = 0;
    int source = src == ANY_RANK ? (int)mpi.ANY_SOURCE : src;
    if (CALL(Improbe, source, tag, comm_of(comm), found, &arrived, &status) ||
        (*found && CALL(Get_elements_x, &status, mpi.BYTE, &nbytes)))
        return outcome->status;
    if (*found)
        *message = (struct message){(message_handle)arrived, nbytes};
    return STATUS_OK;
}

static int look(struct comm *comm, int src, int tag, int *found, struct outcome *outcome) {
    MPI_Status status;
    return CALL(Iprobe, src, tag, comm_of(comm), found, &status);
}

/* The length is known before: Open MPI 4.1 and 5.0 write a message that is too long past the end of the buffer, and
 * only then report it. */
static int recv_found(void *recvbuf, struct message *message, request_handle *request, struct outcome *outcome) {
    struct span span;
    MPI_Message arrived = (MPI_Message)message->handle;
    MPI_Request begun;
    if (make_span(message->nbytes, &span, outcome))
        return outcome->status;
    int result = CALL(Imrecv, recvbuf, span.count, span.datatype, &arrived, &begun);
    *request = (request_handle)begun;
    return free_span(result, &span, outcome);
}
