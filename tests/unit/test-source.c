/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading and writing images of others: every format that qemu-img makes is
 * imported, and compared with what qemu-img itself reads; what cannot be
 * read is refused with a message that helps.
 */

#include "rp-test.h"

#include <sys/stat.h>

#include "image/source.h"

#define MIB (UINT64_C (1) << 20)

/* Run a shell command with $D, the test's directory. */
static int
sh (struct tree *t, const char *script)
{
  setenv ("D", t->dir, 1);
  return system (script);
}

static void
need_qemu (void)
{
  if (system ("command -v qemu-nbd qemu-img qemu-io >/dev/null") != 0) {
    print_message ("# qemu-nbd, qemu-img or qemu-io is not installed\n");
    skip ();
  }
}

static int
setup (void **state)
{
  int r = tree_setup (state);

  assert_int_equal (sh (*state, "mkdir $D/x"), 0);
  return r;
}

static char *
in_dir (struct tree *t, const char *name)
{
  return esp_asprintf ("%s/x/%s", t->dir, name);
}

/* Import the file NAME as member; its bytes are those of $D/x/NAME.raw (or
 * its own, where that is not there).
 */
static int
import (struct tree *t, const char *name, int parent)
{
  CLEANUP_FREE char *path = in_dir (t, name);
  CLEANUP_FREE char *raw = esp_asprintf ("%s.raw", path);
  CLEANUP_FREE char *rp_name = esp_asprintf ("rp-%d", t->n);
  CLEANUP_IMAGE struct esp_image *image = NULL;
  struct esp_image_source *s = esp_source_open (path, NULL);
  struct member *m = &t->m[t->n];
  struct esp_draft *draft;
  int fd;

  if (s == NULL)
    fail_msg ("%s", unit_error);
  *m = (struct member) { .size = esp_source_size (s), .parent = parent };
  m->bytes = calloc (1, m->size);
  fd = open (raw, O_RDONLY);
  if (fd == -1)
    fd = open (path, O_RDONLY);
  assert_int_not_equal (fd, -1);
  assert_int_equal (esp_pread_all (fd, m->bytes, m->size, 0), 0);
  close (fd);
  draft = tree_begin (t, rp_name, parent, m->size);
  assert_non_null (draft);
  if (parent >= 0)
    image = esp_image_open (t->store, &t->m[parent].uuid);
  if (esp_draft_import (draft, s, image, NULL, NULL) == -1 ||
      esp_draft_commit (draft, &m->uuid) == -1)
    fail_msg ("%s: %s", name, unit_error);
  esp_source_close (s);
  tree_verify (t, t->n);
  return t->n++;
}

/* Opening or reading NAME fails and the message contains TEXT. */
static void
refused (struct tree *t, const char *name, const char *text)
{
  CLEANUP_FREE char *path = in_dir (t, name);
  struct esp_image_source *s;

  unit_error[0] = 0;
  s = esp_source_open (path, NULL);
  if (s)
    fail_msg ("%s was opened", name);
  if (strstr (unit_error, text) == NULL || strchr (unit_error, '\n'))
    fail_msg ("the message is: %s", unit_error);
}

/* An image $D/x/a.raw with data, holes, written zeroes and an odd end, and
 * the same by qemu-img in format F as $D/x/a.F.
 */
#define MAKE_RAW                                                        \
  "cd $D/x && truncate -s $((20*1048576)) a.raw && "                    \
  "dd if=/dev/urandom of=a.raw bs=64k count=30 seek=3 conv=notrunc status=none && " \
  "dd if=/dev/urandom of=a.raw bs=512 count=3 seek=30001 conv=notrunc status=none && " \
  "dd if=/dev/zero of=a.raw bs=4k count=40 seek=3000 conv=notrunc status=none && " \
  "dd if=/dev/urandom of=a.raw bs=512 count=1 seek=40959 conv=notrunc status=none"

static void
format_reads_as_qemu_reads_it (struct tree *t, const char *format,
                               const char *options)
{
  CLEANUP_FREE char *cmd = NULL;
  CLEANUP_FREE char *name = esp_asprintf ("a.%s", format);

  need_qemu ();
  assert_int_equal (sh (t, MAKE_RAW), 0);
  cmd = esp_asprintf ("cd $D/x && qemu-img convert -f raw -O %s %s a.raw a.%s "
                      "&& qemu-img convert -f %s -O raw a.%s a.%s.raw",
                      format, options, format, format, format, format);
  assert_int_equal (sh (t, cmd), 0);
  import (t, name, -1);
}

