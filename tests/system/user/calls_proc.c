// SPDX-License-Identifier: BSD-2-Clause
// /proc shows the program and not what runs it, and no way leads from it to that one's memory.
// Started as: PROGRAM ITS-REAL-PATH one two, with GIVEN=this in the environment.
#define _GNU_SOURCE
#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static char text[1 << 20];

static size_t get(const char *path)
{
    int fd = open(path, O_RDONLY);
    size_t bytes = 0;
    ssize_t count;

    while (fd >= 0 && bytes < sizeof(text) - 1 &&
           (count = read(fd, text + bytes, sizeof(text) - 1 - bytes)) > 0)
        bytes += (size_t)count;
    text[bytes] = 0;
    close(fd);
    return bytes;
}

static bool in_maps(const void *at, const char *protection)
{
    for (const char *line = text; line && *line;
         line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        unsigned long start, end;
        char allowed[8];
        if (sscanf(line, "%lx-%lx %7s", &start, &end, allowed) == 3 && (uintptr_t)at >= start &&
            (uintptr_t)at < end)
            return strncmp(allowed, protection, strlen(protection)) == 0;
    }
    return false;
}

static void *shown_by_thread(void *unused)
{
    char path[64];
    int local = 0;

    snprintf(path, sizeof(path), "/proc/%d/maps", gettid());
    check(get(path) > 0 && in_maps(&local, "rw-p") && !strstr(text, "strake\n"),
          "and those by the number of a thread are its mappings");
    return unused;
}

static void shown(char **argv)
{
    char path[4096] = "", link[64];
    struct stat one, two;
    int local = 0;

    ssize_t count = readlink("/proc/self/exe", path, sizeof(path) - 1);
    check(count > 0 && strcmp(path, argv[1]) == 0, "/proc/self/exe is the program");
    snprintf(link, sizeof(link), "/proc/%d/exe", getpid());
    check(stat(link, &one) == 0 && stat(argv[1], &two) == 0 && one.st_ino == two.st_ino,
          "and stat says the same");
    Elf64_Ehdr header = {0};
    int fd = open("/proc/self/exe", O_RDONLY);
    check(read(fd, &header, sizeof(header)) == sizeof(header) && header.e_machine == EM_RISCV,
          "it is one of riscv64");
    close(fd);
    size_t bytes = get("/proc/self/cmdline");
    check(bytes > 9 && strcmp(text, argv[0]) == 0 && memcmp(text + bytes - 8, "one\0two", 8) == 0,
          "its arguments");
    bytes = get("/proc/self/environ");
    check(memmem(text, bytes, "GIVEN=this", 11) != NULL, "its environment");
    bytes = get("/proc/self/auxv");
    check(bytes >= 16 && bytes % 16 == 0, "its auxiliary vector");
    bool same = false;
    for (size_t i = 0; i < bytes; i += 16) {
        uint64_t pair[2];
        memcpy(pair, text + i, 16);
        same = same || (pair[0] == AT_RANDOM && pair[1] == getauxval(AT_RANDOM));
    }
    check(same, "which is what it has");
    char *heap = malloc(1 << 20);
    check(get("/proc/self/maps") > 0 && in_maps(&local, "rw-p") && in_maps(heap, "rw-p") &&
              in_maps((void *)shown, "r-xp") && strstr(text, "[stack]") && strstr(text, argv[1]),
          "its mappings");
    check(!strstr(text, "x86") && !strstr(text, "strake\n") && strlen(text) < 10000,
          "and no others");
    free(heap);
    get("/proc/thread-self/stat");
    unsigned long stack = 0;
    int id = 0;
    char name[64];
    sscanf(text,
           "%d (%63[^)]) %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
           "%*s %*s %*s %*s %*s %*s %*s %*s %lu",
           &id, name, &stack);
    check(id == getpid() && stack > (uintptr_t)&local && stack - (uintptr_t)&local < 8 << 20,
          "where its stack starts");
    struct utsname system;
    check(uname(&system) == 0 && strcmp(system.machine, "riscv64") == 0 && get("/proc/cpuinfo") &&
              strstr(text, "rv64i"),
          "the machine");
    pthread_t thread;
    pthread_create(&thread, NULL, shown_by_thread, NULL);
    pthread_join(thread, NULL);
    check(get("/proc/self/status") > 0 && strstr(text, "Threads:") && get("/proc/meminfo") > 0,
          "other files are the host's");
}

static bool refused(int folder, const char *path, int flags)
{
    int fd = openat(folder, path, flags);
    if (fd >= 0)
        close(fd);
    return fd < 0 && (errno == EACCES || errno == EPERM || errno == ENOENT);
}

