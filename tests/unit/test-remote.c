/* SPDX-License-Identifier: BSD-3-Clause */
/* Remotes: URLs, options, names, credentials; directories in full.  Servers
 * are in e2e/remote.bats.
 */

#include "unit.h"

#include <limits.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "center/remote.h"
#include "center/remote-internal.h"
#include "util/cleanup.h"
#include "util/file.h"

ESP_DEFINE_CLEANUP (remote, struct esp_remote *, esp_remote_close)
#define CLEANUP_REMOTE ESP_CLEANUP (remote)

static char *dir;

static int
setup (void **state)
{
  (void) state;
  dir = unit_mkdir ();
  unsetenv ("AWS_ACCESS_KEY_ID");
  unsetenv ("AWS_SECRET_ACCESS_KEY");
  unsetenv ("AWS_SESSION_TOKEN");
  unsetenv ("AWS_PROFILE");
  unsetenv ("AWS_REGION");
  unsetenv ("AWS_DEFAULT_REGION");
  unsetenv ("AWS_SHARED_CREDENTIALS_FILE");
  setenv ("HOME", dir, 1);
  return 0;
}

static int
teardown (void **state)
{
  (void) state;
  unit_rmdir (dir);
  return 0;
}

static struct esp_remote *
open_dir (void)
{
  struct esp_remote *r = esp_remote_open (dir, NULL);

  assert_non_null (r);
  return r;
}

static char *
path_of (const char *name)
{
  char *path = esp_asprintf ("%s/%s", dir, name);

  assert_non_null (path);
  return path;
}

static void
write_file (const char *name, const char *text)
{
  CLEANUP_FREE char *path = path_of (name);
  CLEANUP_FCLOSE FILE *f = fopen (path, "w");

  assert_non_null (f);
  assert_true (fputs (text, f) >= 0);
}

static void
assert_holds (struct esp_remote *r, const char *name, const char *text)
{
  size_t len;
  CLEANUP_FREE char *buf = esp_remote_get_all (r, name, 1 << 20, &len, NULL);

  assert_non_null (buf);
  assert_string_equal (buf, text);
  assert_int_equal (len, strlen (text));
}

/* --- URLs, options, credentials ------------------------------------------ */

static void
urls_are_taken_apart (void **state)
{
  static const struct {
    const char *url, *base, *root;
    enum esp_remote_kind kind;
  } good[] = {
    { "/srv/images/", "/srv/images", NULL, ESP_REMOTE_DIR },
    { "file:///srv/my%20images", "/srv/my images", NULL, ESP_REMOTE_DIR },
    { "file://localhost/srv", "/srv", NULL, ESP_REMOTE_DIR },
    { "FILE:///", "/", NULL, ESP_REMOTE_DIR },
    { "http://h:81/a/b//", "http://h:81/a/b", NULL, ESP_REMOTE_HTTP },
    { "https://[::1]/", "https://[::1]", NULL, ESP_REMOTE_HTTP },
    { "s3://buck", "s3://buck", "https://buck.s3.us-east-1.amazonaws.com",
      ESP_REMOTE_S3 },
    { "s3://buck/p/q/?region=eu-1", "s3://buck/p/q",
      "https://buck.s3.eu-1.amazonaws.com", ESP_REMOTE_S3 },
    { "s3://buck/p?endpoint=http%3A%2F%2Fh:80/", "s3://buck/p",
      "http://h:80/buck", ESP_REMOTE_S3 },
    { "s3://buck?addressing=virtual&endpoint=http://h:80", "s3://buck",
      "http://buck.h:80", ESP_REMOTE_S3 },
  };

  (void) state;
  for (size_t i = 0; i < sizeof good / sizeof *good; ++i) {
    CLEANUP_REMOTE struct esp_remote *r = esp_remote_open (good[i].url, NULL);
    assert_non_null (r);
    assert_int_equal (esp_remote_kind (r), good[i].kind);
    assert_string_equal (esp_remote_url (r), good[i].url);
    assert_string_equal (r->base, good[i].base);
    if (good[i].root)
      assert_string_equal (r->s3.root, good[i].root);
    assert_int_equal (esp_remote_writable (r),
                      good[i].kind != ESP_REMOTE_HTTP);
  }
}

