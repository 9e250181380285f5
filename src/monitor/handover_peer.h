// SPDX-License-Identifier: BSD-2-Clause
// What both sides of a handover share: messages between them, marks of time, faults for tests.
#ifndef STRAKE_MONITOR_HANDOVER_PEER_H
#define STRAKE_MONITOR_HANDOVER_PEER_H

#include "monitor/handover.h"

// Changes when messages do. A monitor speaks with its own kind only; what an older one says can be
// understood by a newer one that has been taught it, and is told apart by this number.
#define PEER_PROTOCOL 1

#define PEER_PAYLOAD_BYTES 65000u  // at most; what a socket takes at once, and all of a definition
#define PEER_FDS 200u              // at most in a message; the kernel takes 253

// In the order in which they are sent.
enum peer_type {
    PEER_HELLO = 1,    // O: JSON {protocol, version, owner, partition, fds}; those descriptors
    PEER_READY,        // N: JSON {protocol, version}; the machine is built
    PEER_WARM,         // O: struct peer_warm; memfds: for the state, of what is hot
    PEER_WARMED,       // N
    PEER_DESCRIPTORS,  // O, any number: descriptors of the states, in order
    PEER_STATE,        // O: struct peer_state
    PEER_RUN,          // N: the guest is its own
    PEER_ENDED,        // O, any number: array of struct peer_ended
    PEER_RETIRED,      // O: nothing is under way any more
    PEER_REFUSED,      // N, instead of READY, WARMED or RUN: why, text
};

struct peer_warm {
    uint64_t hot_bytes[HART_MAX];  // of each hart, one after the other in the second memfd
};
// Two states, one after the other in the memfd: the partition's and what else the monitor has.
enum { PEER_STATE_PARTITION, PEER_STATE_MONITOR, PEER_STATES };
struct peer_state {
    uint64_t length_bytes[PEER_STATES];
    uint64_t fd_count[PEER_STATES];
};
struct peer_ended {
    uint32_t slot, head, written_bytes;
};

#define PEER_STATE_BYTES_MAX (64ull << 20)
#define PEER_STATE_FDS_MAX 8192u
#define PEER_HOT_BYTES_MAX (64ull << 20)

struct peer_message {
    enum peer_type type;
    size_t length_bytes;
    unsigned fd_count;
    int fds[PEER_FDS];                        // the receiver's
    uint8_t payload[PEER_PAYLOAD_BYTES + 1];  // 0 after the end
};

// Sends within `timeout_ms`; descriptors stay the caller's. 0, -EPIPE: the peer is gone, -ETIME.
BASE_NODISCARD int peer_send(int peer, enum peer_type type, const void *payload,
                             size_t length_bytes, const int *fds, unsigned fd_count,
                             unsigned timeout_ms);
// Receives one message within `timeout_ms`; what `message` had before is forgotten. 0, -EPIPE: the
// peer is gone, -ETIME, -EPROTO: no message of ours; what it brought is closed.
BASE_NODISCARD int peer_receive(int peer, struct peer_message *message, unsigned timeout_ms);
void peer_message_close_fds(struct peer_message *message);

static inline void handover_mark_now(struct status_page *status, enum handover_mark mark)
{
    atomic_store(&status->handover.mark_ns[mark], clock_monotonic_ns());
}

// Does what the fault is, if it is one of this step. 0 or -ECANCELED.
int handover_fault_at(const struct handover_fault *fault, enum handover_step step,
                      struct error *err);
static inline bool handover_fault_is(const struct handover_fault *fault, enum handover_step step,
                                     enum handover_fault_kind kind)
{
    return fault->kind == kind && fault->step == step;
}
static inline unsigned handover_wait_ms(unsigned patience_ms, unsigned usual_ms)
{
    return patience_ms && patience_ms < usual_ms ? patience_ms : usual_ms;
}
const char *handover_step_name(enum handover_step step);

#endif
