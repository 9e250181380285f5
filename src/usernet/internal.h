// SPDX-License-Identifier: BSD-2-Clause
// Inside the usernet room: libslirp as slirp.c wraps it for serve.c, and what is given up before
// the first frame.
#ifndef STRAKE_USERNET_INTERNAL_H
#define STRAKE_USERNET_INTERNAL_H

#include "usernet/usernet.h"

struct user_net;  // one network with one guest

struct user_net_events {
    // A frame for the guest. Called inside of libslirp: take it, do nothing else.
    void (*frame)(void *opaque, const void *frame, size_t bytes);
    // After one or more of them, and after everything else that libslirp did.
    void (*settled)(void *opaque);
    void *opaque;
};

BASE_NODISCARD int user_net_create(struct user_net **out, const struct usernet_forward *forwards,
                                   size_t forward_count, struct loop *loop,
                                   const struct user_net_events *events, struct error *err);
void user_net_destroy(struct user_net *net);  // NULL is ignored
// A frame from the guest, unchecked; user_net_settle is to follow one or more of them.
void user_net_input(struct user_net *net, const void *frame, size_t bytes);
void user_net_settle(struct user_net *net);

// Gives up what user mode needs no more once its ports are bound: root's identity, capabilities,
// and getting any of it back. What the host does not allow to be given up is kept.
void usernet_confine(void);

#endif