static void hidden(void)
{
    char path[64];
    uint64_t value = 0;
    int self = open("/proc/self", O_PATH | O_DIRECTORY), open_self = open("/proc/self", O_RDONLY);

    check(refused(AT_FDCWD, "/proc/self/mem", O_RDONLY) &&
              refused(AT_FDCWD, "/proc/self/mem", O_RDWR),
          "/proc/self/mem is not opened");
    check(refused(self, "mem", O_RDONLY) && refused(open_self, "mem", O_RDWR) &&
              refused(open_self, "task/../mem", O_RDWR),
          "nor from its folder");
    snprintf(path, sizeof(path), "/proc/%d/task/%d/mem", getpid(), getpid());
    check(refused(AT_FDCWD, path, O_RDWR), "nor by number");
    check(symlink("/proc/self/mem", "link") == 0 && refused(AT_FDCWD, "link", O_RDWR) &&
              refused(AT_FDCWD, "link", O_RDWR | O_CREAT) &&
              refused(AT_FDCWD, "link", O_WRONLY | O_TRUNC),
          "nor by a link");
    int fd = open("/proc/self/mem", O_PATH);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    check(refused(AT_FDCWD, path, O_RDWR), "nor by a descriptor of its place");
    close(fd);
    check(chdir("/proc/self") == 0 && refused(AT_FDCWD, "mem", O_RDWR) &&
              refused(AT_FDCWD, "map_files", O_RDONLY) && refused(AT_FDCWD, "smaps", O_RDONLY) &&
              refused(AT_FDCWD, "pagemap", O_RDONLY),
          "nor others that show memory");
    check(refused(AT_FDCWD, "/dev/mem", O_RDWR) && refused(AT_FDCWD, "/proc/kcore", O_RDONLY),
          "nor the machine's memory");
    const dev_t devices[] = {makedev(1, 1), makedev(1, 4), makedev(10, 239), makedev(21, 3)};
    bool opened = false;
    for (unsigned i = 0; i < sizeof(devices) / sizeof(*devices); i++) {
        snprintf(path, sizeof(path), "/tmp/strake-device-%d-%u", getpid(), i);
        opened |= mknod(path, S_IFCHR | 0600, devices[i]) == 0 && !refused(AT_FDCWD, path, O_RDWR);
        unlink(path);
    }
    check(!opened, "nor devices that are memory, or are written addresses to");
    struct iovec local = {&value, 8}, remote = {&value, 8};
    check(process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == -1 &&
              process_vm_writev(getpid(), &local, 1, &remote, 1, 0) == -1,
          "process_vm_readv, process_vm_writev");
    check(syscall(SYS_userfaultfd, 0) == -1 && syscall(SYS_io_uring_setup, 1, NULL) == -1 &&
              prctl(PR_SET_MM, PR_SET_MM_BRK, 0, 0, 0) == -1,
          "and other ways are refused");
    close(self);
    close(open_self);
}

#define ROUNDS 50000

static atomic_bool over, leaked;
static int place;  // of memory: a descriptor by which nothing can be read

static void *put_in_place(void *unused)
{
    while (!over) {
        dup3(place, place + 1, 0);
        close(place + 1);
    }
    return unused;
}

// Only memory is open and has an error of this kind where there is none.
static void *look_for_memory(void *unused)
{
    char byte;

    while (!over)
        for (int fd = place + 1; fd < place + 4; fd++)
            if (pread(fd, &byte, 1, 16) == -1 && errno == EIO)
                leaked = true;
    return unused;
}

// A thread opens a file; another puts what stands for memory in its place; a third one finds
// whether that was opened instead, if only for a moment.
static void fought_for(void)
{
    pthread_t threads[2];

    place = open("/proc/self/mem", O_PATH);
    pthread_create(&threads[0], NULL, put_in_place, NULL);
    pthread_create(&threads[1], NULL, look_for_memory, NULL);
    for (int i = 0; i < ROUNDS; i++)
        close(open("/dev/null", O_RDONLY));
    over = true;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    check(!leaked, "nor by a thread that is faster than what it opens");
    close(place);
}

static void executed(void)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        execl("/proc/self/exe", "itself", "again", NULL);
        _exit(1);
    }
    check(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7,
          "the program executes itself by it");
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[0], "itself") == 0)
        return strcmp(argv[1], "again") == 0 ? 7 : 8;
    if (argc < 2)
        return 2;
    shown(argv);
    executed();
    fought_for();
    hidden();
    return check_done();
}
