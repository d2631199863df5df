/* A sum in symmetric memory: symmetric_reduce between its two arrivals, and symmetric_detach with segment_detach.
 *
 * Each rank has an input and an output of a page for each rank, reduces the page of its own number, and then uses its
 * arrays for something else, whether the call has succeeded or not: it writes the
 * input and reads the output. A page shows what is in the shared memory until the rank has put its private mapping in
 * the place of the shared one and has written to that page. A step reads or writes one page. The arrivals are simple
 * here, see arrival.pml; so are timeouts, deaths, and what a step is.
 *
 *   RANKS=3       on the host
 *   IN_PLACE=0    1: the output is the input
 *   DETACH=1      0: a rank that gives up keeps the shared memory
 *   IMPATIENT=0   bit i set: rank i has a timeout
 *   VICTIMS=0     bit i set: rank i is killed at any moment
 *
 * The properties, by the names that spin prints when one is violated:
 *   input_is_read         a rank reads every other's input as it was passed
 *   result_is_complete    a rank that succeeds has the sum of all inputs in every page
 *   caller_is_left_alone  what a rank has written to its arrays or read in them after the call stays
 *   invalid end state     no rank waits forever
 *
 * DETACH=0 violates the first or the third: the model can fail. */
#ifndef RANKS
#define RANKS 3
#endif
#ifndef IN_PLACE
#define IN_PLACE 0
#endif
#ifndef DETACH
#define DETACH 1
#endif
#ifndef IMPATIENT
#define IMPATIENT 0
#endif
#ifndef VICTIMS
#define VICTIMS 0
#endif

#define bit(set, n) (((set) >> (n)) & 1)
#define IN 0
#define OUT (1 - IN_PLACE)
#define at(i, array, page) (((i) * 2 + (array)) * RANKS + (page))

/* Of a page: nothing yet, the input as it was passed, the sum of all inputs, or what the caller writes later. */
#define NOTHING 0
#define INPUT 1
#define SUM 2
#define OTHER 3
byte shared[2 * RANKS * RANKS];
byte private[2 * RANKS * RANKS];
bool is_replaced[RANKS];              /* its mapping */
bool is_private[2 * RANKS * RANKS];   /* the page has been written since */
#define seen(i, array, page) \
    (is_private[at(i, array, page)] -> private[at(i, array, page)] : shared[at(i, array, page)])

bool has_given_up[RANKS], lives[RANKS] = true;
byte arrived[RANKS];

/* What only the properties need to know. */
byte left_there[2 * RANKS * RANKS];
byte ended;
bool has_ended[RANKS];
hidden byte input_is_read, result_is_complete, caller_is_left_alone;

inline arrive(k) {
    arrived[me] = k;
    do
    :: atomic { i < RANKS && arrived[i] >= k -> i++ }
    :: atomic { i == RANKS -> i = 0; break }
    :: atomic { i < RANKS && arrived[i] < k && (has_given_up[i] || !lives[i] || bit(IMPATIENT, me)) -> failed = true; break }
    od;
    i = 0;
    if
    :: failed -> has_given_up[me] = true; goto give_up
    :: else
    fi
}

inline reduce() {
    do
    :: i < RANKS ->
        d_step {
            input_is_read = shared[at(i, IN, me)] == INPUT;
            assert(input_is_read);
            i++
        }
    :: else -> i = 0; break
    od;
    do
    :: i < RANKS -> shared[at(i, OUT, me)] = SUM; i++
    :: else -> i = 0; break
    od
}

inline own(array, page) {
    d_step {
        private[at(me, array, page)] = seen(me, array, page);
        is_private[at(me, array, page)] = true
    }
}

inline detach() {
    is_replaced[me] = true;
    do
    :: i < RANKS -> own(OUT, i); i++ /* in the input nobody else writes */
    :: else -> i = 0; break
    od
}

inline use(array, page) {
    d_step {
        if
        :: array == IN && is_replaced[me] -> own(array, page); private[at(me, array, page)] = OTHER
        :: array == IN && !is_replaced[me] -> shared[at(me, array, page)] = OTHER
        :: else
        fi;
        left_there[at(me, array, page)] = seen(me, array, page)
    }
}

inline use_arrays() {
    do
    :: i < RANKS -> use(IN, i); use(OUT, i); i++
    :: else -> i = 0; break
    od
}

proctype rank(byte me) {
    byte i;
    bool failed;
    {
        arrive(1);
        reduce();
        arrive(2);
        do
        :: i < RANKS ->
            d_step {
                result_is_complete = seen(me, OUT, i) == SUM;
                assert(result_is_complete);
                i++
            }
        :: else -> i = 0; break
        od;
        goto after;
give_up:
        if
        :: DETACH -> detach()
        :: else
        fi;
after:
        use_arrays();
        atomic { ended++; has_ended[me] = true }
        ended == RANKS; /* so nobody is in the call any more */
        do
        :: i < RANKS ->
            d_step {
                caller_is_left_alone = seen(me, IN, i) == left_there[at(me, IN, i)] &&
                                       seen(me, OUT, i) == left_there[at(me, OUT, i)];
                assert(caller_is_left_alone);
                i++
            }
        :: else -> break
        od
    } unless {
        !lives[me]
    }
}

proctype killer(byte victim) {
    atomic {
        lives[victim] = false;
        if
        :: !has_ended[victim] -> ended++
        :: else
        fi
    }
}

init {
    byte i, page;
    atomic {
        do
        :: i < RANKS ->
            page = 0;
            do
            :: page < RANKS -> shared[at(i, IN, page)] = INPUT; page++
            :: else -> break
            od;
            i++
        :: else -> i = 0; break
        od;
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
