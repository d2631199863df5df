/* Long calls through the staging buffer: pipeline_run with run_allreduce or run_others, and staging_announce,
 * staging_await and poll_progress. Each rank makes two calls, one after the other, and then leaves.
 *
 * What takes a while is two steps, its beginning and its end: copying one chunk in and another out, and reducing, which
 * reads this rank's share of all other ranks' chunks. As pieces differ in length, so do the shares: copying a chunk in
 * may overwrite what was published in that slot. The arrival at a call is simple here, see arrival.pml; so are
 * timeouts, deaths, and what a step is.
 *
 *   RANKS=3       on the host
 *   SLOTS=4       of each rank: STAGING_SLOTS
 *   PIECES=5      of the first call
 *   PIECES2=3     of the second
 *   OTHERS=0      bit c set: call c, 0 or 1, goes by run_others, else by run_allreduce
 *   IMPATIENT=0   bit i set: rank i has a timeout
 *   VICTIMS=0     bit i set: rank i is killed at any moment, perhaps after it has left
 *
 * The properties, by the names that spin prints when one is violated:
 *   nobody_reads_it     nobody reads a slot while it is overwritten
 *   chunk_is_there      a rank that reads a slot finds the chunk that it is at
 *   there_is_a_reason   a rank fails because of its timeout, because one is killed, or because one has given up or
 *                       left before it was through with this call; not because another rank has finished this call, and
 *                       left or given up since
 *   invalid end state   no rank waits forever
 *
 * One of the first two is violated with SLOTS=2 by run_allreduce, which needs three, and with SLOTS=1 by run_others,
 * which needs two: the model can fail. */
#ifndef RANKS
#define RANKS 3
#endif
#ifndef SLOTS
#define SLOTS 4
#endif
#ifndef PIECES
#define PIECES 5
#endif
#ifndef PIECES2
#define PIECES2 3
#endif
#ifndef OTHERS
#define OTHERS 0
#endif
#ifndef IMPATIENT
#define IMPATIENT 0
#endif
#ifndef VICTIMS
#define VICTIMS 0
#endif

/* A slot has room for both: what a rank has copied in for the others, and the share that it has reduced for them. */
#define COPIED_IN 0
#define REDUCED 1
#define STAGES 2

#define NONE 255 /* no slot, no chunk */
#define HALF 254 /* of a chunk is written */
#define EVERYBODY ((1 << RANKS) - 1)
#define bit(set, n) (((set) >> (n)) & 1)
#define chunk(k) (base + (k))
#define pieces (call == 0 -> PIECES : PIECES2)

/* Shared memory, and what the system knows. */
mtype = { JOINED, GAVE_UP, LEFT };
mtype state[RANKS] = JOINED;
bool lives[RANKS] = true; /* its lock is held */
byte arrived[RANKS];      /* at so many calls */
byte chunks[STAGES * RANKS];
byte slots[STAGES * RANKS * SLOTS] = NONE;
#define progress(stage, i) chunks[(stage) * RANKS + i]
#define content(stage, i, k) slots[((stage) * RANKS + i) * SLOTS + (k) % SLOTS]

/* What only the properties need to know. */
byte reading[STAGES * RANKS] = NONE;
#define reads(stage, i) reading[(stage) * RANKS + i] /* the slot that rank i reads, of every other rank */
byte finished[RANKS];                                /* so many calls */
byte news = EVERYBODY; /* bit i: one has gone since rank i last looked; without news it would see the same */
hidden byte peer;
hidden byte nobody_reads_it, chunk_is_there, there_is_a_reason;

#define is_gone(i) (state[i] != JOINED || !lives[i])

inline check_there_is_a_reason() {
    there_is_a_reason = false;
    peer = 0;
    do
    :: peer < RANKS ->
        there_is_a_reason = there_is_a_reason || (is_gone(peer) && finished[peer] <= call) ||
                            (!lives[peer] && state[peer] != LEFT);
        peer++
    :: else -> break
    od;
    assert(there_is_a_reason)
}

inline check_nobody_reads(stage, k) {
    nobody_reads_it = true;
    peer = 0;
    do
    :: peer < RANKS ->
        nobody_reads_it = nobody_reads_it && !(peer != me && lives[peer] && reads(stage, peer) == (k) % SLOTS);
        peer++
    :: else -> break
    od;
    assert(nobody_reads_it)
}

inline check_chunk_is_there(stage, k) {
    chunk_is_there = true;
    peer = 0;
    do
    :: peer < RANKS -> chunk_is_there = chunk_is_there && (peer == me || content(stage, peer, k) == chunk(k)); peer++
    :: else -> break
    od;
    assert(chunk_is_there)
}

