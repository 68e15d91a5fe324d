/* SPDX-License-Identifier: BSD-3-Clause */
/* The daemon's configuration: defaults, files, options, what is wrong in them,
 * what a new one changes.
 */

#include "unit.h"

#include "daemon/config.h"
#include "daemon/listen.h"
#include "daemon/log.h"
#include "daemon/words.h"
#include "util/cleanup.h"

#define COUNT(a) (sizeof (a) / sizeof *(a))

static int
parse (struct config *c, const char *text)
{
  return config_parse (c, "F", text, strlen (text));
}

static void
defaults_are_what_the_manual_says (void **state)
{
  struct config *c = config_new ();

  (void) state;
  assert_int_equal (config_finish (c), 0);
  assert_string_equal (c->listen, ":8610");
  assert_string_equal (c->nbd_listen, ":10809");
  assert_string_equal (c->iscsi_listen, ":3260");
  assert_string_equal (c->title, "Espalier");
  assert_int_equal (c->menu_timeout, 10);
  assert_int_equal (c->bridge_grace, 120);
  assert_int_equal (c->ticket_opens, 600);
  assert_int_equal (c->ticket_valid, 7 * 86400);
  assert_true (c->ticket_address);
  assert_false (c->require_ticket);
  assert_false (c->shell);
  assert_null (c->nbd);
  assert_null (c->default_venue);
  assert_int_equal (c->unknown_clients, UNKNOWN_MENU);
  assert_int_equal (c->store[0], '/');
  assert_non_null (strstr (c->audit, "/run/audit.log"));
  config_put (c);
}

static void
a_file_sets_what_it_says (void **state)
{
  struct config *c = config_new ();

  (void) state;
  assert_int_equal (parse (c, "# a comment\n\n  title = Caf\xc3\xa9 # of ours\r\n"
                           "shell=on\n\tmenu-timeout\t=\t2m\nticket-valid = 12h\n"
                           "unknown-clients = refuse\nserver = http://a:1/\n"
                           "server = http://[::1]:8610\naudit =\nlisten = \"[::1]:80\" # x\n"
                           "nbd-options = --mode keep \"a b\"\n"
                           "store = /a#b"), 0);
  assert_int_equal (config_finish (c), 0);
  assert_string_equal (c->title, "Caf\xc3\xa9");
  assert_true (c->shell);
  assert_int_equal (c->menu_timeout, 120);
  assert_int_equal (c->ticket_valid, 12 * 3600);
  assert_int_equal (c->unknown_clients, UNKNOWN_REFUSE);
  assert_int_equal (c->nservers, 2);
  assert_string_equal (c->servers[0], "http://a:1");
  assert_string_equal (c->servers[1], "http://[::1]:8610");
  assert_null (c->audit);
  assert_string_equal (c->listen, "[::1]:80");
  assert_string_equal (c->nbd_options, "--mode keep \"a b\"");
  assert_string_equal (c->store, "/a#b");
  config_put (c);
}

/* What is printed is read again to the same. */
static void
what_is_written_is_read_again (void **state)
{
  struct config *c = config_new (), *d = config_new ();
  struct config_setting s;
  char *text;

  (void) state;
  assert_int_equal (parse (c, "title = \"# one\"\nserver = http://a\nserver = http://b\n"
                           "ticket-opens = 77\nshell = on\nunknown-clients = refuse\n"), 0);
  for (size_t i = 0; config_setting (i, &s); i++)
    for (size_t k = 0; (text = config_text (c, s.name, k)); k++) {
      assert_int_equal (config_set (d, "x", s.name, text), 0);
      free (text);
    }
  for (size_t i = 0; config_setting (i, &s); i++)
    for (size_t k = 0; (text = config_text (c, s.name, k)); k++) {
      CLEANUP_FREE char *again = config_text (d, s.name, k);
      assert_string_equal (text, again);
      free (text);
    }
  config_put (c);
  config_put (d);
}

