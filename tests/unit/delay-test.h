/* SPDX-License-Identifier: BSD-3-Clause */
/* Origins that are slow, broken, hang or lie when a test says so, in the
 * place of center/origin.h and of the list of sources: for the tests of
 * delayed load.  What was fetched is counted for each entry, in memory that
 * forked processes share.
 */

#ifndef ESPALIER_DELAY_TEST_H
#define ESPALIER_DELAY_TEST_H

#include "have-test.h"

#include <sys/mman.h>
#include <time.h>

#include "center/origin.h"
#include "delay/delay.h"
#include "store/image.h"

#define FAKE_ENTRIES 4096

/* One center. */
struct fake {
  char name[32];
  atomic_uint first_us, segment_us;     /* how slow */
  atomic_int fails;             /* errno of each request; 0: it answers */
  atomic_int lies;              /* so many wrong segments; -1: all */
  atomic_int bad_entry;         /* this one is always wrong; -1: none */
  atomic_int cut_after;         /* EIO behind so many segments; -1: never */
  atomic_bool hangs;            /* until it is cancelled */
  atomic_uint requests, flying, most;   /* at once */
  atomic_uint background;       /* requests that were `gently` */
  atomic_uint largest;          /* entries of a request */
  atomic_uint fetched[FAKE_ENTRIES];
};

#define FAKES 3
static struct fake *fakes;      /* shared; `nfakes` have every restore point */
static unsigned nfakes, fake_first;     /* from this one on */
static struct delayed *fake_rps[TREE_MAX];
static bool fake_encrypted;     /* the last source is an encrypted variant */

