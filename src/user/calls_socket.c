// SPDX-License-Identifier: BSD-2-Clause
// Sockets: messages, whose header points to everything else, and options, of which only those are
// let through that hold no pointers. Control messages are alike on both machines.
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/tcp.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "user/calls.h"

// Of other families it is not known that what is written to them holds no addresses.
int64_t user_socket(struct user_thread *thread, const uint64_t arguments[6])
{
    static const uint8_t known[] = {AF_UNIX,   AF_INET, AF_INET6, AF_NETLINK,
                                    AF_PACKET, AF_ALG,  AF_VSOCK, AF_BLUETOOTH};

    if (arguments[0] > UINT8_MAX || !memchr(known, (int)arguments[0], sizeof(known)))
        return -EAFNOSUPPORT;
    return user_host_call(thread, SYS_socket, arguments[0], arguments[1], arguments[2], 0, 0, 0);
}

// ---- Options

#define SOCK_OPTIONS_END 256

// Netfilter's tables are options of the address families; a table's counters are behind a pointer.
static bool is_known_option(uint64_t level, uint64_t name)
{
    const uint64_t tables_first = 64, ip6_tables_last = 65;

    switch (level) {
    case SOL_SOCKET:
        return name < SOCK_OPTIONS_END;
    case IPPROTO_IP:
        return name < tables_first;
    case IPPROTO_IPV6:
        return name < tables_first || name > ip6_tables_last;
    case IPPROTO_TCP:
        return name != TCP_ZEROCOPY_RECEIVE;
    case SOL_PACKET:
        return name != PACKET_FANOUT_DATA;
    case IPPROTO_UDP:
    case IPPROTO_UDPLITE:
    case IPPROTO_ICMPV6:
    case IPPROTO_RAW:
    case SOL_NETLINK:
    case SOL_ALG:
    case SOL_TLS:
    case AF_VSOCK:
    case SOL_BLUETOOTH:
        return true;
    default:
        return false;
    }
}

static int64_t set_filter(struct user_thread *thread, const uint64_t arguments[6])
{
    struct sock_fprog program;
    void *hva;
    int rc;

    if (arguments[4] != sizeof(program))
        return -EINVAL;
    rc = user_copy_in(thread, &program, arguments[3], sizeof(program));
    if (rc == 0)
        rc = user_call_buffer(thread, (uint64_t)(uintptr_t)program.filter,
                              program.len * sizeof(struct sock_filter), HART_LOAD, &hva);
    if (rc)
        return rc;
    program.filter = hva;
    return user_host_call(thread, SYS_setsockopt, arguments[0], arguments[1], arguments[2],
                          (uint64_t)(uintptr_t)&program, sizeof(program), 0);
}

int64_t user_setsockopt(struct user_thread *thread, const uint64_t arguments[6])
{
    uint64_t level = (uint32_t)arguments[1], name = (uint32_t)arguments[2];
    void *value;
    int rc;

    if (level == SOL_SOCKET && (name == SO_ATTACH_FILTER || name == SO_ATTACH_REUSEPORT_CBPF))
        return set_filter(thread, arguments);
    if (!is_known_option(level, name))
        return -ENOPROTOOPT;
    rc = user_call_buffer(thread, arguments[3], (uint32_t)arguments[4], HART_LOAD, &value);
    return rc ? rc
              : user_host_call(thread, SYS_setsockopt, arguments[0], level, name,
                               (uint64_t)(uintptr_t)value, arguments[4], 0);
}

int64_t user_getsockopt(struct user_thread *thread, const uint64_t arguments[6])
{
    uint64_t level = (uint32_t)arguments[1], name = (uint32_t)arguments[2];
    void *value, *bytes_at;
    uint32_t bytes;
    int rc;

    if (!is_known_option(level, name))
        return -ENOPROTOOPT;
    rc = user_copy_in(thread, &bytes, arguments[4], sizeof(bytes));
    // A filter's length is in instructions.
    if (rc == 0)
        rc = user_call_buffer(thread, arguments[3],
                              (uint64_t)bytes * (level == SOL_SOCKET && name == SO_GET_FILTER
                                                     ? sizeof(struct sock_filter)
                                                     : 1),
                              HART_STORE, &value);
    if (rc == 0)
        rc = user_call_buffer(thread, arguments[4], sizeof(bytes), HART_STORE, &bytes_at);
    return rc ? rc
              : user_host_call(thread, SYS_getsockopt, arguments[0], level, name,
                               (uint64_t)(uintptr_t)value, (uint64_t)(uintptr_t)bytes_at, 0);
}

// ---- Messages

// Linux' struct user_msghdr, whose members are as wide on both machines, and struct mmsghdr.
struct message {
    uint64_t name;
    uint32_t name_bytes, pad;
    uint64_t vector, vector_count;
    uint64_t control, control_bytes;
    uint32_t flags, pad2;
};
struct messages {
    struct message message;
    uint32_t bytes, pad;
};
_Static_assert(sizeof(struct message) == sizeof(struct msghdr), "struct msghdr of riscv64");
_Static_assert(sizeof(struct messages) == sizeof(struct mmsghdr), "struct mmsghdr of riscv64");

#define MESSAGES_MAX 1024  // UIO_MAXIOV

static int translate_message(struct user_thread *thread, const struct message *guest,
                             enum hart_access access, struct msghdr *host,
                             struct iovec vector[static IOV_MAX])
{
    int rc;

