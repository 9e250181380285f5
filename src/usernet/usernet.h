// SPDX-License-Identifier: BSD-2-Clause
// usernet: user-mode networking in a process of its own, `strake usernet`. It exchanges packets
// with a network device through a pair of SOCK_SEQPACKET sockets (virtio/virtio.h says what a
// packet is), so a partition's monitor needs no right to use the host's network, and connections go
// on while monitors take over from each other: whoever holds the other end is the guest.
//
// Life: the process ends when nobody holds the other end any more, and on no other account. It does
// not end with the process that launched it, which may be restarted meanwhile.
#ifndef STRAKE_USERNET_H
#define STRAKE_USERNET_H

#include <sys/types.h>

#include "base/base.h"
#include "virtio/virtio.h"

// Where `strake usernet` has its end of the sockets.
#define USERNET_FD 3

// A port of the host that is led to a guest's: addresses are IPv4, ports in host order. guest_addr
// 0.0.0.0 means the address that DHCP gives (10.0.2.15).
struct usernet_forward {
    bool udp;
    uint8_t host_addr[4], guest_addr[4];
    uint16_t host_port, guest_port;
};

struct usernet_process {
    int fd;  // the device's end, non-blocking, close-on-exec
    pid_t pid;
};

// Starts `strake usernet` (the running program's file, with that role as its first argument) in a
// session of its own and waits until it has bound all forwards, 10 s at most. On success the
// descriptor is the caller's, and so is the duty to wait for the process. Returns 0, or a negative
// errno with *err set, which says what the process said: "cannot forward 127.0.0.1:80 to guest port
// 22: Address already in use". Any thread.
BASE_NODISCARD int usernet_launch(struct usernet_process *out,
                                  const struct usernet_forward *forwards, size_t count,
                                  struct error *err);
// Waits for the end of a process whose other end nobody should hold any more; one that has not
// ended after 2 s is killed.
void usernet_reap(struct usernet_process *process);

// "tcp:ADDR:PORT-ADDR:PORT" or "udp:...", where an ADDR may be left out: 127.0.0.1 on the host, the
// guest's by DHCP. Returns 0 or -EINVAL with *err set.
BASE_NODISCARD int usernet_forward_parse(struct usernet_forward *forward, const char *text,
                                         struct error *err);
// The text that is parsed as `forward`.
#define USERNET_FORWARD_BYTES sizeof("tcp:255.255.255.255:65535-255.255.255.255:65535")
void usernet_forward_print(const struct usernet_forward *forward, char text[USERNET_FORWARD_BYTES]);

// What the process does: binds the forwards, says through `fd` how that went, gives up all rights
// that it needs no more, and serves until the other end is closed. Returns 0, or a negative errno
// when it could not start. `fd` stays the caller's.
BASE_NODISCARD int usernet_serve(int fd, const struct usernet_forward *forwards, size_t count);

#endif
