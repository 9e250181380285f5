// SPDX-License-Identifier: BSD-2-Clause
// channel-host PATH committed|rolled-back: the host's side of the guest channel as the supervisor
// has it, behind a Unix socket, on the host that its unit tests have. For update_guest.py: do both
// sides understand docs/guest-channel.md alike?
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../unit/update_channel.h"

static bool send_all(int fd, struct guest *guest)
{
    while (guest->out_start < guest->out_end) {
        ssize_t sent = send(fd, guest->out + guest->out_start, guest->out_end - guest->out_start,
                            MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        guest->out_start += (size_t)sent;
    }
    guest->out_start = guest->out_end = 0;
    return !guest->finished;
}

static void serve(struct bench *bench, struct guest *guest, int fd)
{
    uint8_t bytes[4096];
    ssize_t got;

    guest_connect(guest, bench, "web", true);
    while ((got = read(fd, bytes, sizeof(bytes))) > 0) {
        guest_raw(guest, bytes, (size_t)got);
        if (!send_all(fd, guest))
            break;
    }
    guest_disconnect(guest);
}

int main(int argc, char **argv)
{
    static struct bench bench;
    static struct guest guest;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (argc != 3 || strlen(argv[1]) >= sizeof(address.sun_path))
        return 2;
    strcpy(address.sun_path, argv[1]);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 4))
        return 1;
    bench_init(&bench);
    if (strcmp(argv[2], "rolled-back") == 0) {
        bench.committing = WORK_IS_REFUSED;
        bench.work_refusal = UPDATE_REFUSAL_ROLLED_BACK;
        bench.work_why = "it crashed";
    }
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            return 1;
        serve(&bench, &guest, fd);
        close(fd);
    }
}
