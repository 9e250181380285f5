// SPDX-License-Identifier: BSD-2-Clause
// ioctl, fcntl, prctl, fsconfig: many calls each, and it is a matter of each what its argument is.
// Those that are not listed are not made, since what they would take for an address is the host's.
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/hdreg.h>
#include <linux/if_tun.h>
#include <linux/kd.h>
#include <linux/loop.h>
#include <linux/mount.h>
#include <linux/nsfs.h>
#include <linux/random.h>
#include <linux/rtc.h>
#include <linux/sockios.h>
#include <linux/vm_sockets.h>
#include <linux/vt.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "user/calls_describe.h"

struct command {
    uint32_t number;
    struct user_argument argument;
};

// clang-format off
static const struct command ioctls[] = {
    // Any descriptor
    {FIONREAD, OUT(4)}, {FIONBIO, IN(4)}, {FIOASYNC, IN(4)}, {FIOCLEX, VALUE}, {FIONCLEX, VALUE},
    {FIOQSIZE, OUT(8)}, {FIGETBSZ, OUT(4)}, {FIBMAP, IN_OUT(4)},
    // Terminals
    {TCGETS, OUT(36)}, {TCSETS, IN(36)}, {TCSETSW, IN(36)}, {TCSETSF, IN(36)},
    {TCGETS2, OUT(44)}, {TCSETS2, IN(44)}, {TCSETSW2, IN(44)}, {TCSETSF2, IN(44)},
    {TCGETA, OUT(18)}, {TCSETA, IN(18)}, {TCSETAW, IN(18)}, {TCSETAF, IN(18)},
    {TCSBRK, VALUE}, {TCSBRKP, VALUE}, {TCXONC, VALUE}, {TCFLSH, VALUE},
    {TIOCSBRK, VALUE}, {TIOCCBRK, VALUE}, {TIOCEXCL, VALUE}, {TIOCNXCL, VALUE},
    {TIOCGEXCL, OUT(4)}, {TIOCSCTTY, VALUE}, {TIOCNOTTY, VALUE}, {TIOCCONS, VALUE},
    {TIOCGPGRP, OUT(4)}, {TIOCSPGRP, IN(4)}, {TIOCGSID, OUT(4)}, {TIOCOUTQ, OUT(4)},
    {TIOCSTI, IN(1)}, {TIOCGWINSZ, OUT(8)}, {TIOCSWINSZ, IN(8)}, {TIOCGETD, OUT(4)},
    {TIOCSETD, IN(4)}, {TIOCPKT, IN(4)}, {TIOCGPKT, OUT(4)}, {TIOCGPTN, OUT(4)},
    {TIOCSPTLCK, IN(4)}, {TIOCGPTLCK, OUT(4)}, {TIOCGPTPEER, VALUE}, {TIOCSIG, VALUE},
    {TIOCMGET, OUT(4)}, {TIOCMSET, IN(4)}, {TIOCMBIS, IN(4)}, {TIOCMBIC, IN(4)},
    {TIOCMIWAIT, VALUE}, {TIOCGSOFTCAR, OUT(4)}, {TIOCSSOFTCAR, IN(4)}, {TIOCVHANGUP, VALUE},
    {TIOCGDEV, OUT(4)},
    {KDGKBTYPE, OUT(1)}, {KDGKBMODE, OUT(4)}, {KDSKBMODE, VALUE}, {KDGETMODE, OUT(4)},
    {KDSETMODE, VALUE}, {KDMKTONE, VALUE}, {KIOCSOUND, VALUE}, {KDGETLED, OUT(1)},
    {KDSETLED, VALUE}, {VT_OPENQRY, OUT(4)}, {VT_GETMODE, OUT(8)}, {VT_SETMODE, IN(8)},
    {VT_GETSTATE, OUT(6)}, {VT_ACTIVATE, VALUE}, {VT_WAITACTIVE, VALUE}, {VT_DISALLOCATE, VALUE},
    // Files and file systems; flags and sizes of blocks are a long by name and an int in truth
    {FS_IOC_GETFLAGS, OUT(4)}, {FS_IOC_SETFLAGS, IN(4)}, {FS_IOC_GETVERSION, OUT(4)},
    {FS_IOC_FSGETXATTR, OUT(28)}, {FS_IOC_FSSETXATTR, IN(28)}, {FS_IOC_GETFSLABEL, OUT(256)},
    {FS_IOC_SETFSLABEL, IN(256)}, {FICLONE, VALUE}, {FICLONERANGE, IN(32)}, {FITRIM, IN_OUT(24)},
    {FIFREEZE, VALUE}, {FITHAW, VALUE},
    {BLKROSET, IN(4)}, {BLKROGET, OUT(4)}, {BLKRRPART, VALUE}, {BLKGETSIZE, OUT(8)},
    {BLKFLSBUF, VALUE}, {BLKRASET, VALUE}, {BLKRAGET, OUT(8)}, {BLKSSZGET, OUT(4)},
    {BLKBSZGET, OUT(4)}, {BLKBSZSET, IN(4)}, {BLKGETSIZE64, OUT(8)}, {BLKDISCARD, IN(16)},
    {BLKZEROOUT, IN(16)}, {BLKSECDISCARD, IN(16)}, {BLKIOMIN, OUT(4)}, {BLKIOOPT, OUT(4)},
    {BLKALIGNOFF, OUT(4)}, {BLKPBSZGET, OUT(4)}, {BLKDISCARDZEROES, OUT(4)},
    {BLKROTATIONAL, OUT(2)}, {HDIO_GETGEO, OUT(16)},
    {LOOP_CTL_GET_FREE, VALUE}, {LOOP_CTL_ADD, VALUE}, {LOOP_CTL_REMOVE, VALUE},
    {LOOP_SET_FD, VALUE}, {LOOP_CLR_FD, VALUE}, {LOOP_CHANGE_FD, VALUE},
    {LOOP_SET_CAPACITY, VALUE}, {LOOP_SET_DIRECT_IO, VALUE}, {LOOP_SET_BLOCK_SIZE, VALUE},
    {LOOP_GET_STATUS64, OUT(232)}, {LOOP_SET_STATUS64, IN(232)}, {LOOP_CONFIGURE, IN(304)},
    {RTC_RD_TIME, OUT(36)}, {RTC_SET_TIME, IN(36)}, {RNDGETENTCNT, OUT(4)},
    {NS_GET_USERNS, VALUE}, {NS_GET_PARENT, VALUE}, {NS_GET_NSTYPE, VALUE},
    {NS_GET_OWNER_UID, OUT(4)},
    // Sockets and interfaces
    {FIOSETOWN, IN(4)}, {SIOCSPGRP, IN(4)}, {FIOGETOWN, OUT(4)}, {SIOCGPGRP, OUT(4)},
    {IOCTL_VM_SOCKETS_GET_LOCAL_CID, OUT(4)}, {SIOCATMARK, OUT(4)}, {SIOCOUTQNSD, OUT(4)},
    {SIOCGSTAMP_OLD, OUT(16)}, {SIOCGSTAMPNS_OLD, OUT(16)},
    {SIOCGIFNAME, IN_OUT(40)}, {SIOCGIFFLAGS, IN_OUT(40)}, {SIOCSIFFLAGS, IN(40)},
    {SIOCGIFADDR, IN_OUT(40)}, {SIOCSIFADDR, IN(40)}, {SIOCGIFDSTADDR, IN_OUT(40)},
    {SIOCSIFDSTADDR, IN(40)}, {SIOCGIFBRDADDR, IN_OUT(40)}, {SIOCSIFBRDADDR, IN(40)},
    {SIOCGIFNETMASK, IN_OUT(40)}, {SIOCSIFNETMASK, IN(40)}, {SIOCGIFMETRIC, IN_OUT(40)},
    {SIOCSIFMETRIC, IN(40)}, {SIOCGIFMTU, IN_OUT(40)}, {SIOCSIFMTU, IN(40)},
    {SIOCSIFNAME, IN(40)}, {SIOCGIFHWADDR, IN_OUT(40)}, {SIOCSIFHWADDR, IN(40)},
    {SIOCGIFINDEX, IN_OUT(40)}, {SIOCGIFTXQLEN, IN_OUT(40)}, {SIOCSIFTXQLEN, IN(40)},
    {SIOCGIFMAP, IN_OUT(40)}, {SIOCADDMULTI, IN(40)}, {SIOCDELMULTI, IN(40)},
    {SIOCGARP, IN_OUT(68)}, {SIOCSARP, IN(68)}, {SIOCDARP, IN(68)},
    {SIOCBRADDBR, IN(16)}, {SIOCBRDELBR, IN(16)}, {SIOCBRADDIF, IN(40)}, {SIOCBRDELIF, IN(40)},
    {TUNSETIFF, IN_OUT(40)}, {TUNGETIFF, OUT(40)}, {TUNSETPERSIST, VALUE}, {TUNSETOWNER, VALUE},
    {TUNSETGROUP, VALUE}, {TUNSETOFFLOAD, VALUE}, {TUNGETFEATURES, OUT(4)},
    {TUNSETVNETHDRSZ, IN(4)}, {TUNGETVNETHDRSZ, OUT(4)}, {TUNSETSNDBUF, IN(4)},
};