static void
bad_urls_are_refused (void **state)
{
  static const char *const bad[] = {
    "", "images", "./images", "ftp://h/x", "file://host/x", "file:images",
    "file:///a%00b", "http://", "http://user:secret@h/", "http://u@h/",
    "http://h/x?y=z", "http://h/x?", "http://h/#x", "http://h:port/",
    "http://h/a b", "s3://", "s3://b", "s3:///x", "s3://bu ck", "s3://-buck",
    "s3://buck/../x", "s3://buck/a//b", "s3://buck/.x", "s3://buck/a b",
    "s3://buck?endpoint=h:80", "s3://buck?endpoint=http://h/path",
    "s3://buck?endpoint=http://u:p@h", "s3://buck?endpoint=",
    "s3://buck?endpoint=ftp://h", "s3://buck?region=a/b",
    "s3://buck?addressing=both", "s3://buck?colour=red", "s3://buck?region",
    "s3://buck?region=a&region=b", "s3://buck:x@h",
  };

  (void) state;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
    unit_error[0] = 0;
    errno = 0;
    CLEANUP_REMOTE struct esp_remote *r = esp_remote_open (bad[i], NULL);
    if (r || errno != EINVAL || !unit_error[0])
      fail_msg ("%s: %s", bad[i], r ? "taken" : unit_error);
  }
}

static void
assert_option_refused (const struct esp_remote_options *o)
{
  unit_error[0] = 0;
  assert_null (esp_remote_open ("http://h", o));
  assert_int_equal (errno, EINVAL);
  assert_true (unit_error[0]);
}

static void
bad_options_are_refused (void **state)
{
  struct esp_remote_options o = { .key = "/dev/null" };

  (void) state;
  assert_option_refused (&o);
  o = (struct esp_remote_options) { .ca = "/nonexistent" };
  assert_option_refused (&o);
  o = (struct esp_remote_options) { .connections = 2000 };
  assert_option_refused (&o);
  o = (struct esp_remote_options) { .timeout = 1000000 };
  assert_option_refused (&o);
  o = (struct esp_remote_options) { .retries = 5000 };
  assert_option_refused (&o);
}

static void
options_have_defaults (void **state)
{
  const struct esp_remote_options o = { .retries = UINT_MAX };
  CLEANUP_REMOTE struct esp_remote *r = esp_remote_open ("http://h", NULL);
  CLEANUP_REMOTE struct esp_remote *none = esp_remote_open ("http://h", &o);

  (void) state;
  assert_int_equal (r->retries, 4);
  assert_int_equal (r->timeout, 30);
  assert_int_equal (r->connect_timeout, 10);
  assert_int_equal (r->connections, 16);
  assert_int_equal (none->retries, 0);
}

#define CREDENTIALS                             \
  "# comment\n"                                 \
  "[default]\n"                                 \
  "aws_access_key_id = AK1\r\n"                 \
  "aws_secret_access_key=S/1=+\n"               \
  "[ other ]\n"                                 \
  " aws_access_key_id=AK2\n"                    \
  " aws_secret_access_key = S2\n"               \
  " aws_session_token = T2\n"                   \
  "[half]\n"                                    \
  "aws_access_key_id = AK3\n"

static void
credentials_come_from_file_and_profile (void **state)
{
  CLEANUP_FREE char *file = path_of ("cred");
  struct esp_s3_credentials c = { 0 };

  (void) state;
  write_file ("cred", CREDENTIALS);
  assert_int_equal (esp_s3_credentials_load (file, NULL, &c), 0);
  assert_string_equal (c.access, "AK1");
  assert_string_equal (c.secret, "S/1=+");
  assert_null (c.token);
  esp_s3_credentials_clear (&c);
  assert_int_equal (esp_s3_credentials_load (file, "other", &c), 0);
  assert_string_equal (c.access, "AK2");
  assert_string_equal (c.secret, "S2");
  assert_string_equal (c.token, "T2");
  esp_s3_credentials_clear (&c);
  assert_int_equal (esp_s3_credentials_load (file, "half", &c), -1);
  assert_int_equal (errno, EINVAL);
  assert_non_null (strstr (unit_error, "[half]"));
  assert_null (strstr (unit_error, "AK"));
  assert_int_equal (esp_s3_credentials_load ("/nonexistent", NULL, &c), -1);
}

