// SPDX-License-Identifier: BSD-2-Clause
// Real-time clock: the goldfish RTC as guests know it. Nanoseconds since 1970-01-01, UTC.
//
// The time is the host's wall clock plus what the guest shifted it by. The alarm is one comparison
// in the guest's time; since the host's clock may be set meanwhile, a long wait is looked at again
// every RTC_LOOK_MS.
//
// Threads: registers on hart threads under the lock; the timer on the loop's thread only, which a
// changed alarm wakes.
#include "machine/devices.h"

enum {
    RTC_TIME_LOW = 0x00,  // reading it latches the high half
    RTC_TIME_HIGH = 0x04,
    RTC_ALARM_LOW = 0x08,  // writing it arms the alarm
    RTC_ALARM_HIGH = 0x0c,
    RTC_IRQ_ENABLED = 0x10,
    RTC_ALARM_CLEAR = 0x14,
    RTC_ALARM_STATUS = 0x18,
    RTC_INTERRUPT_CLEAR = 0x1c,
};

#define RTC_LOOK_MS 60000u
#define NS_PER_MS 1000000u

static uint64_t now_ns(const struct rtc *rtc)
{
    return rtc->host->wall_clock_ns(rtc->host->opaque) + rtc->offset_ns;
}

static void irq_update(const struct rtc *rtc)
{
    irq_line_set(&rtc->irq, rtc->alarm_raised && rtc->irq_enabled);
}

// Raises an alarm that is due; returns how long to wait for one that is not, 0 for none.
static uint64_t alarm_look(struct rtc *rtc)
{
    if (!rtc->alarm_armed || rtc->paused)
        return 0;
    uint64_t now = now_ns(rtc);
    if (now < rtc->alarm_ns) {
        uint64_t wait_ms = (rtc->alarm_ns - now) / NS_PER_MS + 1;
        return wait_ms < RTC_LOOK_MS ? wait_ms : RTC_LOOK_MS;
    }
    rtc->alarm_armed = false;
    rtc->alarm_raised = true;
    irq_update(rtc);
    return 0;
}

static void alarm_changed(void *opaque)
{
    struct rtc *rtc = opaque;

    pthread_mutex_lock(&rtc->lock);
    uint64_t wait_ms = alarm_look(rtc);
    pthread_mutex_unlock(&rtc->lock);
    if (wait_ms)
        loop_timer_start(rtc->timer, wait_ms);
    else
        loop_timer_stop(rtc->timer);
}

static uint64_t register_read(struct rtc *rtc, uint64_t offset)
{
    uint64_t now;

    switch (offset) {
    case RTC_TIME_LOW:
        now = now_ns(rtc);
        rtc->time_high = now >> 32;
        return (uint32_t)now;
    case RTC_TIME_HIGH:
        return rtc->time_high;
    case RTC_ALARM_LOW:
        return (uint32_t)rtc->alarm_ns;
    case RTC_ALARM_HIGH:
        return rtc->alarm_ns >> 32;
    case RTC_IRQ_ENABLED:
        return rtc->irq_enabled;
    case RTC_ALARM_STATUS:
        return rtc->alarm_armed;
    default:
        return 0;
    }
}

static void register_write(struct rtc *rtc, uint64_t offset, uint32_t value)
{
    uint64_t now = now_ns(rtc);

    switch (offset) {
    case RTC_TIME_LOW:
        rtc->offset_ns += ((now & ~0xffffffffull) | value) - now;
        break;
    case RTC_TIME_HIGH:
        rtc->offset_ns += ((uint64_t)value << 32 | (uint32_t)now) - now;
        break;
    case RTC_ALARM_LOW:
        rtc->alarm_ns = (uint64_t)rtc->alarm_high << 32 | value;
        rtc->alarm_armed = true;
        break;
    case RTC_ALARM_HIGH:
        rtc->alarm_high = value;
        break;
    case RTC_IRQ_ENABLED:
        rtc->irq_enabled = value & 1;
        break;
    case RTC_ALARM_CLEAR:
        rtc->alarm_armed = false;
        break;
    case RTC_INTERRUPT_CLEAR:
        rtc->alarm_raised = false;
        break;
    default:
        break;
    }
    alarm_look(rtc);
    irq_update(rtc);
}

static uint64_t rtc_read(void *device, uint64_t offset, unsigned width_bytes)
{
    struct rtc *rtc = device;
    (void)width_bytes;

    pthread_mutex_lock(&rtc->lock);
    uint64_t value = register_read(rtc, offset);
    pthread_mutex_unlock(&rtc->lock);
    return value;
}

