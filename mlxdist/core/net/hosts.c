#include "mlxdist/net/hosts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What each rank tells the others. */
struct rank_entry {
    int32_t lowest; /* rank of its host */
    char name[HOST_NAME];
};
_Static_assert(sizeof(struct rank_entry) == 64, "ranks exchange it: when it changes, raise SHM_LAYOUT");

static void add_host(struct hosts *hosts, const struct rank_entry *entries, int lowest, int own_rank) {
    struct host *host = &hosts->each[hosts->n];
    host->first = hosts->n ? host[-1].first + host[-1].size : 0;
    memcpy(host->name, entries[lowest].name, sizeof host->name);
    for (int rank = lowest; rank < hosts->size; rank++) {
        if (entries[rank].lowest != lowest)
            continue;
        if (rank == own_rank)
            hosts->mine = hosts->n, hosts->position = host->first + host->size;
        hosts->ranks[host->first + host->size++] = rank;
    }
    hosts->largest = host->size > hosts->largest ? host->size : hosts->largest;
    hosts->n++;
}

static int sort_ranks(struct comm *comm, const struct rank_entry *entries, struct hosts **hosts) {
    int n = 0;
    for (int rank = 0; rank < comm->size; rank++)
        n += entries[rank].lowest == rank;
    struct hosts *opened = calloc(1, sizeof *opened + (size_t)n * sizeof *opened->each);
    if (!opened || !(opened->ranks = malloc((size_t)comm->size * sizeof *opened->ranks))) {
        free(opened);
        return STATUS_OUT_OF_MEMORY;
    }
    opened->size = comm->size;
    for (int rank = 0; rank < comm->size; rank++)
        if (entries[rank].lowest == rank)
            add_host(opened, entries, rank, comm->rank);
    opened->rails = opened->largest < HOSTS_MAX_RAILS ? opened->largest : HOSTS_MAX_RAILS;
    *hosts = opened;
    return STATUS_OK;
}

int hosts_open(struct comm *comm, const struct shm *shm, struct hosts **hosts, struct outcome *outcome) {
    struct rank_entry own = {shm ? shm_rank(shm, 0) : comm->rank, ""};
    struct rank_entry *entries = malloc((size_t)comm->size * sizeof *entries);
    gethostname(own.name, sizeof own.name - 1);
    int result = entries ? TRANSPORT(allgather, comm, &own, entries, sizeof own, outcome) : STATUS_OUT_OF_MEMORY;
    if (!result)
        result = sort_ranks(comm, entries, hosts);
    if (result == STATUS_OUT_OF_MEMORY) {
        outcome->status = result;
        snprintf(outcome->text, sizeof outcome->text, "no memory for the hosts of %d ranks: free some", comm->size);
    }
    free(entries);
    return result;
}

void hosts_close(struct hosts *hosts) {
    free(hosts->ranks);
    free(hosts);
}

int hosts_of_rank(const struct hosts *hosts, int rank) {
    int position = 0, host = 0;
    while (hosts->ranks[position] != rank)
        position++;
    while (position >= hosts->each[host].first + hosts->each[host].size)
        host++;
    return host;
}

void hosts_describe(const struct hosts *hosts, int host, char *text, size_t nbytes) {
    enum { SHOWN = 8 };
    const struct host *described = &hosts->each[host];
    size_t used = strlen(text);
    used += (size_t)snprintf(text + used, nbytes - used, "host %s (rank%s", described->name,
                             described->size == 1 ? "" : "s");
    for (int i = 0; i < described->size && used < nbytes; i++) {
        if (i == SHOWN) {
            used += (size_t)snprintf(text + used, nbytes - used, ", ...");
            break;
        }
        used += (size_t)snprintf(text + used, nbytes - used, "%s %d", i ? "," : "", hosts->ranks[described->first + i]);
    }
    if (used < nbytes)
        snprintf(text + used, nbytes - used, ")");
}
