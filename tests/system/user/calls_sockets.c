// SPDX-License-Identifier: BSD-2-Clause
// Sockets of the loopback interface and of this folder, messages with vectors and descriptors.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "check.h"

static void pairs(void)
{
    int ends[2];
    char bytes[16] = "";

    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "a pair of sockets");
    check(send(ends[0], "hello", 5, 0) == 5 && recv(ends[1], bytes, 16, 0) == 5 &&
              memcmp(bytes, "hello", 5) == 0,
          "send and recv");
    check(recv(ends[1], bytes, 16, MSG_DONTWAIT) == -1 && errno == EAGAIN, "nothing more is there");
    int value = 0;
    socklen_t length = sizeof(value);
    check(getsockopt(ends[0], SOL_SOCKET, SO_TYPE, &value, &length) == 0 && value == SOCK_STREAM &&
              length == 4,
          "its type");
    struct ucred who;
    length = sizeof(who);
    check(getsockopt(ends[0], SOL_SOCKET, SO_PEERCRED, &who, &length) == 0 && who.pid == getpid(),
          "its peer");
    check(shutdown(ends[0], SHUT_WR) == 0 && read(ends[1], bytes, 1) == 0, "shutdown");
    close(ends[0]);
    check(send(ends[1], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE, "a peer that is gone");
    close(ends[1]);
    check(socket(AF_UNIX, 9, 0) == -1 && errno == ESOCKTNOSUPPORT, "a type that there is not");
    check(socket(9999, SOCK_STREAM, 0) == -1 && errno == EAFNOSUPPORT, "nor such a family");
}

static void messages(void)
{
    int ends[2], passed = -1, file = open("passed", O_RDWR | O_CREAT, 0600);
    char one[4] = "", two[16] = "";
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
    } control = {0};
    struct iovec out[] = {{"mes", 3}, {"sage", 4}}, in[] = {{one, 3}, {two, 16}};
    struct msghdr message = {.msg_iov = out,
                             .msg_iovlen = 2,
                             .msg_control = &control,
                             .msg_controllen = CMSG_SPACE(sizeof(int))};

    int on = 1;
    socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends);
    setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    *head = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(head), &file, sizeof(file));
    check(write(file, "through", 7) == 7 && sendmsg(ends[0], &message, 0) == 7,
          "a message with a descriptor");
    memset(&control, 0, sizeof(control));
    message = (struct msghdr){
        .msg_iov = in, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof(control)};
    check(recvmsg(ends[1], &message, MSG_CMSG_CLOEXEC) == 7 && memcmp(one, "mes", 3) == 0 &&
              strcmp(two, "sage") == 0,
          "is received in pieces");
    bool credentials = false;
    for (head = CMSG_FIRSTHDR(&message); head; head = CMSG_NXTHDR(&message, head)) {
        if (head->cmsg_type == SCM_RIGHTS)
            memcpy(&passed, CMSG_DATA(head), sizeof(passed));
        struct ucred who;
        if (head->cmsg_type == SCM_CREDENTIALS) {
            memcpy(&who, CMSG_DATA(head), sizeof(who));
            credentials = who.pid == getpid() && who.uid == getuid();
        }
    }
    check(passed > file && pread(passed, two, 7, 0) == 7 && memcmp(two, "through", 7) == 0 &&
              fcntl(passed, F_GETFD) == FD_CLOEXEC,
          "with the descriptor");
    check(credentials, "and who sent it");
    on = 0;
    setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
    send(ends[0], "0123456789", 10, 0);
    message = (struct msghdr){.msg_iov = in, .msg_iovlen = 1};
    check(recvmsg(ends[1], &message, 0) == 3 && message.msg_flags == MSG_TRUNC &&
              message.msg_controllen == 0,
          "one that is too long is cut");
    message.msg_iovlen = 5000;
    check(sendmsg(ends[0], &message, 0) == -1 && errno == EMSGSIZE, "a vector that is too long");
    close(ends[0]);
    close(ends[1]);
    close(passed);
    close(file);
}

