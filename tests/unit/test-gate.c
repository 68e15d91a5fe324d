/* SPDX-License-Identifier: BSD-3-Clause */
/* The gate: who is let in, who is asked once, and what is written down. */

#include "unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "boot/gate.h"
#include "boot/ticket.h"
#include "center/keys.h"
#include "store/venue.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/stack.h"

ESP_DEFINE_CLEANUP (ticket_key, struct esp_ticket_key *, esp_ticket_key_free)
#define CLEANUP_TICKET_KEY ESP_CLEANUP (ticket_key)

static char *dir;
static char audit[500];
static struct esp_store *store;

/* Who this thread's client is: an address, "" for a Unix socket, NULL for
 * nobody knows; and how often somebody asked.
 */
static __thread const char *peer_address = "10.0.0.7";
static __thread unsigned asked;

static int
fake_peer (struct sockaddr *addr, socklen_t *len)
{
  struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = 4711 };
  struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
  struct sockaddr_un un = { .sun_family = AF_UNIX };

  asked++;
  assert_true (*len >= sizeof un);
  if (!peer_address)
    return -1;
  if (inet_pton (AF_INET, peer_address, &in.sin_addr) == 1)
    memcpy (addr, &in, sizeof in);
  else if (inet_pton (AF_INET6, peer_address, &in6.sin6_addr) == 1)
    memcpy (addr, &in6, sizeof in6);
  else
    memcpy (addr, &un, sizeof un);
  return 0;
}

static void
open_gate (bool require, bool write_down)
{
  struct esp_gate_params p = { require, write_down ? audit : NULL, fake_peer };

  esp_gate_close ();
  assert_int_equal (esp_gate_check (store, &p), 0);
  esp_gate_open (store, &p);
}

/* The venue cafe with NETWORKS. */
static void
set_networks (const char *networks)
{
  struct esp_catalog *c = esp_store_catalog (store);
  CLEANUP_VENUE_BOOT struct esp_venue_boot boot = { 0 };

  assert_int_equal (esp_catalog_venue_boot_get (c, "cafe", &boot), 0);
  free (boot.networks);
  boot.networks = strdup (networks);
  assert_int_equal (esp_catalog_venue_boot_put (c, &boot), 0);
}

static void
add_cafe (void)
{
  struct esp_rp rp = { .name = "one", .kind = ESP_RP_STORED, .size = 4096,
                       .note = (char[]) { "" } };
  struct esp_venue v = { .id = "cafe", .description = (char[]) { "" },
                         .revision = 1, .ndisks = 1, .disks = &rp.uuid };

  esp_uuid_new (&rp.uuid);
  assert_int_equal (esp_catalog_rp_insert (esp_store_catalog (store), &rp), 0);
  assert_int_equal (esp_catalog_venue_put (esp_store_catalog (store), &v,
                                           NULL), 0);
}

static int
setup (void **state)
{
  char path[400];

  (void) state;
  dir = unit_mkdir ();
  snprintf (path, sizeof path, "%s/s", dir);
  snprintf (audit, sizeof audit, "%s/audit", dir);
  assert_int_equal (esp_store_init (path), 0);
  store = esp_store_open (path);
  assert_non_null (store);
  add_cafe ();
  peer_address = "10.0.0.7";
  asked = 0;
  unit_error[0] = 0;
  return 0;
}

static int
teardown (void **state)
{
  (void) state;
  esp_gate_close ();
  esp_store_close (store);
  unit_rmdir (dir);
  return 0;
}

static const char *
ticket (const char *export, const char *address, bool readonly)
{
  static char text[2][ESP_EXPORT_MAX];
  static unsigned at;
  CLEANUP_TICKET_KEY struct esp_ticket_key *key =
    esp_ticket_key_load (store, true);
  struct esp_ticket t = { .readonly = readonly };

  at = !at;
  snprintf (t.address, sizeof t.address, "%s", address);
  assert_int_equal (esp_export_parse (export, &t.export), 0);
  assert_int_equal (esp_ticket_issue (key, &t, 60, 600, text[at]), 0);
  return text[at];
}

