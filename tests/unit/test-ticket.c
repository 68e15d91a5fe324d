/* SPDX-License-Identifier: BSD-3-Clause */
/* Tickets: only what was issued is let in, to whom and for what it was issued,
 * as long as it was issued for, and not after a newer one.
 */

#include "unit.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "boot/ticket.h"
#include "center/keys.h"
#include "util/cleanup.h"
#include "util/doc.h"
#include "util/file.h"
#include "util/lock.h"

ESP_DEFINE_CLEANUP (ticket_key, struct esp_ticket_key *, esp_ticket_key_free)
#define CLEANUP_TICKET_KEY ESP_CLEANUP (ticket_key)

#define COUNT(a) (sizeof (a) / sizeof *(a))
#define ADDRESS "10.0.0.7"

static const uint8_t secret[32] = {
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20,
  21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
};

static char *dir;
static struct esp_store *store;
static struct esp_ticket_key *key;

static int
setup (void **state)
{
  char path[400];

  (void) state;
  dir = unit_mkdir ();
  snprintf (path, sizeof path, "%s/s", dir);
  assert_int_equal (esp_store_init (path), 0);
  store = esp_store_open (path);
  key = esp_ticket_key_from (secret);
  unit_error[0] = 0;
  return !store || !key;
}

static int
teardown (void **state)
{
  (void) state;
  esp_ticket_key_free (key);
  esp_store_close (store);
  unit_rmdir (dir);
  return 0;
}

/* A ticket for EXPORT and ADDRESS, as text; T gets what is in it. */
static const char *
issue (const char *export, const char *address, bool readonly, uint32_t opens,
       uint32_t valid, struct esp_ticket *t)
{
  static char text[4][ESP_EXPORT_MAX];
  static unsigned at;

  memset (t, 0, sizeof *t);
  assert_int_equal (esp_export_parse (export, &t->export), 0);
  snprintf (t->address, sizeof t->address, "%s", address);
  t->readonly = readonly;
  at = (at + 1) % 4;
  assert_int_equal (esp_ticket_issue (key, t, opens, valid, text[at]), 0);
  return text[at];
}

static enum esp_ticket_state
check (const char *name, const char *address, uint64_t now)
{
  struct esp_export e;
  struct esp_ticket t;

  assert_int_equal (esp_export_parse (name, &e), 0);
  return esp_ticket_check (key, &e, address, now, &t);
}

static enum esp_ticket_state
use (const char *name, uint64_t now)
{
  enum esp_ticket_state state = ESP_TICKET_NONE;
  struct esp_export e;

  assert_int_equal (esp_export_parse (name, &e), 0);
  errno = ENOENT;               /* what somebody else left there */
  assert_int_equal (esp_ticket_use (store, key, &e, ADDRESS, now, &state), 0);
  return state;
}

/* Issue one for cafe@x, and use it at once. */
static enum esp_ticket_state
use_new (uint32_t opens, uint32_t valid)
{
  struct esp_ticket t;
  const char *name = issue ("cafe@x", ADDRESS, false, opens, valid, &t);

  return use (name, t.issued);
}

/* Of cafe/0@x. */
static const char *
state_file (void)
{
  static char path[500];

  snprintf (path, sizeof path, "%s/s/run/tickets/cafe%%2F0%%40x", dir);
  return path;
}

/* --- one ticket ---------------------------------------------------------- */

