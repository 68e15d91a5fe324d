/* SPDX-License-Identifier: BSD-3-Clause */
/* Boot profiles within the engine: whose reads are recorded, when what was
 * learnt is saved, and for whom a profile is played.
 *
 * A *tip* is one object for all connections that read the same restore point
 * as a tip.  It has at most TIP_RECORDINGS recordings at once (of 64 clients
 * that boot together the first four are recorded: more would say the same
 * four times), the orders of boots that ended and are not saved yet, and one
 * player.
 *
 * Nothing is saved where a client waits: a recording that ends leaves its
 * order with the tip, and the keeper's tick saves all of a tip's orders
 * together, once, when none of its clients is recorded any more or the
 * oldest one is 10 seconds old.  Several processes: esp_rp_profile_change.
 * What was not saved when the process is killed is lost; it was advice.
 *
 * The player begins with the first read of the first connection to a tip of
 * which something may be missing, and ends when all was asked for, or with
 * the tip's last connection.
 *
 * Locks: boots->lock (the list of tips, their references), tip->lock (its
 * recorders, orders, the player's pump), recorder->lock (its recording), in
 * this order, each before the engine's.  None is held
 * for I/O.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "delay/internal.h"
#include "delay/player.h"
#include "delay/recording.h"
#include "util/cleanup.h"
#include "util/host.h"

#define TIP_RECORDINGS 4u       /* at once */
#define ALL_RECORDINGS 32u      /* at once, in this process */
#define TIP_ORDERS 8u           /* not yet saved */
#define SAVE_MS 10000u          /* they wait so long for others */
#define LAST_TRIES 100u         /* when the engine stops, of 20 ms each */

struct order {
  uint32_t *units;
  size_t n;
};

struct tip {
  struct tip *next;             /* boots->lock */
  unsigned refs;                /* boots->lock */

  struct boots *boots;          /* constant */
  esp_uuid uuid;
  uint64_t size;                /* of the disk, bytes */

  pthread_mutex_t lock;
  struct recorder *recorders;   /* lock */
  unsigned recordings;          /* lock: those that are on */
  struct order orders[TIP_ORDERS];      /* lock */
  atomic_uint norders;
  uint64_t oldest;              /* lock: when the first order came */

  atomic_flag started;          /* somebody began with the player */
  _Atomic (struct esp_player *) player; /* set once */
  atomic_bool playing;
};

enum { NEW, BEGINNING, READY };

struct recorder {
  struct recorder *next;        /* tip->lock */
  struct tip *tip;              /* constant */
  struct esp_delay_reader *reader;

  atomic_bool recording_on;
  atomic_int phase;
  pthread_mutex_t lock;
  struct esp_recording *recording;      /* lock; NULL: none, or taken */
};

struct boots {
  struct esp_delay *delay;      /* constant */
  struct esp_store *store;
  bool learn;

  pthread_mutex_t lock;
  struct tip *tips;             /* lock */
  atomic_uint recordings;
};

static uint64_t
now_ms (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC_COARSE, &t);
  return (uint64_t) t.tv_sec * 1000 + (uint64_t) t.tv_nsec / 1000000;
}

/* --- tips -------------------------------------------------------------- */

/* The tip of IMAGE, with one more reference. */
static struct tip *
tip_get (struct boots *boots, struct esp_image *image)
{
  struct tip *tip;

  ESP_LOCK_SCOPE (&boots->lock);
  for (tip = boots->tips; tip; tip = tip->next)
    if (esp_uuid_eq (&tip->uuid, esp_image_uuid (image))) {
      tip->refs++;
      return tip;
    }
  if (!(tip = calloc (1, sizeof *tip)))
    return NULL;
  tip->boots = boots;
  tip->uuid = *esp_image_uuid (image);
  tip->size = esp_image_size (image);
  tip->refs = 1;
  pthread_mutex_init (&tip->lock, NULL);
  atomic_flag_clear (&tip->started);
  tip->next = boots->tips;
  return boots->tips = tip;
}

