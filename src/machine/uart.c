// SPDX-License-Identifier: BSD-2-Clause
// Serial port. Source: National Semiconductor PC16550D data sheet (June 1995); section numbers are
// its.
//
// The line is infinitely fast: the transmitter is always empty, and input below the FIFO's trigger
// level counts as timed out at once. There are no overruns but in loopback mode: the peer is asked
// for input only as far as there is room.
#include <errno.h>
#include <string.h>

#include "machine/devices.h"

enum {  // section 8.0, table II
    UART_RBR_THR_DLL = 0,
    UART_IER_DLM = 1,
    UART_IIR_FCR = 2,
    UART_LCR = 3,
    UART_MCR = 4,
    UART_LSR = 5,
    UART_MSR = 6,
    UART_SCR = 7,
};

#define IER_RX 0x01u
#define IER_TX 0x02u
#define IER_LINE 0x04u
#define IER_MODEM 0x08u
#define IIR_NONE 0x01u
#define IIR_MODEM 0x00u
#define IIR_TX 0x02u
#define IIR_RX 0x04u
#define IIR_LINE 0x06u
#define IIR_TIMEOUT 0x0cu
#define IIR_FIFO 0xc0u
#define FCR_ENABLE 0x01u
#define FCR_RX_RESET 0x02u
#define FCR_STORED 0xc9u  // enable, DMA mode, trigger level
#define LCR_DLAB 0x80u
#define MCR_DTR 0x01u
#define MCR_RTS 0x02u
#define MCR_OUT1 0x04u
#define MCR_OUT2 0x08u
#define MCR_LOOP 0x10u
#define LSR_READY 0x01u
#define LSR_OVERRUN 0x02u
#define LSR_THR_EMPTY 0x20u
#define LSR_IDLE 0x40u
#define MSR_CTS 0x10u
#define MSR_DSR 0x20u
#define MSR_RI 0x40u
#define MSR_DCD 0x80u
#define MSR_DELTA 0x0fu

static unsigned rx_capacity(const struct uart *uart)
{
    return uart->fcr & FCR_ENABLE ? UART_FIFO_BYTES : 1;
}

static void rx_put(struct uart *uart, uint8_t byte)
{
    if (uart->rx_count == rx_capacity(uart))
        uart->lsr |= LSR_OVERRUN;
    else
        uart->rx[(uart->rx_head + uart->rx_count++) % UART_FIFO_BYTES] = byte;
}

static uint8_t rx_take(struct uart *uart)
{
    if (!uart->rx_count)
        return 0;
    uint8_t byte = uart->rx[uart->rx_head];
    uart->rx_head = (uart->rx_head + 1) % UART_FIFO_BYTES;
    uart->rx_count--;
    return byte;
}

// In loopback mode the line's input is cut off (section 8.7, bit 4).
static void rx_refill(struct uart *uart)
{
    uint8_t bytes[UART_FIFO_BYTES];

    if (uart->mcr & MCR_LOOP || uart->rx_count >= rx_capacity(uart))
        return;
    size_t count = uart->peer.input(uart->peer.opaque, bytes, rx_capacity(uart) - uart->rx_count);
    for (size_t i = 0; i < count; i++)
        rx_put(uart, bytes[i]);
}

static unsigned rx_trigger(const struct uart *uart)
{
    static const uint8_t levels[] = {1, 4, 8, 14};

    return uart->fcr & FCR_ENABLE ? levels[uart->fcr >> 6] : 1;
}

// The pending interrupt of the highest priority (section 8.6, table V).
static uint8_t interrupt_identify(const struct uart *uart)
{
    if (uart->ier & IER_LINE && uart->lsr & LSR_OVERRUN)
        return IIR_LINE;
    if (uart->ier & IER_RX && uart->rx_count)
        return uart->rx_count >= rx_trigger(uart) ? IIR_RX : IIR_TIMEOUT;
    if (uart->ier & IER_TX && uart->thr_empty_pending)
        return IIR_TX;
    if (uart->ier & IER_MODEM && uart->msr & MSR_DELTA)
        return IIR_MODEM;
    return IIR_NONE;
}

// The modem's inputs: a peer that is there and ready, or in loopback mode our own outputs. A change
// sets the delta bit; RI has one only for its trailing edge (section 8.8).
static void modem_update(struct uart *uart)
{
    uint8_t lines = MSR_CTS | MSR_DSR | MSR_DCD;

    if (uart->mcr & MCR_LOOP)
        lines = (uart->mcr & MCR_RTS ? MSR_CTS : 0) | (uart->mcr & MCR_DTR ? MSR_DSR : 0) |
                (uart->mcr & MCR_OUT1 ? MSR_RI : 0) | (uart->mcr & MCR_OUT2 ? MSR_DCD : 0);
    uint8_t changed = (lines ^ uart->msr) & (MSR_CTS | MSR_DSR | MSR_DCD);
    changed |= uart->msr & ~lines & MSR_RI;
    uart->msr = lines | (uart->msr & MSR_DELTA) | changed >> 4;
}