/* Computed by another program (Python's hmac and base64). */
static void
tickets_are_what_the_document_says (void **state)
{
#define NOW 1763892000
  static const struct {
    const char *name, *address;
    enum esp_ticket_state state;
  } cases[] = {
    { "cafe/0@seat-7+"
      "AQFpItsgaSLdeGkkLKCgoaKjpKWmp0Cgem0AnCPkJyeQVd5mV14", ADDRESS, ESP_TICKET_OK },
    { "cafe/0@seat-7+"
      "AQBpItsgaSLdeGkkLKCgoaKjpKWmp2o120xQz-BuDJWknnJmU_8", ADDRESS, ESP_TICKET_OK },
    { "cafe@seat-7+"
      "AQBpItsgaSLdeGkkLKCgoaKjpKWmp2o120xQz-BuDJWknnJmU_8", "", ESP_TICKET_OK },
    { "rp:base+"
      "AQJpItsgaSLdeGkkLKCgoaKjpKWmp31qgldzuegOlvk1iO7jxhc", "::1", ESP_TICKET_OK },
    { "cafe+"
      "AQBpItsgaSLdeGkkLKCgoaKjpKWmpxozuKOA8wikUrEQ4Ub_L4w", "", ESP_TICKET_FORGED },       /* writable */
    { "cafe+"
      "AQZpItsgaSLdeGkkLKCgoaKjpKWmp5iSyF6PcsT1pBujxPvT5DY", "", ESP_TICKET_FORGED },           /* unknown flag */
    { "cafe/0@seat-7", ADDRESS, ESP_TICKET_NONE },
  };

  (void) state;
  for (size_t i = 0; i < COUNT (cases); i++)
    if (check (cases[i].name, cases[i].address, NOW) != cases[i].state)
      fail_msg ("%s", cases[i].name);
}

static void
issued_tickets_open_what_they_are_for (void **state)
{
  struct esp_ticket t;
  struct esp_export e;
  const char *name = issue ("cafe@seat-7", ADDRESS, false, 600, 86400, &t);

  (void) state;
  assert_int_equal (strncmp (name, "cafe/0@seat-7+", 14), 0);
  assert_int_equal (strlen (name), 14 + 51);
  assert_int_equal (t.opens_until, t.issued + 600);
  assert_int_equal (t.valid_until, t.issued + 86400);

  struct esp_ticket out;
  assert_int_equal (esp_export_parse (name, &e), 0);
  assert_int_equal (esp_ticket_check (key, &e, ADDRESS, t.issued, &out),
                    ESP_TICKET_OK);
  assert_string_equal (out.export.client, "seat-7");
  assert_string_equal (out.export.ticket, "");
  assert_string_equal (out.address, ADDRESS);
  assert_false (out.readonly);
  assert_int_equal (out.issued, t.issued);
  assert_int_equal (out.opens_until, t.opens_until);
  assert_int_equal (out.valid_until, t.valid_until);
  assert_memory_equal (out.nonce, t.nonce, sizeof t.nonce);
}

static void
two_tickets_are_never_the_same_and_have_an_order (void **state)
{
  struct esp_ticket a, b;

  (void) state;
  issue ("cafe@x", "", false, 1, 1, &a);
  for (int i = 0; i < 1000; i++) {
    issue ("cafe@x", "", false, 1, 1, &b);
    assert_true (a.issued < b.issued ||
                 memcmp (a.nonce, b.nonce, sizeof a.nonce) < 0);
    a = b;
  }
}

static void
tickets_of_others_are_forged (void **state)
{
  struct esp_ticket t;
  const char *name = issue ("cafe/1@seat-7", ADDRESS, false, 600, 600, &t);
  const char *ticket = strchr (name, '+');
  static const char *const others[] = {
    "cafe/0@seat-7", "cafe/1@seat-8", "cafes/1@seat-7", "cafe/1", "rp:cafe",
    "rp:cafe@seat-7", "cafe/1@seat-7.", "cafe/10@seat-7",
  };
  static const char *const addresses[] =
    { "", "10.0.0.70", "10.0.0.8", "::1", "10.0.0.", "10.0.0.7 " };
  char text[ESP_EXPORT_MAX];

  (void) state;
  assert_int_equal (check (name, ADDRESS, t.issued), ESP_TICKET_OK);
  for (size_t i = 0; i < COUNT (others); i++) {
    snprintf (text, sizeof text, "%s%s", others[i], ticket);
    assert_int_equal (check (text, ADDRESS, t.issued), ESP_TICKET_FORGED);
  }
  for (size_t i = 0; i < COUNT (addresses); i++)
    assert_int_equal (check (name, addresses[i], t.issued), ESP_TICKET_FORGED);
}

static void
tickets_of_another_key_are_forged (void **state)
{
  uint8_t other[32];
  struct esp_ticket t;
  const char *name = issue ("cafe@x", "", false, 600, 600, &t);

  (void) state;
  for (size_t i = 0; i < sizeof other; i++) {
    memcpy (other, secret, sizeof other);
    other[i] ^= 1;
    CLEANUP_TICKET_KEY struct esp_ticket_key *k = esp_ticket_key_from (other);
    struct esp_export e;
    assert_int_equal (esp_export_parse (name, &e), 0);
    assert_int_equal (esp_ticket_check (k, &e, "", t.issued, &t),
                      ESP_TICKET_FORGED);
  }
}