#define FORMAT_TEST(name, format, options)                      \
  static void                                                   \
  name##_reads_as_qemu_reads_it (void **state)                  \
  {                                                             \
    format_reads_as_qemu_reads_it (*state, format, options);    \
  }
FORMAT_TEST (qcow2, "qcow2", "")
FORMAT_TEST (compressed_qcow2, "qcow2", "-c")
FORMAT_TEST (small_clusters, "qcow2", "-o cluster_size=512")
FORMAT_TEST (old_qcow2, "qcow2", "-o compat=0.10")
FORMAT_TEST (qcow, "qcow", "")
FORMAT_TEST (vmdk, "vmdk", "")
FORMAT_TEST (streamed_vmdk, "vmdk", "-o subformat=streamOptimized")
FORMAT_TEST (split_vmdk, "vmdk", "-o subformat=twoGbMaxExtentSparse")
FORMAT_TEST (vhdx, "vhdx", "")
FORMAT_TEST (vdi, "vdi", "")
FORMAT_TEST (vpc, "vpc", "")
FORMAT_TEST (fixed_vpc, "vpc", "-o subformat=fixed,force_size=on")
FORMAT_TEST (qed, "qed", "")

static void
raw_keeps_its_holes (void **state)
{
  struct tree *t = *state;
  CLEANUP_CLOSE int dir = -1;
  CLEANUP_RP struct esp_rp row = { 0 };
  int i;

  assert_int_equal (sh (t, MAKE_RAW " && truncate -s +1000 a.raw"), 0);
  i = import (t, "a.raw", -1);
  tree_row (t, i, &row);
  assert_int_equal (row.data_blocks, 480 + 2);
  assert_int_equal (row.zero_blocks, 0);
  dir = esp_store_rp_dir (t->store, &row.uuid);
  assert_true (esp_disk_usage (dir, ESP_RP_DATA) <= 512 * 4096);
}

static void
block_device_is_imported (void **state)
{
  struct tree *t = *state;

  if (sh (t, MAKE_RAW " && losetup -f -r --show a.raw >dev 2>/dev/null && "
          "ln -s $(cat dev) disk && ln -s a.raw disk.raw") != 0) {
    print_message ("# no loop device can be made here\n");
    skip ();
  }
  import (t, "disk", -1);
  assert_int_equal (sh (t, "losetup -d $(cat $D/x/dev)"), 0);
}

static void
backing_chain_is_flattened (void **state)
{
  struct tree *t = *state;

  need_qemu ();
  assert_int_equal (sh (t, MAKE_RAW " && "
    "qemu-img create -q -f qcow2 -b a.raw -F raw b.qcow2 && "
    "qemu-io -c 'write -P 7 1M 600k' -c 'write -z 2M 64k' b.qcow2 >/dev/null && "
    "qemu-img create -q -f qcow2 -b b.qcow2 -F qcow2 c.qcow2 24M && "
    "qemu-io -c 'write -P 9 1300k 3k' -c 'write -P 1 23M 1M' c.qcow2 >/dev/null && "
    "qemu-img convert -O raw c.qcow2 c.qcow2.raw"), 0);
  import (t, "c.qcow2", -1);
}

static void
child_keeps_only_what_differs (void **state)
{
  struct tree *t = *state;
  CLEANUP_RP struct esp_rp row = { 0 };
  int root, child;

  need_qemu ();
  /* 3 data blocks, 16 that become zero, of a disk that grows by 1 MiB. */
  assert_int_equal (sh (t, MAKE_RAW " && cp a.raw b.raw && "
    "qemu-img resize -q -f raw b.raw 21M && "
    "dd if=/dev/urandom of=b.raw bs=4k count=2 seek=100 conv=notrunc status=none && "
    "dd if=/dev/zero of=b.raw bs=4k count=16 seek=200 conv=notrunc status=none && "
    "dd if=/dev/urandom of=b.raw bs=1 count=1 seek=21500000 conv=notrunc status=none && "
    "qemu-img convert -f raw -O qcow2 b.raw b.qcow2 && cp b.raw b.qcow2.raw"),
    0);
  root = import (t, "a.raw", -1);
  child = import (t, "b.qcow2", root);
  tree_row (t, child, &row);
  assert_int_equal (row.data_blocks, 3);
  assert_int_equal (row.zero_blocks, 16);
  /* From the raw file the same comes out. */
  child = import (t, "b.raw", root);
  esp_rp_clear (&row);
  tree_row (t, child, &row);
  assert_int_equal (row.data_blocks, 3);
  assert_int_equal (row.zero_blocks, 16);
}

