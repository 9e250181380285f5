// SPDX-License-Identifier: BSD-2-Clause
// The board's own devices, for the files of this room and its tests. Each is a struct that the
// caller provides, with X_init (once), X_reset (power-on state), X_fini, and X_ops for the memory
// map. Register access comes on hart threads, several at once; every device has its own lock.
//
// Lock order: a device's lock, then the PLIC's. Callbacks out of the machine (console bytes,
// events) are made with no lock held.
#ifndef STRAKE_MACHINE_DEVICES_H
#define STRAKE_MACHINE_DEVICES_H

#include <pthread.h>

#include "machine/machine.h"

// ---- PLIC: RISC-V Platform-Level Interrupt Controller 1.0.0 -------------------------------------

#define PLIC_SOURCES 96u  // interrupt sources 1..PLIC_SOURCES; 0 means none
#define PLIC_WORDS (PLIC_SOURCES / 32u + 1u)
#define PLIC_CONTEXTS (2u * HART_MAX)  // context 2h is hart h's M-mode, 2h+1 its S-mode
#define PLIC_LENGTH_BYTES 0x600000u

struct plic_context {
    uint32_t enable[PLIC_WORDS];
    uint32_t threshold;
    bool output;  // what `set` was last told
};

struct plic {
    pthread_mutex_t lock;
    unsigned contexts;
    uint8_t priority[PLIC_WORDS * 32];
    uint32_t level[PLIC_WORDS];    // the wires
    uint32_t pending[PLIC_WORDS];  // as the guest sees it
    uint32_t claimed[PLIC_WORDS];  // between claim and completion: the gateway is closed
    struct plic_context context[PLIC_CONTEXTS];
    // Drives a context's interrupt wire; called with the lock held, so it may not call back.
    void (*set)(void *opaque, unsigned context, bool level);
    void *opaque;
};

void plic_init(struct plic *plic, unsigned contexts,
               void (*set)(void *opaque, unsigned context, bool level), void *opaque);
void plic_reset(void *plic);
void plic_save(void *plic, struct state_writer *writer);
BASE_NODISCARD int plic_load(void *plic, struct state_reader *reader, struct error *err);
void plic_fini(void *plic);
// The line into the PLIC with this source number.
struct irq_line plic_line(struct plic *plic, unsigned source);
extern const struct memory_device_ops plic_ops;

// ---- ACLINT: machine-level timers and software interrupts, at the offsets of a SiFive CLINT -----

#define ACLINT_LENGTH_BYTES 0x10000u

struct aclint {
    pthread_mutex_t lock;  // makes a write of half a register one change
    struct hart *const *harts;
    unsigned count;
};

void aclint_init(struct aclint *aclint, struct hart *const *harts, unsigned count);
void aclint_reset(void *aclint);
void aclint_fini(void *aclint);
extern const struct memory_device_ops aclint_ops;

// ---- UART: National Semiconductor PC16550D ------------------------------------------------------

#define UART_CLOCK_HZ 3686400u
#define UART_FIFO_BYTES 16u
#define UART_LENGTH_BYTES 0x100u

// The serial line's other end. Called on the thread of the access, with no lock of the UART held
// except where said.
struct uart_peer {
    void (*output)(void *opaque, uint8_t byte);
    // Gives at most `max` bytes that have arrived; the UART's lock is held.
    size_t (*input)(void *opaque, uint8_t *bytes, size_t max);
    // Bytes may have been taken by this access, not by uart_poll_input.
    void (*input_taken)(void *opaque);
    void *opaque;
};

struct uart {
    pthread_mutex_t lock;
    struct uart_peer peer;
    struct irq_line irq;
    uint8_t ier, fcr, lcr, mcr, lsr, msr, scr;
    uint16_t divisor;
    bool thr_empty_pending;  // the transmitter's interrupt, until read or written away
    uint8_t rx[UART_FIFO_BYTES];
    unsigned rx_head, rx_count;
};

void uart_init(struct uart *uart, const struct uart_peer *peer, struct irq_line irq);
void uart_reset(void *uart);
void uart_save(void *uart, struct state_writer *writer);
BASE_NODISCARD int uart_load(void *uart, struct state_reader *reader, struct error *err);
void uart_fini(void *uart);
// The peer has input: takes what fits. Any thread.
void uart_poll_input(struct uart *uart);
extern const struct memory_device_ops uart_ops;

// ---- RTC: goldfish, nanoseconds since 1970, with an alarm ---------------------------------------

#define RTC_LENGTH_BYTES 0x1000u

struct rtc {
    pthread_mutex_t lock;
    const struct machine_host *host;
    struct irq_line irq;
    uint64_t offset_ns;   // added to the host's wall clock: what the guest set the time to
    uint32_t time_high;   // latched by reading the low half
    uint32_t alarm_high;  // written before the low half, which arms
    uint64_t alarm_ns;    // when the alarm is due, in the guest's time
    bool alarm_armed;     // and not yet due
    bool alarm_raised;    // due, and not cleared yet
    bool irq_enabled;
    bool paused;               // the alarm waits
    struct loop_wake *wake;    // the alarm was changed: look at it on the loop's thread
    struct loop_timer *timer;  // loop thread only
};

BASE_NODISCARD int rtc_init(struct rtc *rtc, struct loop *loop, const struct machine_host *host,
                            struct irq_line irq);
void rtc_reset(void *rtc);
void rtc_save(void *rtc, struct state_writer *writer);
BASE_NODISCARD int rtc_load(void *rtc, struct state_reader *reader, struct error *err);
// While paused no alarm is raised: it is when resumed.
void rtc_pause(struct rtc *rtc);
void rtc_resume(struct rtc *rtc);
void rtc_fini(void *rtc);
extern const struct memory_device_ops rtc_ops;

// ---- Generation: tells a guest that it was restored ---------------------------------------------

#define GENERATION_BYTES 16u

struct generation {
    pthread_mutex_t lock;
    struct irq_line irq;
    uint8_t id[GENERATION_BYTES];
    bool unread;  // changed, and the guest has not read it since
};

// Starts with a random id. 0 or -EIO.
BASE_NODISCARD int generation_init(struct generation *generation, struct irq_line irq);
void generation_reset(void *generation);
void generation_save(void *generation, struct state_writer *writer);
BASE_NODISCARD int generation_load(void *generation, struct state_reader *reader,
                                   struct error *err);
void generation_set(struct generation *generation, const uint8_t id[GENERATION_BYTES]);
void generation_fini(struct generation *generation);
extern const struct memory_device_ops generation_ops;

// ---- Power: SiFive test finisher ----------------------------------------------------------------

#define POWER_LENGTH_BYTES 0x1000u
#define POWER_FAIL 0x3333u  // the code is in the upper half
#define POWER_OFF 0x5555u
#define POWER_RESET 0x7777u

struct power {
    const struct machine_host *host;
};

void power_init(struct power *power, const struct machine_host *host);
extern const struct memory_device_ops power_ops;

#endif