/* Every character replaced by every other one of the alphabet: also the last,
 * of which base64 does not use all bits.
 */
static void
every_change_of_a_ticket_is_refused (void **state)
{
  static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnop"
    "qrstuvwxyz0123456789-_";
  struct esp_ticket t;
  const char *name = issue ("cafe@x", ADDRESS, false, 600, 600, &t);
  char text[ESP_EXPORT_MAX];
  size_t from = (size_t) (strchr (name, '+') + 1 - name);

  (void) state;
  for (size_t i = from; name[i]; i++)
    for (const char *c = alphabet; *c; c++) {
      strcpy (text, name);
      text[i] = *c;
      assert_int_equal (check (text, ADDRESS, t.issued), *c == name[i]
                        ? ESP_TICKET_OK : ESP_TICKET_FORGED);
    }
}

static void
tickets_of_another_length_are_forged (void **state)
{
  struct esp_ticket t;
  const char *name = issue ("cafe@x", ADDRESS, false, 600, 600, &t);
  char text[ESP_EXPORT_MAX];

  (void) state;
  for (size_t n = strlen (name) - 1; name[n - 1] != '+'; n--) {
    snprintf (text, n + 1, "%s", name);
    assert_int_equal (check (text, ADDRESS, t.issued), ESP_TICKET_FORGED);
  }
  for (const char *more = "A-_0AAAAAAAAAAAAA"; *more; more++) {
    snprintf (text, sizeof text, "%s%s", name, more);
    assert_int_equal (check (text, ADDRESS, t.issued), ESP_TICKET_FORGED);
  }
}

static void
times_are_kept (void **state)
{
  struct esp_ticket t;
  const char *name = issue ("cafe@x", ADDRESS, false, 60, 600, &t);
  const uint64_t i = t.issued;

  (void) state;
  assert_int_equal (check (name, ADDRESS, i + 600), ESP_TICKET_OK);
  assert_int_equal (check (name, ADDRESS, i + 601), ESP_TICKET_EXPIRED);
  assert_int_equal (check (name, ADDRESS, UINT64_MAX), ESP_TICKET_EXPIRED);
  assert_int_equal (check (name, ADDRESS, i - 60), ESP_TICKET_OK);
  assert_int_equal (check (name, ADDRESS, i - 61), ESP_TICKET_CLOCK);
  assert_int_equal (check (name, ADDRESS, 0), ESP_TICKET_CLOCK);
  /* What is wrong with the clock is told to nobody who forges. */
  assert_int_equal (check (name, "10.0.0.8", 0), ESP_TICKET_FORGED);
}

static void
only_sound_tickets_are_issued (void **state)
{
  static const struct {
    const char *export; bool readonly; uint32_t opens, valid; int r;
  } cases[] = {
    { "cafe@x", false, 60, 60, 0 },
    { "cafe", false, 60, 60, -1 },      /* whose overlay? */
    { "cafe", true, 60, 60, 0 },
    { "rp:base", false, 60, 60, -1 },
    { "cafe@x", true, 0, 0, 0 },
    { "cafe@x", false, 61, 60, -1 },
    { "cafe@x", false, ESP_TICKET_OPENS_MAX, UINT32_C (1) << 30, 0 },
    { "cafe@x", false, ESP_TICKET_OPENS_MAX + 1, UINT32_C (1) << 30, -1 },
    { "cafe@x", false, 60, UINT32_MAX, -1 },    /* beyond 2106 */
  };
  char text[ESP_EXPORT_MAX];

  (void) state;
  for (size_t i = 0; i < COUNT (cases); i++) {
    struct esp_ticket t = { .readonly = cases[i].readonly };
    assert_int_equal (esp_export_parse (cases[i].export, &t.export), 0);
    assert_int_equal (esp_ticket_issue (key, &t, cases[i].opens,
                                        cases[i].valid, text), cases[i].r);
    if (cases[i].r)
      assert_int_equal (errno, EINVAL);
  }
}