static void
tip_free (struct tip *tip)
{
  for (unsigned i = 0; i < tip->norders; ++i)
    free (tip->orders[i].units);
  esp_player_free (tip->player);
  pthread_mutex_destroy (&tip->lock);
  free (tip);
}

/* One reference less.  Without any, a tip stays only for its orders. */
static void
tip_put (struct tip *tip)
{
  struct boots *boots = tip->boots;
  struct tip **p = &boots->tips;

  pthread_mutex_lock (&boots->lock);
  bool gone = --tip->refs == 0 && tip->norders == 0;
  if (gone) {
    while (*p != tip)
      p = &(*p)->next;
    *p = tip->next;
  }
  pthread_mutex_unlock (&boots->lock);
  if (gone)
    tip_free (tip);
}

/* The tip behind TIP (NULL: the first) with a reference; TIP's goes. */
static struct tip *
tip_next (struct boots *boots, struct tip *tip)
{
  struct tip *next;

  pthread_mutex_lock (&boots->lock);
  next = tip ? tip->next : boots->tips;
  if (next)
    next->refs++;
  pthread_mutex_unlock (&boots->lock);
  if (tip)
    tip_put (tip);
  return next;
}

/* --- recordings -------------------------------------------------------- */

/* Keep what REC recorded, if it was a boot.  tip->lock is held. */
static void
keep_order_locked (struct tip *tip, const struct esp_recording *recording)
{
  struct order *order = &tip->orders[tip->norders];
  const uint32_t *units;
  size_t n;

  units = esp_recording_order (recording, &n);
  if (tip->norders == TIP_ORDERS || !esp_recording_is_boot (units, n) ||
      !(order->units = malloc (n * sizeof *units)))
    return;
  memcpy (order->units, units, n * sizeof *units);
  order->n = n;
  if (tip->norders == 0)
    tip->oldest = now_ms ();
  tip->norders++;
}

/* End the recording of REC.  tip->lock is held. */
static void
finish_recording_locked (struct recorder *rec)
{
  struct esp_recording *recording;

  pthread_mutex_lock (&rec->lock);
  recording = ESP_STEAL (rec->recording);
  atomic_store (&rec->recording_on, false);
  pthread_mutex_unlock (&rec->lock);
  if (!recording)
    return;
  keep_order_locked (rec->tip, recording);
  esp_recording_free (recording);
  rec->tip->recordings--;
  atomic_fetch_sub (&rec->tip->boots->recordings, 1);
}

static void
begin_recording_locked (struct recorder *rec)
{
  struct tip *tip = rec->tip;
  struct boots *boots = tip->boots;

  if (!boots->learn || tip->recordings >= TIP_RECORDINGS ||
      atomic_load (&boots->recordings) >= ALL_RECORDINGS ||
      !(rec->recording = esp_recording_new ()))
    return;
  tip->recordings++;
  atomic_fetch_add (&boots->recordings, 1);
  atomic_store (&rec->recording_on, true);
}

static bool
record (struct recorder *rec, uint64_t offset, uint64_t count)
{
  if (!atomic_load_explicit (&rec->recording_on, memory_order_relaxed))
    return false;
  ESP_LOCK_SCOPE (&rec->lock);
  if (rec->recording &&
      esp_recording_touch (rec->recording, offset, count, now_ms ()))
    return true;
  atomic_store (&rec->recording_on, false);     /* the tick takes it */
  return false;
}

static bool
recording_is_over (struct recorder *rec)
{
  ESP_LOCK_SCOPE (&rec->lock);
  return rec->recording && (!atomic_load (&rec->recording_on) ||
                            esp_recording_over (rec->recording, now_ms ()));
}

/* --- saving ------------------------------------------------------------ */

struct saving {
  struct order orders[TIP_ORDERS];
  unsigned n;
};

static int
merge_orders (void *arg, struct esp_profile *profile)
{
  struct saving *s = arg;

  for (unsigned i = 0; i < s->n; ++i)
    if (esp_profile_merge (profile, s->orders[i].units, s->orders[i].n) == -1)
      return -1;
  return 0;
}