static inline __attribute__ ((unused)) void
fake_init (unsigned n)
{
  if (!fakes)
    fakes = mmap (NULL, FAKES * sizeof *fakes, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  memset (fakes, 0, FAKES * sizeof *fakes);
  memset (fake_rps, 0, sizeof fake_rps);
  for (unsigned i = 0; i < FAKES; i++) {
    snprintf (fakes[i].name, sizeof fakes[i].name, "center-%u", i);
    fakes[i].bad_entry = fakes[i].cut_after = -1;
  }
  nfakes = n;
  fake_first = 0;
  fake_encrypted = false;
}

static inline __attribute__ ((unused)) void
fake_has (struct delayed *d)
{
  fake_rps[d->member] = d;
}

static inline __attribute__ ((unused)) unsigned
fake_fetched (size_t entry)
{
  unsigned n = 0;

  for (unsigned i = 0; i < FAKES; i++)
    n += fakes[i].fetched[entry];
  return n;
}

static inline __attribute__ ((unused)) unsigned
fake_requests (void)
{
  unsigned n = 0;

  for (unsigned i = 0; i < FAKES; i++)
    n += fakes[i].requests;
  return n;
}

static inline __attribute__ ((unused)) uint64_t
now_us (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  return (uint64_t) t.tv_sec * 1000000 + (uint64_t) t.tv_nsec / 1000;
}

/* --- in the place of store/have.h's list of sources ----------------------- */

int
esp_sources_load (struct esp_store *store, const esp_uuid *uuid,
                  struct esp_source_list *out)
{
  (void) store;
  (void) uuid;
  out->s = calloc (FAKES, sizeof *out->s);
  out->n = nfakes;
  for (unsigned i = 0; i < nfakes; i++)
    strcpy (out->s[i].center, fakes[fake_first + i].name);
  if (fake_encrypted && nfakes > 0)
    strcpy (out->s[nfakes - 1].variant.key, "school");
  return 0;
}

void
esp_source_list_clear (struct esp_source_list *list)
{
  free (list->s);
  memset (list, 0, sizeof *list);
}

/* --- in the place of center/origin.h ---------------------------------------- */

struct esp_origin {
  struct fake *f;
  struct esp_have *have;
  struct delayed *d;
};

struct esp_origin *
esp_origin_open (struct esp_store *store, struct esp_have *have,
                 const struct esp_source *source)
{
  struct esp_origin *o = calloc (1, sizeof *o);

  (void) store;
  for (unsigned i = 0; i < FAKES; i++)
    if (strcmp (fakes[i].name, source->center) == 0)
      o->f = &fakes[i];
  for (int i = 0; i < TREE_MAX; i++)
    if (fake_rps[i] && esp_uuid_eq (&fake_rps[i]->t->m[i].uuid,
                                    esp_have_uuid (have)))
      o->d = fake_rps[i];
  o->have = have;
  return o;
}

void
esp_origin_close (struct esp_origin *o)
{
  free (o);
}

const char *
esp_origin_name (const struct esp_origin *o)
{
  return o->f->name;
}

uint64_t
esp_origin_wire (const struct esp_origin *o, size_t first, size_t n)
{
  (void) o;
  (void) first;
  return n * SEGMENT;
}

bool
esp_origin_adjacent (const struct esp_origin *o, size_t first)
{
  (void) o;
  (void) first;
  return true;
}

static inline int
fake_fail (struct esp_origin_get *get, int err, const char *why)
{
  snprintf (get->why, sizeof get->why, "%s", why);
  errno = err;
  return -1;
}

/* Wait US, and while the center hangs.  False: cancelled. */
static inline __attribute__ ((unused)) bool
fake_sleep (const struct fake *f, const struct esp_origin_get *get,
            uint64_t us)
{
  uint64_t end = now_us () + us, now;

  while ((now = now_us ()) < end || f->hangs) {
    if (get->cancel && atomic_load (get->cancel))
      return false;
    uint64_t left = now < end ? end - now : 1000;
    usleep (left > 1000 ? 1000 : (useconds_t) left);
  }
  return true;
}

static inline int
fake_segment (struct esp_origin *o, struct esp_origin_get *get, size_t entry)
{
  unsigned char raw[SEGMENT];
  esp_digest digest, want;
  size_t len = delayed_raw (o->d, esp_have_number (o->have, entry), raw);

  atomic_fetch_add (&o->f->fetched[entry % FAKE_ENTRIES], 1);
  if (o->f->lies == -1 || o->f->bad_entry == (int) entry)
    raw[len / 2] ^= 1;
  else if (o->f->lies > 0) {
    atomic_fetch_sub (&o->f->lies, 1);
    raw[len / 2] ^= 1;
  }
  esp_digest_of (raw, len, &digest);
  if (esp_have_digest (o->have, entry, &want) &&
      !esp_digest_eq (&digest, &want))
    return fake_fail (get, EBADMSG, "the digest is wrong");
  if (get->arrived)
    get->arrived (get->arg, len);
  return get->segment (get->arg, entry, raw, len);
}

static inline int
fake_get (struct esp_origin *o, struct esp_origin_get *get)
{
  if (!fake_sleep (o->f, get, o->f->first_us))
    return fake_fail (get, ECANCELED, "cancelled");
  if (o->f->fails)
    return fake_fail (get, o->f->fails, "the center is gone");
  for (size_t e = get->first; e < get->first + get->n; e++) {
    if (o->f->cut_after >= 0 && e - get->first >= (size_t) o->f->cut_after)
      return fake_fail (get, EIO, "cut off");
    if (!fake_sleep (o->f, get, o->f->segment_us))
      return fake_fail (get, ECANCELED, "cancelled");
    if (fake_segment (o, get, e) == -1)
      return -1;
  }
  return 0;
}

int
esp_origin_get (struct esp_origin *o, struct esp_origin_get *get)
{
  unsigned flying = atomic_fetch_add (&o->f->flying, 1) + 1;
  unsigned most = o->f->most;
  int r;

  while (flying > most &&
         !atomic_compare_exchange_weak (&o->f->most, &most, flying))
    ;
  if (get->n > o->f->largest)
    o->f->largest = (unsigned) get->n;
  atomic_fetch_add (&o->f->requests, 1);
  if (get->gently)
    atomic_fetch_add (&o->f->background, 1);
  r = fake_get (o, get);
  atomic_fetch_sub (&o->f->flying, 1);
  return r;
}

/* --- what the tests do --------------------------------------------------------- */

/* A tree with one delayed root of N random blocks, known to the fakes. */
static inline __attribute__ ((unused)) void
delay_one (void **state, struct delayed *d, uint64_t size, unsigned n)
{
  delayed_add (*state, d, -1, size, n);
  fake_has (d);
}

static inline __attribute__ ((unused)) struct esp_delay *
delay_start (struct tree *t, unsigned threads)
{
  struct esp_delay_params p = { .threads = threads };
  struct esp_delay *delay = esp_delay_start (t->store, &p);

  if (!delay)
    fail_msg ("%s", unit_error);
  return delay;
}

/* An image of member I with a reader. */
struct disk {
  struct tree *t;
  int member;
  struct esp_image *image;
  struct esp_delay_reader *reader;
};

static inline __attribute__ ((unused)) struct disk
disk_open (struct esp_delay *delay, struct tree *t, int member)
{
  struct disk d = { .t = t, .member = member };

  d.image = esp_image_open (t->store, &t->m[member].uuid);
  if (!d.image)
    fail_msg ("%s", unit_error);
  d.reader = esp_delay_reader_open (delay, d.image);
  if (!d.reader)
    fail_msg ("%s", unit_error);
  return d;
}

static inline __attribute__ ((unused)) void
disk_close (struct disk *d)
{
  esp_delay_reader_close (d->reader);
  esp_image_close (d->image);
}

/* Read as the filter and the plugin do, and compare.  0, or errno. */
static inline __attribute__ ((unused)) int
disk_read (struct disk *d, uint64_t offset, uint64_t n)
{
  CLEANUP_FREE unsigned char *buf = malloc (n);
  int err = 0;

  if (esp_delay_read (d->reader, offset, n, &err) == -1)
    return err ? err : -1;
  if (esp_image_pread (d->image, buf, n, offset) == -1)
    return errno;
  return memcmp (buf, d->t->m[d->member].bytes + offset, n) == 0 ? 0 : EILSEQ;
}

/* All of it, PIECE bytes a read. */
static inline __attribute__ ((unused)) void
disk_verify (struct disk *d, uint64_t piece)
{
  uint64_t size = d->t->m[d->member].size;

  for (uint64_t at = 0; at < size; at += piece)
    assert_int_equal (disk_read (d, at, piece < size - at ? piece
                                 : size - at), 0);
}

static inline __attribute__ ((unused)) int
delay_teardown (void **state)
{
  esp_have_set_fetcher (NULL, NULL);
  return tree_teardown (state);
}

#endif /* ESPALIER_DELAY_TEST_H */
