/* SPDX-License-Identifier: BSD-3-Clause */
/* Recording a boot.
 *
 * The units (64 KiB) that were touched stand in a list, in order, and in a
 * hash table of places in that list (open addressing, at most half full), so
 * that memory goes by what was touched, not by the size of the disk: 12 KiB
 * for 16 MiB, 768 KiB at the end of all recordings.  A sequential reader is
 * answered by the unit that was touched last, without the table.
 *
 * A recording is over 5 minutes after its first touch, after 30 seconds
 * without a new unit, when it is full, when it cannot become a boot any more,
 * or when its client leaves.
 *
 * What is a boot?  An order of at least 32 units which
 *   - has the disk's first unit among its first 16: firmware, iPXE and a
 *     kernel that looks for partitions begin there; a client that comes back
 *     after the server was restarted, and a second connection of a copying
 *     program, do not;
 *   - goes back and forth.  Of two touches that lie a quarter of the order
 *     apart the later one must be nearer to the disk's beginning in at least
 *     1 of 32 pairs.  A copy of a disk (nbdcopy, qemu-img convert: with many
 *     requests in flight, all connections taken together or each alone) has
 *     none; the smallest guest that we know has 13 %, a big one 20 to 40 %.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "center/format.h"
#include "delay/recording.h"

#define TABLE_MIN 1024u
#define FIRST_TOUCHES 16u
#define NO_UNIT UINT32_MAX      /* no disk has that many */

struct esp_recording {
  uint32_t *order;
  size_t n, room;
  uint32_t *table;              /* place in `order` + 1; 0: free */
  size_t slots;                 /* a power of two */
  uint32_t last;                /* the unit that was touched last */
  uint64_t begin, newest;       /* of the first touch, of the last new unit */
  bool over;
};

struct esp_recording *
esp_recording_new (void)
{
  struct esp_recording *rec = calloc (1, sizeof *rec);

  if (!rec)
    return NULL;
  rec->slots = TABLE_MIN;
  rec->last = NO_UNIT;
  if (!(rec->table = calloc (rec->slots, sizeof *rec->table))) {
    free (rec);
    return NULL;
  }
  return rec;
}

void
esp_recording_free (struct esp_recording *rec)
{
  if (!rec)
    return;
  free (rec->order);
  free (rec->table);
  free (rec);
}

/* The slot of UNIT, or the free one where it belongs. */
static uint32_t *
slot_of (uint32_t *table, size_t slots, const uint32_t *order,
         uint32_t unit)
{
  size_t i = (unit * 2654435761u) & (slots - 1);

  while (table[i] && order[table[i] - 1] != unit)
    i = (i + 1) & (slots - 1);
  return &table[i];
}

static bool
grow_table (struct esp_recording *rec)
{
  size_t slots = rec->slots * 2;
  uint32_t *table = calloc (slots, sizeof *table);

  if (!table)
    return false;
  for (size_t i = 0; i < rec->n; ++i)
    *slot_of (table, slots, rec->order, rec->order[i]) = (uint32_t) i + 1;
  free (rec->table);
  rec->table = table;
  rec->slots = slots;
  return true;
}

/* Room for one more; false: there is none, or no memory. */
static bool
make_room (struct esp_recording *rec)
{
  if (rec->n == ESP_RECORDING_UNITS_MAX)
    return false;
  if (rec->n == rec->room) {
    size_t room = rec->room ? rec->room * 2 : TABLE_MIN / 2;
    uint32_t *order = realloc (rec->order, room * sizeof *order);

    if (!order)
      return false;
    rec->order = order;
    rec->room = room;
  }
  return (rec->n + 1) * 2 <= rec->slots || grow_table (rec);
}

/* Is the disk's first unit among the first? */
static bool
begins_boot (const uint32_t *order)
{
  for (size_t i = 0; i < FIRST_TOUCHES; ++i)
    if (order[i] == 0)
      return true;
  return false;
}

static void
touch_unit (struct esp_recording *rec, uint32_t unit, uint64_t now)
{
  uint32_t *slot;

  if (unit == rec->last)
    return;
  rec->last = unit;
  if (*slot_of (rec->table, rec->slots, rec->order, unit))
    return;
  if (!make_room (rec) ||
      (rec->n == FIRST_TOUCHES && !begins_boot (rec->order))) {
    rec->over = true;
    return;
  }
  if (rec->n == 0)
    rec->begin = now;
  slot = slot_of (rec->table, rec->slots, rec->order, unit);
  rec->order[rec->n++] = unit;
  *slot = (uint32_t) rec->n;
  rec->newest = now;
}

bool
esp_recording_over (const struct esp_recording *rec, uint64_t now)
{
  return rec->over ||
    (rec->n > 0 && (now - rec->begin >= ESP_RECORDING_MS_MAX ||
                    now - rec->newest >= ESP_RECORDING_MS_IDLE));
}

bool
esp_recording_touch (struct esp_recording *rec, uint64_t offset,
                    uint64_t count, uint64_t now)
{
  if (esp_recording_over (rec, now))
    return false;
  if (count > 0)
    for (uint64_t u = offset >> ESP_PROFILE_SHIFT;
         u <= (offset + count - 1) >> ESP_PROFILE_SHIFT && !rec->over; ++u)
      touch_unit (rec, (uint32_t) u, now);
  return true;
}

const uint32_t *
esp_recording_order (const struct esp_recording *rec, size_t *n)
{
  *n = rec->n;
  return rec->order;
}

bool
esp_recording_is_boot (const uint32_t *order, size_t n)
{
  const size_t far = n / 4;
  size_t back = 0;

  if (n < ESP_RECORDING_UNITS_MIN || !begins_boot (order))
    return false;
  for (size_t i = far; i < n; ++i)
    back += order[i] < order[i - far];
  return back * 32 >= n - far;
}