static uint8_t identify_read(struct uart *uart)
{
    uint8_t id = interrupt_identify(uart);

    if (id == IIR_TX)
        uart->thr_empty_pending = false;
    return id | (uart->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static uint8_t line_status_read(struct uart *uart)
{
    uint8_t status = uart->lsr | LSR_THR_EMPTY | LSR_IDLE | (uart->rx_count ? LSR_READY : 0);

    uart->lsr = 0;
    return status;
}

static uint8_t register_read(struct uart *uart, unsigned reg)
{
    bool divisor = uart->lcr & LCR_DLAB;
    uint8_t value;

    switch (reg) {
    case UART_RBR_THR_DLL:
        return divisor ? uart->divisor & 0xff : rx_take(uart);
    case UART_IER_DLM:
        return divisor ? uart->divisor >> 8 : uart->ier;
    case UART_IIR_FCR:
        return identify_read(uart);
    case UART_LCR:
        return uart->lcr;
    case UART_MCR:
        return uart->mcr;
    case UART_LSR:
        return line_status_read(uart);
    case UART_MSR:
        value = uart->msr;
        uart->msr &= ~MSR_DELTA;
        return value;
    default:
        return uart->scr;
    }
}

// Section 8.5: switching the FIFOs on or off empties them; the other bits count only while on.
static void fifo_control_write(struct uart *uart, uint8_t value)
{
    if ((value ^ uart->fcr) & FCR_ENABLE || value & FCR_RX_RESET)
        uart->rx_count = 0;
    uart->fcr = value & FCR_ENABLE ? value & FCR_STORED : 0;
}

// Returns whether the byte goes out on the line. Either way it is gone at once.
static bool transmit(struct uart *uart, uint8_t byte)
{
    uart->thr_empty_pending = true;
    if (!(uart->mcr & MCR_LOOP))
        return true;
    rx_put(uart, byte);
    return false;
}

// Enabling the transmitter's interrupt while the transmitter is empty raises it (section 8.6.3, and
// what drivers test chips for).
static void interrupt_enable_write(struct uart *uart, uint8_t value)
{
    if (value & ~uart->ier & IER_TX)
        uart->thr_empty_pending = true;
    uart->ier = value & (IER_RX | IER_TX | IER_LINE | IER_MODEM);
}

// Returns whether `value` goes out on the line.
static bool register_write(struct uart *uart, unsigned reg, uint8_t value)
{
    bool divisor = uart->lcr & LCR_DLAB;

    switch (reg) {
    case UART_RBR_THR_DLL:
        if (!divisor)
            return transmit(uart, value);
        uart->divisor = (uart->divisor & 0xff00) | value;
        return false;
    case UART_IER_DLM:
        if (divisor)
            uart->divisor = (uint16_t)(value << 8 | (uart->divisor & 0xff));
        else
            interrupt_enable_write(uart, value);
        return false;
    case UART_IIR_FCR:
        fifo_control_write(uart, value);
        return false;
    case UART_LCR:
        uart->lcr = value;
        return false;
    case UART_MCR:
        uart->mcr = value & (MCR_DTR | MCR_RTS | MCR_OUT1 | MCR_OUT2 | MCR_LOOP);
        modem_update(uart);
        return false;
    case UART_SCR:
        uart->scr = value;
        return false;
    default:  // LSR and MSR are for reading
        return false;
    }
}

// After every change: takes what there is room for and drives the interrupt.
static void settle(struct uart *uart)
{
    rx_refill(uart);
    irq_line_set(&uart->irq, interrupt_identify(uart) != IIR_NONE);
}

static uint64_t uart_read(void *device, uint64_t offset, unsigned width_bytes)
{
    struct uart *uart = device;
    (void)width_bytes;

    if (offset > UART_SCR)
        return 0;
    pthread_mutex_lock(&uart->lock);
    uint8_t value = register_read(uart, (unsigned)offset);
    settle(uart);
    pthread_mutex_unlock(&uart->lock);
    uart->peer.input_taken(uart->peer.opaque);
    return value;
}

void uart_poll_input(struct uart *uart)
{
    pthread_mutex_lock(&uart->lock);
    settle(uart);
    pthread_mutex_unlock(&uart->lock);
}

static void uart_write(void *device, uint64_t offset, unsigned width_bytes, uint64_t value)
{
    struct uart *uart = device;
    (void)width_bytes;

    if (offset > UART_SCR)
        return;
    pthread_mutex_lock(&uart->lock);
    bool out = register_write(uart, (unsigned)offset, (uint8_t)value);
    settle(uart);
    pthread_mutex_unlock(&uart->lock);
    if (out) {
        uart->peer.output(uart->peer.opaque, (uint8_t)value);
        uart_poll_input(uart);  // the peer may have been waiting for a sign of life
    }
    uart->peer.input_taken(uart->peer.opaque);
}

const struct memory_device_ops uart_ops = {.read = uart_read, .write = uart_write};

void uart_init(struct uart *uart, const struct uart_peer *peer, struct irq_line irq)
{
    *uart = (struct uart){.peer = *peer, .irq = irq};
    pthread_mutex_init(&uart->lock, NULL);
}

// Section 7.0, table I: the scratch register and the divisor survive, the rest is cleared.
void uart_reset(void *device)
{
    struct uart *uart = device;

    pthread_mutex_lock(&uart->lock);
    uart->ier = uart->fcr = uart->lcr = uart->mcr = uart->lsr = 0;
    uart->thr_empty_pending = false;
    uart->rx_head = uart->rx_count = 0;
    modem_update(uart);
    uart->msr &= ~MSR_DELTA;
    irq_line_set(&uart->irq, false);
    pthread_mutex_unlock(&uart->lock);
}

void uart_fini(void *device)
{
    struct uart *uart = device;

    pthread_mutex_destroy(&uart->lock);
}

// ---- State --------------------------------------------------------------------------------------

struct uart_image {
    uint8_t ier, fcr, lcr, mcr, lsr, msr, scr;
    uint16_t divisor;
    bool thr_empty_pending;
    uint8_t rx[UART_FIFO_BYTES];
    uint32_t rx_count;  // the first of rx
};

static const struct state_field uart_fields[] = {
    STATE_FIELD(struct uart_image, ier, STATE_U8, 1, IER_RX | IER_TX | IER_LINE | IER_MODEM),
    STATE_FIELD(struct uart_image, fcr, STATE_U8, 1, FCR_STORED),
    STATE_FIELD(struct uart_image, lcr, STATE_U8, 1, 0),
    STATE_FIELD(struct uart_image, mcr, STATE_U8, 1, MCR_LOOP | (MCR_LOOP - 1)),
    STATE_FIELD(struct uart_image, lsr, STATE_U8, 1, LSR_OVERRUN),
    STATE_FIELD(struct uart_image, msr, STATE_U8, 1, 0),
    STATE_FIELD(struct uart_image, scr, STATE_U8, 1, 0),
    STATE_FIELD(struct uart_image, divisor, STATE_U16, 1, 0),
    STATE_FIELD(struct uart_image, thr_empty_pending, STATE_BOOL, 1, 0),
    STATE_ARRAY(struct uart_image, rx, STATE_BYTES, 1, 0),
    STATE_FIELD(struct uart_image, rx_count, STATE_U32, 1, UART_FIFO_BYTES),
    {.name = NULL},
};

static int uart_check(const void *object, const char **field, const char **why)
{
    const struct uart_image *image = object;

    *field = "fcr";
    *why = "has bits that are not stored";
    if (image->fcr & ~FCR_STORED)
        return -EINVAL;
    *field = "rx_count";
    *why = "is more than the receiver holds";
    return image->rx_count <= (image->fcr & FCR_ENABLE ? UART_FIFO_BYTES : 1) ? 0 : -EINVAL;
}

static const struct state_schema uart_schema = {
    .name = "uart",
    .version = 1,
    .struct_bytes = sizeof(struct uart_image),
    .fields = uart_fields,
    .check = uart_check,
};

void uart_save(void *device, struct state_writer *writer)
{
    struct uart *uart = device;

    pthread_mutex_lock(&uart->lock);
    struct uart_image image = {
        .ier = uart->ier,
        .fcr = uart->fcr,
        .lcr = uart->lcr,
        .mcr = uart->mcr,
        .lsr = uart->lsr,
        .msr = uart->msr,
        .scr = uart->scr,
        .divisor = uart->divisor,
        .thr_empty_pending = uart->thr_empty_pending,
        .rx_count = uart->rx_count,
    };
    for (unsigned i = 0; i < uart->rx_count; i++)
        image.rx[i] = uart->rx[(uart->rx_head + i) % UART_FIFO_BYTES];
    pthread_mutex_unlock(&uart->lock);
    state_write(writer, &uart_schema, 0, &image);
}

int uart_load(void *device, struct state_reader *reader, struct error *err)
{
    struct uart *uart = device;
    struct uart_image image = {0};
    int rc = state_read(reader, &uart_schema, 0, &image, err);

    if (rc < 0)
        return rc;
    pthread_mutex_lock(&uart->lock);
    uart->ier = image.ier;
    uart->fcr = image.fcr;
    uart->lcr = image.lcr;
    uart->mcr = image.mcr;
    uart->lsr = image.lsr;
    uart->msr = image.msr;
    uart->scr = image.scr;
    uart->divisor = image.divisor;
    uart->thr_empty_pending = image.thr_empty_pending;
    memcpy(uart->rx, image.rx, sizeof(uart->rx));
    uart->rx_head = 0;
    uart->rx_count = image.rx_count;
    irq_line_set(&uart->irq, interrupt_identify(uart) != IIR_NONE);
    pthread_mutex_unlock(&uart->lock);
    return 0;
}