static const struct { const char *text, *error; } wrong[] = {
  { "titel = x\n", "F:1: 'titel' is unknown: is 'title' meant?" },
  { "\n\nbananas = 1\n", "F:3: 'bananas' is unknown: see espalierd(8)" },
  { "title\n", "F:1: not NAME = VALUE" },
  { "= x\n", "F:1: not NAME = VALUE" },
  { "title = a\n\ntitle = b\n", "F:3: title is set in line 1 already" },
  { "title = \"a\n", "F:1: the quote (\") has no end" },
  { "shell = yes\n", "F:1: shell 'yes': on or off" },
  { "menu-timeout = ten\n", "F:1: menu-timeout 'ten': a number of seconds from 0" },
  { "menu-timeout = 2d\n", "from 0 to 86400" },
  { "menu-timeout = 99999999999999999999\n", "a number of seconds" },
  { "menu-timeout = -1\n", "a number of seconds" },
  { "menu-timeout = 1mm\n", "a number of seconds" },
  { "menu-timeout =\n", "a number of seconds" },
  { "bridge-grace = 0\n", "from 1 to" },
  { "unknown-clients = maybe\n", "menu, default or refuse" },
  { "listen = localhost:80\n", "numeric address" },
  { "listen = ::1:80\n", "numeric address" },
  { "listen = 1.2.3.4:65536\n", "numeric address" },
  { "listen = 1.2.3.4:\n", "numeric address" },
  { "nbd = http://a\n", "not an NBD URI" },
  { "nbd = nbd://a/cafe\n", "leave out the export's name" },
  { "nbd-options = --port 1\n", "espalierd gives --socket" },
  { "nbd-options = --audit=x\n", "espalierd gives --socket" },
  { "nbd-options = \"a\n", "the quote (\") has no end" },
  { "address = a b\n", "not a host name" },
  { "address = -x\n", "not a host name" },
  { "address = 1:2\n", "not a host name" },
  { "default-venue = ../x\n", "no venue has such a name" },
  { "server = https://a\n", "not http://HOST:PORT" },
  { "server = http://\n", "not http://HOST:PORT" },
  { "server = http://a b\n", "not http://HOST:PORT" },
  { "title = a\x01" "b\n", "has control characters" },
  { "title = \xff\n", "or is not UTF-8" },
  { "\xef\xbb\xbf" "title = x\n", "is unknown" },
};

static void
what_is_wrong_is_said_with_its_line (void **state)
{
  (void) state;
  for (size_t i = 0; i < COUNT (wrong); i++) {
    struct config *c = config_new ();
    *unit_error = 0;
    if (parse (c, wrong[i].text) != -1)
      fail_msg ("accepted: %s", wrong[i].text);
    if (!strstr (unit_error, wrong[i].error))
      fail_msg ("%s: %s", wrong[i].text, unit_error);
    config_put (c);
  }
}

static void
a_nul_byte_ends_no_line (void **state)
{
  struct config *c = config_new ();

  (void) state;
  assert_int_equal (config_parse (c, "F", "a\0b\n", 4), -1);
  assert_string_equal (unit_error, "F:1: a NUL byte");
  config_put (c);
}

static const struct { const char *text, *error; } apart[] = {
  { "unknown-clients = default\n", "Set default-venue" },
  { "nbd = nbd://h\nnbd-options = --mode keep\n", "starts no server" },
  { "listen =\n", "an address or a port is needed" },
  { "nbd-options = --tls-psk /x\n", "add --tls on" },
  { "nbd-options = --tls require --tls-psk /x\n", "add --tls on" },
};

static void
what_does_not_go_together_is_refused (void **state)
{
  struct config *c;

  (void) state;
  for (size_t i = 0; i < COUNT (apart); i++) {
    c = config_new ();
    assert_int_equal (parse (c, apart[i].text), 0);
    assert_int_equal (config_finish (c), -1);
    if (!strstr (unit_error, apart[i].error))
      fail_msg ("%s: %s", apart[i].text, unit_error);
    config_put (c);
  }
  c = config_new ();
  assert_int_equal (parse (c, "nbd-options = --tls on --tls-psk /x\n"), 0);
  assert_int_equal (config_finish (c), 0);
  config_put (c);
}

