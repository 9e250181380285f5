// SPDX-License-Identifier: BSD-2-Clause
// Power and reset: the test finisher of SiFive's platforms, one register.
#include "machine/devices.h"

static uint64_t power_read(void *device, uint64_t offset, unsigned width_bytes)
{
    (void)device, (void)offset, (void)width_bytes;
    return 0;
}

static void power_write(void *device, uint64_t offset, unsigned width_bytes, uint64_t value)
{
    const struct power *power = device;
    const struct machine_host *host = power->host;
    (void)width_bytes;

    if (offset != 0)
        return;
    switch (value & 0xffff) {
    case POWER_FAIL:
        host->event(host->opaque, MACHINE_FAIL, (unsigned)value >> 16);
        break;
    case POWER_OFF:
        host->event(host->opaque, MACHINE_POWEROFF, 0);
        break;
    case POWER_RESET:
        host->event(host->opaque, MACHINE_REBOOT, 0);
        break;
    default:
        break;
    }
}

const struct memory_device_ops power_ops = {.read = power_read, .write = power_write};

void power_init(struct power *power, const struct machine_host *host)
{
    *power = (struct power){.host = host};
}
