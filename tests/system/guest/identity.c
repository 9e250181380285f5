// SPDX-License-Identifier: BSD-2-Clause
// identity: what a machine tells its guest of who it is, for snapshot.py.
//
//   identity cid          the vsock context id that the driver has
//   identity generation   the VM generation id, from where the device tree says; its driver must
//   have
//                         let go of it (the kernel gives nobody else what a driver has)
#include <endian.h>
#include <fcntl.h>
#include <glob.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>  // needs <sys/socket.h> before it

#define NODE "/sys/firmware/devicetree/base/soc/*/compatible"
#define GENERATION_BYTES 16

static int fail(const char *what)
{
    perror(what);
    return 1;
}

static int print_cid(void)
{
    unsigned cid;
    int fd = open("/dev/vsock", O_RDONLY);

    if (fd < 0 || ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid))
        return fail("identity: /dev/vsock");
    printf("cid %u\n", cid);
    return 0;
}

static size_t read_file(const char *path, void *bytes, size_t count)
{
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, bytes, count);

    close(fd);
    return n < 0 ? 0 : (size_t)n;
}

// Its address: the first cell of "reg" of the node that is compatible; 0 if there is none.
static uint64_t generation_gpa(void)
{
    glob_t nodes;
    uint64_t gpa = 0;

    if (glob(NODE, 0, NULL, &nodes))
        return 0;
    for (size_t i = 0; i < nodes.gl_pathc && !gpa; i++) {
        char compatible[64] = "", *path = nodes.gl_pathv[i];
        read_file(path, compatible, sizeof(compatible) - 1);
        if (strcmp(compatible, "microsoft,vmgenid") == 0) {
            strcpy(strrchr(path, '/'), "/reg");
            read_file(path, &gpa, sizeof(gpa));
        }
    }
    globfree(&nodes);
    return be64toh(gpa);
}

static int print_generation(void)
{
    uint64_t gpa = generation_gpa(), page = (uint64_t)getpagesize();
    int fd = open("/dev/mem", O_RDONLY | O_SYNC);

    if (!gpa || fd < 0)
        return fail("identity: no VM generation id");
    const volatile uint8_t *at = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, (off_t)(gpa & -page));
    if (at == MAP_FAILED)
        return fail("identity: /dev/mem");
    printf("generation ");
    for (unsigned i = 0; i < GENERATION_BYTES; i++)
        printf("%02x", at[(gpa & (page - 1)) + i]);
    printf("\n");
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "cid") == 0)
        return print_cid();
    if (argc == 2 && strcmp(argv[1], "generation") == 0)
        return print_generation();
    fprintf(stderr, "usage: identity cid|generation\n");
    return 2;
}
