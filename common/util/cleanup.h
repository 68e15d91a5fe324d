/* SPDX-License-Identifier: BSD-3-Clause */
/* Cleanup attributes: each resource is released where its scope ends. */

#ifndef ESPALIER_CLEANUP_H
#define ESPALIER_CLEANUP_H

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Define esp_cleanup_NAME for a TYPE that FREE releases; NULL is skipped
 * and errno is preserved, so that an error path may end a scope.
 */
#define ESP_DEFINE_CLEANUP(name, type, free_fn)                 \
  static inline __attribute__ ((unused)) void                   \
  esp_cleanup_##name (type *p)                                  \
  {                                                             \
    int saved = errno;                                          \
    if (*p)                                                     \
      free_fn (*p);                                             \
    errno = saved;                                              \
  }
#define ESP_CLEANUP(name) __attribute__ ((cleanup (esp_cleanup_##name)))

static inline __attribute__ ((unused)) void
esp_cleanup_free (void *p)
{
  int saved = errno;
  free (*(void **) p);
  errno = saved;
}

static inline __attribute__ ((unused)) void
esp_cleanup_close (int *fd)
{
  int saved = errno;
  if (*fd >= 0)
    close (*fd);
  errno = saved;
}

ESP_DEFINE_CLEANUP (fclose, FILE *, fclose)
ESP_DEFINE_CLEANUP (closedir, DIR *, closedir)

static inline __attribute__ ((unused)) void
esp_cleanup_unlock (pthread_mutex_t **m)
{
  if (*m)
    pthread_mutex_unlock (*m);
}

static inline __attribute__ ((unused)) void
esp_cleanup_rwunlock (pthread_rwlock_t **l)
{
  if (*l)
    pthread_rwlock_unlock (*l);
}

#define CLEANUP_FREE __attribute__ ((cleanup (esp_cleanup_free)))
#define CLEANUP_CLOSE __attribute__ ((cleanup (esp_cleanup_close)))
#define CLEANUP_FCLOSE ESP_CLEANUP (fclose)
#define CLEANUP_CLOSEDIR ESP_CLEANUP (closedir)

#define ESP_PASTE2(a, b) a##b
#define ESP_PASTE(a, b) ESP_PASTE2 (a, b)

/* Hold a mutex, or either side of a rwlock, until the scope ends. */
#define ESP_LOCK_SCOPE(mutex)                                   \
  __attribute__ ((cleanup (esp_cleanup_unlock), unused))        \
  pthread_mutex_t *ESP_PASTE (esp_lock_, __LINE__) = (mutex);   \
  pthread_mutex_lock (ESP_PASTE (esp_lock_, __LINE__))
#define ESP_RDLOCK_SCOPE(rwlock)                                \
  __attribute__ ((cleanup (esp_cleanup_rwunlock), unused))      \
  pthread_rwlock_t *ESP_PASTE (esp_lock_, __LINE__) = (rwlock); \
  pthread_rwlock_rdlock (ESP_PASTE (esp_lock_, __LINE__))
#define ESP_WRLOCK_SCOPE(rwlock)                                \
  __attribute__ ((cleanup (esp_cleanup_rwunlock), unused))      \
  pthread_rwlock_t *ESP_PASTE (esp_lock_, __LINE__) = (rwlock); \
  pthread_rwlock_wrlock (ESP_PASTE (esp_lock_, __LINE__))

/* Move a pointer or a descriptor out of the reach of its cleanup. */
#define ESP_STEAL(p)                            \
  __extension__ ({                              \
    __auto_type esp_stolen_ = (p);              \
    (p) = NULL;                                 \
    esp_stolen_;                                \
  })
static inline __attribute__ ((unused)) int
esp_steal_fd (int *fd)
{
  int r = *fd;
  *fd = -1;
  return r;
}

#endif /* ESPALIER_CLEANUP_H */