static void
equal_image_gives_an_empty_child_and_a_warning (void **state)
{
  struct tree *t = *state;
  CLEANUP_RP struct esp_rp row = { 0 };
  int i;

  assert_int_equal (sh (t, MAKE_RAW), 0);
  i = import (t, "a.raw", -1);
  unit_error[0] = 0;
  i = import (t, "a.raw", i);
  assert_non_null (strstr (unit_error, "warning: "));
  tree_row (t, i, &row);
  assert_int_equal (row.data_blocks + row.zero_blocks, 0);
}

static void
smaller_image_is_no_child (void **state)
{
  struct tree *t = *state;
  CLEANUP_IMAGE struct esp_image *image = NULL;
  CLEANUP_FREE char *path = in_dir (t, "a.raw");
  struct esp_image_source *s;
  struct esp_draft *draft;
  int root = tree_add (t, -1, 30 * MIB, 1);

  assert_int_equal (sh (t, MAKE_RAW), 0);
  image = esp_image_open (t->store, &t->m[root].uuid);
  draft = tree_begin (t, "small", root, 30 * MIB);
  s = esp_source_open (path, NULL);
  assert_int_equal (esp_draft_import (draft, s, image, NULL, NULL), -1);
  assert_int_equal (errno, EINVAL);
  assert_non_null (strstr (unit_error, "smaller"));
  esp_source_close (s);
  esp_draft_abort (draft);
}

/* --- what cannot be read ------------------------------------------------------- */

static void
what_is_no_image_is_refused (void **state)
{
  struct tree *t = *state;

  assert_int_equal (sh (t, "cd $D/x && mkdir dir && : >empty && mkfifo fifo"),
                    0);
  refused (t, "missing", "No such file");
  refused (t, "dir", "neither a file nor a block device");
  refused (t, "fifo", "neither a file nor a block device");
  refused (t, "empty", "is empty");
}

static void
missing_backing_file_is_named (void **state)
{
  struct tree *t = *state;

  need_qemu ();
  assert_int_equal (sh (t, "cd $D/x && truncate -s 1M below.raw && "
    "qemu-img create -q -f qcow2 -b below.raw -F raw a.qcow2 && rm below.raw"),
    0);
  refused (t, "a.qcow2", "below.raw");
}

static void
truncated_qcow2_is_refused (void **state)
{
  struct tree *t = *state;

  need_qemu ();
  assert_int_equal (sh (t, MAKE_RAW " && qemu-img convert -f raw -O qcow2 "
    "a.raw a.qcow2 && truncate -s 1M a.qcow2"), 0);
  refused (t, "a.qcow2", "cut short");
  assert_int_equal (sh (t, "truncate -s 700 $D/x/a.qcow2"), 0);
  refused (t, "a.qcow2", "a.qcow2: ");
}

static void
truncated_backing_file_is_named (void **state)
{
  struct tree *t = *state;

  need_qemu ();
  assert_int_equal (sh (t, MAKE_RAW " && qemu-img convert -f raw -O qcow2 "
    "a.raw a.qcow2 && qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 b.qcow2 "
    "&& truncate -s 1M a.qcow2"), 0);
  refused (t, "b.qcow2", "its backing file ");
}

/* With a PATH on which there is no qemu-nbd. */
static void
missing_qemu_nbd_is_told (void **state)
{
  struct tree *t = *state;
  CLEANUP_FREE char *bin = in_dir (t, "bin");
  CLEANUP_FREE char *path = strdup (getenv ("PATH"));

  need_qemu ();
  assert_int_equal (sh (t, MAKE_RAW " && qemu-img convert -f raw -O qcow2 "
    "a.raw a.qcow2 && mkdir bin && ln -s $(command -v sh) bin/sh"), 0);
  setenv ("PATH", bin, 1);
  refused (t, "a.qcow2", "qemu-utils");
  setenv ("PATH", path, 1);
}

