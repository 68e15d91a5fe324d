/* SPDX-License-Identifier: BSD-3-Clause */
/* Places: directories of overlays, one object for each path in a process,
 * and the registry of the overlays that are open there.
 *
 * The registry's mutex is never held across I/O.  An entry that is being
 * opened, closed or removed says so in its phase; who wants the same
 * overlay waits for `changed` and looks again.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "overlay/internal.h"
#include "util/file.h"
#include "util/host.h"

static pthread_mutex_t places_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct esp_overlay_place *places;        /* protected by it */

static void
place_free (struct esp_overlay_place *p)
{
  if (p->fd >= 0)
    close (p->fd);
  pthread_mutex_destroy (&p->mutex);
  pthread_mutex_destroy (&p->space.mutex);
  pthread_cond_destroy (&p->changed);
  pthread_cond_destroy (&p->wake);
  grace_forget (p);
  free (p->path);
  free (p);
}

ESP_DEFINE_CLEANUP (place, struct esp_overlay_place *, place_free)

static struct esp_overlay_place *
place_new (const char *dir, const struct esp_overlay_params *params)
{
  ESP_CLEANUP (place) struct esp_overlay_place *p = calloc (1, sizeof *p);

  if (!p)
    return NULL;
  p->refs = p->users = 1;
  p->fd = -1;
  p->params = *params;
  pthread_mutex_init (&p->mutex, NULL);
  pthread_mutex_init (&p->space.mutex, NULL);
  pthread_cond_init (&p->changed, NULL);
  pthread_cond_init (&p->wake, NULL);
  files_boot_id (p->boot_id);
  if (dir) {
    p->path = realpath (dir, NULL);
    if (!p->path || (p->fd = esp_open_dir (AT_FDCWD, p->path)) == -1)
      return NULL;
  }
  return ESP_STEAL (p);
}

/* The place of the same path, if it is open. */
static struct esp_overlay_place *
find_place_locked (const char *path)
{
  for (struct esp_overlay_place *p = places; path && p; p = p->next)
    if (p->path && strcmp (p->path, path) == 0)
      return p;
  return NULL;
}

struct esp_overlay_place *
esp_overlay_place_open (const char *dir,
                        const struct esp_overlay_params *params)
{
  ESP_CLEANUP (place) struct esp_overlay_place *p = place_new (dir, params);

  if (!p) {
    esp_error ("open: directory of overlays %s: %m", dir ? dir : "(none)");
    return NULL;
  }
  ESP_LOCK_SCOPE (&places_mutex);
  struct esp_overlay_place *same = find_place_locked (p->path);
  if (same) {
    same->refs++;
    same->users++;
    return same;
  }
  p->next = places;
  places = p;
  return ESP_STEAL (p);
}

void
place_ref (struct esp_overlay_place *p)
{
  ESP_LOCK_SCOPE (&places_mutex);
  p->refs++;
}

void
place_unref (struct esp_overlay_place *p)
{
  {
    ESP_LOCK_SCOPE (&places_mutex);
    if (--p->refs)
      return;
    struct esp_overlay_place **at = &places;
    while (*at != p)
      at = &(*at)->next;
    *at = p->next;
  }
  place_free (p);
}

void
esp_overlay_place_close (struct esp_overlay_place *place)
{
  bool last;

  if (!place)
    return;
  {
    ESP_LOCK_SCOPE (&places_mutex);
    last = --place->users == 0;
  }
  /* The thread ends with the last user, though overlays may be open: a
   * server that ends does not close those of connected clients.
   */
  if (last)
    grace_stop (place);
  place_unref (place);
}

/* --- registry ----------------------------------------------------------- */

static bool
is_id (const struct esp_overlay *o, const struct esp_overlay_id *id)
{
  return o->client && strcmp (o->client, id->client) == 0 &&
    strcmp (o->disk, id->disk) == 0 && strcmp (o->venue, id->venue) == 0;
}

static struct esp_overlay *
find_any_locked (struct esp_overlay_place *p, const struct esp_overlay_id *id)
{
  for (struct esp_overlay *o = p->overlays; o; o = o->next)
    if (is_id (o, id))
      return o;
  return NULL;
}

struct esp_overlay *
place_find_locked (struct esp_overlay_place *p,
                   const struct esp_overlay_id *id)
{
  struct esp_overlay *o;

  while ((o = find_any_locked (p, id)) && o->phase != OVERLAY_OPEN)
    pthread_cond_wait (&p->changed, &p->mutex);
  return o;
}

void
place_add_locked (struct esp_overlay_place *p, struct esp_overlay *o)
{
  o->next = p->overlays;
  p->overlays = o;
}

void
place_remove_locked (struct esp_overlay_place *p, struct esp_overlay *o)
{
  struct esp_overlay **at = &p->overlays;

  while (*at != o)
    at = &(*at)->next;
  *at = o->next;
  pthread_cond_broadcast (&p->changed);
}