/* --- the key ------------------------------------------------------------- */

static void
key_is_made_once_and_private (void **state)
{
  struct esp_ticket t = { .readonly = true };
  char text[ESP_EXPORT_MAX], path[500];
  struct esp_export e;
  struct stat st;

  (void) state;
  assert_null (esp_ticket_key_load (store, false));
  assert_int_equal (errno, ENOKEY);
  assert_non_null (strstr (unit_error, "espalier key import tickets"));

  unit_error[0] = 0;
  CLEANUP_TICKET_KEY struct esp_ticket_key *a =
    esp_ticket_key_load (store, true);
  CLEANUP_TICKET_KEY struct esp_ticket_key *b =
    esp_ticket_key_load (store, true);
  assert_non_null (a);
  assert_non_null (b);
  assert_string_equal (unit_error, "");
  assert_int_equal (esp_export_parse ("cafe", &t.export), 0);
  assert_int_equal (esp_ticket_issue (a, &t, 60, 60, text), 0);
  assert_int_equal (esp_export_parse (text, &e), 0);
  assert_int_equal (esp_ticket_check (b, &e, "", t.issued, &t), ESP_TICKET_OK);
  assert_int_equal (esp_ticket_check (key, &e, "", t.issued, &t),
                    ESP_TICKET_FORGED);

  snprintf (path, sizeof path, "%s/s/keys/tickets.key", dir);
  assert_int_equal (stat (path, &st), 0);
  assert_int_equal (st.st_mode & 0777, 0600);
  assert_false (esp_ticket_key_changed (store, b));
  assert_int_equal (chmod (path, 0644), 0);
  assert_true (esp_ticket_key_changed (store, b));
  assert_null (esp_ticket_key_load (store, true));
  assert_int_equal (errno, EACCES);
}

static void
key_goes_to_another_server (void **state)
{
  char other[400], file[400], text[ESP_EXPORT_MAX];
  struct esp_ticket t = { .readonly = true };
  struct esp_export e;

  (void) state;
  CLEANUP_TICKET_KEY struct esp_ticket_key *a =
    esp_ticket_key_load (store, true);
  snprintf (other, sizeof other, "%s/other", dir);
  snprintf (file, sizeof file, "%s/file", dir);
  assert_int_equal (esp_store_init (other), 0);
  struct esp_store *s = esp_store_open (other);
  assert_int_equal (esp_key_export (store, ESP_TICKET_KEY, file), 0);
  assert_int_equal (esp_key_import (s, ESP_TICKET_KEY, file), 0);
  CLEANUP_TICKET_KEY struct esp_ticket_key *b = esp_ticket_key_load (s, false);
  assert_int_equal (esp_export_parse ("cafe", &t.export), 0);
  assert_int_equal (esp_ticket_issue (a, &t, 60, 60, text), 0);
  assert_int_equal (esp_export_parse (text, &e), 0);
  assert_int_equal (esp_ticket_check (b, &e, "", t.issued, &t), ESP_TICKET_OK);
  esp_store_close (s);
}

/* --- tickets that follow each other -------------------------------------- */

/* A and then B were issued, B is later. */
static void
newer_ticket_voids_the_older (void **state)
{
  struct esp_ticket a, b;
  const char *ta = issue ("cafe@x", ADDRESS, false, 60, 600, &a);
  const char *tb = issue ("cafe@x", ADDRESS, false, 60, 600, &b);
  const uint64_t t = a.issued;

  (void) state;
  assert_int_equal (use (ta, t), ESP_TICKET_OK);
  assert_int_equal (use (ta, t + 600), ESP_TICKET_OK);  /* a reconnect */
  assert_int_equal (use (tb, t + 30), ESP_TICKET_OK);
  assert_int_equal (use (ta, t + 30), ESP_TICKET_REPLAYED);
  assert_int_equal (use (tb, b.valid_until), ESP_TICKET_OK);
  assert_int_equal (use (tb, b.valid_until + UINT64_C (1)),
                    ESP_TICKET_EXPIRED);
  assert_int_equal (use (ta, t), ESP_TICKET_REPLAYED);
}