static void tcp(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_storage other;
    socklen_t length = sizeof(address);
    int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    int client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    char bytes[32] = "";

    check(setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
              bind(server, (struct sockaddr *)&address, sizeof(address)) == 0 &&
              listen(server, 5) == 0,
          "a server");
    check(getsockname(server, (struct sockaddr *)&address, &length) == 0 && length == 16 &&
              address.sin_port != 0,
          "has a port");
    int rc = connect(client, (struct sockaddr *)&address, sizeof(address));
    check(rc == 0 || errno == EINPROGRESS, "a client connects");
    length = 4;
    memset(&other, 0x55, sizeof(other));
    int peer = accept4(server, (struct sockaddr *)&other, &length, SOCK_CLOEXEC);
    check(peer >= 0 && length == 16 && ((char *)&other)[4] == 0x55,
          "is accepted; its address is cut where there is no room");
    struct pollfd ready = {.fd = client, .events = POLLOUT};
    check(poll(&ready, 1, 10000) == 1 && ready.revents == POLLOUT, "and connected");
    length = sizeof(on);
    check(getsockopt(client, SOL_SOCKET, SO_ERROR, &on, &length) == 0 && on == 0, "without error");
    on = 1;
    check(setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0, "TCP_NODELAY");
    struct timeval wait = {.tv_usec = 20000};
    check(setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) == 0 &&
              recv(peer, bytes, 1, 0) == -1 && errno == EAGAIN,
          "a wait that is limited");
    check(sendto(client, "tcp", 3, 0, NULL, 0) == 3 && recv(peer, bytes, 3, MSG_WAITALL) == 3 &&
              memcmp(bytes, "tcp", 3) == 0,
          "bytes");
    length = sizeof(other);
    check(getpeername(peer, (struct sockaddr *)&other, &length) == 0 &&
              ((struct sockaddr_in *)&other)->sin_addr.s_addr == htonl(INADDR_LOOPBACK),
          "the peer's name");
    write(client, "more", 4);
    poll(&(struct pollfd){.fd = peer, .events = POLLIN}, 1, 10000);
    int count = 0;
    check(ioctl(peer, FIONREAD, &count) == 0 && count == 4, "FIONREAD");
    close(client);
    close(peer);
    close(server);
}

static void udp(void)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT},
                        from;
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr *any = (struct sockaddr *)&address;
    socklen_t length = sizeof(address), bytes_of = sizeof(address);
    char texts[4][8] = {"", "", "", ""};
    struct mmsghdr many[4] = {0};
    struct iovec vectors[4];
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);

    if (fd < 0 || bind(fd, any, length)) {  // no IPv6 here
        close(fd);
        fd = socket(AF_INET, SOCK_DGRAM, 0);
        any = (struct sockaddr *)&four;
        bytes_of = sizeof(four);
        if (bind(fd, any, bytes_of))
            fd = -1;
    }
    check(fd >= 0 && getsockname(fd, any, &length) == 0, "a socket of datagrams");
    for (int i = 0; i < 3; i++) {
        vectors[i] = (struct iovec){(char *[]){"one", "three", "five"}[i], (size_t[]){3, 5, 4}[i]};
        many[i].msg_hdr = (struct msghdr){
            .msg_name = any, .msg_namelen = bytes_of, .msg_iov = &vectors[i], .msg_iovlen = 1};
    }
    check(sendmmsg(fd, many, 3, 0) == 3 && many[1].msg_len == 5, "three at once");
    for (int i = 0; i < 4; i++) {
        vectors[i] = (struct iovec){texts[i], 7};
        many[i].msg_hdr = (struct msghdr){.msg_name = &from,
                                          .msg_namelen = sizeof(from),
                                          .msg_iov = &vectors[i],
                                          .msg_iovlen = 1};
    }
    check(recvmmsg(fd, many, 4, MSG_WAITFORONE, NULL) == 3 && many[2].msg_len == 4 &&
              strcmp(texts[0], "one") == 0 && strcmp(texts[1], "three") == 0 &&
              strcmp(texts[2], "five") == 0 && many[0].msg_hdr.msg_namelen == bytes_of,
          "are received at once");
    struct timespec none = {0};
    check(recvmmsg(fd, many, 4, MSG_DONTWAIT, &none) == -1 && errno == EAGAIN, "and no more");
    // Nothing passes a filter that says so.
    struct sock_filter drop = BPF_STMT(BPF_RET | BPF_K, 0);
    struct sock_fprog program = {1, &drop};
    check(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) == 0 &&
              sendto(fd, "x", 1, 0, any, bytes_of) == 1 &&
              recv(fd, texts[0], 1, MSG_DONTWAIT) == -1,
          "a filter");
    check(setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &fd, sizeof(fd)) == 0, "is removed");
    length = 2;
    check(sendto(fd, "dgram", 5, 0, any, bytes_of) == 5 &&
              recvfrom(fd, texts[0], 7, 0, (struct sockaddr *)&from, &length) == 5 &&
              length == bytes_of,
          "sendto, recvfrom");
    check(setsockopt(fd, 9999, 1, &fd, 4) == -1 && errno == ENOPROTOOPT,
          "an option that there is not");
    close(fd);
}

