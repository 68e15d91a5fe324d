/* SPDX-License-Identifier: BSD-3-Clause */
/* espalierd-disks MOUNTPOINT: the file system whose files are disks, and the
 * program's life.  espalierd starts it; file descriptor 3 is the socket on
 * which it is asked (disks-control.c).
 *
 * Files are opened past the page cache: another client of the same overlay
 * may have written meanwhile.  Names are not cached either, since they come
 * and go.  Nothing is listed: who may look knows what to look for.
 *
 * The end: SIGTERM closes all disks (what waits fails, the rest is flushed),
 * unmounts and exits.  Nothing waits for the threads of the file
 * system: the kernel fails what is left of their requests.
 */

#define FUSE_USE_VERSION 312

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>

#include <fuse_lowlevel.h>

#include "disks.h"
#include "util/cleanup.h"

#define CONTROL_FD 3
#define REQUEST_MAX (1 << 20)
/* Requests of all disks at once; more wait in the kernel. */
#define THREADS 1024
#define THREADS_IDLE 16

ESP_DEFINE_CLEANUP (disk, struct disk *, disk_put)
#define CLEANUP_DISK ESP_CLEANUP (disk)

static void
fill_attr (const struct disk *d, struct stat *st)
{
  *st = (struct stat) { .st_uid = getuid (), .st_gid = getgid (),
                        .st_nlink = 1 };
  if (!d) {
    st->st_ino = FUSE_ROOT_ID;
    st->st_mode = S_IFDIR | 0500;
    return;
  }
  st->st_ino = disk_ino (d);
  st->st_mode = S_IFREG | 0600;
  st->st_size = (off_t) disk_size (d);
  st->st_blocks = st->st_size / 512;
  st->st_blksize = 4096;
}

static void
fs_init (void *userdata, struct fuse_conn_info *conn)
{
  (void) userdata;
  conn->max_write = REQUEST_MAX;
  conn->max_readahead = 0;
}

static void
fs_lookup (fuse_req_t req, fuse_ino_t parent, const char *name)
{
  struct disk *d CLEANUP_DISK =
    parent == FUSE_ROOT_ID ? disk_find (name) : NULL;
  struct fuse_entry_param e = { .attr_timeout = 0 };

  if (!d) {
    fuse_reply_err (req, ENOENT);
    return;
  }
  e.ino = disk_ino (d);
  fill_attr (d, &e.attr);
  fuse_reply_entry (req, &e);
}

static void
fs_getattr (fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
  struct disk *d CLEANUP_DISK =
    ino == FUSE_ROOT_ID ? NULL
    : fi && fi->fh ? disk_get ((struct disk *) (uintptr_t) fi->fh)
    : disk_find_ino (ino);
  struct stat st;

  if (!d && ino != FUSE_ROOT_ID) {
    fuse_reply_err (req, ENOENT);
    return;
  }
  fill_attr (d, &st);
  fuse_reply_attr (req, &st, 0);
}

static void
fs_open (fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
  struct disk *d = disk_find_ino (ino);

  if (!d) {
    fuse_reply_err (req, ENOENT);
    return;
  }
  fi->fh = (uintptr_t) d;
  fi->direct_io = 1;
  if (fuse_reply_open (req, fi) != 0)
    disk_put (d);
}

static void
fs_release (fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
  (void) ino;
  disk_put ((struct disk *) (uintptr_t) fi->fh);
  fuse_reply_err (req, 0);
}

/* How much of [POS, POS+LEN) lies on the disk. */
static size_t
clip (const struct disk *d, size_t len, off_t pos)
{
  uint64_t size = disk_size (d);

  if (pos < 0 || (uint64_t) pos >= size)
    return 0;
  return len < size - (uint64_t) pos ? len : (size_t) (size - (uint64_t) pos);
}

static void
fs_read (fuse_req_t req, fuse_ino_t ino, size_t size, off_t pos,
         struct fuse_file_info *fi)
{
  struct disk *d = (struct disk *) (uintptr_t) fi->fh;
  size_t len = clip (d, size, pos);
  void *buf CLEANUP_FREE = malloc (len ? len : 1);
  int err = buf ? disk_read (d, buf, len, (uint64_t) pos) : ENOMEM;

  (void) ino;
  if (err)
    fuse_reply_err (req, err);
  else
    fuse_reply_buf (req, buf, len);
}

