// SPDX-License-Identifier: BSD-2-Clause
// Names of hosts. The C library's resolver cannot be linked statically without needing its shared
// parts when it runs, so this is our own: numbers, /etc/hosts, and A records from the name servers
// of /etc/resolv.conf (RFC 1035).
#ifndef STRAKE_GUEST_RESOLVE_H
#define STRAKE_GUEST_RESOLVE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fault;

#define RESOLVE_MESSAGE_MAX 512u  // RFC 1035 section 4.2.1

// A question for the name's A records; gives its bytes, 0 when the name is none.
size_t resolve_question(const char *name, uint16_t id, uint8_t message[RESOLVE_MESSAGE_MAX]);
// The first A record of an answer to it.
bool resolve_answer(const uint8_t *message, size_t count, uint16_t id, struct in_addr *address);

// A TCP connection to a host, or -1.
int resolve_connect(const char *host, const char *port, struct fault *fault);

#endif