static void
wrong_format_is_refused (void **state)
{
  struct tree *t = *state;
  CLEANUP_FREE char *path = in_dir (t, "a.raw");

  need_qemu ();
  assert_int_equal (sh (t, MAKE_RAW), 0);
  assert_null (esp_source_open (path, "vhdx"));
  assert_non_null (strstr (unit_error, "vhdx"));
  assert_null (esp_source_open (path, "no-such-format"));
  assert_non_null (strstr (unit_error, "no-such-format"));
}

static void
names_that_look_like_something_else_are_files (void **state)
{
  struct tree *t = *state;

  need_qemu ();
  assert_int_equal (sh (t, MAKE_RAW " && qemu-img convert -f raw -O qcow2 "
    "a.raw t.qcow2 && mv t.qcow2 'nbd:-x, y=\"z\"' && "
    "cp a.raw 'nbd:-x, y=\"z\".raw'"), 0);
  import (t, "nbd:-x, y=\"z\"", -1);
  /* And relative to the working directory. */
  CLEANUP_FREE char *x = in_dir (t, "");
  assert_int_equal (chdir (x), 0);
  struct esp_image_source *s = esp_source_open ("nbd:-x, y=\"z\"", NULL);
  assert_non_null (s);
  assert_string_equal (esp_source_format (s), "qcow2");
  esp_source_close (s);
  assert_int_equal (chdir ("/"), 0);
}

/* Writes to the file in the middle of reading it. */
static int
change_file (void *arg, uint64_t offset, uint64_t len, const void *buf)
{
  (void) len;
  (void) buf;
  if (offset == 0)
    return sh (arg, "cd $D/x && touch -d '1 hour ago' a.raw");
  return 0;
}

static void
change_while_reading_is_noticed (void **state)
{
  struct tree *t = *state;
  CLEANUP_FREE char *path = in_dir (t, "a.raw");
  struct esp_image_source *s;

  assert_int_equal (sh (t, MAKE_RAW), 0);
  s = esp_source_open (path, NULL);
  assert_int_equal (esp_source_read (s, change_file, t, NULL, NULL), -1);
  assert_int_equal (errno, ESTALE);
  esp_source_close (s);
}

static void
image_of_a_running_machine_is_refused (void **state)
{
  struct tree *t = *state;

  need_qemu ();
  assert_int_equal (sh (t, MAKE_RAW " && qemu-nbd -f raw -k $D/x/sock "
    "--pid-file=$D/x/pid --fork -t a.raw"), 0);
  refused (t, "a.raw", "in use by another program");
  assert_int_equal (sh (t, "kill $(cat $D/x/pid)"), 0);
}

static int
stop (void *arg, uint64_t done, uint64_t total)
{
  (void) arg;
  (void) done;
  (void) total;
  return -1;
}

static int
ignore_run (void *arg, uint64_t offset, uint64_t len, const void *buf)
{
  uint64_t *next = arg;

  assert_true (offset == *next);
  assert_true (buf == NULL || len <= 4 * MIB);
  *next += len;
  return 0;
}

static void
progress_can_stop_the_reading (void **state)
{
  struct tree *t = *state;
  CLEANUP_FREE char *path = in_dir (t, "a.qcow2");
  struct esp_image_source *s;
  uint64_t next = 0;

  need_qemu ();
  assert_int_equal (sh (t, MAKE_RAW " && qemu-img convert -f raw -O qcow2 "
    "a.raw a.qcow2"), 0);
  s = esp_source_open (path, NULL);
  assert_int_equal (esp_source_read (s, ignore_run, &next, stop, NULL), -1);
  assert_int_equal (errno, ECANCELED);
  esp_source_close (s);
}

/* --- export ------------------------------------------------------------------------ */