static void
ticket_that_was_skipped_is_replayed (void **state)
{
  struct esp_ticket a, b;
  const char *ta = issue ("cafe@x", ADDRESS, false, 60, 600, &a);
  const char *tb = issue ("cafe@x", ADDRESS, false, 60, 600, &b);

  (void) state;
  assert_int_equal (use (tb, b.issued), ESP_TICKET_OK);
  assert_int_equal (use (ta, b.issued), ESP_TICKET_REPLAYED);
}

static void
ticket_waits_so_long_for_its_first_use (void **state)
{
  struct esp_ticket a, b;
  const char *ta = issue ("cafe@x", ADDRESS, false, 60, 600, &a);
  const char *tb = issue ("cafe@x", ADDRESS, false, 60, 600, &b);

  (void) state;
  assert_int_equal (use (ta, a.opens_until + UINT64_C (1)),
                    ESP_TICKET_EXPIRED);
  assert_int_equal (use (ta, a.opens_until), ESP_TICKET_OK);
  assert_int_equal (use (tb, b.opens_until + UINT64_C (1)),
                    ESP_TICKET_EXPIRED);
  /* One that came too late voids nothing. */
  assert_int_equal (use (ta, a.opens_until + UINT64_C (1)), ESP_TICKET_OK);
}

static void
each_disk_venue_and_client_has_its_own (void **state)
{
  static const char *const others[] =
    { "cafe/1@x", "cafe@y", "bar@x", "rp:cafe@x", "cafe@x.", "cafe/0@X" };
  struct esp_ticket a[COUNT (others)];
  char ta[COUNT (others)][ESP_EXPORT_MAX];

  (void) state;
  for (size_t i = 0; i < COUNT (others); i++)
    strcpy (ta[i], issue (others[i], ADDRESS, false, 60, 600, &a[i]));
  assert_int_equal (use_new (60, 600), ESP_TICKET_OK);
  for (size_t i = 0; i < COUNT (others); i++)
    assert_int_equal (use (ta[i], a[i].issued), ESP_TICKET_OK);
}

static void
read_only_tickets_are_for_several (void **state)
{
  struct esp_ticket a, b;
  const char *ta = issue ("cafe", "", true, 60, 600, &a);
  const char *tb = issue ("cafe", "", true, 60, 600, &b);

  (void) state;
  assert_int_equal (use (tb, b.issued + 600), ESP_TICKET_OK);
  assert_int_equal (use (ta, a.issued + 600), ESP_TICKET_OK);
  assert_int_equal (use (ta, a.issued + 601), ESP_TICKET_EXPIRED);
  assert_int_equal (access (state_file (), F_OK), -1);
}

/* --- the state's files --------------------------------------------------- */

static void
write_state (const char *text)
{
  FILE *f = fopen (state_file (), "w");

  assert_non_null (f);
  fputs (text, f);
  fclose (f);
}

static void
nobody_gets_in_over_a_damaged_state (void **state)
{
  static const char *const damaged[] = {
    "x", "espalier-ticket 1 xxh3:0000000000000000\n{}\n", "\n",
    "espalier-ticket 2 xxh3:0000000000000000\n{}\n",
  };
  struct esp_ticket a;
  const char *ta = issue ("cafe@x", ADDRESS, false, 60, 600, &a);
  enum esp_ticket_state st;
  struct esp_export e;

  (void) state;
  assert_int_equal (use (ta, a.issued), ESP_TICKET_OK);
  assert_int_equal (esp_export_parse (ta, &e), 0);
  for (size_t i = 0; i < COUNT (damaged); i++) {
    write_state (damaged[i]);
    assert_int_equal (esp_ticket_use (store, key, &e, ADDRESS, a.issued, &st),
                      -1);
    assert_non_null (strstr (unit_error, "/s/run/tickets/cafe%2F0%40x: "));
    assert_null (strstr (unit_error, e.ticket));
  }
  /* What a crash leaves between making the file and replacing it. */
  write_state ("");
  assert_int_equal (use (ta, a.issued), ESP_TICKET_OK);
}

