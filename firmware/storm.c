// SPDX-License-Identifier: BSD-2-Clause
// storm: a bare-metal guest that is hostile to everything at once. Each hart, in S-mode on the
// built-in SBI, gives virtio devices rings of rubbish that is now and then almost right, writes
// random values to the registers of all devices, makes absurd SBI calls, and starts, stops and
// suspends harts. When its time is up it says what it did and switches off.
//
// The kernel command line says how: "seed=N seconds=N reboots=N", decimal. With reboots=1 any hart
// may reset the machine at any time, and there is no other end; as RAM forgets, each boot's storm
// is seeded from the real-time clock, too.
//
// All harts work in one arena, so rings and buffers change while a device looks at them. The
// program survives: the only other address in RAM that a device is given is its very start, where
// nothing is. Of firmware.h this uses macros only; crt.S and firmware.c are for M-mode.
#include "firmware.h"

#define HARTS_MAX 16
#define STACK_SHIFT 12
#define ARENA_BYTES 0x100000u
#define RINGS 16                    // lie at the arena's beginning
#define ARENA_SLACK_BYTES 0x10000u  // for what begins in the arena and ends behind it
#define TICKS_PER_SECOND 10000000ul
#define SIE_ALL (BIT(IRQ_SSI) | BIT(IRQ_STI) | BIT(IRQ_SEI))
#define SSTATUS_SIE BIT(1)

// ---- The board ----
#define TEST_DEVICE 0x00100000ul
#define TEST_RESET 0x7777u
#define RTC 0x00101000ul
#define ACLINT 0x02000000ul
#define ACLINT_BYTES 0x10000u
#define PLIC_SOURCES 0x0c000000ul  // priorities, pending and enabled interrupts
#define PLIC_SOURCES_BYTES 0x3000u
#define PLIC_CONTEXTS 0x0c200000ul
#define PLIC_CONTEXTS_BYTES 0x10000u
#define PLIC_CLAIM(context) (PLIC_CONTEXTS + 0x1000u * (context) + 4)
#define PLIC_CONTEXT_COUNT 8  // two a hart
#define UART 0x10000000ul
#define VIRTIO(slot) (0x10001000ul + 0x1000u * (slot))
#define VIRTIO_SLOTS 6  // two disks, network, vsock, rng, console

enum virtio_register {
    VIRTIO_DRIVER_FEATURES = 0x20,
    VIRTIO_DRIVER_FEATURES_SEL = 0x24,
    VIRTIO_QUEUE_SEL = 0x30,
    VIRTIO_QUEUE_NUM = 0x38,
    VIRTIO_QUEUE_READY = 0x44,
    VIRTIO_QUEUE_NOTIFY = 0x50,
    VIRTIO_INTERRUPT_STATUS = 0x60,
    VIRTIO_INTERRUPT_ACK = 0x64,
    VIRTIO_STATUS = 0x70,
    VIRTIO_QUEUE_DESC = 0x80,
    VIRTIO_QUEUE_DRIVER = 0x90,
    VIRTIO_QUEUE_DEVICE = 0xa0,
};
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };
#define FEATURE_INDIRECT BIT(28)
#define FEATURE_VERSION_1 1u  // bit 32, in the second word
#define QUEUES 4
#define QUEUE_SIZE 64

struct descriptor {
    uint64_t gpa;
    uint32_t length_bytes;
    uint16_t flags, next;
};
enum { DESCRIPTOR_NEXT = 1, DESCRIPTOR_WRITE = 2 };

// A split queue; the three parts may lie anywhere, here each has a page.
struct rings {
    struct descriptor descriptors[256];
    struct {
        uint16_t flags, index, ring[2046];
    } available;
    struct {
        uint16_t flags, index, ring[2046];
    } used;
};

// ---- SBI ----
enum sbi_extension {
    SBI_BASE = 0x10,
    SBI_TIME = 0x54494d45,
    SBI_IPI = 0x735049,
    SBI_RFENCE = 0x52464e43,
    SBI_HSM = 0x48534d,
    SBI_SRST = 0x53525354,
    SBI_DBCN = 0x4442434e,
};
enum { HSM_START, HSM_STOP, HSM_STATUS, HSM_SUSPEND };
enum { DBCN_WRITE };
enum { SRST_SHUTDOWN, SRST_COLD_REBOOT };
#define SUSPEND_NON_RETENTIVE 0x80000000u

struct storm {
    uint64_t random;  // state of the generator
    uint64_t hart;
};