static const struct command fcntls[] = {
    {F_DUPFD, VALUE}, {F_DUPFD_CLOEXEC, VALUE}, {F_GETFD, VALUE}, {F_SETFD, VALUE},
    {F_GETFL, VALUE}, {F_SETFL, VALUE}, {F_SETOWN, VALUE}, {F_GETOWN, VALUE}, {F_SETSIG, VALUE},
    {F_GETSIG, VALUE}, {F_SETLEASE, VALUE}, {F_GETLEASE, VALUE}, {F_NOTIFY, VALUE},
    {F_SETPIPE_SZ, VALUE}, {F_GETPIPE_SZ, VALUE}, {F_ADD_SEALS, VALUE}, {F_GET_SEALS, VALUE},
    {F_GETLK, IN_OUT(32)}, {F_SETLK, IN(32)}, {F_SETLKW, IN(32)}, {F_OFD_GETLK, IN_OUT(32)},
    {F_OFD_SETLK, IN(32)}, {F_OFD_SETLKW, IN(32)}, {F_GETOWN_EX, OUT(8)}, {F_SETOWN_EX, IN(8)},
    {F_GET_RW_HINT, OUT(8)}, {F_SET_RW_HINT, IN(8)}, {F_GET_FILE_RW_HINT, OUT(8)},
    {F_SET_FILE_RW_HINT, IN(8)},
};

