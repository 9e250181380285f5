// SPDX-License-Identifier: BSD-2-Clause
// Files of /proc that would show, or give access to, the monitor instead of the program in it.
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "user/calls.h"

// ---- What they contain

static int print_maps(struct user_thread *thread, FILE *out)
{
    user_space_print(&thread->process->space, out);
    return 0;
}

static int print_strings(char *const *strings, FILE *out)
{
    for (; strings && *strings; strings++)
        (void)fwrite(*strings, 1, strlen(*strings) + 1, out);
    return 0;
}

static int print_cmdline(struct user_thread *thread, FILE *out)
{
    return print_strings(thread->process->argv, out);
}

static int print_environ(struct user_thread *thread, FILE *out)
{
    return print_strings(thread->process->envp, out);
}

static int print_auxv(struct user_thread *thread, FILE *out)
{
    (void)fwrite(thread->process->auxv, sizeof(uint64_t), thread->process->auxv_words, out);
    return 0;
}

// The host's, with those of its fields that are addresses replaced (proc_pid_stat(5)).
static int print_stat(struct user_thread *thread, FILE *out)
{
    enum { STATE = 3, START_STACK = 28 };
    static const uint8_t addresses[] = {26, 27, 29, 30, 45, 46, 47, 48, 49, 50, 51};
    FILE *in = fopen("/proc/self/stat", "re");
    char line[2048];
    char *rest, *word;

    if (!in)
        return -errno;
    size_t bytes = fread(line, 1, sizeof(line) - 1, in);
    (void)fclose(in);
    line[bytes] = 0;
    // The name may hold anything, also a bracket.
    rest = strrchr(line, ')');
    if (!rest)
        return -EIO;
    *rest++ = 0;
    (void)fprintf(out, "%s)", line);
    for (unsigned field = STATE; (word = strtok_r(rest, " \n", &rest)); field++) {
        if (field == START_STACK)
            (void)fprintf(out, " %llu", (unsigned long long)thread->process->stack_top);
        else
            (void)fprintf(out, " %s",
                          memchr(addresses, (int)field, sizeof(addresses)) ? "0" : word);
    }
    (void)fputc('\n', out);
    return 0;
}

// The extensions are those of riscv_hwprobe (calls_system.c).
static int print_cpuinfo(struct user_thread *thread, FILE *out)
{
    long count = sysconf(_SC_NPROCESSORS_ONLN);

    (void)thread;
    for (long i = 0; i < count; i++)
        (void)fprintf(out,
                      "processor\t: %ld\nhart\t\t: %ld\n"
                      "isa\t\t: rv64imafdc_zicntr_zicsr_zifencei_zihintpause_zba_zbb_zbc_"
                      "zbkb_zbkc_zbkx_zbs_zkn_zknd_zkne_zknh\n"
                      "mmu\t\t: sv39\n\n",
                      i, i);
    return 0;
}

// ---- Which they are

enum whose { OWN, ANY_PROCESS, SYSTEM };

struct proc_file {
    const char *name;
    enum whose whose;
    int error;  // what opening it comes to, or 0:
    int (*print)(struct user_thread *thread, FILE *out);
};

static const struct proc_file proc_files[] = {
    {"maps", OWN, 0, print_maps},
    {"cmdline", OWN, 0, print_cmdline},
    {"environ", OWN, 0, print_environ},
    {"auxv", OWN, 0, print_auxv},
    {"stat", OWN, 0, print_stat},
    {"cpuinfo", SYSTEM, 0, print_cpuinfo},
    {"kcore", SYSTEM, -EPERM, NULL},
    {"mem", ANY_PROCESS, -EACCES, NULL},
    {"map_files", ANY_PROCESS, -EACCES, NULL},
    {"clear_refs", ANY_PROCESS, -EACCES, NULL},
    {"pagemap", OWN, -EACCES, NULL},
    {"smaps", OWN, -EACCES, NULL},
    {"smaps_rollup", OWN, -EACCES, NULL},
    {"numa_maps", OWN, -EACCES, NULL},
    {"syscall", OWN, -EACCES, NULL},
};

// The path within /proc of what a descriptor of it stands for, "123/maps" or "123/task/124/maps".
static bool path_in_proc(int fd, char path[static PATH_MAX])
{
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC &&
           user_descriptor_path(fd, path) >= 0;
}

// A thread's id is a process' path, too.
static bool is_own(const char *id)
{
    return syscall(SYS_tgkill, getpid(), (pid_t)strtol(id, NULL, 10), 0) == 0;
}

// Of the components of `path`, the last is `name`, and the ones before it are a process (and
// thread).
static bool is_of_process(char *path, bool own)
{
    char *name = strrchr(path, '/'), *id;

    *name = 0;
    id = strrchr(path, '/');
    if (id && id - path >= 5 && strncmp(id - 5, "/task", 5) == 0) {
        id[-5] = 0;
        id = strrchr(path, '/');
    }
    return id && id[1] && strspn(id + 1, "0123456789") == strlen(id + 1) &&
           (!own || is_own(id + 1));
}

static const struct proc_file *find_file(int fd)
{
    char path[PATH_MAX], copy[PATH_MAX];
    const char *name;

    if (!path_in_proc(fd, path) || !(name = strrchr(path, '/')))
        return NULL;
    for (size_t i = 0; i < BASE_COUNT_OF(proc_files); i++) {
        const struct proc_file *file = &proc_files[i];
        if (strcmp(name + 1, file->name) != 0)
            continue;
        memcpy(copy, path, sizeof(copy));
        if (file->whose == SYSTEM || is_of_process(copy, file->whose == OWN))
            return file;
    }
    return NULL;
}

int user_proc_open(struct user_thread *thread, int fd)
{
    const struct proc_file *file = find_file(fd);
    char *text = NULL;
    size_t bytes = 0;
    FILE *out;
    int rc, made;

    if (!file)
        return -ENODATA;
    if (file->error)
        return file->error;
    out = open_memstream(&text, &bytes);
    if (!out)
        return -ENOMEM;
    rc = file->print(thread, out);
    if (fclose(out) && rc == 0)
        rc = -ENOMEM;
    made = rc ? rc : memfd_create(file->name, MFD_CLOEXEC);
    if (rc == 0 && made < 0)
        made = -errno;
    if (made >= 0 && (fd_write_full(made, text, bytes) < 0 || lseek(made, 0, SEEK_SET) < 0)) {
        close(made);
        made = -EIO;
    }
    free(text);
    return made;
}

// ---- The program itself

bool user_proc_is_exe(const char *path)
{
    static const char *const others[] = {"self", "thread-self"};
    char own[40];

    (void)snprintf(own, sizeof(own), "/proc/%d/exe", (int)getpid());
    if (strcmp(path, own) == 0)
        return true;
    for (size_t i = 0; i < BASE_COUNT_OF(others); i++) {
        (void)snprintf(own, sizeof(own), "/proc/%s/exe", others[i]);
        if (strcmp(path, own) == 0)
            return true;
    }
    return false;
}