/* Take all orders of TIP, if they should be saved now. */
static bool
take_orders (struct tip *tip, bool now, struct saving *s)
{
  ESP_LOCK_SCOPE (&tip->lock);
  s->n = tip->norders;
  if (s->n == 0 || (!now && tip->recordings > 0 &&
                    now_ms () - tip->oldest < SAVE_MS))
    return false;
  memcpy (s->orders, tip->orders, sizeof s->orders);
  tip->norders = 0;
  return true;
}

/* As far as there is room: newer ones may have come. */
static void
give_back_orders (struct tip *tip, struct saving *s)
{
  ESP_LOCK_SCOPE (&tip->lock);
  while (s->n > 0 && tip->norders < TIP_ORDERS)
    tip->orders[tip->norders++] = s->orders[--s->n];
}

/* False: another process saves one; try again. */
static bool
save_tip (struct tip *tip, bool now)
{
  struct saving s;
  char cause[256] = "", text[ESP_UUID_TEXT];
  struct esp_catch before;
  int err = 0;

  if (!take_orders (tip, now, &s))
    return true;
  esp_uuid_text (&tip->uuid, text);
  before = esp_catch_begin (cause, sizeof cause);
  if (esp_rp_profile_change (tip->boots->store, &tip->uuid, merge_orders,
                             &s) == -1)
    err = errno;
  esp_catch_end (before);
  if (err == EAGAIN)
    give_back_orders (tip, &s);
  else if (err == 0 || err == ENOENT)   /* it may have been deleted */
    esp_debug ("boot profile of %s: %s, %u boots", text,
               err ? "gone" : "saved", s.n);
  else
    esp_warning ("the boot profile of restore point %s was not saved: %s",
                 text, cause);
  for (unsigned i = 0; i < s.n; ++i)
    free (s.orders[i].units);
  return err != EAGAIN;
}

/* --- playing ----------------------------------------------------------- */

struct pumping {
  struct esp_delay *delay;
  struct esp_delay_reader *reader;
};

static int
pump_ahead (void *arg, uint64_t offset, uint64_t len)
{
  struct pumping *p = arg;

  return reader_ahead (p->reader, offset, len);
}

static uint64_t
pump_pending (void *arg)
{
  struct pumping *p = arg;

  return delay_ahead_pending (p->delay);
}

/* READER is one of the tip's, which stays open meanwhile. */
static void
pump_locked (struct tip *tip, struct esp_delay_reader *reader)
{
  static const struct esp_player_ops ops = {
    .ahead = pump_ahead, .pending = pump_pending
  };
  struct pumping p = { tip->boots->delay, reader };

  if (atomic_load (&tip->playing) &&
      !esp_player_pump (tip->player, &ops, &p))
    atomic_store (&tip->playing, false);
}

/* The first of all readers of TIP begins. */
static void
start_player (struct tip *tip, struct esp_delay_reader *reader)
{
  CLEANUP_PROFILE struct esp_profile profile = { 0 };
  struct esp_player *player;
  char cause[256] = "";
  struct esp_catch before;

  if (atomic_flag_test_and_set (&tip->started) || !reader_is_delayed (reader))
    return;
  /* Without a profile the boot goes on, only slower. */
  before = esp_catch_begin (cause, sizeof cause);
  int r = esp_rp_profile (tip->boots->store, &tip->uuid, &profile);
  esp_catch_end (before);
  if (cause[0])
    esp_warning ("%s", cause);
  if (r == -1 || !(player = esp_player_new (&profile, tip->size)))
    return;
  atomic_store (&tip->player, player);
  atomic_store (&tip->playing, true);
}

static bool
play (struct recorder *rec, uint64_t offset, uint64_t count)
{
  struct tip *tip = rec->tip;
  struct esp_player *player;

  if (!atomic_load_explicit (&tip->playing, memory_order_acquire))
    return false;
  player = atomic_load_explicit (&tip->player, memory_order_relaxed);
  if (esp_player_touch (player, offset, count) &&
      pthread_mutex_trylock (&tip->lock) == 0) {
    pump_locked (tip, rec->reader);
    pthread_mutex_unlock (&tip->lock);
  }
  return true;
}

