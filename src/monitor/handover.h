// SPDX-License-Identifier: BSD-2-Clause
// handover: a running partition goes from one monitor process (O, the old one) to another (N, the
// new one). docs/handover.md tells the steps, the messages, and what comes of each failure.
//
// Threads: one controlling thread in O calls handover_give and handover_retire, one in N calls
// handover_take; it is the one that pauses and resumes the partition. All waits are bounded.
//
// Trust: neither side trusts the other. A guest may have taken O over, and N may be of any version:
// messages are bounded and checked, and what a state says is checked by those who load it.
#ifndef STRAKE_MONITOR_HANDOVER_H
#define STRAKE_MONITOR_HANDOVER_H

#include "monitor/monitor.h"

// ---- Steps --------------------------------------------------------------------------------------

enum handover_step {
    HANDOVER_STEP_HELLO,
    HANDOVER_STEP_WARM,
    HANDOVER_STEP_FREEZE,
    HANDOVER_STEP_STATE,
    HANDOVER_STEP_ADOPT,
    HANDOVER_STEP_RUN,
    HANDOVER_STEP_RETIRE,
    HANDOVER_STEPS,
};

// Something that goes wrong at a step, for tests: "STEP:KIND", the member "fault" of the
// supervisor's requests `adopt` and `handover`. Nothing but a test's supervisor has it, and no
// guest and no API reaches it.
enum handover_fault_kind {
    HANDOVER_FAULT_NONE,
    HANDOVER_FAULT_EXIT,
    HANDOVER_FAULT_HANG,
    HANDOVER_FAULT_KILL,
    HANDOVER_FAULT_REFUSE,
    HANDOVER_FAULT_CORRUPT,  // N, adopt: what it has loaded is not what O saved
    HANDOVER_FAULT_VERSION,  // hello: of the protocol; O, freeze: of the state
    HANDOVER_FAULT_MEMORY,   // there is no more
    HANDOVER_FAULT_FULL,     // O, freeze: nothing can be written any more
};
struct handover_fault {
    enum handover_step step;
    enum handover_fault_kind kind;
};
BASE_NODISCARD int handover_fault_parse(struct handover_fault *fault, const char *text,
                                        struct error *err);

// ---- O ------------------------------------------------------------------------------------------

struct handover_old {
    int peer;  // the SOCK_SEQPACKET socket to N; stays the caller's
    struct status_page *status;
    struct partition *partition;
    json_t *definition;             // what N is to build
    const struct descriptors *fds;  // of what it is to build it; "ram" is added
    // From `leave` until `stay` nothing may be read from a descriptor that N gets too: console
    // input, debugger. `leave` is called just before the guest is stopped, and adds what N needs
    // besides the partition's state; `stay` when the guest goes on here. NULL: nothing to do.
    void (*leave)(void *opaque, struct state_writer *writer);
    void (*stay)(void *opaque);
    void *opaque;
    unsigned patience_ms;  // no wait for N is longer; 0: as long as a loaded machine may need
    struct handover_fault fault;
    struct handover_requests *requests;  // set by handover_give
};

// Hands the partition over. 0: N owns it; handover_retire is to follow, and nothing else. Else the
// guest goes on here, and *err says which step failed and why.
BASE_NODISCARD int handover_give(struct handover_old *old, struct error *err);
// Tells N how the disk I/O that O had begun has ended, which takes as long as it takes, within
// bounds. The process is to end by _exit then: the devices are N's, and are not to be reset.
void handover_retire(struct handover_old *old);

// ---- N ------------------------------------------------------------------------------------------

struct handover_new {
    int peer;    // as in O; handover_take takes it over, whatever comes of it
    int former;  // pidfd of O, taken over, or -1: then O is taken for ended when the peer is closed
    // Gives up what the process will not need: called with all descriptors there, before anything
    // that O says is looked at. May be NULL.
    int (*confine)(void *opaque, struct error *err);
    // Creates the partition (partition_create, with "ram" of `fds`, whose descriptors are the
    // callee's) and tells where its status page is. Called once.
    int (*build)(void *opaque, json_t *definition, struct descriptors *fds,
                 struct partition **partition, struct status_page **status, struct error *err);
    // Takes what `leave` added. May be NULL.
    int (*load)(void *opaque, struct state_reader *reader, struct error *err);
    void *opaque;
    unsigned patience_ms;  // as in O
    struct handover_fault fault;
    struct handover_former *old;  // set by handover_take: O, until it has retired
};

// Takes the partition over. 0: this process owns it, and it runs (or is paused, if it was in O).
// Else the caller destroys it, if `build` made one, and ends; *err says which step failed and why.
BASE_NODISCARD int handover_take(struct handover_new *new, struct error *err);
// Before the partition is destroyed; also of zeros.
void handover_fini(struct handover_new *new);

#endif