    if (guest->vector_count > IOV_MAX)
        return -EMSGSIZE;
    // No control message of Linux is near this; a length that is none is the kernel's to refuse.
    if (guest->control_bytes > INT32_MAX)
        return -ENOBUFS;
    if ((int32_t)guest->name_bytes < 0)
        return -EINVAL;
    rc = user_call_vector(thread, guest->vector, guest->vector_count, access, vector);
    *host = (struct msghdr){
        .msg_namelen = guest->name_bytes,
        .msg_iov = vector,
        .msg_iovlen = guest->vector_count,
        .msg_controllen = guest->control_bytes,
        .msg_flags = (int)guest->flags,
    };
    if (rc == 0)
        rc = user_call_buffer(thread, guest->name, guest->name_bytes, access, &host->msg_name);
    if (rc == 0)
        rc = user_call_buffer(thread, guest->control, guest->control_bytes, access,
                              &host->msg_control);
    return rc;
}

static int64_t send_message(struct user_thread *thread, uint64_t fd, uint64_t gva, uint64_t flags)
{
    struct iovec vector[IOV_MAX];
    struct message guest;
    struct msghdr host;
    int rc = user_copy_in(thread, &guest, gva, sizeof(guest));

    if (rc == 0)
        rc = translate_message(thread, &guest, HART_LOAD, &host, vector);
    return rc ? rc
              : user_host_call(thread, SYS_sendmsg, fd, (uint64_t)(uintptr_t)&host, flags, 0, 0, 0);
}

static int64_t receive_message(struct user_thread *thread, uint64_t fd, uint64_t gva,
                               uint64_t flags)
{
    struct iovec vector[IOV_MAX];
    struct message guest;
    struct msghdr host;
    int64_t bytes;
    int rc = user_copy_in(thread, &guest, gva, sizeof(guest));

    if (rc == 0)
        rc = translate_message(thread, &guest, HART_STORE, &host, vector);
    if (rc)
        return rc;
    bytes = user_host_call(thread, SYS_recvmsg, fd, (uint64_t)(uintptr_t)&host, flags, 0, 0, 0);
    if (bytes < 0)
        return bytes;
    guest.name_bytes = host.msg_namelen;
    guest.control_bytes = host.msg_controllen;
    guest.flags = (uint32_t)host.msg_flags;
    rc = user_copy_out(thread, gva, &guest, sizeof(guest));
    return rc ? rc : bytes;
}

int64_t user_sendmsg(struct user_thread *thread, const uint64_t arguments[6])
{
    return send_message(thread, arguments[0], arguments[1], arguments[2]);
}

int64_t user_recvmsg(struct user_thread *thread, const uint64_t arguments[6])
{
    return receive_message(thread, arguments[0], arguments[1], arguments[2]);
}

// Of several messages: what the first ones came to counts, an error only where there are none.
static int64_t put_bytes(struct user_thread *thread, uint64_t gva, int64_t bytes)
{
    uint32_t value = (uint32_t)bytes;

    return bytes < 0 ? bytes
                     : user_copy_out(thread, gva + offsetof(struct messages, bytes), &value,
                                     sizeof(value));
}

int64_t user_sendmmsg(struct user_thread *thread, const uint64_t arguments[6])
{
    uint32_t wanted = (uint32_t)arguments[2], count = 0;
    int64_t rc = 0;

    for (; count < wanted && count < MESSAGES_MAX; count++) {
        uint64_t gva = arguments[1] + count * sizeof(struct messages);
        rc = put_bytes(thread, gva, send_message(thread, arguments[0], gva, arguments[3]));
        if (rc < 0)
            break;
    }
    return count ? count : rc;
}

// The time is looked at between two messages only, as Linux does.
static int get_deadline(struct user_thread *thread, uint64_t gva, uint64_t *deadline_ns)
{
    const uint64_t second_ns = 1000000000u;
    struct timespec time;
    uint64_t ns;

    *deadline_ns = UINT64_MAX;
    if (gva == 0)
        return 0;
    if (user_copy_in(thread, &time, gva, sizeof(time)))
        return -EFAULT;
    if (time.tv_sec < 0 || (uint64_t)time.tv_nsec >= second_ns)
        return -EINVAL;
    if (!__builtin_mul_overflow((uint64_t)time.tv_sec, second_ns, &ns) &&
        !__builtin_add_overflow(ns, (uint64_t)time.tv_nsec + clock_monotonic_ns(), &ns))
        *deadline_ns = ns;
    return 0;
}

int64_t user_recvmmsg(struct user_thread *thread, const uint64_t arguments[6])
{
    uint32_t wanted = (uint32_t)arguments[2], count = 0;
    uint64_t flags = (uint32_t)arguments[3], deadline_ns;
    int64_t rc = get_deadline(thread, arguments[4], &deadline_ns);

    while (rc == 0 && count < wanted && count < MESSAGES_MAX) {
        uint64_t gva = arguments[1] + count * sizeof(struct messages);
        rc = put_bytes(
            thread, gva,
            receive_message(thread, arguments[0], gva, flags & ~(uint64_t)MSG_WAITFORONE));
        if (rc < 0)
            break;
        count++;
        if (flags & MSG_WAITFORONE)
            flags |= MSG_DONTWAIT;
        if (clock_monotonic_ns() >= deadline_ns)
            break;
    }
    return count ? count : rc;
}