/* The plugin alone: -1 refused, 0 let in, 1 read-only. */
static int
pass (const char *export)
{
  bool readonly = false;
  int r = esp_gate_pass (export, &readonly);

  return r == -1 ? -1 : readonly;
}

/* The last line of the audit log behind its event. */
static const char *
said (void)
{
  static char last[2000];
  char line[2000];
  FILE *f = fopen (audit, "r");

  assert_non_null (f);
  while (fgets (line, sizeof line, f))
    strcpy (last, line);
  fclose (f);
  last[strcspn (last, "\n")] = 0;
  assert_non_null (strstr (last, " event=open "));
  return strstr (last, " event=open ") + 12;
}

static void
nobody_is_asked_for_where_nothing_depends_on_it (void **state)
{
  (void) state;
  open_gate (false, false);
  assert_int_equal (pass ("cafe@x"), 0);
  assert_int_equal (pass ("rp:one"), 0);
  assert_int_equal (asked, 0);
  assert_int_equal (pass ("nowhere"), -1);
  assert_int_equal (pass ("cafe/x"), -1);
}

static void
networks_hold_for_everybody_but_local_ones (void **state)
{
  static const struct { const char *networks, *peer; int r; } cases[] = {
    { "", "10.0.0.7", 0 }, { "", "::1", 0 }, { "", NULL, 0 }, { "", "local", 0 },
    { "10.0.0.0/24", "10.0.0.7", 0 }, { "10.0.0.0/24", "10.0.1.7", -1 },
    { "10.0.0.0/24", "::ffff:10.0.0.9", 0 }, { "10.0.0.0/24", "::1", -1 },
    { "10.0.0.0/24 ::1", "::1", 0 }, { "10.0.0.0/24", "local", 0 },
    { "10.0.0.0/24", NULL, -1 },
  };

  (void) state;
  open_gate (false, true);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    set_networks (cases[i].networks);
    peer_address = cases[i].peer;
    if (pass ("cafe@x") != cases[i].r)
      fail_msg ("%s: %s", cases[i].networks, cases[i].peer);
    /* All disks could be had as restore points. */
    assert_int_equal (pass ("rp:one"), *cases[i].networks && (!cases[i].peer ||
                      strcmp (cases[i].peer, "local") != 0) ? -1 : 0);
  }
  peer_address = NULL;
  assert_int_equal (pass ("cafe"), -1);
  assert_string_equal (said (), "peer=unknown export=cafe/0 ticket=none "
                       "result=refused why=network");
  assert_int_equal (pass (ticket ("rp:one", "", true)), 1);
  assert_int_equal (pass (ticket ("cafe", "", true)), -1);
}

static void
tickets_are_required (void **state)
{
  (void) state;
  open_gate (true, true);
  assert_int_equal (pass ("cafe@x"), -1);
  assert_string_equal (said (), "peer=10.0.0.7 export=cafe/0@x ticket=none "
                       "result=refused why=ticket");
  assert_non_null (strstr (unit_error, "10.0.0.7: cafe/0@x: refused: "));
  assert_int_equal (pass (ticket ("cafe@x", "10.0.0.7", false)), 0);
  assert_int_equal (pass (ticket ("cafe@x", "10.0.0.8", false)), -1);
  assert_string_equal (said (), "peer=10.0.0.7 export=cafe/0@x ticket=forged "
                       "result=refused why=ticket");
  assert_int_equal (pass (ticket ("cafe", "", true)), 1);
  peer_address = "local";
  assert_int_equal (pass (ticket ("cafe@x", "10.0.0.7", false)), -1);
  assert_int_equal (pass (ticket ("cafe@x", "", false)), 0);
}

