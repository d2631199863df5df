/* Communicators: a part of mpi_impl.h. */
struct mpi_comm {
    struct comm base;
    MPI_Comm comm;
};

static MPI_Comm comm_of(struct comm *comm) {
    return ((struct mpi_comm *)comm)->comm;
}

static MPI_Comm world_comm; /* our duplicate */

/* A communicator that cannot be wrapped is freed. */
static int wrap(MPI_Comm comm, struct comm **wrapped, struct outcome *outcome) {
    struct mpi_comm *created = malloc(sizeof *created);
    if (!created) {
        mpi.Comm_free(&comm);
        return out_of_memory(outcome, sizeof *created);
    }
    created->comm = comm;
    if (CALL(Comm_set_errhandler, comm, mpi.ERRORS_RETURN) || CALL(Comm_rank, comm, &created->base.rank) ||
        CALL(Comm_size, comm, &created->base.size)) {
        mpi.Comm_free(&comm);
        free(created);
        return outcome->status;
    }
    *wrapped = &created->base;
    return STATUS_OK;
}

/* Non-blocking, since some of the processes may not take part: it can be given up, and taken up again. */
static int duplicate_world(MPI_Comm of, await_function *await_world, struct outcome *outcome) {
    static int is_pending;
    static MPI_Comm pending_of;
    static request_handle pending;
    MPI_Request begun;
    if (!is_pending) {
        if (CALL(Comm_idup, of, &world_comm, &begun))
            return outcome->status;
        pending = (request_handle)begun;
        pending_of = of;
        is_pending = 1;
    }
    if (pending_of != of) {
        outcome->status = STATUS_LIBRARY_UNFIT;
        snprintf(outcome->text, sizeof outcome->text,
                 "an earlier call that was given up began with other ranks: call it with those again");
        return STATUS_LIBRARY_UNFIT;
    }
    if (await_world(&pending, outcome))
        return outcome->status;
    is_pending = 0;
    return STATUS_OK;
}

static int split(struct comm *comm, int color, int key, struct comm **part, struct outcome *outcome) {
    MPI_Comm created;
    if (CALL(Comm_split, comm_of(comm), color, key, &created))
        return outcome->status;
    return wrap(created, part, outcome);
}

static int create(struct comm *comm, const int *ranks, int n, int tag, struct comm **part, struct outcome *outcome) {
    MPI_Group all, some;
    MPI_Comm created;
    if (CALL(Comm_group, comm_of(comm), &all) || CALL(Group_incl, all, n, ranks, &some) ||
        CALL(Comm_create_group, comm_of(comm), some, tag, &created) || wrap(created, part, outcome) ||
        CALL(Group_free, &some) || CALL(Group_free, &all))
        return outcome->status;
    return STATUS_OK;
}

static int translate(MPI_Group from, MPI_Group to, int most, int *ranks, int *n, struct outcome *outcome) {
    if (CALL(Group_size, from, n))
        return outcome->status;
    for (int i = 0; i < *n && i < most; i++)
        if (CALL(Group_translate_ranks, from, 1, &i, to, &ranks[i]))
            return outcome->status;
    return STATUS_OK;
}

static int ranks_of(struct comm *comm, comm_handle other, int *ranks, int *n, struct outcome *outcome) {
    MPI_Group own, its;
    if (CALL(Comm_group, comm_of(comm), &own) || CALL(Comm_group, (MPI_Comm)other, &its) ||
        translate(its, own, comm->size, ranks, n, outcome) || CALL(Group_free, &its) || CALL(Group_free, &own))
        return outcome->status;
    return STATUS_OK;
}

static int split_host(struct comm *comm, struct comm **part, struct outcome *outcome) {
    MPI_Comm created;
    if (CALL(Comm_split_type, comm_of(comm), (int)mpi.COMM_TYPE_SHARED, comm->rank, mpi.INFO_NULL, &created))
        return outcome->status;
    return wrap(created, part, outcome);
}

static int release(struct comm *comm, struct outcome *outcome) {
    MPI_Comm freed = comm_of(comm);
    free(comm);
    return is_over() ? STATUS_OK : CALL(Comm_free, &freed);
}