// Set by the first hart before it starts the others.
static struct {
    uint64_t seed;
    uint64_t deadline_ticks;
    uint64_t reboot_rounds;  // mean time between two reboots of one hart's; 0: never
} settings;
static uint64_t rounds, answers[VIRTIO_SLOTS];  // how often a device was seen to have used buffers

char stacks[HARTS_MAX << STACK_SHIFT] __attribute__((aligned(16)));
static uint8_t arena[ARENA_BYTES + ARENA_SLACK_BYTES] __attribute__((aligned(4096)));

_Noreturn void storm_first(uint64_t hart, const char *device_tree);
_Noreturn void storm_hart(uint64_t hart);
extern const char start_hart[], trap[];

// A trap is answered by going on behind it (all instructions here have four bytes); an interrupt by
// taking no more of them, until rest() asks for them again.
__asm__(".globl _start, start_hart, trap\n"
        "_start: la t0, storm_first\n"
        "j 1f\n"
        "start_hart: la t0, storm_hart\n"
        "1: addi t1, a0, 1\n"
        "slli t1, t1, 12\n"
        "la sp, stacks\n"
        "add sp, sp, t1\n"
        "jr t0\n"
        ".balign 4\n"
        "trap: csrw sscratch, t0\n"
        "csrr t0, scause\n"
        "bltz t0, 2f\n"
        "csrr t0, sepc\n"
        "addi t0, t0, 4\n"
        "csrw sepc, t0\n"
        "j 3f\n"
        "2: csrw sie, zero\n"
        "3: csrr t0, sscratch\n"
        "sret\n");
_Static_assert(STACK_SHIFT == 12, "the code above has it in its shift");

static void sbi(uint64_t extension, uint64_t function, uint64_t arg0, uint64_t arg1, uint64_t arg2)
{
    register uint64_t a0 __asm__("a0") = arg0;
    register uint64_t a1 __asm__("a1") = arg1;
    register uint64_t a2 __asm__("a2") = arg2;
    register uint64_t a6 __asm__("a6") = function;
    register uint64_t a7 __asm__("a7") = extension;
    // a3 and a4, which some calls have, are what the compiler left there.
    __asm__ volatile("ecall" : "+r"(a0), "+r"(a1) : "r"(a2), "r"(a6), "r"(a7) : "memory");
}

static void write32(uint64_t gpa, uint64_t value)
{
    *(volatile uint32_t *)gpa = (uint32_t)value;
}

static uint32_t read32(uint64_t gpa)
{
    return *(volatile uint32_t *)gpa;
}

// ---- Randomness ----

// Marsaglia's xorshift; the low bits are as good as any for this.
static uint64_t any(struct storm *storm)
{
    storm->random ^= storm->random << 13;
    storm->random ^= storm->random >> 7;
    storm->random ^= storm->random << 17;
    return storm->random;
}

static uint64_t below(struct storm *storm, uint64_t limit)
{
    return any(storm) % limit;
}

static bool one_in(struct storm *storm, uint64_t n)
{
    return below(storm, n) == 0;
}

// A multiple of 16 in the arena; behind the rings, mostly.
static uint64_t arena_gpa(struct storm *storm)
{
    uint64_t begin = one_in(storm, 32) ? 0 : RINGS * sizeof(struct rings);

    return (uint64_t)arena + begin + (below(storm, ARENA_BYTES - begin) & ~15ul);
}

// A value that somebody may trip over.
static uint64_t rubbish(struct storm *storm)
{
    static const uint64_t nasty[] = {
        0, 1, 15, 16, 255, 256, 4095, 4096, 65536, 0x7fffffff, 0x80000000, 0xffffffff, BIT(63), -1,
    };

    switch (below(storm, 4)) {
    case 0:
        return nasty[below(storm, COUNT_OF(nasty))];
    case 1:
        return arena_gpa(storm);
    case 2:
        return below(storm, 32);
    default:
        return any(storm);
    }
}

// ---- virtio ----

static uint64_t device(struct storm *storm)
{
    return VIRTIO(below(storm, VIRTIO_SLOTS));
}

enum header { HEADER_DISK, HEADER_VSOCK, HEADER_NETWORK, HEADER_COUNT };