/* The clock was an hour ahead, and was set right. */
static void
state_of_the_future_is_no_measure (void **state)
{
  struct esp_ticket a;
  const char *ta = issue ("cafe@x", ADDRESS, false, 60, 600, &a);
  json_t *o = json_pack ("{s:s, s:s, s:I, s:I, s:s}", "export", "cafe/0@x",
                         "address", "", "issued",
                         (json_int_t) a.issued + 3600, "valid-until",
                         (json_int_t) a.issued + 7200, "nonce",
                         "0000000000000000");
  char *text;
  size_t len;

  (void) state;
  assert_int_equal (use (ta, a.issued), ESP_TICKET_OK);
  text = esp_doc_format ("ticket", 1, o, &len);
  assert_non_null (text);
  write_state (text);
  assert_int_equal (use (ta, a.issued), ESP_TICKET_OK);
  json_object_set_new (o, "issued", json_integer ((json_int_t) a.issued + 60));
  free (text);
  text = esp_doc_format ("ticket", 1, o, &len);
  write_state (text);
  assert_int_equal (use (ta, a.issued), ESP_TICKET_REPLAYED);
  free (text);
  json_decref (o);
}

static void
state_of_another_export_is_damage (void **state)
{
  struct esp_ticket a, b;
  const char *ta = issue ("cafe@x", ADDRESS, false, 60, 600, &a);
  const char *tb = issue ("cafe@y", ADDRESS, false, 60, 600, &b);
  char from[500];
  enum esp_ticket_state st;
  struct esp_export e;

  (void) state;
  assert_int_equal (use (tb, b.issued), ESP_TICKET_OK);
  snprintf (from, sizeof from, "%s/s/run/tickets/cafe%%2F0%%40y", dir);
  assert_int_equal (rename (from, state_file ()), 0);
  assert_int_equal (esp_export_parse (ta, &e), 0);
  assert_int_equal (esp_ticket_use (store, key, &e, ADDRESS, a.issued, &st),
                    -1);
  assert_int_equal (errno, EBADMSG);
}

static void
count_one (void *arg, const char *name, uint64_t bytes)
{
  (void) bytes;
  assert_string_equal (name, "cafe%2F0%40x");
  ++*(int *) arg;
}

/* gc as if it were DAYS later: how much went. */
static int
expire (double days, bool dry_run)
{
  int n = 0;

  assert_int_equal (esp_ticket_gc (store, (uint64_t) time (NULL)
                                   + (uint64_t) (days * 86400), dry_run,
                                   count_one, &n), 0);
  return n;
}

static void
gc_keeps_what_somebody_depends_on (void **state)
{
  (void) state;
  use_new (60, 600);
  assert_int_equal (expire (0, false), 0);
  assert_int_equal (expire (30.9, false), 0);
  assert_int_equal (expire (31.1, true), 1);
  assert_int_equal (expire (31.1, false), 1);
  assert_int_equal (expire (31.1, false), 0);

  /* One that is valid for longer. */
  use_new (60, 86400 * 100);
  assert_int_equal (expire (99.9, false), 0);
  assert_int_equal (expire (100.1, false), 1);

  use_new (60, 600);
  write_state ("damaged");
  assert_int_equal (expire (1000, false), 0);
  write_state ("");             /* somebody may be about to write it */
  assert_int_equal (expire (1000, false), 0);
  const struct timespec long_ago[2] = { { 1, 0 }, { 1, 0 } };
  assert_int_equal (utimensat (AT_FDCWD, state_file (), long_ago, 0), 0);
  assert_int_equal (expire (0, false), 1);
}

static void
gc_leaves_a_locked_state (void **state)
{
  (void) state;
  use_new (60, 600);
  CLEANUP_CLOSE int fd = open (state_file (), O_RDONLY | O_CLOEXEC);
  assert_int_equal (esp_lock (fd, true), 0);
  assert_int_equal (expire (32, false), 0);
  close (esp_steal_fd (&fd));
  assert_int_equal (expire (32, false), 1);
}

/* --- many at once -------------------------------------------------------- */

#define RACERS 16
#define ROUNDS 30

static char racing[2][ESP_EXPORT_MAX];  /* older, newer */
static uint64_t racing_now;
static pthread_barrier_t barrier;

struct racer { unsigned n; enum esp_ticket_state state; int r; };