static void
options_count_more_than_the_file (void **state)
{
  char *dir = unit_mkdir ();
  CLEANUP_FREE char *file = NULL;
  struct config_option options[] = {
    { "title", "first" }, { "title", "last" }, { "server", "http://c" },
    { "server", "http://d" },
  };
  struct config_source source = { .option = options, .noptions = 4 };
  struct config *c;
  FILE *f;

  (void) state;
  assert_true (asprintf (&file, "%s/conf", dir) > 0);
  f = fopen (file, "w");
  fputs ("title = file\nserver = http://a\nshell = on\n", f);
  fclose (f);
  source.file = file;
  c = config_load (&source);
  assert_non_null (c);
  assert_string_equal (c->title, "last");
  assert_true (c->shell);
  assert_int_equal (c->nservers, 2);
  assert_string_equal (c->servers[0], "http://c");
  config_put (c);
  unlink (file);
  assert_null (config_load (&source));
  assert_non_null (strstr (unit_error, "No such file"));
  unit_rmdir (dir);
}

static unsigned restarts;
static void
needs_restart (const char *name)
{
  assert_true (strcmp (name, "listen") == 0 || strcmp (name, "require-ticket") == 0);
  restarts++;
}

static void
a_new_one_keeps_what_needs_a_restart (void **state)
{
  struct config *old = config_new (), *new = config_new ();
  const struct config *held;

  (void) state;
  assert_int_equal (config_finish (old), 0);
  config_use (old, needs_restart);
  held = config_get ();
  assert_int_equal (parse (new, "listen = :1\nrequire-ticket = on\ntitle = new\n"), 0);
  assert_int_equal (config_finish (new), 0);
  config_use (new, needs_restart);
  assert_int_equal (restarts, 2);
  assert_string_equal (held->title, "Espalier");        /* still there */
  config_put (held);
  held = config_get ();
  assert_string_equal (held->title, "new");
  assert_string_equal (held->listen, ":8610");
  assert_false (held->require_ticket);
  config_put (held);
}

static void
where_to_listen (void **state)
{
  static const struct { const char *text, *host; unsigned port; } good[] = {
    { ":80", "", 80 }, { "80", "", 80 }, { "*:80", "", 80 },
    { "10.0.0.1", "10.0.0.1", 7 }, { "10.0.0.1:0", "10.0.0.1", 0 },
    { "[::]:80", "::", 80 }, { "[fd00::1]", "fd00::1", 7 },
  };
  static const char *const bad[] = {
    "", "x", "1.2.3.4:x", "[::1", "[]:1", "[::1]x", "::1", "1.2.3.4:99999",
    "1.2.3.4:000080", "[1.2.3.4:80", "1.2.3:4:5",
  };
  struct listen_at at;

  (void) state;
  for (size_t i = 0; i < COUNT (good); i++) {
    if (listen_parse (good[i].text, 7, &at) != 0)
      fail_msg ("refused: %s", good[i].text);
    assert_string_equal (at.host, good[i].host);
    assert_int_equal (at.port, good[i].port);
  }
  for (size_t i = 0; i < COUNT (bad); i++)
    if (listen_parse (bad[i], 7, &at) != -1)
      fail_msg ("accepted: %s", bad[i]);
}

static void
words_have_quotes (void **state)
{
  struct words w;

  (void) state;
  assert_int_equal (words_split ("  a \"b c\"d\t\"\" ", &w), 0);
  assert_int_equal (w.n, 3);
  assert_string_equal (w.word[1], "b cd");
  assert_string_equal (w.word[2], "");
  assert_null (w.word[3]);
  words_clear (&w);
  assert_int_equal (words_split ("a \"b", &w), -1);
  assert_int_equal (words_split ("", &w), 0);
  assert_int_equal (w.n, 0);
}

static void
tickets_are_hidden (void **state)
{
  char text[] = "open cafe/0@x+AQABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdefghijklmnop_-AA: a+b";

  (void) state;
  log_hide (text);
  assert_string_equal (text, "open cafe/0@x+...: a+b");
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (defaults_are_what_the_manual_says),
    cmocka_unit_test (a_file_sets_what_it_says),
    cmocka_unit_test (what_is_written_is_read_again),
    cmocka_unit_test (what_is_wrong_is_said_with_its_line),
    cmocka_unit_test (a_nul_byte_ends_no_line),
    cmocka_unit_test (what_does_not_go_together_is_refused),
    cmocka_unit_test (options_count_more_than_the_file),
    cmocka_unit_test (a_new_one_keeps_what_needs_a_restart),
    cmocka_unit_test (where_to_listen),
    cmocka_unit_test (words_have_quotes),
    cmocka_unit_test (tickets_are_hidden),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