// The beginning of a request to a disk, or of a packet to vsock or to the network; the rest is what
// was there.
static void write_header(struct storm *storm, uint32_t *words, enum header header)
{
    switch (header) {
    case HEADER_DISK:  // virtio_blk_req: type, reserved, sector
        words[0] = below(storm, 16);
        words[2] = below(storm, 4096);
        words[3] = 0;
        break;
    case HEADER_VSOCK:  // virtio_vsock_hdr: from 3 to 2, ports, length, type and operation
        words[0] = 3;
        words[2] = 2;
        words[1] = words[3] = 0;
        words[4] = below(storm, 4);
        words[5] = below(storm, 4);
        words[6] = one_in(storm, 2) ? 0 : below(storm, 256);
        words[7] = 1 | below(storm, 9) << 16;
        break;
    default:  // virtio_net_hdr, then Ethernet to all with ARP, IPv4 or IPv6 in it
        words[0] = words[1] = words[2] = 0;
        words[3] = words[4] = 0xffffffff;
        words[6] = (one_in(storm, 3) ? 0xdd86 : one_in(storm, 2) ? 0x0608 : 0x0008) | 0x45 << 16;
        break;
    }
}

static uint32_t length(struct storm *storm)
{
    static const uint16_t common[] = {1, 12, 16, 44, 512, 1024, 1526, 4096};

    if (one_in(storm, 64))
        return any(storm) | BIT(31);  // too long for RAM; nothing between leaves the arena
    return one_in(storm, 4) ? below(storm, 4096) : common[below(storm, COUNT_OF(common))];
}

// Chains of `parts` descriptors, the first `readable` of which are not for the device to write to,
// and all alike: right for one device or another, but for an error here and there.
static void write_chains(struct storm *storm, struct descriptor *table, unsigned parts,
                         unsigned readable)
{
    enum header header = below(storm, HEADER_COUNT);
    uint32_t first_bytes = length(storm);

    for (unsigned i = 0; i < QUEUE_SIZE; i++) {
        unsigned part = i % parts;
        bool last = part + 1 == parts;
        uint64_t gpa = arena_gpa(storm);

        if (part == 0)
            write_header(storm, (uint32_t *)gpa, header);
        table[i].gpa = gpa;
        table[i].length_bytes = part == 0 ? first_bytes : length(storm);
        if (part > 0 && last)
            table[i].length_bytes = 1;  // a disk's status
        table[i].flags = (part < readable ? 0 : DESCRIPTOR_WRITE) | (last ? 0 : DESCRIPTOR_NEXT);
        table[i].next = i + 1;
        if (one_in(storm, 256))
            table[i].gpa = rubbish(storm);
        if (one_in(storm, 256))
            table[i].length_bytes = length(storm);
        if (one_in(storm, 256))
            table[i].flags = below(storm, 8);
        if (one_in(storm, 256))
            table[i].next = below(storm, QUEUE_SIZE + 1);
    }
}

// Sets up one of a device's queues and makes buffers available in it.
static void set_queue(struct storm *storm, uint64_t base, unsigned queue)
{
    struct rings *rings = (struct rings *)arena + below(storm, RINGS);
    unsigned parts = 1 + below(storm, 4);

    write_chains(storm, rings->descriptors, parts, below(storm, parts + 1));
    for (unsigned i = 0; i < QUEUE_SIZE; i++)
        rings->available.ring[i] = below(storm, QUEUE_SIZE / parts) * parts;
    rings->available.index = below(storm, one_in(storm, 2) ? 8 : QUEUE_SIZE);
    rings->available.flags = one_in(storm, 8);
    write32(base + VIRTIO_QUEUE_SEL, queue);
    write32(base + VIRTIO_QUEUE_READY, 0);
    write32(base + VIRTIO_QUEUE_NUM, QUEUE_SIZE);
    write32(base + VIRTIO_QUEUE_DESC, (uint64_t)rings->descriptors);
    write32(base + VIRTIO_QUEUE_DESC + 4, 0);
    write32(base + VIRTIO_QUEUE_DRIVER, (uint64_t)&rings->available);
    write32(base + VIRTIO_QUEUE_DRIVER + 4, 0);
    write32(base + VIRTIO_QUEUE_DEVICE, (uint64_t)&rings->used);
    write32(base + VIRTIO_QUEUE_DEVICE + 4, 0);
    write32(base + VIRTIO_QUEUE_READY, 1);
    write32(base + VIRTIO_QUEUE_NOTIFY, queue);
}

static void queue_again(struct storm *storm)
{
    set_queue(storm, device(storm), below(storm, QUEUES));
}

static void serve(uint64_t slot)
{
    uint64_t base = VIRTIO(slot);

    for (unsigned queue = 0; queue < QUEUES; queue++)
        write32(base + VIRTIO_QUEUE_NOTIFY, queue);
    if (read32(base + VIRTIO_INTERRUPT_STATUS) & 1)
        __atomic_fetch_add(&answers[slot], 1, __ATOMIC_RELAXED);
    write32(base + VIRTIO_INTERRUPT_ACK, 3);
}