static void
fs_write (fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size,
          off_t pos, struct fuse_file_info *fi)
{
  struct disk *d = (struct disk *) (uintptr_t) fi->fh;
  size_t len = clip (d, size, pos);
  int err = size && !len ? ENOSPC : disk_write (d, buf, len, (uint64_t) pos);

  (void) ino;
  if (err)
    fuse_reply_err (req, err);
  else
    fuse_reply_write (req, len);
}

static void
fs_fsync (fuse_req_t req, fuse_ino_t ino, int datasync,
          struct fuse_file_info *fi)
{
  (void) ino;
  (void) datasync;
  fuse_reply_err (req, disk_flush ((struct disk *) (uintptr_t) fi->fh));
}

/* tgtd gives back what an initiator unmapped: it has to read as zeroes. */
static void
fs_fallocate (fuse_req_t req, fuse_ino_t ino, int mode, off_t pos, off_t len,
              struct fuse_file_info *fi)
{
  struct disk *d = (struct disk *) (uintptr_t) fi->fh;

  (void) ino;
  if (mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE))
    fuse_reply_err (req, EOPNOTSUPP);
  else
    fuse_reply_err (req, disk_zero (d, clip (d, (size_t) len, pos),
                                    (uint64_t) pos));
}

static const struct fuse_lowlevel_ops ops = {
  .init = fs_init,
  .lookup = fs_lookup,
  .getattr = fs_getattr,
  .open = fs_open,
  .release = fs_release,
  .read = fs_read,
  .write = fs_write,
  .fsync = fs_fsync,
  .fallocate = fs_fallocate,
};

/* --- the program ---------------------------------------------------------- */

static struct fuse_session *session;
static atomic_bool ending;

/* What libfuse says while its device is taken away means nothing. */
static void
say (enum fuse_log_level level, const char *fmt, va_list args)
{
  if (ending || level > FUSE_LOG_WARNING)
    return;
  fprintf (stderr, "espalierd-disks: ");
  vfprintf (stderr, fmt, args);
}

static void *
end_loop (void *arg)
{
  sigset_t *signals = arg;
  int sig;

  while (sigwait (signals, &sig) != 0)
    ;
  disk_close_all ();
  ending = true;
  fuse_session_unmount (session);
  _exit (EXIT_SUCCESS);
}

/* Signals come to one thread. */
static int
end_start (void)
{
  static sigset_t signals;
  pthread_t thread;

  sigemptyset (&signals);
  sigaddset (&signals, SIGTERM);
  sigaddset (&signals, SIGINT);
  sigaddset (&signals, SIGHUP);
  signal (SIGPIPE, SIG_IGN);
  if (pthread_sigmask (SIG_BLOCK, &signals, NULL))
    return -1;
  return pthread_create (&thread, NULL, end_loop, &signals) ? -1 : 0;
}

int
main (int argc, char *argv[])
{
  char *options[] = { argv[0], (char *) "-o",
                      (char *) "fsname=espalier,subtype=disks,noexec,nosuid",
                      NULL };
  struct fuse_args args = FUSE_ARGS_INIT (3, options);
  struct fuse_loop_config *config;

  if (argc != 2 || fcntl (CONTROL_FD, F_GETFD) == -1) {
    fprintf (stderr, "espalierd-disks: espalierd starts this program\n");
    return EXIT_FAILURE;
  }
  fcntl (CONTROL_FD, F_SETFD, FD_CLOEXEC);
  fuse_set_log_func (say);
  session = fuse_session_new (&args, &ops, sizeof ops, NULL);
  if (!session || fuse_session_mount (session, argv[1]) != 0)
    return EXIT_FAILURE;
  config = fuse_loop_cfg_create ();
  if (!config || end_start () == -1 || control_start (CONTROL_FD) == -1) {
    fuse_session_unmount (session);
    return EXIT_FAILURE;
  }
  fuse_loop_cfg_set_max_threads (config, THREADS);
  fuse_loop_cfg_set_idle_threads (config, THREADS_IDLE);
  fuse_session_loop_mt (session, config);
  if (ending)                   /* end_loop has the last word */
    pause ();
  /* Somebody else unmounted it. */
  disk_close_all ();
  return EXIT_SUCCESS;
}
