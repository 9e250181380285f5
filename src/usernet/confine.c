// SPDX-License-Identifier: BSD-2-Clause
// confine: the process handles what guests and the network send, so it keeps no more of the host
// than the ordinary use of sockets. It still reads /etc/resolv.conf, as libslirp does when the
// guest asks for a name.
#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "usernet/internal.h"

// Each process that root starts runs as a user of its own, so that none can reach another's: beyond
// what people, services and containers are given (systemd's documentation of UIDs, "unused").
#define UID_BASE 0x70000000u

static void identity_drop(void)
{
    id_t own = UID_BASE + (unsigned)getpid();

    if (geteuid() != 0)
        return;
    if (setgroups(0, NULL) < 0 || setresgid(own, own, own) < 0 || setresuid(own, own, own) < 0)
        log_line(LOG_DEBUG, "the user network keeps its user");
}

static void capabilities_drop(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {0};

    for (int capability = 0; prctl(PR_CAPBSET_DROP, capability) == 0; capability++)
        continue;
    syscall(SYS_capset, &header, none);
}

void usernet_confine(void)
{
    const struct rlimit none = {0};

    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    identity_drop();
    capabilities_drop();
    prctl(PR_SET_DUMPABLE, 0);
    setrlimit(RLIMIT_CORE, &none);
    setrlimit(RLIMIT_NPROC, &none);
}
