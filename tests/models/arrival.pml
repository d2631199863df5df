/* How the ranks of a host arrive together: node_arrive with poll_arrivals, check_all, did_its_part, reach_consensus,
 * consensus_decide and peer_died; then the payloads are read, as in slots_run.
 *
 * All ranks make the same calls. A rank that waits may run into its timeout or be interrupted. It may be killed
 * anywhere, and it may leave instead of making the next call. After an error it leaves, or stays and never calls again.
 *
 * A step reads or writes one word that others write, and steps of different ranks interleave in every order. Two reads
 * are one step only where nothing can happen in between that matters: a rank that is dead no longer changes its state.
 * Memory is sequentially consistent here: the tests with the thread sanitizer and on arm64 test acquire and
 * release. What the properties alone need to know is in one step with what the code does.
 *
 *   RANKS=3       on the host
 *   ARRIVALS=3    of each rank
 *   SLOTS=2       of each rank, used in turn
 *   COMMIT=0      bit k set: arrival k is a commit arrival
 *   CONSENSUS=1   0: after a commit arrival each rank does what it has seen itself
 *   IMPATIENT=0   bit i set: rank i has a timeout
 *   QUITTERS=0    bit i set: rank i may leave before its last arrival
 *   VICTIMS=0     bit i set: rank i is killed at any moment, perhaps after it has left
 *   DIFFER=0      the arrival at which the ranks' calls differ
 *
 * The properties, by the names that spin prints when one is violated:
 *   nobody_reads_it      nobody reads a slot while it is overwritten
 *   payload_is_current   a rank that goes on finds what every rank published with this arrival
 *   all_or_none          after a commit arrival all ranks go on or none does, unless one is killed
 *   calls_are_the_same   no rank goes on where the calls differ
 *   there_is_a_reason    a rank fails because of its timeout, or because another has not arrived and never will, is
 *                        killed, calls something else or gives up a commit arrival; not because another rank has gone
 *                        on, and has left or given up since
 *   invalid end state    no rank waits forever
 *
 * SLOTS=1 violates one of the first two, CONSENSUS=0 with a commit arrival the third: the model can fail. */
#ifndef RANKS
#define RANKS 3
#endif
#ifndef ARRIVALS
#define ARRIVALS 3
#endif
#ifndef SLOTS
#define SLOTS 2
#endif
#ifndef COMMIT
#define COMMIT 0
#endif
#ifndef CONSENSUS
#define CONSENSUS 1
#endif
#ifndef IMPATIENT
#define IMPATIENT 0
#endif
#ifndef QUITTERS
#define QUITTERS 0
#endif
#ifndef VICTIMS
#define VICTIMS 0
#endif
#ifndef DIFFER
#define DIFFER 0
#endif

#define NONE 255 /* no slot, no payload */
#define HALF 254 /* of a payload is written */
#define EVERYBODY ((1 << RANKS) - 1)
#define bit(set, n) (((set) >> (n)) & 1)
#define slot(i, k) ((i) * SLOTS + (k) % SLOTS)
#define commit bit(COMMIT, k)

/* Shared memory, and what the system knows. */
mtype = { JOINED, GAVE_UP, LEFT };
mtype state[RANKS] = JOINED;
bool lives[RANKS] = true;           /* its lock is held */
byte payload[RANKS * SLOTS] = NONE; /* of which arrival it is */
byte arrived[RANKS * SLOTS];
byte consensus; /* 2 k: all go on after arrival k; 2 k + 1: none does */

/* What only the properties need to know. */
byte reads[RANKS] = NONE;      /* the slot that rank i reads, of every rank */
byte went_on, failed, gave_up; /* bit k: a rank did in commit arrival k */
byte news = EVERYBODY;         /* bit i: one has gone since rank i last looked; without news it would see the same */
hidden byte peer;
hidden byte nobody_reads_it, payload_is_current, all_or_none, calls_are_the_same, there_is_a_reason;
hidden byte all_arrived, one_was_killed;

#define has_arrived(i) (arrived[slot(i, k)] >= k)
#define is_gone(i) (state[i] != JOINED || !lives[i])

mtype = { OK, TIMED_OUT, PEER_DIED, MISMATCH };

/* Blames a rank that has died rather than one that has given up or left. */
inline check_all() {
    i = 0;
    do
    :: i < RANKS ->
        if
        :: atomic { !is_gone(i) -> i++ }
        :: atomic { is_gone(i) -> seen = state[i] }
            if
            :: atomic { !commit && has_arrived(i) && seen != JOINED -> seen = 0; i++ } /* did_its_part */
            :: atomic { else ->
                   if
                   :: seen == JOINED -> result = PEER_DIED
                   :: seen == GAVE_UP && result == OK -> result = PEER_DIED
                   :: seen == LEFT && result == OK -> result = MISMATCH
                   :: else
                   fi;
                   i = (seen == JOINED -> RANKS : i + 1);
                   seen = 0
               }
            fi
        fi
    :: else -> break
    od;
    i = 0
}