// None that would change what the monitor itself may do in its memory, or what its system calls and
// instructions do.
static const struct command prctls[] = {
    {PR_SET_NAME, STRING}, {PR_GET_NAME, OUT(16)}, {PR_SET_PDEATHSIG, VALUE},
    {PR_GET_PDEATHSIG, OUT(4)}, {PR_SET_DUMPABLE, VALUE}, {PR_GET_DUMPABLE, VALUE},
    {PR_SET_KEEPCAPS, VALUE}, {PR_GET_KEEPCAPS, VALUE}, {PR_CAPBSET_READ, VALUE},
    {PR_CAPBSET_DROP, VALUE}, {PR_SET_SECUREBITS, VALUE}, {PR_GET_SECUREBITS, VALUE},
    {PR_SET_TIMERSLACK, VALUE}, {PR_GET_TIMERSLACK, VALUE}, {PR_SET_CHILD_SUBREAPER, VALUE},
    {PR_GET_CHILD_SUBREAPER, OUT(4)}, {PR_SET_NO_NEW_PRIVS, VALUE}, {PR_GET_NO_NEW_PRIVS, VALUE},
    {PR_CAP_AMBIENT, VALUE}, {PR_SET_PTRACER, VALUE}, {PR_GET_TIMING, VALUE},
    {PR_SET_TIMING, VALUE}, {PR_MCE_KILL, VALUE}, {PR_MCE_KILL_GET, VALUE},
    {PR_SET_THP_DISABLE, VALUE}, {PR_GET_THP_DISABLE, VALUE}, {PR_GET_SECCOMP, VALUE},
    {PR_SET_IO_FLUSHER, VALUE}, {PR_GET_IO_FLUSHER, VALUE},
};

static const struct command settings[] = {
    {FSCONFIG_SET_FLAG, VALUE}, {FSCONFIG_SET_STRING, STRING}, {FSCONFIG_SET_BINARY, IN_N(4, 1)},
    {FSCONFIG_SET_PATH, PATH}, {FSCONFIG_SET_PATH_EMPTY, PATH}, {FSCONFIG_SET_FD, VALUE},
    {FSCONFIG_CMD_CREATE, VALUE}, {FSCONFIG_CMD_RECONFIGURE, VALUE},
};
// clang-format on

static const struct command *find(const struct command *commands, size_t count, uint32_t number)
{
    for (size_t i = 0; i < count; i++)
        if (commands[i].number == number)
            return &commands[i];
    return NULL;
}

