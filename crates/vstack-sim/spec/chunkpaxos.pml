/* ChunkPaxos of one chunk, for Spin: a second opinion, written apart from the code.
 *
 *   spin -a chunkpaxos.pml && cc -O2 -DSAFETY -o pan pan.c && ./pan -E -m100000
 *
 * Three nodes, three ballots. A proposer opens a ballot for two nodes, sends the bytes, gathers receipts and commits.
 * Two proposers upload, one aborts what is open; with -DREPAIR the second one repairs instead (its new part on any
 * node, the others carried over); with -DFULL there are all four, which fills more memory than a small machine has. Nodes write, sync and acknowledge in steps of their own, crash once, and delete what they are ordered to, early or late.
 * What is sent may be lost (a proposer skips it) or done late (nodes choose the moment); orders and receipts stay true.
 *
 * Each of these breaks one rule, and Spin must then find a way to break an assertion:
 *   -DIGNORE_BALLOT   R1: COMMIT does not compare its ballot with the highest granted one
 *   -DUNFENCED        R3: an open ballot's objects are collected while it can still commit
 *   -DEARLY_RECEIPT   R4: a node acknowledges before the sync
 *   -DIN_PLACE        R5: one object a chunk, written over
 * and -DNO_SECOND_EPOCH claims that nothing commits after the first COMMIT, so that a spec that does nothing would show.
 */
#define NODES   3
#define BALLOTS 4                       /* 1 to 3 are granted; 0 stands for none */
#define LEAST   2                       /* parts that a COMMIT needs */

#ifdef IN_PLACE
#define AT(n, b) ((n) * BALLOTS + 1)    /* all ballots share one place */
#else
#define AT(n, b) ((n) * BALLOTS + (b))
#endif
#define FACT(n, b) ((n) * BALLOTS + (b))
#define HAS(set, n) (((set) >> (n)) & 1)

/* The catalogue's row. */
byte promised, epoch;
bool opened;                            /* the ballot `promised` may commit */
byte nodes_of[BALLOTS], base_of[BALLOTS];
byte named[NODES];                      /* the object that the decided value names on each node */

/* Whose bytes lie where: a ballot, or 0. In place, another ballot's bytes are other bytes. */
byte disk[NODES * BALLOTS], buffer[NODES * BALLOTS];

/* Facts: what was sent, acknowledged, ordered. */
bool sent[NODES * BALLOTS], receipt[NODES * BALLOTS], ordered[NODES * BALLOTS];

byte crashes;

/* I1: what the decided value names is on its disk. I3: no order names it. */
inline check() {
    assert(named[0] == 0 || (disk[AT(0, named[0])] == named[0] && !ordered[FACT(0, named[0])]));
    assert(named[1] == 0 || (disk[AT(1, named[1])] == named[1] && !ordered[FACT(1, named[1])]));
    assert(named[2] == 0 || (disk[AT(2, named[2])] == named[2] && !ordered[FACT(2, named[2])]));
}

/* Orders to delete what ballot `b` may have written and the decided value does not name (R3). */
inline collect(b) {
    k = 0;
    do
    :: k < NODES ->
        if
        :: HAS(nodes_of[b], k) && named[k] != b -> ordered[FACT(k, b)] = true
        :: else
        fi;
        k++
    :: else -> break
    od;
    k = 0
}

/* OPEN: the ballot that was open can never commit from here on. */
inline open_ballot(b, nodes) {
    if
    :: opened -> collect(promised)
    :: else
    fi;
    promised++;
    b = promised;
    opened = true;
    nodes_of[b] = nodes;
    base_of[b] = epoch
}

/* COMMIT with all receipts of `b`; a repair carries the other parts over. */
inline commit(b, carries) {
#ifdef IGNORE_BALLOT
    if
    :: epoch < b && base_of[b] == epoch ->
#else
    if
    :: opened && b == promised ->
        assert(epoch < b && base_of[b] == epoch);
#endif
        count = 0;
        k = 0;
        do
        :: k < NODES ->
            if
            :: receipt[FACT(k, b)] || (carries && named[k] != 0) -> count++
            :: else
            fi;
            k++
        :: else -> break
        od;
        if
        :: count >= LEAST ->
            k = 0;
            do
            :: k < NODES ->
                if
                :: receipt[FACT(k, b)] ->
                    assert(disk[AT(k, b)] == b);            /* I5 */
                    if
                    :: named[k] != 0 -> ordered[FACT(k, named[k])] = true
                    :: else
                    fi;
                    named[k] = b
                :: !receipt[FACT(k, b)] && !carries && named[k] != 0 ->
                    ordered[FACT(k, named[k])] = true;
                    named[k] = 0
                :: else
                fi;
                k++
            :: else -> break
            od;
#ifdef NO_SECOND_EPOCH
            assert(epoch == 0);
#endif
            epoch = b;
            opened = false;
            collect(b);
            check()
        :: else
        fi
    :: else                                                  /* 409: fenced */
    fi;
    count = 0;
    k = 0
}

