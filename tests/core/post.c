/* The messages of the tests themselves: what MPI promises, and nothing more. Here one process is all ranks. */
#include "post.h"

enum { SIZE = 3, N = 90, TAGS = 3, LONG = 3 * LETTER_NBYTES + 5 };

static struct inboxes inboxes;
static struct endpoint ends[SIZE];
static struct outcome ignored;

static void open_post(void) {
    post_open(mmap(NULL, sizeof *post, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    for (int i = 0; i < SIZE; i++)
        ends[i] = (struct endpoint){{i, SIZE}, &inboxes};
}

static request_handle sent(int src, int dst, int tag, const void *data, int64_t nbytes) {
    request_handle request = 0;
    CHECK(post_send(&ends[src].comm, data, nbytes, dst, tag, &request, &ignored) == STATUS_OK);
    return request;
}

static request_handle received(int src, int dst, int tag, void *data, int64_t nbytes) {
    request_handle request = 0;
    CHECK(post_recv(&ends[dst].comm, data, nbytes, src, tag, &request, &ignored) == STATUS_OK);
    return request;
}

static int is_done(request_handle *request) {
    int done;
    CHECK(post_test(request, &done, &ignored) == STATUS_OK);
    return done;
}

/* In so many tests, if ever. */
static int is_done_in_time(request_handle *request) {
    for (int i = 0; i < 1000; i++)
        if (is_done(request))
            return 1;
    return 0;
}

/* From two ranks to the third, with receives that are posted before and after, and tested in another order. */
static void in_order(void) {
    static int data[N], got[N];
    request_handle sends[N], recvs[N];
    int n_done = 0, overtakers = 0, last_done = 0;
    open_post();
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < N; i++) {
            data[i] = i;
            if (i % 2 == round)
                recvs[i] = received(i % 2, 2, i % TAGS, &got[i], sizeof got[i]);
            if (round == 0)
                sends[i] = sent(i % 2, 2, i % TAGS, &data[i], sizeof data[i]);
        }
    while (n_done < N)
        for (int i = N - 1; i >= 0; i--)
            if (recvs[i] && is_done(&recvs[i])) {
                CHECK(got[i] == i);
                overtakers += i > last_done;
                last_done = i;
                n_done++;
            }
    CHECK(overtakers);
    for (int i = 0; i < N; i++)
        CHECK(is_done(&sends[i]));
    CHECK(!all_pending);
}

/* Its length is the message's; the rest of the buffer stays as it is. */
static void of_any_length(void) {
    static const int64_t lengths[] = {0, 1, 1 << 14, (1 << 14) + 1, LETTER_NBYTES, LETTER_NBYTES + 1, LONG};
    static char data[LONG], got[LONG + 1];
    open_post();
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        int64_t nbytes = lengths[i];
        memset(data, 1, sizeof data);
        memset(got, 3, sizeof got);
        request_handle send = sent(0, 1, 5, data, nbytes), recv;
        int is_eager = nbytes <= eager_nbytes;
        CHECK(is_done_in_time(&send) == is_eager);
        memset(data, 2, sizeof data);
        recv = received(0, 1, 5, got, sizeof got);
        CHECK(is_done_in_time(&recv) && is_done_in_time(&send));
        for (int64_t k = 0; k <= LONG; k++)
            CHECK(got[k] == (k >= nbytes ? 3 : is_eager ? 1 : 2));
    }
}

/* Only a few are sent before they are received. What is never tested moves when something else is. */
static void few_are_eager(void) {
    static char data[MOST_EAGER + 1], got[MOST_EAGER + 1];
    request_handle sends[MOST_EAGER + 1], other;
    open_post();
    memset(data, 1, sizeof data);
    for (int i = 0; i <= MOST_EAGER; i++)
        sends[i] = sent(0, 1, i, &data[i], 1);
    for (int i = 0; i < MOST_EAGER; i++)
        CHECK(is_done(&sends[i]));
    CHECK(!is_done_in_time(&sends[MOST_EAGER]));
    for (int i = 0; i <= MOST_EAGER; i++)
        received(0, 1, i, &got[i], 1);
    other = received(2, 1, 0, data, 1);
    CHECK(!is_done_in_time(&other) && !memcmp(data, got, sizeof got));
    CHECK(is_done(&sends[MOST_EAGER]));
}

static int is_of_one(int from, int tag) {
    (void)tag;
    return from == 1;
}

/* Looked for, found and received, from a certain rank and from any. */
static void found(void) {
    struct message message;
    request_handle request;
    int is_found = 0, got = 0, one = 1, two = 2;
    open_post();
    CHECK(post_look(&ends[0].comm, -1, 7, &is_found, &ignored) == STATUS_OK && !is_found);
    is_lost = is_of_one;
    sent(1, 0, 7, &one, sizeof one);
    sent(2, 0, 7, &two, sizeof two);
    while (!is_found)
        CHECK(post_look(&ends[0].comm, -1, 7, &is_found, &ignored) == STATUS_OK);
    CHECK(post_look(&ends[0].comm, 1, 7, &is_found, &ignored) == STATUS_OK && !is_found);
    CHECK(post_probe(&ends[0].comm, 2, 8, &is_found, &message, &ignored) == STATUS_OK && !is_found);
    CHECK(post_probe(&ends[0].comm, -1, 7, &is_found, &message, &ignored) == STATUS_OK && is_found);
    CHECK(post_look(&ends[0].comm, -1, 7, &is_found, &ignored) == STATUS_OK && !is_found);
    CHECK(message.nbytes == sizeof two);
    CHECK(post_recv_found(&got, &message, &request, &ignored) == STATUS_OK);
    CHECK(is_done_in_time(&request) && got == 2);
    is_lost = NULL;
    request = received(-1, 0, 7, &got, sizeof got);
    CHECK(is_done_in_time(&request) && got == 1);
}

/* A process may end at any time. */
static void of_the_dead(void) {
    int status;
    open_post();
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        lock_post();
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    lock_post();
    unlock_post();
    lock_post();
    unlock_post();
}

PROGRAM({"in-order", in_order}, {"of-any-length", of_any_length}, {"few-are-eager", few_are_eager}, {"found", found},
        {"of-the-dead", of_the_dead})