/* Who is refused by his address has not used his ticket. */
static void
refused_ticket_stays_unused (void **state)
{
  (void) state;
  open_gate (true, true);
  const char *old = ticket ("cafe@x", "", false);
  assert_int_equal (pass (old), 0);
  set_networks ("10.0.1.0/24");
  assert_int_equal (pass (ticket ("cafe@x", "", false)), -1);
  assert_string_equal (said (), "peer=10.0.0.7 export=cafe/0@x ticket=ok "
                       "result=refused why=network");
  set_networks ("");
  assert_int_equal (pass (old), 0);
}

/* Whoever says that he is a machine gets its ticket: where it now comes from
 * another address is written down.
 */
static void
machine_that_moves_is_written_down (void **state)
{
  (void) state;
  open_gate (true, true);
  assert_int_equal (pass (ticket ("cafe@x", "10.0.0.7", false)), 0);
  esp_gate_opened ("one");
  assert_null (strstr (said (), "before="));
  assert_int_equal (pass (ticket ("cafe@x", "10.0.0.7", false)), 0);
  esp_gate_opened ("one");
  assert_null (strstr (said (), "before="));
  const char *old = ticket ("cafe@x", "10.0.0.7", false);
  assert_int_equal (pass (old), 0);
  peer_address = "10.0.0.9";
  assert_int_equal (pass (ticket ("cafe@x", "10.0.0.9", false)), 0);
  esp_gate_opened ("one");
  assert_string_equal (said (), "peer=10.0.0.9 export=cafe/0@x ticket=ok "
                       "before=10.0.0.7 result=ok tip=one");
  peer_address = "10.0.0.7";
  assert_int_equal (pass (old), -1);
  assert_string_equal (said (), "peer=10.0.0.7 export=cafe/0@x "
                       "ticket=replayed before=10.0.0.9 result=refused "
                       "why=ticket");
  assert_int_equal (pass (ticket ("cafe@x", "", false)), 0);
  esp_gate_opened ("one");
  assert_null (strstr (said (), "before="));
}

/* What the overlay filter does, and the plugin below. */
static int
way (const char *outer, const char *inner)
{
  ESP_STACK_SCOPE struct esp_stack_slot *slot = esp_stack_enter ();

  (void) slot;
  return pass (outer) == -1 ? -2 : pass (inner);
}

static void
what_the_outermost_was_told_holds_for_its_disk (void **state)
{
  (void) state;
  open_gate (true, true);
  assert_int_equal (way (ticket ("cafe@x", "", false), "cafe/0"), 0);
  assert_int_equal (way (ticket ("cafe@x", "", false), "cafe"), 0);
  assert_int_equal (way (ticket ("cafe@x", "", false), "cafe@x"), 0);
  assert_int_equal (way (ticket ("cafe", "", true), "cafe"), 1);
  assert_int_equal (way (ticket ("cafe@x", "", false), "cafe@y"), -1);
  assert_int_equal (way (ticket ("cafe@x", "", false), "cafe/1"), -1);
  assert_int_equal (way (ticket ("cafe@x", "", false), "rp:cafe"), -1);
  assert_int_equal (way (ticket ("cafe@x", "", false), "rp:one"), -1);
  assert_int_equal (way (ticket ("cafe@x", "", false), ""), -1);
  assert_int_equal (way ("cafe@x", "cafe"), -2);
  /* The way is over: nothing of it is left. */
  assert_int_equal (pass ("cafe"), -1);
}

static void
each_open_is_written_down_once (void **state)
{
  (void) state;
  open_gate (false, true);
  assert_int_equal (way ("cafe@x", "cafe"), 0);
  esp_gate_opened ("one");
  assert_string_equal (said (), "peer=10.0.0.7 export=cafe/0@x ticket=none "
                       "result=ok tip=one");
  errno = ESTALE;
  esp_gate_failed ("overlay");
  assert_int_equal (errno, ESTALE);
  assert_string_equal (said (), "peer=10.0.0.7 export=cafe/0@x ticket=none "
                       "result=failed why=overlay");
  esp_gate_failed ("again");
  assert_non_null (strstr (said (), "why=overlay"));
  assert_int_equal (pass ("nowhere@x"), -1);
  esp_gate_failed ("again");
  assert_non_null (strstr (said (), "why=disk"));
  assert_int_equal (pass ("cafe\nx+SECRET"), -1);
  assert_string_equal (said (), "peer=10.0.0.7 export=\"cafe\\x0ax\" "
                       "ticket=none result=refused why=name");
}