static void
environment_comes_before_the_usual_file (void **state)
{
  CLEANUP_FREE char *aws = path_of (".aws");
  struct esp_s3_credentials c = { 0 };

  (void) state;
  assert_int_equal (esp_s3_credentials_load (NULL, NULL, &c), 0);
  assert_null (c.access);
  assert_int_equal (mkdir (aws, 0700), 0);
  write_file (".aws/credentials", CREDENTIALS);
  setenv ("AWS_PROFILE", "other", 1);
  assert_int_equal (esp_s3_credentials_load (NULL, NULL, &c), 0);
  assert_string_equal (c.access, "AK2");
  esp_s3_credentials_clear (&c);
  setenv ("AWS_ACCESS_KEY_ID", "EK", 1);
  setenv ("AWS_SECRET_ACCESS_KEY", "ES", 1);
  assert_int_equal (esp_s3_credentials_load (NULL, NULL, &c), 0);
  assert_string_equal (c.access, "EK");
  esp_s3_credentials_clear (&c);
}

/* --- names ------------------------------------------------------------------ */

static void
names_never_leave_the_remote (void **state)
{
  static const char *const bad[] = {
    "", ".", "..", "../x", "a/../b", "a/..", "/etc/passwd", "a//b", "a/",
    ".lock", ".tmp/x", "a/.b", "a b", "a\nb", "a?b", "a#b", "a\\b", "\xc3\xa9",
  };
  CLEANUP_REMOTE struct esp_remote *r = open_dir ();

  (void) state;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
    struct esp_object o;
    assert_int_equal (esp_remote_put (r, bad[i], "x", 1, NULL), -1);
    assert_int_equal (errno, EINVAL);
    assert_int_equal (esp_remote_head (r, bad[i], &o), -1);
    assert_int_equal (errno, EINVAL);
    assert_int_equal (esp_remote_delete (r, bad[i]), -1);
    assert_int_equal (errno, EINVAL);
  }
  assert_true (esp_object_name_ok ("venues/caf%C3%A9"));
  assert_true (esp_object_name_ok ("a/b..c/d~"));
}

static void
the_longest_component_is_a_name (void **state)
{
  CLEANUP_REMOTE struct esp_remote *r = open_dir ();
  char name[300] = "venues/";

  (void) state;
  memset (name + 7, 'v', 255);
  assert_int_equal (esp_remote_put (r, name, "x", 1, NULL), 0);
  assert_holds (r, name, "x");
  name[7 + 255] = 'v';
  assert_int_equal (esp_remote_put (r, name, "x", 1, NULL), -1);
  assert_int_equal (errno, EINVAL);
}

static void
symbolic_links_lead_nowhere (void **state)
{
  CLEANUP_FREE char *link = path_of ("out"), *file = path_of ("secret");
  CLEANUP_REMOTE struct esp_remote *r = open_dir ();
  char target[] = "/tmp/espalier-outside-XXXXXX";
  size_t len;

  (void) state;
  assert_non_null (mkdtemp (target));
  assert_int_equal (symlink (target, link), 0);
  assert_int_equal (symlink ("/etc/passwd", file), 0);
  assert_int_equal (esp_remote_put (r, "out/x", "x", 1, NULL), -1);
  assert_int_equal (errno, EACCES);
  assert_null (esp_remote_get_all (r, "secret", 1 << 20, &len, NULL));
  assert_int_equal (errno, EACCES);
  assert_int_equal (rmdir (target), 0);         /* nothing came there */
}

static void
a_directory_that_is_not_there_is_never_made (void **state)
{
  CLEANUP_FREE char *path = path_of ("unmounted");
  CLEANUP_REMOTE struct esp_remote *r = esp_remote_open (path, NULL);
  struct esp_object o;

  (void) state;
  assert_non_null (r);
  assert_int_equal (esp_remote_put (r, "x", "x", 1, NULL), -1);
  assert_int_equal (errno, EIO);
  assert_int_equal (esp_remote_head (r, "x", &o), -1);
  assert_int_equal (errno, EIO);
  assert_int_equal (access (path, F_OK), -1);
}