proctype Proposer(bool repairs) {
    byte b, set, k, count;
    if
    :: set = 3
    :: set = 5
    :: set = 6
    :: repairs -> set = 1
    :: repairs -> set = 2
    :: repairs -> set = 4
    fi;
    atomic {
        if
        :: promised < BALLOTS - 1 && ((repairs && epoch > 0) || (!repairs && epoch == 0)) ->
            open_ballot(b, set)
        :: promised == BALLOTS - 1 || (!repairs && epoch > 0) -> goto gives_up
        fi
    }
    /* ACCEPT, and which of the nodes it reaches. */
    atomic {
        if
        :: HAS(set, 0) -> sent[FACT(0, b)] = true
        :: true
        fi;
        if
        :: HAS(set, 1) -> sent[FACT(1, b)] = true
        :: true
        fi;
        if
        :: HAS(set, 2) -> sent[FACT(2, b)] = true
        :: true
        fi;
        set = 0
    }
    /* COMMIT, at any later time. */
    atomic { commit(b, repairs); b = 0; goto gone };
gives_up:
    set = 0;
gone:
    skip
}

proctype Aborter() {
    byte b, k;
    atomic {
        if
        :: opened && promised < BALLOTS - 1 ->
            open_ballot(b, 0);
            opened = false;
            b = 0                                            /* nothing commits under an abort */
        :: true
        fi
    }
}

#ifdef UNFENCED
proctype Collector() {
    byte k;
    atomic { opened -> collect(promised); check() }
}
#endif

/* What node `n` may do about ballot `b`: take the bytes (write-once), sync, acknowledge (R4), delete what it is ordered
 * to, perhaps again. */
#ifdef IN_PLACE
#define FREE(n, b) true
#else
#define FREE(n, b) (disk[AT(n, b)] == 0)
#endif
#ifdef EARLY_RECEIPT
#define ACKNOWLEDGEABLE(n, b) (disk[AT(n, b)] == b || buffer[AT(n, b)] == b)
#else
#define ACKNOWLEDGEABLE(n, b) (disk[AT(n, b)] == b)
#endif
#define STEPS(n, b) \
    :: atomic { sent[FACT(n, b)] && FREE(n, b) -> sent[FACT(n, b)] = false; buffer[AT(n, b)] = b } \
    :: atomic { buffer[AT(n, b)] == b -> disk[AT(n, b)] = b; buffer[AT(n, b)] = 0; check() } \
    :: atomic { ACKNOWLEDGEABLE(n, b) && !receipt[FACT(n, b)] -> receipt[FACT(n, b)] = true } \
    :: atomic { ordered[FACT(n, b)] && (disk[AT(n, b)] != 0 || buffer[AT(n, b)] != 0) -> \
                disk[AT(n, b)] = 0; buffer[AT(n, b)] = 0; check() }

proctype Node(byte n) {
end:
    do
    STEPS(n, 1)
    STEPS(n, 2)
    STEPS(n, 3)
    /* A crash: what is not synced is gone. */
    :: atomic {
        crashes < 1 && (buffer[AT(n, 1)] != 0 || buffer[AT(n, 2)] != 0 || buffer[AT(n, 3)] != 0) ->
            crashes++;
            buffer[AT(n, 1)] = 0;
            buffer[AT(n, 2)] = 0;
            buffer[AT(n, 3)] = 0
       }
    od
}

init {
    atomic {
        run Node(0);
        run Node(1);
        run Node(2);
        run Proposer(false);
#ifdef REPAIR
        run Proposer(true);
#else
        run Proposer(false);
#endif
#ifdef FULL
        run Proposer(true);
#endif
        run Aborter();
#ifdef UNFENCED
        run Collector()
#endif
    }
}