static void
key_may_come_go_and_change (void **state)
{
  char file[520], other[520];

  (void) state;
  open_gate (true, true);
  assert_non_null (strstr (unit_error, "no ticket key yet"));
  const char *old = ticket ("cafe@x", "", false);
  assert_int_equal (pass (old), 0);
  snprintf (file, sizeof file, "%s/s/keys/tickets.key", dir);
  snprintf (other, sizeof other, "%s/old", dir);
  assert_int_equal (rename (file, other), 0);
  assert_int_equal (pass (old), -1);
  assert_string_equal (said (), "peer=10.0.0.7 export=cafe/0@x ticket=forged "
                       "result=refused why=key");
  assert_int_equal (pass (ticket ("cafe@x", "", false)), 0);
  assert_int_equal (pass (old), -1);
  assert_non_null (strstr (said (), "ticket=forged result=refused why=ticket"));
  assert_int_equal (unlink (file), 0);
  assert_int_equal (esp_key_import (store, ESP_TICKET_KEY, other), 0);
  assert_int_equal (pass (old), -1);
  assert_non_null (strstr (said (), "ticket=replayed"));
}

enum { THREADS = 8, ROUNDS = 50 };

/* Opens what it may, and what it may not, while the key changes. */
static void *
visitor (void *arg)
{
  const char *good = arg;
  bool readonly, ok = true;

  peer_address = "10.0.0.7";
  for (int i = 0; i < ROUNDS; i++) {
    ESP_STACK_SCOPE struct esp_stack_slot *slot = esp_stack_enter ();
    ok &= !slot->passed;
    if (esp_gate_pass (good, &readonly) == 0)
      ok &= readonly && esp_gate_pass ("cafe", &readonly) == 0;
    else
      ok &= esp_gate_pass ("cafe", &readonly) == -1;
    esp_gate_opened ("one");
    ok &= esp_gate_pass ("cafe@y", &readonly) == -1;
  }
  return ok ? arg : NULL;
}

static void
threads_have_their_own_visits (void **state)
{
  pthread_t thread[THREADS];
  char good[ESP_EXPORT_MAX], file[520], away[520];
  void *r;

  (void) state;
  open_gate (true, true);
  strcpy (good, ticket ("cafe", "10.0.0.7", true));
  snprintf (file, sizeof file, "%s/s/keys/tickets.key", dir);
  snprintf (away, sizeof away, "%s/s/keys/away", dir);
  for (int i = 0; i < THREADS; i++)
    pthread_create (&thread[i], NULL, visitor, good);
  for (int i = 0; i < ROUNDS; i++)
    assert_int_equal (i % 2 ? rename (away, file) : rename (file, away), 0);
  for (int i = 0; i < THREADS; i++) {
    pthread_join (thread[i], &r);
    assert_non_null (r);
  }
}

int
main (void)
{
#define T(fn) cmocka_unit_test_setup_teardown (fn, setup, teardown)
  const struct CMUnitTest tests[] = {
    T (nobody_is_asked_for_where_nothing_depends_on_it),
    T (networks_hold_for_everybody_but_local_ones),
    T (tickets_are_required),
    T (refused_ticket_stays_unused),
    T (machine_that_moves_is_written_down),
    T (what_the_outermost_was_told_holds_for_its_disk),
    T (each_open_is_written_down_once),
    T (key_may_come_go_and_change),
    T (threads_have_their_own_visits),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
