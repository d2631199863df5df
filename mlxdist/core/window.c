#include "mlxdist/window.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "mlxdist/share.h"

/* How many chunks a rank is through with, since the window was opened; each stage on a line of its own. */
struct progress {
    struct {
        _Alignas(SEGMENT_LINE) _Atomic uint64_t chunks;
    } line[STAGES];
};

struct window {
    struct segment segment;
    struct node *node;
    int seat, seats;
    size_t chunk, part;
    struct trial trial;
    char *memory; /* a part for each seat: its progress, then WINDOW_SLOTS chunks */
    /* Of the call under way. */
    const struct call *call;
    const struct patience *patience;
    size_t chunks;
    uint64_t base; /* chunks of the calls before */
};

static size_t chunk_nbytes(int seats) {
    size_t most = (size_t)WINDOW_NBYTES / WINDOW_SLOTS / (size_t)seats / SEGMENT_LINE * SEGMENT_LINE;
    return most < WINDOW_CHUNK ? most : WINDOW_CHUNK;
}

int window_open(struct node *node, struct window **window, const struct patience *patience, struct outcome *outcome) {
    struct window *opened = calloc(1, sizeof *opened);
    *window = NULL;
    if (!opened) {
        outcome->what = OUT_OF_MEMORY;
        snprintf(outcome->text, sizeof outcome->text, "no memory for a window");
        return OUT_OF_MEMORY;
    }
    opened->node = node;
    opened->seat = node_seat(node);
    opened->seats = node_seats(node);
    opened->chunk = chunk_nbytes(opened->seats);
    opened->part = sizeof(struct progress) + WINDOW_SLOTS * opened->chunk;
    int result = NOT_SHARED;
    if (opened->seats <= WINDOW_SEATS)
        result = share(node, opened->part, 0, &opened->segment, patience, outcome);
    if (result) {
        free(opened);
        return result == NOT_SHARED ? OK : result;
    }
    opened->memory = opened->segment.memory;
    *window = opened;
    return OK;
}

void window_close(struct window *window) {
    segment_free(&window->segment);
    free(window);
}

static _Atomic uint64_t *progress_of(const struct window *window, int seat, enum stage stage) {
    return &((struct progress *)(window->memory + (size_t)seat * window->part))->line[stage].chunks;
}

char *window_slot(const struct window *window, int seat, size_t k) {
    return window->memory + (size_t)seat * window->part + sizeof(struct progress) + k % WINDOW_SLOTS * window->chunk;
}

struct trial *window_trial(struct window *window) {
    return &window->trial;
}

size_t window_chunk(const struct window *window) {
    return window->chunk;
}

void window_begin(struct window *window, const struct call *call, size_t chunks, const struct patience *patience) {
    window->call = call;
    window->base += window->chunks;
    window->chunks = chunks;
    window->patience = patience;
}

void window_announce(struct window *window, enum stage stage, size_t chunks) {
    copy_fence();
    atomic_store_explicit(progress_of(window, window->seat, stage), window->base + chunks, memory_order_release);
}

struct flags {
    struct window *window;
    enum stage stage;
    uint64_t until;
    int next; /* seats before it are there */
};

static uint64_t chunks_of(const struct flags *flags, int seat) {
    return atomic_load_explicit(progress_of(flags->window, seat, flags->stage), memory_order_acquire);
}

static int look_for_flags(void *it, int thorough, struct outcome *outcome) {
    struct flags *flags = it;
    const struct window *window = flags->window;
    while (flags->next < window->seats && chunks_of(flags, flags->next) >= flags->until)
        flags->next++;
    if (flags->next == window->seats)
        return 1;
    for (int seat = 0; thorough && seat < window->seats; seat++)
        if (node_look(window->node, seat, outcome))
            return -1;
    return 0;
}

static void describe_flags(void *it, int to_all, char *text, size_t nbytes) {
    const struct flags *flags = it;
    const struct window *window = flags->window;
    char called[200];
    if (to_all && window->seat != (flags->next == 0))
        return; /* the first seat says it, or the second where that one is awaited */
    call_text(window->call, called, sizeof called);
    snprintf(text, nbytes, "%s, in its middle: rank %d has stopped at chunk %llu of %zu", called,
             node_rank(window->node, flags->next), (unsigned long long)(chunks_of(flags, flags->next) - window->base),
             window->chunks);
}

int window_await(struct window *window, enum stage stage, size_t chunks, struct outcome *outcome) {
    struct flags flags = {window, stage, window->base + chunks, 0};
    int result = wait_for(&(struct awaited){look_for_flags, describe_flags, &flags, 0}, window->patience, outcome);
    if (result)
        node_give_up(window->node);
    return result;
}