static void rtc_write(void *device, uint64_t offset, unsigned width_bytes, uint64_t value)
{
    struct rtc *rtc = device;
    (void)width_bytes;

    pthread_mutex_lock(&rtc->lock);
    register_write(rtc, offset, (uint32_t)value);
    pthread_mutex_unlock(&rtc->lock);
    loop_wake_signal(rtc->wake);
}

const struct memory_device_ops rtc_ops = {.read = rtc_read, .write = rtc_write};

int rtc_init(struct rtc *rtc, struct loop *loop, const struct machine_host *host,
             struct irq_line irq)
{
    *rtc = (struct rtc){.host = host, .irq = irq};
    int err = loop_timer_create(loop, alarm_changed, rtc, &rtc->timer);
    if (err)
        return err;
    err = loop_wake_create(loop, alarm_changed, rtc, &rtc->wake);
    if (err) {
        loop_timer_close(rtc->timer);
        rtc->timer = NULL;
        return err;
    }
    pthread_mutex_init(&rtc->lock, NULL);
    return 0;
}

// The clock itself is battery-backed: what the guest set it to stays.
void rtc_reset(void *device)
{
    struct rtc *rtc = device;

    pthread_mutex_lock(&rtc->lock);
    rtc->time_high = rtc->alarm_high = 0;
    rtc->alarm_ns = 0;
    rtc->alarm_armed = rtc->alarm_raised = rtc->irq_enabled = false;
    irq_update(rtc);
    pthread_mutex_unlock(&rtc->lock);
    loop_wake_signal(rtc->wake);
}

void rtc_pause(struct rtc *rtc)
{
    pthread_mutex_lock(&rtc->lock);
    rtc->paused = true;
    pthread_mutex_unlock(&rtc->lock);
}

void rtc_resume(struct rtc *rtc)
{
    pthread_mutex_lock(&rtc->lock);
    rtc->paused = false;
    pthread_mutex_unlock(&rtc->lock);
    loop_wake_signal(rtc->wake);
}

void rtc_fini(void *device)
{
    struct rtc *rtc = device;

    if (!rtc->wake)
        return;
    loop_wake_close(rtc->wake);
    loop_timer_close(rtc->timer);
    pthread_mutex_destroy(&rtc->lock);
}

// ---- State --------------------------------------------------------------------------------------

struct rtc_image {
    uint64_t offset_ns, alarm_ns;
    uint32_t time_high, alarm_high;
    bool alarm_armed, alarm_raised, irq_enabled;
};

static const struct state_field rtc_fields[] = {
    STATE_FIELD(struct rtc_image, offset_ns, STATE_U64, 1, 0),
    STATE_FIELD(struct rtc_image, alarm_ns, STATE_U64, 1, 0),
    STATE_FIELD(struct rtc_image, time_high, STATE_U32, 1, 0),
    STATE_FIELD(struct rtc_image, alarm_high, STATE_U32, 1, 0),
    STATE_FIELD(struct rtc_image, alarm_armed, STATE_BOOL, 1, 0),
    STATE_FIELD(struct rtc_image, alarm_raised, STATE_BOOL, 1, 0),
    STATE_FIELD(struct rtc_image, irq_enabled, STATE_BOOL, 1, 0),
    {.name = NULL},
};

static const struct state_schema rtc_schema = {
    .name = "rtc",
    .version = 1,
    .struct_bytes = sizeof(struct rtc_image),
    .fields = rtc_fields,
};

void rtc_save(void *device, struct state_writer *writer)
{
    struct rtc *rtc = device;

    pthread_mutex_lock(&rtc->lock);
    struct rtc_image image = {
        .offset_ns = rtc->offset_ns,
        .alarm_ns = rtc->alarm_ns,
        .time_high = rtc->time_high,
        .alarm_high = rtc->alarm_high,
        .alarm_armed = rtc->alarm_armed,
        .alarm_raised = rtc->alarm_raised,
        .irq_enabled = rtc->irq_enabled,
    };
    pthread_mutex_unlock(&rtc->lock);
    state_write(writer, &rtc_schema, 0, &image);
}

int rtc_load(void *device, struct state_reader *reader, struct error *err)
{
    struct rtc *rtc = device;
    struct rtc_image image = {0};
    int rc = state_read(reader, &rtc_schema, 0, &image, err);

    if (rc < 0)
        return rc;
    pthread_mutex_lock(&rtc->lock);
    rtc->offset_ns = image.offset_ns;
    rtc->alarm_ns = image.alarm_ns;
    rtc->time_high = image.time_high;
    rtc->alarm_high = image.alarm_high;
    rtc->alarm_armed = image.alarm_armed;
    rtc->alarm_raised = image.alarm_raised;
    rtc->irq_enabled = image.irq_enabled;
    irq_update(rtc);
    pthread_mutex_unlock(&rtc->lock);
    loop_wake_signal(rtc->wake);
    return 0;
}