inline wait_for_arrivals() {
    do
    :: atomic { next < RANKS && has_arrived(next) -> next++ }
    :: atomic { next == RANKS -> next = 0; break }
    :: atomic { next < RANKS && bit(IMPATIENT, me) ->
            result = TIMED_OUT;
            gave_up = gave_up | (commit << k);
            next = 0;
            break
        }
    :: atomic { next < RANKS && bit(news, me) -> news = news & ~(1 << me) }
        check_all();
        atomic {
            if
            :: result != OK -> next = 0; break
            :: else
            fi
        }
    od;
    news = news | (1 << me)
}

/* to_give_up: what this rank would decide; then what is decided. */
inline decide() {
    do
    :: atomic { consensus / 2 < k -> consensus = 2 * k + to_give_up; break }
    :: atomic { consensus / 2 >= k -> to_give_up = (consensus / 2 == k && consensus % 2); break }
    od
}

/* A process that has left may have ended, and has not died. */
inline peer_died() {
    result = OK;
    do
    :: i < RANKS ->
        atomic {
            if
            :: !lives[i] && state[i] != LEFT -> result = PEER_DIED; break
            :: else -> i++
            fi
        }
    :: else -> break
    od;
    i = 0
}

inline reach_consensus() {
    if
    :: result == OK -> check_all()
    :: else
    fi;
    to_give_up = (result != OK);
    decide();
    if
    :: !to_give_up && result != OK -> peer_died()
    :: to_give_up && result == OK -> result = PEER_DIED
    :: else
    fi;
    to_give_up = 0
}

inline copy_in() {
    d_step {
        nobody_reads_it = true;
        peer = 0;
        do
        :: peer < RANKS -> nobody_reads_it = nobody_reads_it && !(lives[peer] && reads[peer] == k % SLOTS); peer++
        :: else -> break
        od;
        assert(nobody_reads_it);
        payload[slot(me, k)] = HALF
    }
    payload[slot(me, k)] = k
}

inline read_payloads() {
    d_step {
        payload_is_current = true;
        peer = 0;
        do
        :: peer < RANKS -> payload_is_current = payload_is_current && payload[slot(peer, k)] == k; peer++
        :: else -> break
        od;
        assert(payload_is_current);
        reads[me] = k % SLOTS
    }
    reads[me] = NONE
}

inline note_end_of_arrival() {
    d_step {
        all_arrived = true;
        one_was_killed = false;
        peer = 0;
        do
        :: peer < RANKS ->
            all_arrived = all_arrived && has_arrived(peer);
            one_was_killed = one_was_killed || (!lives[peer] && state[peer] != LEFT);
            peer++
        :: else -> break
        od;
        if
        :: result == OK -> went_on = went_on | (commit << k)
        :: else -> failed = failed | (commit << k)
        fi;
        all_or_none = !(bit(went_on, k) && bit(failed, k)) || one_was_killed;
        calls_are_the_same = !(result == OK && DIFFER == k);
        there_is_a_reason = result == OK || result == TIMED_OUT || !all_arrived || one_was_killed || DIFFER == k ||
                            bit(gave_up, k);
        assert(all_or_none);
        assert(calls_are_the_same);
        assert(there_is_a_reason)
    }
}

inline arrive() {
    k++;
    copy_in();
    arrived[slot(me, k)] = k;
    wait_for_arrivals();
    if
    :: result == OK && DIFFER == k -> result = MISMATCH
    :: else ->
        if
        :: commit && CONSENSUS -> reach_consensus()
        :: else
        fi;
        if
        :: result == TIMED_OUT || result == PEER_DIED -> atomic { state[me] = GAVE_UP; news = EVERYBODY }
        :: else
        fi
    fi;
    note_end_of_arrival()
}

proctype rank(byte me) {
    byte k, i, next;
    bool to_give_up;
    mtype result = OK, seen = 0;
    {
        do
        :: k < ARRIVALS && result == OK ->
            arrive();
            if
            :: result == OK -> read_payloads()
            :: else
            fi
        :: k < ARRIVALS && result == OK && bit(QUITTERS, me) -> break
        :: else -> break
        od;
        if
        :: atomic { state[me] = LEFT; lives[me] = false; news = EVERYBODY }
        :: result != OK /* its program goes on without this group */
        fi
    } unless {
        !lives[me]
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