static void
exported (struct tree *t, const char *format)
{
  CLEANUP_FREE char *name = esp_asprintf ("out.%s", format);
  CLEANUP_FREE char *path = in_dir (t, name);
  CLEANUP_FREE char *cmd = NULL;
  CLEANUP_IMAGE struct esp_image *image = NULL;
  int root, child;

  assert_int_equal (sh (t, MAKE_RAW " && cp a.raw b.raw && dd if=/dev/urandom "
    "of=b.raw bs=4k count=2 seek=100 conv=notrunc status=none"), 0);
  root = import (t, "a.raw", -1);
  child = import (t, "b.raw", root);
  image = esp_image_open (t->store, &t->m[child].uuid);
  if (esp_image_export (image, path, format, false, NULL, NULL) == -1)
    fail_msg ("%s", unit_error);
  cmd = esp_asprintf ("cd $D/x && qemu-img compare -q -F raw -f %s out.%s "
                      "b.raw && test $(du -k out.%s | cut -f1) -lt 4096 && "
                      "test $(ls -A | wc -l) = 3", format, format, format);
  assert_int_equal (sh (t, cmd), 0);
  assert_int_equal (esp_image_export (image, path, format, false, NULL, NULL),
                    -1);
  assert_int_equal (errno, EEXIST);
  assert_int_equal (esp_image_export (image, path, format, true, NULL, NULL),
                    0);
  assert_int_equal (esp_image_export (image, path, format, true, stop, NULL),
                    -1);
  assert_int_equal (sh (t, cmd), 0);
}

static void
raw_export_is_the_image (void **state)
{
  need_qemu ();
  exported (*state, "raw");
}

static void
qcow2_export_is_the_image (void **state)
{
  need_qemu ();
  exported (*state, "qcow2");
}

static void
export_into_nowhere_is_refused (void **state)
{
  struct tree *t = *state;
  CLEANUP_FREE char *path = in_dir (t, "no/such/out");
  CLEANUP_FREE char *dir = in_dir (t, "");
  CLEANUP_IMAGE struct esp_image *image = NULL;
  int root = tree_add (t, -1, MIB, 4);

  image = esp_image_open (t->store, &t->m[root].uuid);
  assert_int_equal (esp_image_export (image, path, "raw", false, NULL, NULL),
                    -1);
  assert_int_equal (errno, ENOENT);
  assert_int_equal (esp_image_export (image, dir, "raw", true, NULL, NULL), -1);
  assert_int_equal (errno, EEXIST);
  assert_int_equal (esp_image_export (image, path, "vmdk", true, NULL, NULL),
                    -1);
  assert_int_equal (errno, EINVAL);
}

#define SOURCE_TEST(f) cmocka_unit_test_setup_teardown (f, setup, \
                                                        tree_teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    SOURCE_TEST (qcow2_reads_as_qemu_reads_it),
    SOURCE_TEST (compressed_qcow2_reads_as_qemu_reads_it),
    SOURCE_TEST (small_clusters_reads_as_qemu_reads_it),
    SOURCE_TEST (old_qcow2_reads_as_qemu_reads_it),
    SOURCE_TEST (qcow_reads_as_qemu_reads_it),
    SOURCE_TEST (vmdk_reads_as_qemu_reads_it),
    SOURCE_TEST (streamed_vmdk_reads_as_qemu_reads_it),
    SOURCE_TEST (split_vmdk_reads_as_qemu_reads_it),
    SOURCE_TEST (vhdx_reads_as_qemu_reads_it),
    SOURCE_TEST (vdi_reads_as_qemu_reads_it),
    SOURCE_TEST (vpc_reads_as_qemu_reads_it),
    SOURCE_TEST (fixed_vpc_reads_as_qemu_reads_it),
    SOURCE_TEST (qed_reads_as_qemu_reads_it),
    SOURCE_TEST (raw_keeps_its_holes),
    SOURCE_TEST (block_device_is_imported),
    SOURCE_TEST (backing_chain_is_flattened),
    SOURCE_TEST (child_keeps_only_what_differs),
    SOURCE_TEST (equal_image_gives_an_empty_child_and_a_warning),
    SOURCE_TEST (smaller_image_is_no_child),
    SOURCE_TEST (what_is_no_image_is_refused),
    SOURCE_TEST (missing_backing_file_is_named),
    SOURCE_TEST (truncated_qcow2_is_refused),
    SOURCE_TEST (truncated_backing_file_is_named),
    SOURCE_TEST (missing_qemu_nbd_is_told),
    SOURCE_TEST (wrong_format_is_refused),
    SOURCE_TEST (names_that_look_like_something_else_are_files),
    SOURCE_TEST (change_while_reading_is_noticed),
    SOURCE_TEST (image_of_a_running_machine_is_refused),
    SOURCE_TEST (progress_can_stop_the_reading),
    SOURCE_TEST (raw_export_is_the_image),
    SOURCE_TEST (qcow2_export_is_the_image),
    SOURCE_TEST (export_into_nowhere_is_refused),
  };

  unit_init ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