/* --- objects of a directory ----------------------------------------------------- */

static void
put_absent_wins_once (void **state)
{
  CLEANUP_REMOTE struct esp_remote *r = open_dir ();
  struct esp_object o, head;

  (void) state;
  assert_int_equal (esp_remote_put_absent (r, "a/b", "one", 3, &o), 0);
  unit_error[0] = 0;
  assert_int_equal (esp_remote_put_absent (r, "a/b", "two", 3, NULL), -1);
  assert_int_equal (errno, EEXIST);
  assert_string_equal (unit_error, "");
  assert_holds (r, "a/b", "one");
  assert_int_equal (esp_remote_head (r, "a/b", &head), 0);
  assert_string_equal (head.etag, o.etag);
  assert_int_equal (head.size, 3);
}

static void
put_if_needs_the_version (void **state)
{
  CLEANUP_REMOTE struct esp_remote *r = open_dir ();
  struct esp_object one, two;

  (void) state;
  assert_int_equal (esp_remote_put (r, "ref", "one", 3, &one), 0);
  assert_int_equal (esp_remote_put_if (r, "ref", &one, "two", 3, &two), 0);
  assert_string_not_equal (one.etag, two.etag);
  unit_error[0] = 0;
  assert_int_equal (esp_remote_put_if (r, "ref", &one, "bad", 3, NULL), -1);
  assert_int_equal (errno, ESTALE);
  assert_string_equal (unit_error, "");
  assert_holds (r, "ref", "two");
  assert_int_equal (esp_remote_put_if (r, "none", &one, "x", 1, NULL), -1);
  assert_int_equal (errno, ESTALE);
}

static void
delete_of_nothing_is_no_error (void **state)
{
  CLEANUP_REMOTE struct esp_remote *r = open_dir ();
  struct esp_object o;

  (void) state;
  assert_int_equal (esp_remote_delete (r, "a/b"), 0);
  assert_int_equal (esp_remote_put (r, "a/b", "x", 1, NULL), 0);
  assert_int_equal (esp_remote_delete (r, "a/b"), 0);
  assert_int_equal (esp_remote_head (r, "a/b", &o), -1);
  assert_int_equal (errno, ENOENT);
}

static void
nothing_is_left_behind (void **state)
{
  CLEANUP_REMOTE struct esp_remote *r = open_dir ();
  CLEANUP_FREE char *tmp = path_of (".tmp");

  (void) state;
  assert_int_equal (esp_remote_put (r, "x", "1", 1, NULL), 0);
  assert_int_equal (esp_remote_put (r, "x", "2", 1, NULL), 0);
  assert_int_equal (esp_remote_put_absent (r, "x", "3", 1, NULL), -1);
  assert_int_equal (rmdir (tmp), 0);            /* it is empty */
}

struct race {
  struct esp_remote *r;
  struct esp_object version;
  bool replace;
  int number;
};

static void *
race_thread (void *arg)
{
  struct race *c = arg;
  char text[16];
  int n = snprintf (text, sizeof text, "%d", c->number);
  int e = c->replace
    ? esp_remote_put_if (c->r, "ref", &c->version, text, (size_t) n, NULL)
    : esp_remote_put_absent (c->r, "new", text, (size_t) n, NULL);

  return e == 0 ? c : NULL;
}

static unsigned
run_race (struct race *races, unsigned n)
{
  pthread_t threads[16];
  unsigned won = 0;
  void *p;

  for (unsigned i = 0; i < n; ++i)
    assert_int_equal (pthread_create (&threads[i], NULL, race_thread,
                                      &races[i]), 0);
  for (unsigned i = 0; i < n; ++i) {
    pthread_join (threads[i], &p);
    won += p != NULL;
  }
  return won;
}