inline copy_in_and_out(is_in, in, is_out, out) {
    d_step {
        if
        :: is_in ->
            check_nobody_reads(COPIED_IN, in);
            check_nobody_reads(REDUCED, in);
            content(COPIED_IN, me, in) = HALF;
            content(REDUCED, me, in) = NONE
        :: else
        fi;
        if
        :: is_out ->
            check_chunk_is_there(REDUCED, out);
            reads(REDUCED, me) = (out) % SLOTS
        :: else
        fi
    }
    d_step {
        reads(REDUCED, me) = NONE;
        if
        :: is_in -> content(COPIED_IN, me, in) = chunk(in)
        :: else
        fi
    }
}

inline reduce_share() {
    d_step {
        check_chunk_is_there(COPIED_IN, k);
        check_nobody_reads(REDUCED, k);
        reads(COPIED_IN, me) = k % SLOTS;
        content(REDUCED, me, k) = HALF
    }
    d_step {
        reads(COPIED_IN, me) = NONE;
        content(REDUCED, me, k) = chunk(k)
    }
}

/* copy_in_and_reduce, or copy_in_and_gather where every rank gives something. */
inline pass() {
    d_step {
        if
        :: k < pieces ->
            check_nobody_reads(COPIED_IN, k);
            content(COPIED_IN, me, k) = HALF;
            content(REDUCED, me, k) = NONE
        :: else
        fi;
        if
        :: k > 0 ->
            check_chunk_is_there(COPIED_IN, k - 1);
            reads(COPIED_IN, me) = (k - 1) % SLOTS
        :: else
        fi
    }
    d_step {
        reads(COPIED_IN, me) = NONE;
        if
        :: k < pieces -> content(COPIED_IN, me, k) = chunk(k)
        :: else
        fi
    }
}

/* A rank may have finished this call before it went: what is still missing after it was found gone counts. */
inline poll_who_is_gone() {
    do
    :: atomic { i < RANKS && !is_gone(i) -> i++ }
    :: atomic { i < RANKS && is_gone(i) -> found = true; i = 0; break }
    :: atomic { i == RANKS -> i = 0; break }
    od
}

inline await(stage, n) {
    do
    :: atomic { next < RANKS && progress(stage, next) >= chunk(n) -> next++ }
    :: next == RANKS -> break
    :: atomic { next < RANKS && progress(stage, next) < chunk(n) && found ->
            check_there_is_a_reason();
            failed = true;
            break
        }
    :: atomic { next < RANKS && bit(IMPATIENT, me) && !found -> failed = true; break }
    :: atomic { next < RANKS && bit(news, me) && !found -> news = news & ~(1 << me) }
        poll_who_is_gone()
    od;
    atomic { next = 0; found = false; news = news | (1 << me) }
    if
    :: failed -> goto give_up
    :: else
    fi
}

inline announce(stage, n) {
    progress(stage, me) = chunk(n)
}

inline run_allreduce() {
    copy_in_and_out(true, 0, false, 0);
    announce(COPIED_IN, 1);
    do
    :: k < pieces ->
        if
        :: k > 0 -> await(REDUCED, k)
        :: else
        fi;
        copy_in_and_out(k + 1 < pieces, k + 1, k > 0, k - 1);
        announce(COPIED_IN, k + 2);
        await(COPIED_IN, k + 1);
        reduce_share();
        announce(REDUCED, k + 1);
        k++
    :: else -> break
    od;
    await(REDUCED, pieces);
    copy_in_and_out(false, 0, true, pieces - 1)
}

inline run_others() {
    do
    :: k <= pieces ->
        if
        :: k > 0 -> await(COPIED_IN, k)
        :: else
        fi;
        pass();
        announce(COPIED_IN, k + 1);
        k++
    :: else -> break
    od
}

inline arrive() {
    arrived[me] = call + 1;
    do
    :: atomic { next < RANKS && arrived[next] > call -> next++ }
    :: next == RANKS -> break
    :: atomic { next < RANKS && arrived[next] <= call && (is_gone(next) || bit(IMPATIENT, me)) -> failed = true; break }
    od;
    next = 0;
    if
    :: failed -> goto give_up
    :: else
    fi
}

proctype rank(byte me) {
    byte call, base, k, i, next;
    bool found, failed;
    {
        do
        :: call < 2 ->
            arrive();
            if
            :: bit(OTHERS, call) -> run_others()
            :: else -> run_allreduce()
            fi;
            atomic { finished[me] = call + 1; base = base + pieces + 1; k = 0; call++ }
        :: else -> break
        od;
        goto leave;
    give_up:
        atomic { state[me] = GAVE_UP; news = EVERYBODY }
        if
        :: true
        :: goto stay /* its program goes on without this group */
        fi;
    leave:
        atomic { state[me] = LEFT; lives[me] = false; news = EVERYBODY }
    stay:
        skip
    } unless {
        !lives[me] && state[me] != LEFT
    }
}

proctype killer(byte victim) {
    atomic { lives[victim] = false; news = EVERYBODY }
}

init {
    byte i;
    atomic {
        do
        :: i < RANKS ->
            run rank(i);
            if
            :: bit(VICTIMS, i) -> run killer(i)
            :: else
            fi;
            i++
        :: else -> break
        od
    }
}
