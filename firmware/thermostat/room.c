// SPDX-License-Identifier: BSD-2-Clause
#include "room.h"

#define OUTSIDE (-500)
#define HEATING 40
#define FAULT_EVERY 37u

static int32_t temperature = 1650;
static volatile bool heater;
static uint32_t readings;

// A reading later it is warmer or colder.
int32_t room_read_sensor(void)
{
    temperature += (heater ? HEATING : 0) - (temperature - OUTSIDE) / 128;
    return ++readings % FAULT_EVERY ? temperature : ROOM_SENSOR_FAULT;
}

void room_set_heater(bool on)
{
    heater = on;
}
