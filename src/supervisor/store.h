// SPDX-License-Identifier: BSD-2-Clause
// What the supervisor keeps on disk: STATEDIR/partitions/NAME.json, the definitions, which people
// may read and write too, and STATEDIR/records/NAME.json, what it has to remember of a partition
// itself, STATEDIR/updates, and STATEDIR/interceptors/NAME.json. Private to this room.
//
// A file is replaced as a whole and is on the disk when a function returns. One process at a time.
#ifndef STRAKE_SUPERVISOR_STORE_H
#define STRAKE_SUPERVISOR_STORE_H

#include <jansson.h>

#include "base/base.h"

struct store;

enum store_kind { STORE_DEFINITION, STORE_RECORD, STORE_UPDATE, STORE_INTERCEPTOR, STORE_KINDS };

// Opens the folder, which is made if need be, and takes its lock: -EBUSY when another process has
// it. `lock_fd`, -1 or what store_lock gave to an earlier program of this process, is taken over.
BASE_NODISCARD int store_open(struct store **out, const char *folder, int lock_fd,
                              struct error *err);
// The descriptor that holds the lock; stays the store's.
int store_lock(const struct store *store);
void store_close(struct store *store);  // NULL is ignored

// How often the folder was opened: a number that no earlier process had.
unsigned store_epoch(const struct store *store);

// Calls `visit` for each name that there is of the kind, in alphabetical order.
BASE_NODISCARD int store_for_each(struct store *store, enum store_kind kind,
                                  void (*visit)(void *opaque, const char *name), void *opaque,
                                  struct error *err);
bool store_has(struct store *store, enum store_kind kind, const char *name);
// The object in the file, the caller's; NULL with *err set.
json_t *store_read(struct store *store, enum store_kind kind, const char *name, struct error *err);
BASE_NODISCARD int store_write(struct store *store, enum store_kind kind, const char *name,
                               const json_t *object, struct error *err);
BASE_NODISCARD int store_remove(struct store *store, enum store_kind kind, const char *name,
                                struct error *err);

// A partition's or interceptor's name: 1 to 40 letters, digits, '-', '_' and '.', of which the
// first is a letter or digit. So it is a file's name as well as a path's segment and a label.
#define STORE_NAME_MAX 40
bool store_name_is_good(const char *name);

#endif