static void local(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"}, from;
    socklen_t length = sizeof(from);
    int server = socket(AF_UNIX, SOCK_DGRAM, 0), client = socket(AF_UNIX, SOCK_DGRAM, 0);
    char bytes[8] = "";

    check(bind(server, (struct sockaddr *)&address, sizeof(address)) == 0 &&
              connect(client, (struct sockaddr *)&address, sizeof(address)) == 0,
          "a socket that is a file");
    check(write(client, "local", 5) == 5 &&
              recvfrom(server, bytes, 8, 0, (struct sockaddr *)&from, &length) == 5 && length == 0,
          "receives from one without a name");
    close(server);
    check(write(client, "x", 1) == -1 && errno == ECONNREFUSED, "nobody is there");
    close(client);
    unlink("socket");
}

static void interfaces(void)
{
    struct {
        struct nlmsghdr head;
        struct rtgenmsg message;
    } request = {{sizeof(request), RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 1, 0}, {AF_UNSPEC}};
    char bytes[16384], names[40 * 16];
    int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    bool found = false;

    check(send(fd, &request, sizeof(request), 0) == sizeof(request),
          "asking netlink for interfaces");
    ssize_t count = recv(fd, bytes, sizeof(bytes), 0);
    check(count > 0 && ((struct nlmsghdr *)bytes)->nlmsg_type == RTM_NEWLINK, "is answered");
    close(fd);
    struct ifreq interface = {.ifr_name = "lo"};
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    check(ioctl(fd, SIOCGIFINDEX, &interface) == 0 && interface.ifr_ifindex == 1, "SIOCGIFINDEX");
    struct ifconf list = {.ifc_len = sizeof(names), .ifc_buf = names};
    check(ioctl(fd, SIOCGIFCONF, &list) == 0 && list.ifc_buf == names, "SIOCGIFCONF");
    for (int i = 0; i < list.ifc_len / (int)sizeof(struct ifreq); i++)
        found = found || strcmp(list.ifc_req[i].ifr_name, "lo") == 0;
    check(found, "finds the loopback interface");
    close(fd);
}

// Where there are vsock's sockets.
static void machines(void)
{
    int fd = open("/dev/vsock", O_RDONLY);
    unsigned id;

    check(fd < 0 || ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &id) == 0, "this machine's id");
    close(fd);
}

int main(void)
{
    pairs();
    messages();
    tcp();
    udp();
    local();
    interfaces();
    machines();
    return check_done();
}
