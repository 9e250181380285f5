// SPDX-License-Identifier: BSD-2-Clause
// room: the sensor and the heater's relay. The board has neither, so room.c is a room that is
// heated and cools down; a product has their drivers instead.
#ifndef ROOM_H
#define ROOM_H

#include <stdbool.h>
#include <stdint.h>

#define ROOM_SENSOR_FAULT INT32_MAX

int32_t room_read_sensor(void);  // hundredths of a degree Celsius, or ROOM_SENSOR_FAULT
void room_set_heater(bool on);

#endif