static void
of_many_writers_one_wins (void **state)
{
  CLEANUP_REMOTE struct esp_remote *r = open_dir ();
  struct race races[16];
  struct esp_object v;

  (void) state;
  assert_int_equal (esp_remote_put (r, "ref", "-", 1, &v), 0);
  for (int replace = 0; replace < 2; ++replace) {
    for (int i = 0; i < 16; ++i)
      races[i] = (struct race) { r, v, replace, i };
    assert_int_equal (run_race (races, 16), 1);
  }
}

static void
a_held_lock_is_waited_for_no_longer_than_the_time_out (void **state)
{
  const struct esp_remote_options o = { .timeout = 1 };
  CLEANUP_REMOTE struct esp_remote *r = esp_remote_open (dir, &o);
  CLEANUP_FREE char *lock = path_of (".lock");
  CLEANUP_CLOSE int fd = open (lock, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

  (void) state;
  assert_int_equal (flock (fd, LOCK_EX), 0);
  assert_int_equal (esp_remote_put (r, "x", "x", 1, NULL), -1);
  assert_int_equal (errno, ETIMEDOUT);
  close (esp_steal_fd (&fd));
  assert_int_equal (esp_remote_put (r, "x", "x", 1, NULL), 0);
}

/* --- reading ---------------------------------------------------------------------- */

struct sink {
  char buf[64];
  size_t n;
  int fail;                     /* errno */
};

static int
sink_fn (void *arg, const void *buf, size_t len)
{
  struct sink *s = arg;

  if (s->fail) {
    errno = s->fail;
    return -1;
  }
  assert_true (s->n + len < sizeof s->buf);
  memcpy (s->buf + s->n, buf, len);
  s->n += len;
  s->buf[s->n] = 0;
  return 0;
}

static int
get_range (struct esp_remote *r, uint64_t offset, uint64_t len,
           const struct esp_object *expect, struct sink *s)
{
  struct esp_get get = {
    .offset = offset, .len = len, .expect = expect, .sink = sink_fn, .arg = s,
  };

  return esp_remote_get (r, "x", &get);
}

static void
ranges_are_exact (void **state)
{
  CLEANUP_REMOTE struct esp_remote *r = open_dir ();
  struct sink s = { .n = 0 };

  (void) state;
  assert_int_equal (esp_remote_put (r, "x", "0123456789", 10, NULL), 0);
  assert_int_equal (get_range (r, 3, 4, NULL, &s), 0);
  assert_string_equal (s.buf, "3456");
  assert_int_equal (get_range (r, 7, 3, NULL, &s), 0);
  assert_string_equal (s.buf, "3456789");
  assert_int_equal (get_range (r, 7, 4, NULL, &s), -1);
  assert_int_equal (errno, EPROTO);
  assert_int_equal (get_range (r, 11, 1, NULL, &s), -1);
  assert_int_equal (errno, EPROTO);
  assert_int_equal (get_range (r, UINT64_MAX, 2, NULL, &s), -1);
  assert_int_equal (errno, EINVAL);
  assert_int_equal (get_range (r, 0, 0, NULL, &s), 0);
  assert_int_equal (s.n, 7);
}

static void
another_version_is_refused (void **state)
{
  CLEANUP_REMOTE struct esp_remote *r = open_dir ();
  struct esp_object one, size = { .size = 4 };
  struct sink s = { .n = 0 };

  (void) state;
  assert_int_equal (esp_remote_put (r, "x", "one", 3, &one), 0);
  assert_int_equal (get_range (r, 0, 3, &one, &s), 0);
  assert_int_equal (get_range (r, 0, 3, &size, &s), -1);
  assert_int_equal (errno, EPROTO);
  assert_int_equal (esp_remote_put (r, "x", "two", 3, NULL), 0);
  assert_int_equal (get_range (r, 0, 3, &one, &s), -1);
  assert_int_equal (errno, EPROTO);
  assert_string_equal (s.buf, "one");
}

static void
the_sink_and_the_flag_end_a_get (void **state)
{
  CLEANUP_REMOTE struct esp_remote *r = open_dir ();
  struct sink s = { .fail = EBADMSG };
  atomic_bool cancel = true;
  struct esp_get get = { .len = 3, .sink = sink_fn, .arg = &s };

  (void) state;
  assert_int_equal (esp_remote_put (r, "x", "one", 3, NULL), 0);
  unit_error[0] = 0;
  assert_int_equal (esp_remote_get (r, "x", &get), -1);
  assert_int_equal (errno, EBADMSG);
  get.cancel = &cancel;
  assert_int_equal (esp_remote_get (r, "x", &get), -1);
  assert_int_equal (errno, ECANCELED);
  assert_string_equal (unit_error, "");
}

static void
what_is_too_large_is_not_read (void **state)
{
  CLEANUP_REMOTE struct esp_remote *r = open_dir ();
  size_t len;

  (void) state;
  assert_int_equal (esp_remote_put (r, "x", "0123456789", 10, NULL), 0);
  assert_null (esp_remote_get_all (r, "x", 9, &len, NULL));
  assert_int_equal (errno, EFBIG);
  assert_holds (r, "x", "0123456789");
  assert_int_equal (esp_remote_put (r, "x", "", 0, NULL), 0);
  assert_holds (r, "x", "");
}

static int
list_fn (void *arg, const char *name, const struct esp_object *o)
{
  strcat (arg, name);
  strcat (arg, o->size == 1 ? " " : "! ");
  return 0;
}

static void
lists_are_in_order_and_show_only_objects (void **state)
{
  static const char *const names[] = {
    "a/c", "a-b", "a/b/d", "ab", "venues/x", "venues/y",
  };
  CLEANUP_REMOTE struct esp_remote *r = open_dir ();
  char seen[200] = "", id[ESP_UPLOAD_ID_MAX];

  (void) state;
  for (size_t i = 0; i < 6; ++i)
    assert_int_equal (esp_remote_put (r, names[i], "x", 1, NULL), 0);
  assert_int_equal (esp_remote_parts_begin (r, "big", id), 0);
  write_file ("not an object", "x");
  assert_int_equal (esp_remote_list (r, "", list_fn, seen), 0);
  assert_string_equal (seen, "a-b a/b/d a/c ab venues/x venues/y ");
  *seen = 0;
  assert_int_equal (esp_remote_list (r, "venues/", list_fn, seen), 0);
  assert_string_equal (seen, "venues/x venues/y ");
  *seen = 0;
  assert_int_equal (esp_remote_list (r, "a/b", list_fn, seen), 0);
  assert_string_equal (seen, "a/b/d ");
  assert_int_equal (esp_remote_list (r, "none/", list_fn, seen), 0);
  assert_int_equal (esp_remote_list (r, "../", list_fn, seen), -1);
  assert_int_equal (errno, EINVAL);
}

/* --- parts ------------------------------------------------------------------------------ */

static void
put_part (struct esp_remote *r, const char *id, unsigned number,
          const char *text, struct esp_part *part)
{
  assert_int_equal (esp_remote_parts_put (r, "big", id, number, text,
                                          strlen (text), part), 0);
}

static void
parts_in_order_are_the_object_without_a_copy (void **state)
{
  CLEANUP_REMOTE struct esp_remote *r = open_dir ();
  char id[ESP_UPLOAD_ID_MAX];
  struct esp_part parts[3];
  struct stat before, after;

  (void) state;
  assert_int_equal (esp_remote_parts_begin (r, "big", id), 0);
  put_part (r, id, 1, "one", &parts[0]);
  put_part (r, id, 2, "three", &parts[1]);
  put_part (r, id, 3, "x", &parts[2]);
  CLEANUP_FREE char *data = esp_asprintf ("%s/.uploads/%s/data", dir, id);
  CLEANUP_FREE char *big = path_of ("big");
  assert_int_equal (stat (data, &before), 0);
  assert_int_equal (access (big, F_OK), -1);
  assert_int_equal (esp_remote_parts_end (r, "big", id, parts, 3, NULL), 0);
  assert_holds (r, "big", "onethreex");
  assert_int_equal (stat (big, &after), 0);
  assert_int_equal (before.st_ino, after.st_ino);
  assert_int_equal (access (data, F_OK), -1);
}

static void
parts_out_of_order_and_again_are_put_together (void **state)
{
  CLEANUP_REMOTE struct esp_remote *r = open_dir ();
  char id[ESP_UPLOAD_ID_MAX];
  struct esp_part parts[4];
  struct esp_object o;

  (void) state;
  assert_int_equal (esp_remote_parts_begin (r, "big", id), 0);
  put_part (r, id, 4, "-four", &parts[3]);
  put_part (r, id, 1, "one", &parts[0]);
  put_part (r, id, 3, "-three", &parts[2]);
  put_part (r, id, 2, "-2", &parts[1]);
  put_part (r, id, 2, "-two", &parts[1]);
  put_part (r, id, 1, "eno", &parts[0]);
  assert_int_equal (esp_remote_parts_end (r, "big", id, parts, 4, &o), 0);
  assert_holds (r, "big", "eno-two-three-four");
  assert_int_equal (o.size, 18);
}

static void
an_end_takes_the_last_parts_only (void **state)
{
  CLEANUP_REMOTE struct esp_remote *r = open_dir ();
  char id[ESP_UPLOAD_ID_MAX];
  struct esp_part parts[2];

  (void) state;
  assert_int_equal (esp_remote_parts_begin (r, "big", id), 0);
  put_part (r, id, 1, "one", &parts[0]);
  put_part (r, id, 2, "two", &parts[1]);
  assert_int_equal (esp_remote_parts_end (r, "big", id, parts, 1, NULL), 0);
  assert_holds (r, "big", "one");
}

static void
check_tells_what_is_still_there (void **state)
{
  CLEANUP_REMOTE struct esp_remote *r = open_dir ();
  char id[ESP_UPLOAD_ID_MAX];
  struct esp_part parts[2], lie;

  (void) state;
  assert_int_equal (esp_remote_parts_begin (r, "big", id), 0);
  put_part (r, id, 1, "one", &parts[0]);
  put_part (r, id, 2, "two", &parts[1]);
  assert_int_equal (esp_remote_parts_check (r, "big", id, parts, 2), 1);
  lie = parts[1];
  lie.number = 3;
  assert_int_equal (esp_remote_parts_check (r, "big", id, &lie, 1), 0);
  put_part (r, id, 2, "owt", &lie);
  assert_int_equal (esp_remote_parts_check (r, "big", id, parts, 2), 0);
  assert_int_equal (esp_remote_parts_end (r, "big", id, parts, 2, NULL), -1);
  assert_int_equal (errno, EPROTO);
  assert_int_equal (esp_remote_parts_check (r, "other", id, parts, 2), -1);
  assert_int_equal (errno, EINVAL);
  assert_int_equal (esp_remote_parts_abort (r, "big", id), 0);
  assert_int_equal (esp_remote_parts_abort (r, "big", id), 0);
  assert_int_equal (esp_remote_parts_check (r, "big", id, parts, 2), 0);
}

static void
an_upload_never_replaces_an_object (void **state)
{
  CLEANUP_REMOTE struct esp_remote *r = open_dir ();
  char id[ESP_UPLOAD_ID_MAX];
  struct esp_part part;

  (void) state;
  assert_int_equal (esp_remote_parts_begin (r, "big", id), 0);
  put_part (r, id, 1, "one", &part);
  assert_int_equal (esp_remote_put (r, "big", "first", 5, NULL), 0);
  unit_error[0] = 0;
  assert_int_equal (esp_remote_parts_end (r, "big", id, &part, 1, NULL), -1);
  assert_int_equal (errno, EEXIST);
  assert_string_equal (unit_error, "");
  assert_holds (r, "big", "first");
}

static void
an_id_is_no_way_out (void **state)
{
  CLEANUP_REMOTE struct esp_remote *r = open_dir ();
  struct esp_part part;

  (void) state;
  assert_int_equal (esp_remote_parts_put (r, "big", "../..", 1, "x", 1, &part),
                    -1);
  assert_int_equal (errno, EINVAL);
  assert_int_equal (esp_remote_parts_abort (r, "big", "../.."), -1);
  assert_int_equal (errno, EINVAL);
}

static void *
part_thread (void *arg)
{
  struct { struct esp_remote *r; const char *id; struct esp_part *part; }
    *a = arg;
  char text[100];
  size_t n = 10 + a->part->number * 7 % 50;

  memset (text, 'a' + (int) a->part->number % 26, n);
  return esp_remote_parts_put (a->r, "big", a->id, a->part->number, text, n,
                               a->part) == 0 ? arg : NULL;
}

static void
parts_are_put_by_threads_at_once (void **state)
{
  CLEANUP_REMOTE struct esp_remote *r = open_dir ();
  char id[ESP_UPLOAD_ID_MAX], want[2000] = "";
  struct esp_part parts[16];
  struct { struct esp_remote *r; const char *id; struct esp_part *part; }
    args[16];
  pthread_t threads[16];
  void *p;
  size_t at = 0;

  (void) state;
  assert_int_equal (esp_remote_parts_begin (r, "big", id), 0);
  for (unsigned i = 0; i < 16; ++i) {
    parts[i].number = i + 1;
    args[i].r = r;
    args[i].id = id;
    args[i].part = &parts[i];
    size_t n = 10 + (i + 1) * 7 % 50;
    memset (want + at, 'a' + (int) (i + 1) % 26, n);
    at += n;
    pthread_create (&threads[i], NULL, part_thread, &args[i]);
  }
  for (unsigned i = 0; i < 16; ++i) {
    pthread_join (threads[i], &p);
    assert_non_null (p);
  }
  assert_int_equal (esp_remote_parts_end (r, "big", id, parts, 16, NULL), 0);
  assert_holds (r, "big", want);
}

/* --- XML --------------------------------------------------------------------------------- */

static int
xml_fn (void *arg, const char *element, const char *text, unsigned depth)
{
  char *seen = arg;

  sprintf (seen + strlen (seen), "%u%s=%s ", depth, element, text);
  return 0;
}

static void
xml_is_read_and_nonsense_refused (void **state)
{
  static const char good[] = "<?xml version=\"1.0\"?><a xmlns:n='x'> <n:b>1&lt;2"
    "</n:b><c/></a>";
  static const char *const bad[] = { "", "<a>", "<a></b>", "no", "<a>\x01</a>" };
  char seen[200] = "";
  struct esp_try t;

  (void) state;
  assert_int_equal (esp_xml_each (good, strlen (good), xml_fn, seen, &t), 0);
  assert_string_equal (seen, "2b=1<2 2c= 1a= ");
  for (size_t i = 0; i < 5; ++i) {
    assert_int_equal (esp_xml_each (bad[i], strlen (bad[i]), xml_fn, seen, &t),
                      -1);
    assert_int_equal (t.err, EPROTO);
  }
}

#define TEST(name) cmocka_unit_test_setup_teardown (name, setup, teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    TEST (urls_are_taken_apart),
    TEST (bad_urls_are_refused),
    TEST (bad_options_are_refused),
    TEST (options_have_defaults),
    TEST (credentials_come_from_file_and_profile),
    TEST (environment_comes_before_the_usual_file),
    TEST (names_never_leave_the_remote),
    TEST (the_longest_component_is_a_name),
    TEST (symbolic_links_lead_nowhere),
    TEST (a_directory_that_is_not_there_is_never_made),
    TEST (put_absent_wins_once),
    TEST (put_if_needs_the_version),
    TEST (delete_of_nothing_is_no_error),
    TEST (nothing_is_left_behind),
    TEST (of_many_writers_one_wins),
    TEST (a_held_lock_is_waited_for_no_longer_than_the_time_out),
    TEST (ranges_are_exact),
    TEST (another_version_is_refused),
    TEST (the_sink_and_the_flag_end_a_get),
    TEST (what_is_too_large_is_not_read),
    TEST (lists_are_in_order_and_show_only_objects),
    TEST (parts_in_order_are_the_object_without_a_copy),
    TEST (parts_out_of_order_and_again_are_put_together),
    TEST (an_end_takes_the_last_parts_only),
    TEST (check_tells_what_is_still_there),
    TEST (an_upload_never_replaces_an_object),
    TEST (an_id_is_no_way_out),
    TEST (parts_are_put_by_threads_at_once),
    TEST (xml_is_read_and_nonsense_refused),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