// Makes call `number` with argument `index`, which `command` describes, translated.
static int64_t call(struct user_thread *thread, long number, const struct command *command,
                    const uint64_t arguments[6], unsigned index)
{
    uint64_t a[6];
    int rc;

    for (unsigned i = 0; i < BASE_COUNT_OF(a); i++)
        a[i] = arguments[i];
    rc = user_argument_translate(thread, &command->argument, arguments, index, &a[index]);
    return rc ? rc : user_host_call(thread, number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

// ---- ioctl

static int64_t call_with(struct user_thread *thread, const uint64_t arguments[6], uint64_t bytes)
{
    void *hva;
    int rc = user_call_buffer(thread, arguments[2], bytes, HART_STORE, &hva);

    return rc ? rc
              : user_host_call(thread, SYS_ioctl, arguments[0], arguments[1],
                               (uint64_t)(uintptr_t)hva, 0, 0, 0);
}

// A header that says how many more structures come behind it.
static int64_t map_extents(struct user_thread *thread, const uint64_t arguments[6])
{
    struct fiemap head;
    int rc = user_copy_in(thread, &head, arguments[2], sizeof(head));

    return rc ? rc
              : call_with(thread, arguments,
                          sizeof(head) + head.fm_extent_count * sizeof(struct fiemap_extent));
}

static int64_t deduplicate(struct user_thread *thread, const uint64_t arguments[6])
{
    struct file_dedupe_range head;
    int rc = user_copy_in(thread, &head, arguments[2], sizeof(head));

    return rc ? rc
              : call_with(thread, arguments,
                          sizeof(head) + head.dest_count * sizeof(struct file_dedupe_range_info));
}

static int64_t list_interfaces(struct user_thread *thread, const uint64_t arguments[6])
{
    struct ifconf list;
    uint64_t gva;
    void *hva;
    int64_t rc = user_copy_in(thread, &list, arguments[2], sizeof(list));

    if (rc)
        return rc;
    if (list.ifc_len < 0)
        return -EINVAL;
    gva = (uint64_t)(uintptr_t)list.ifc_buf;
    rc = user_call_buffer(thread, gva, (uint64_t)list.ifc_len, HART_STORE, &hva);
    if (rc)
        return rc;
    list.ifc_buf = hva;
    rc = user_host_call(thread, SYS_ioctl, arguments[0], arguments[1], (uint64_t)(uintptr_t)&list,
                        0, 0, 0);
    list.ifc_buf = (char *)(uintptr_t)gva;
    return rc ? rc : user_copy_out(thread, arguments[2], &list, sizeof(list));
}

int64_t user_ioctl(struct user_thread *thread, const uint64_t arguments[6])
{
    uint32_t request = (uint32_t)arguments[1];
    const struct command *command = find(ioctls, BASE_COUNT_OF(ioctls), request);

    if (command)
        return call(thread, SYS_ioctl, command, arguments, 2);
    switch (request) {
    case FS_IOC_FIEMAP:
        return map_extents(thread, arguments);
    case FIDEDUPERANGE:
        return deduplicate(thread, arguments);
    case SIOCGIFCONF:
        return list_interfaces(thread, arguments);
    default:
        user_call_report(thread, USER_REPORT_IOCTL + request % USER_REPORT_IOCTLS,
                         "the request 0x%x of ioctl is not there", request);
        return -ENOTTY;
    }
}

// ---- fcntl, prctl, fsconfig

int64_t user_fcntl(struct user_thread *thread, const uint64_t arguments[6])
{
    const struct command *command = find(fcntls, BASE_COUNT_OF(fcntls), (uint32_t)arguments[1]);

    return command ? call(thread, SYS_fcntl, command, arguments, 2) : -EINVAL;
}

int64_t user_prctl(struct user_thread *thread, const uint64_t arguments[6])
{
    const struct command *command = find(prctls, BASE_COUNT_OF(prctls), (uint32_t)arguments[0]);

    return command ? call(thread, SYS_prctl, command, arguments, 1) : -EINVAL;
}

// The setting's name is an argument, too.
int64_t user_fsconfig(struct user_thread *thread, const uint64_t arguments[6])
{
    const struct command *command = find(settings, BASE_COUNT_OF(settings), (uint32_t)arguments[1]);
    uint64_t named[6];
    void *name;
    int rc = user_call_buffer(thread, arguments[2], 1, HART_LOAD, &name);

    if (rc)
        return rc;
    memcpy(named, arguments, sizeof(named));
    named[2] = (uint64_t)(uintptr_t)name;
    return command ? call(thread, SYS_fsconfig, command, named, 3) : -EOPNOTSUPP;
}
