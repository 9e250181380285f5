// SPDX-License-Identifier: BSD-2-Clause
// A list that libc makes and frees: of addresses.
// kind: none
// only: dynamic
#include "twin.h"
#include <netdb.h>
#include <string.h>

int main(void)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo("127.0.0.1", HIDE("80"), &hints, &found))
        return 1;
    int port = 0;
    for (struct addrinfo *one = found; one; one = HIDE(one)->ai_next)
        port += ((unsigned char *)one->ai_addr)[3];
    freeaddrinfo(found);
    return port != 80;
}
