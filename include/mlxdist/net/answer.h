/* What the leader of a host has found out about a call, for the other ranks of its host. */
#ifndef MLXDIST_NET_ANSWER_H
#define MLXDIST_NET_ANSWER_H

#include "mlxdist/net/crossing.h"
#include "mlxdist/net/plan.h"

/* In memory that the ranks of the host share; zeros at first. */
struct answer;
size_t answer_nbytes(void);

/* The result of a short call, which the leader writes before it publishes. It stays until the next call. */
void *answer_data(struct answer *answer);
/* As the k-th answer: the status and the text of an outcome, which is not read if it is OK. */
void answer_publish(struct answer *answer, uint64_t k, int status, const struct outcome *outcome);
/* Wait for it, and return its status. */
int answer_await(struct answer *answer, uint64_t k, const struct crossing *crossing, struct outcome *outcome);

#endif
