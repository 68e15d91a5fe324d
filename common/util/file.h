/* SPDX-License-Identifier: BSD-3-Clause */
/* Files and directories: whole reads and writes, atomic replacement,
 * durable directories, removal of trees.  All descriptors are close-on-exec.
 * Names are relative to a directory descriptor, so that nothing changes
 * when somebody moves a directory on the way.
 */

#ifndef ESPALIER_FILE_H
#define ESPALIER_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#pragma GCC visibility push(default)

/* Read or write exactly COUNT bytes at OFFSET.  -1 with errno; a short
 * file is EIO.  Report nothing.
 */
extern int esp_pread_all (int fd, void *buf, size_t count, uint64_t offset);
extern int esp_pwrite_all (int fd, const void *buf, size_t count,
                           uint64_t offset);

/* Read the file NAME, at most MAX bytes (EFBIG beyond).  *BUF is malloced,
 * with a NUL behind the end that *LEN does not count; the caller frees it.
 * Reports nothing.
 */
extern int esp_read_file (int dirfd, const char *name, size_t max,
                          char **buf, size_t *len);

/* Replace the file NAME by LEN bytes of BUF: written beside it, synced,
 * renamed, the directory synced.  After a crash there is the old or the
 * new file.  MODE is for a new file; one that is replaced keeps its own.
 * Reports one error.
 */
extern int esp_write_file_atomic (int dirfd, const char *name,
                                  const void *buf, size_t len, mode_t mode);

/* Put the finished and synced file TEMP in the place of NAME, durably.
 * Reports one error.
 */
extern int esp_replace_file (int dirfd, const char *temp, const char *name);

/* fsync or fdatasync a file, fsync a directory.  Report nothing. */
extern int esp_sync_file (int fd);
extern int esp_sync_data (int fd);
extern int esp_sync_dir (int dirfd);

/* LATER: from here on these three, and with them esp_write_file_atomic and what
 * writes maps and chains, sync nothing in this thread.  Only for new
 * directories that nobody sees yet: before they get their names,
 * esp_sync_below makes them durable, many together.  Returns what it was; the
 * caller puts that back.
 */
extern bool esp_sync_later (bool later);

/* Make durable the files of N directories (nothing that lies deeper), and the
 * directories, which are of one file system and were opened in that order,
 * each before its files were written.  Reports one error.
 */
extern int esp_sync_below (const int *dirfds, size_t n);

/* Open the directory NAME (NULL: a fresh descriptor of DIRFD).  Never
 * follows a symbolic link in its last component.  Reports nothing.
 */
extern int esp_open_dir (int dirfd, const char *name);

/* Open the directory NAME, made with MODE if it is not there.  Reports
 * nothing.
 */
extern int esp_make_dir (int dirfd, const char *name, mode_t mode);

/* Remove NAME and all below it; never follows symbolic links.  What is not
 * there is no error.  Reports one error.
 */
extern int esp_remove_tree (int dirfd, const char *name);

/* Call FN for each entry of the directory DIRFD except "." and "..", in
 * the order of their names.  FN returns 0 to go on; anything else ends the
 * walk and is returned.  -1 with errno when the directory cannot be read
 * (reported).
 */
extern int esp_each_entry (int dirfd,
                           int (*fn) (void *arg, int dirfd, const char *name),
                           void *arg);

/* Make [OFFSET, OFFSET+LEN) of FD read as zero and give its space back:
 * a hole where the file system can, written zeroes where it can't.
 * Reports nothing.
 */
extern int esp_punch (int fd, uint64_t offset, uint64_t len);

/* Bytes of disk that NAME really takes (st_blocks), 0 if it is not there. */
extern uint64_t esp_disk_usage (int dirfd, const char *name);

/* Let this process open as many files as it may: a server needs some for
 * each client (sockets, locks, an overlay's files).
 */
extern void esp_raise_open_files (void);

/* malloced printf; NULL with errno, nothing reported. */
extern char *esp_asprintf (const char *fmt, ...)
  __attribute__ ((format (printf, 1, 2)));

#pragma GCC visibility pop
#endif /* ESPALIER_FILE_H */