static void serve_any(struct storm *storm)
{
    serve(below(storm, VIRTIO_SLOTS));
}

// As a driver would, unless another hart is at it too.
static void drive(struct storm *storm)
{
    uint64_t slot = below(storm, VIRTIO_SLOTS), base = VIRTIO(slot);

    write32(base + VIRTIO_STATUS, 0);
    write32(base + VIRTIO_STATUS, ACKNOWLEDGE | DRIVER);
    write32(base + VIRTIO_DRIVER_FEATURES_SEL, 1);
    write32(base + VIRTIO_DRIVER_FEATURES, FEATURE_VERSION_1);
    write32(base + VIRTIO_DRIVER_FEATURES_SEL, 0);
    write32(base + VIRTIO_DRIVER_FEATURES, one_in(storm, 4) ? any(storm) : FEATURE_INDIRECT);
    write32(base + VIRTIO_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    for (unsigned queue = 0; queue < QUEUES; queue++)
        set_queue(storm, base, queue);
    write32(base + VIRTIO_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    for (unsigned times = below(storm, 8); times > 0; times--)
        serve(slot);
}

static void set_status(struct storm *storm)
{
    write32(device(storm) + VIRTIO_STATUS, rubbish(storm));
}

static void poke_virtio(struct storm *storm)
{
    uint64_t gpa = device(storm) + 4 * below(storm, 0x80);

    if (one_in(storm, 2))
        write32(gpa, rubbish(storm));
    else
        read32(gpa);
}

// ---- The other devices ----

static void poke_plic(struct storm *storm)
{
    write32(PLIC_SOURCES + 4 * below(storm, PLIC_SOURCES_BYTES / 4), rubbish(storm));
    write32(PLIC_CONTEXTS + 4 * below(storm, PLIC_CONTEXTS_BYTES / 4), rubbish(storm));
    read32(PLIC_CLAIM(below(storm, PLIC_CONTEXT_COUNT)));
}

static void poke_aclint(struct storm *storm)
{
    write32(ACLINT + 4 * below(storm, ACLINT_BYTES / 4), rubbish(storm));
}

static void poke_rtc(struct storm *storm)
{
    write32(RTC + 4 * below(storm, 8), rubbish(storm));
}

static void poke_uart(struct storm *storm)
{
    volatile uint8_t *reg = (volatile uint8_t *)UART + below(storm, 8);

    *reg = rubbish(storm);
    (void)*reg;
}

// ---- SBI calls, and what they do to harts ----

// Interrupts of all kinds are enabled, and the timer's comes in a millisecond at most: a hart that
// is suspended now goes on.
static void rest(struct storm *storm)
{
    csr_write(sie, SIE_ALL);
    sbi(SBI_TIME, 0, csr_read(time) + below(storm, 10000), 0, 0);
}

static void take_interrupts(struct storm *storm)
{
    rest(storm);
    csr_set(sstatus, SSTATUS_SIE);
    csr_clear(sstatus, SSTATUS_SIE);
    csr_clear(sip, BIT(IRQ_SSI));
}

static void call_absurdly(struct storm *storm)
{
    static const uint32_t extensions[] = {
        SBI_BASE, SBI_TIME, SBI_IPI, SBI_RFENCE, SBI_HSM, SBI_SRST, SBI_DBCN,
    };
    uint64_t extension = extensions[below(storm, COUNT_OF(extensions))];
    uint64_t function = one_in(storm, 8) ? rubbish(storm) : below(storm, 8);
    uint64_t arg0 = rubbish(storm), arg1 = rubbish(storm);

    // These could be obeyed: a hart would be gone, or run the rubbish in the arena, or the machine
    // would be off.
    if (extension == SBI_HSM && (uint32_t)function == HSM_STOP)
        function = HSM_STATUS;
    if (extension == SBI_HSM)
        arg1 |= 1;
    if (extension == SBI_SRST)
        arg0 |= BIT(8);
    rest(storm);
    sbi(extension, function, arg0, arg1, one_in(storm, 4) ? rubbish(storm) : 0);
}

static void interrupt_and_fence(struct storm *storm)
{
    sbi(SBI_IPI, 0, below(storm, 16), one_in(storm, 2) ? 0 : rubbish(storm), 0);
    sbi(SBI_RFENCE, below(storm, 3), below(storm, 16), 0, rubbish(storm));
    __asm__ volatile("sfence.vma\nfence.i" ::: "memory");
}

static void write_text(struct storm *storm)
{
    sbi(SBI_DBCN, DBCN_WRITE, below(storm, 64), arena_gpa(storm), 0);
}

static void suspend(struct storm *storm)
{
    rest(storm);
    sbi(SBI_HSM, HSM_SUSPEND, one_in(storm, 2) ? 0 : SUSPEND_NON_RETENTIVE, (uint64_t)start_hart,
        0);
}

static void start_all(struct storm *storm)
{
    (void)storm;
    for (unsigned hart = 0; hart < HARTS_MAX; hart++)
        sbi(SBI_HSM, HSM_START, hart, (uint64_t)start_hart, 0);
}

// The first hart stays: somebody must switch off.
static void stop(struct storm *storm)
{
    if (storm->hart != 0 && one_in(storm, 16))
        sbi(SBI_HSM, HSM_STOP, 0, 0, 0);
}

static void reboot(struct storm *storm)
{
    if (one_in(storm, 2))
        sbi(SBI_SRST, 0, SRST_COLD_REBOOT, 0, 0);
    else
        write32(TEST_DEVICE, TEST_RESET);
}

// ---- The run ----

static char *append_text(char *end, const char *text)
{
    while (*text)
        *end++ = *text++;
    return end;
}

static char *append_number(char *end, uint64_t value)
{
    if (value >= 10)
        end = append_number(end, value / 10);
    *end++ = (char)('0' + value % 10);
    return end;
}

// Says on the console "storm: WHAT N N ..." in one call, so that other harts do not write in
// between.
static void report(const char *what, const uint64_t *values, unsigned count)
{
    char line[256], *end = append_text(append_text(line, "\r\nstorm: "), what);

    for (unsigned i = 0; i < count; i++)
        end = append_number(append_text(end, " "), values[i]);
    end = append_text(end, "\r\n");
    sbi(SBI_DBCN, DBCN_WRITE, (uint64_t)(end - line), (uint64_t)line, 0);
}

// Where a stopped or resumed hart begins again, too; then it is another storm, as the time is
// another.
void storm_hart(uint64_t hart)
{
    static void (*const actions[])(struct storm *) = {
        drive,      queue_again, serve_any,     set_status,          poke_virtio,     poke_virtio,
        poke_plic,  poke_aclint, poke_rtc,      poke_uart,           take_interrupts, call_absurdly,
        write_text, suspend,     call_absurdly, interrupt_and_fence, start_all,       stop,
    };
    struct storm storm = {
        .hart = hart,
        .random = (settings.seed + (hart << 32) + csr_read(time)) * 0x9e3779b97f4a7c15 | 1,
    };

    csr_write(stvec, trap);
    while (csr_read(time) < settings.deadline_ticks) {
        actions[below(&storm, COUNT_OF(actions))](&storm);
        __atomic_fetch_add(&rounds, 1, __ATOMIC_RELAXED);
        if (settings.reboot_rounds && one_in(&storm, settings.reboot_rounds))
            reboot(&storm);
    }
    if (hart == 0) {
        report("rounds", &rounds, 1);
        report("answers", answers, VIRTIO_SLOTS);
        sbi(SBI_SRST, 0, SRST_SHUTDOWN, 0, 0);
    }
    sbi(SBI_HSM, HSM_STOP, 0, 0, 0);
    __builtin_unreachable();
}

// The number behind `name` in the device tree; the command line is the one place that has these.
// The second word of the tree is its size, big-endian.
static uint64_t option(const char *device_tree, const char *name)
{
    const uint8_t *size = (const uint8_t *)device_tree + 4;
    const char *end = device_tree + (size[0] << 24 | size[1] << 16 | size[2] << 8 | size[3]);
    uint64_t value = 0;

    for (const char *at = device_tree; at < end; at++) {
        unsigned length = 0;
        while (name[length] && at[length] == name[length])
            length++;
        if (name[length])
            continue;
        for (at += length; *at >= '0' && *at <= '9'; at++)
            value = 10 * value + (uint64_t)(*at - '0');
        break;
    }
    return value;
}

void storm_first(uint64_t hart, const char *device_tree)
{
    uint64_t reboots = option(device_tree, "reboots=");
    struct storm storm = {.random = option(device_tree, "seed=") | BIT(63)};

    if (reboots) {
        storm.random ^= read32(RTC);
        settings.reboot_rounds = 64ul << below(&storm, 6);
    }
    settings.seed = any(&storm);
    settings.deadline_ticks =
        reboots ? UINT64_MAX : csr_read(time) + option(device_tree, "seconds=") * TICKS_PER_SECOND;
    report("seed", &settings.seed, 1);
    report("reboots every", &settings.reboot_rounds, 1);
    start_all(&storm);
    storm_hart(hart);
}