/* --- recorders --------------------------------------------------------- */

struct recorder *
recorder_open (struct boots *boots, struct esp_delay_reader *reader)
{
  struct recorder *rec = boots ? calloc (1, sizeof *rec) : NULL;

  if (!rec)
    return NULL;
  rec->reader = reader;
  rec->tip = tip_get (boots, reader_image (reader));
  if (!rec->tip) {
    free (rec);
    return NULL;
  }
  pthread_mutex_init (&rec->lock, NULL);
  ESP_LOCK_SCOPE (&rec->tip->lock);
  rec->next = rec->tip->recorders;
  rec->tip->recorders = rec;
  return rec;
}

/* A connection that reads nothing (somebody lists the exports) takes no
 * recording from another one, and begins no player.
 */
static void
first_touch (struct recorder *rec)
{
  pthread_mutex_lock (&rec->tip->lock);
  begin_recording_locked (rec);
  pthread_mutex_unlock (&rec->tip->lock);
  start_player (rec->tip, rec->reader);
}

bool
recorder_touch (struct recorder *recorder, uint64_t offset, uint64_t count)
{
  int phase = atomic_load_explicit (&recorder->phase, memory_order_acquire);
  int new = NEW;
  bool recorded, played;

  if (phase == NEW &&
      atomic_compare_exchange_strong (&recorder->phase, &new, BEGINNING)) {
    first_touch (recorder);
    atomic_store (&recorder->phase, phase = READY);
  }
  recorded = record (recorder, offset, count);
  played = play (recorder, offset, count);
  return recorded || played || phase != READY;
}

bool
recorder_knows (struct recorder *recorder, uint64_t offset, uint64_t count)
{
  struct esp_player *player = recorder
    ? atomic_load_explicit (&recorder->tip->player, memory_order_acquire)
    : NULL;

  return player && esp_player_knows (player, offset, count);
}

void
recorder_close (struct recorder *recorder)
{
  struct tip *tip = recorder->tip;
  struct recorder **p = &tip->recorders;

  pthread_mutex_lock (&tip->lock);
  while (*p != recorder)
    p = &(*p)->next;
  *p = recorder->next;
  finish_recording_locked (recorder);
  pthread_mutex_unlock (&tip->lock);
  pthread_mutex_destroy (&recorder->lock);
  free (recorder);
  tip_put (tip);
}

/* --- the engine's side -------------------------------------------------- */

struct boots *
boots_new (struct esp_delay *delay, struct esp_store *store)
{
  struct boots *boots = calloc (1, sizeof *boots);

  if (!boots)
    return NULL;
  boots->delay = delay;
  boots->store = store;
  boots->learn = !esp_store_readonly (store);
  pthread_mutex_init (&boots->lock, NULL);
  return boots;
}

static void
tick_tip (struct tip *tip)
{
  ESP_LOCK_SCOPE (&tip->lock);
  for (struct recorder *rec = tip->recorders; rec; rec = rec->next)
    if (recording_is_over (rec))
      finish_recording_locked (rec);
  if (tip->recorders)
    pump_locked (tip, tip->recorders->reader);
}

void
boots_tick (struct boots *boots)
{
  struct tip *tip = NULL;

  if (!boots)
    return;
  while ((tip = tip_next (boots, tip))) {
    tick_tip (tip);
    save_tip (tip, false);
  }
}

void
boots_free (struct boots *boots)
{
  static const struct timespec pause = { .tv_nsec = 20000000 };
  struct tip *tip = NULL;

  if (!boots)
    return;
  while ((tip = tip_next (boots, tip)))
    for (unsigned i = 0; i < LAST_TRIES && !save_tip (tip, true); ++i)
      nanosleep (&pause, NULL);
  while ((tip = boots->tips)) {
    boots->tips = tip->next;
    tip_free (tip);
  }
  pthread_mutex_destroy (&boots->lock);
  free (boots);
}