static void *
race (void *arg)
{
  struct racer *r = arg;
  struct esp_export e;

  esp_export_parse (racing[r->n % 2], &e);
  pthread_barrier_wait (&barrier);
  r->r = esp_ticket_use (store, key, &e, ADDRESS, racing_now, &r->state);
  return NULL;
}

/* Threads with an older and a newer ticket: all newer ones get in, and when
 * all is over, the older one does not.
 */
static void
threads_race (void **state)
{
  struct racer racers[RACERS];
  pthread_t threads[RACERS];
  struct esp_ticket t;

  (void) state;
  pthread_barrier_init (&barrier, NULL, RACERS);
  for (int round = 0; round < ROUNDS; round++) {
    strcpy (racing[0], issue ("cafe@x", ADDRESS, false, 60, 600, &t));
    strcpy (racing[1], issue ("cafe@x", ADDRESS, false, 60, 600, &t));
    racing_now = t.issued;
    for (unsigned i = 0; i < RACERS; i++) {
      racers[i] = (struct racer) { .n = i };
      pthread_create (&threads[i], NULL, race, &racers[i]);
    }
    for (unsigned i = 0; i < RACERS; i++) {
      pthread_join (threads[i], NULL);
      assert_int_equal (racers[i].r, 0);
      if (i % 2)
        assert_int_equal (racers[i].state, ESP_TICKET_OK);
      else
        assert_true (racers[i].state == ESP_TICKET_OK ||
                     racers[i].state == ESP_TICKET_REPLAYED);
    }
    assert_int_equal (use (racing[0], racing_now), ESP_TICKET_REPLAYED);
    assert_int_equal (use (racing[1], racing_now), ESP_TICKET_OK);
  }
  pthread_barrier_destroy (&barrier);
}

/* Each uses the same tickets from the oldest to the newest, while the parent
 * removes the state as gc would if all were over: nobody sees an error.
 */
static void
processes_race_with_gc (void **state)
{
  enum { TICKETS = 40, CHILDREN = 6 };
  static char names[TICKETS][ESP_EXPORT_MAX];
  struct esp_ticket t;
  pid_t child[CHILDREN];

  (void) state;
  for (int i = 0; i < TICKETS; i++)
    strcpy (names[i], issue ("cafe@x", ADDRESS, false, 60, 600, &t));
  use (names[0], t.issued);
  for (int c = 0; c < CHILDREN; c++) {
    child[c] = fork ();
    if (child[c] == 0) {
      enum esp_ticket_state st;
      struct esp_export e;
      int bad = 0;
      for (int i = 0; i < TICKETS; i++) {
        esp_export_parse (names[i], &e);
        bad |= esp_ticket_use (store, key, &e, ADDRESS, t.issued, &st) != 0;
      }
      _exit (bad || st != ESP_TICKET_OK);
    }
  }
  for (int i = 0; i < 200; i++)
    expire (32, false);
  for (int c = 0; c < CHILDREN; c++) {
    int status;
    assert_int_equal (waitpid (child[c], &status, 0), child[c]);
    assert_int_equal (status, 0);
  }
}

int
main (void)
{
#define T(fn) cmocka_unit_test_setup_teardown (fn, setup, teardown)
  const struct CMUnitTest tests[] = {
    T (tickets_are_what_the_document_says),
    T (issued_tickets_open_what_they_are_for),
    T (two_tickets_are_never_the_same_and_have_an_order),
    T (tickets_of_others_are_forged),
    T (tickets_of_another_key_are_forged),
    T (every_change_of_a_ticket_is_refused),
    T (tickets_of_another_length_are_forged),
    T (times_are_kept),
    T (only_sound_tickets_are_issued),
    T (key_is_made_once_and_private),
    T (key_goes_to_another_server),
    T (newer_ticket_voids_the_older),
    T (ticket_that_was_skipped_is_replayed),
    T (ticket_waits_so_long_for_its_first_use),
    T (each_disk_venue_and_client_has_its_own),
    T (read_only_tickets_are_for_several),
    T (nobody_gets_in_over_a_damaged_state),
    T (state_of_the_future_is_no_measure),
    T (state_of_another_export_is_damage),
    T (gc_keeps_what_somebody_depends_on),
    T (gc_leaves_a_locked_state),
    T (threads_race),
    T (processes_race_with_gc),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
