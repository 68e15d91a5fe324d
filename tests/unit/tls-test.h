/* SPDX-License-Identifier: BSD-3-Clause */
/* Cache nodes with TLS for tests: certificates, memcached on a TCP port, and
 * somebody in the middle who hangs, cuts and lies.
 */

#ifndef ESPALIER_TLS_TEST_H
#define ESPALIER_TLS_TEST_H

#define TIMEOUT 1000u
#include "cluster-test.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/stat.h>

/* --- certificates ------------------------------------------------------------- */

static char *certs;             /* their directory */

/* NAME.pem by AUTHORITY, NAME.key. */
#define MAKE_CERTS                                                          \
  "set -e; cd '%s'; ec='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'\n" \
  "authority () {\n"                                                        \
  "  openssl req -x509 $ec -days 2 -subj /CN=$1 -keyout $1.key -out $1.pem\n" \
  "}\n"                                                                     \
  "make () {\n"                                                             \
  "  openssl req $ec -subj /CN=127.0.0.1 -keyout $1.key -out $1.csr\n"      \
  "  echo subjectAltName=$3 >$1.ext\n"                                      \
  "  openssl x509 -req -in $1.csr -CA $2.pem -CAkey $2.key -CAcreateserial" \
  " -days $4 -extfile $1.ext -out $1.pem\n"                                 \
  "  chmod 600 $1.key\n"                                                    \
  "}\n"                                                                     \
  "{ authority ca; authority other; authority clients\n"                    \
  "  make node ca IP:127.0.0.1,DNS:localhost 2\n"                           \
  "  make named ca DNS:localhost 2\n"                                       \
  "  make misnamed ca DNS:127.0.0.1,DNS:node.example,IP:127.0.0.2 2\n"      \
  "  make expired ca IP:127.0.0.1 -1\n"                                     \
  "  make stranger other IP:127.0.0.1 2\n"                                  \
  "  make client clients DNS:server.example 2\n"                            \
  "  openssl ec -aes128 -passout pass:x -in client.key -out locked.key\n"   \
  "  chmod 600 locked.key\n"                                                \
  "} >log 2>&1\n"                                                           \
  "conf () { printf 'openssl_conf=i\\n[i]\\nssl_conf=s\\n[s]\\n"            \
  "system_default=d\\n[d]\\nMinProtocol=TLSv1\\nMaxProtocol=TLSv1.%%s\\n"   \
  "CipherString=DEFAULT@SECLEVEL=0\\n' $1 >tls1.$1.cnf; }\n"                \
  "conf 1; conf 2; conf 3\n"

static int
certs_setup (void **state)
{
  char *cmd;

  (void) state;
  certs = unit_mkdir ();
  if (asprintf (&cmd, MAKE_CERTS, certs) < 0)
    abort ();
  int r = system ("openssl version >/dev/null 2>&1") == 0 ? system (cmd) : 0;
  free (cmd);
  return r;
}

static int
certs_teardown (void **state)
{
  (void) state;
  unit_rmdir (certs);
  return 0;
}

/* The file NAME of them; good for the next 15 calls. */
static const char *
cert (const char *name)
{
  static char path[16][200];
  static unsigned n;
  char *p = path[n++ % 16];

  snprintf (p, sizeof path[0], "%s/%s", certs, name);
  return p;
}

static bool
have_tls (void)
{
  return have_memcached () &&
    system ("openssl version >/dev/null 2>&1") == 0 &&
    system ("memcached -h | grep -q -e --enable-ssl") == 0;
}

#define NEEDS_TLS()                                                       \
  do {                                                                    \
    if (!have_tls ()) {                                                   \
      print_message ("# memcached with TLS, or openssl, is not here\n");  \
      skip ();                                                            \
    }                                                                     \
  } while (0)

/* --- nodes ---------------------------------------------------------------------- */

/* With the certificate CERT (NULL: without TLS) and more options; VERSION (or
 * NULL) is the last digit of the latest one that it speaks.
 */
struct node_how { const char *cert, *options, *version; };

static void
node_exec (struct bench *b, unsigned i, const struct node_how *how)
{
  char ports[200], options[700], conf[40];
  const char *argv[16] = {
    "memcached", "-u", "root", "-t", "2", "-l", "127.0.0.1", "-p", "-1",
    "-U", "0", NULL
  };
  int null = open ("/dev/null", O_RDWR);

  snprintf (ports, sizeof ports, "%s/ports%u", b->dir, i);
  setenv ("MEMCACHED_PORT_FILENAME", ports, 1);
  if (how->version) {
    snprintf (conf, sizeof conf, "tls1.%s.cnf", how->version);
    setenv ("OPENSSL_CONF", cert (conf), 1);
  }
  if (how->cert) {
    snprintf (options, sizeof options,
              "ssl_chain_cert=%s/%s.pem,ssl_key=%s/%s.key,ssl_min_version=1%s%s",
              certs, how->cert, certs, how->cert,
              how->options ? "," : "", how->options ? how->options : "");
    argv[11] = "-Z";
    argv[12] = "-o";
    argv[13] = options;
  }
  dup2 (null, 1);
  dup2 (null, 2);
  execvp (argv[0], (char **) argv);
  _exit (127);
}

/* Start node I; its port. */
static inline __attribute__ ((unused)) unsigned
node_start (struct bench *b, unsigned i, const struct node_how *how)
{
  char ports[200];
  unsigned port = 0;

  snprintf (ports, sizeof ports, "%s/ports%u", b->dir, i);
  unlink (ports);
  b->mc[i].pid = fork ();
  assert_true (b->mc[i].pid >= 0);
  if (b->mc[i].pid == 0) {
    prctl (PR_SET_PDEATHSIG, SIGKILL);
    node_exec (b, i, how);
  }
  for (unsigned t = 0; t < 20000 && port == 0; ++t) {
    FILE *f = fopen (ports, "r");
    if (f && fscanf (f, "TCP INET: %u", &port) != 1)
      port = 0;
    if (f)
      fclose (f);
    usleep (2000);
  }
  assert_true (port > 0);
  return port;
}

/* --- in the middle ---------------------------------------------------------------- */

enum mode {
  PASS, HANG, GARBAGE,
  SLOW,                         /* what the node says: a byte in 10 ms */
  CUT,                          /* after LIMIT bytes that the node said */
  STALL                         /* the same, and the connection stays */
};

struct middle {
  int fd;
  unsigned port, to;            /* that it listens on; the node's */
  _Atomic int mode;
  _Atomic size_t limit;
  _Atomic bool stop, drop;      /* drop: all connections end now */
  _Atomic unsigned accepted;
  pthread_t main, thread[200];
  unsigned n;
};

struct middle_conn {
  struct middle *m;
  int fd;
};

static int
connect_port (unsigned port)
{
  struct sockaddr_in a = {
    .sin_family = AF_INET, .sin_port = htons ((uint16_t) port),
    .sin_addr = { htonl (INADDR_LOOPBACK) },
  };
  int fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

  if (connect (fd, (struct sockaddr *) &a, sizeof a) == 0)
    return fd;
  close (fd);
  return -1;
}

static bool
send_all (int fd, const char *buf, size_t n)
{
  while (n > 0) {
    ssize_t r = send (fd, buf, n, MSG_NOSIGNAL);
    if (r <= 0)
      return false;
    buf += r;
    n -= (size_t) r;
  }
  return true;
}

/* What the node says, to the server; false: it is over. */
static bool
to_server (struct middle *m, int node, int server)
{
  char buf[65536];
  int mode = m->mode;
  size_t most = mode == SLOW ? 1 : sizeof buf, limit = m->limit;

  if (mode == CUT || mode == STALL)
    most = limit < most ? limit : most;
  if (mode == HANG || (mode == STALL && limit == 0)) {
    usleep (1000);
    return true;
  }
  ssize_t r = most > 0 ? recv (node, buf, most, 0) : 0;
  if (r <= 0 || !send_all (server, buf, (size_t) r))
    return false;
  if (mode == CUT || mode == STALL)
    m->limit -= (size_t) r;
  if (mode == SLOW)
    usleep (10000);
  return true;
}

static bool
to_node (struct middle *m, int server, int node)
{
  char buf[65536];
  ssize_t r = recv (server, buf, sizeof buf, 0);

  return r > 0 && (m->mode == HANG || send_all (node, buf, (size_t) r));
}

static void *
middle_conn_main (void *arg)
{
  struct middle_conn *mc = arg;
  struct middle *m = mc->m;
  int node = connect_port (m->to);
  struct pollfd p[2] = {
    { .fd = mc->fd, .events = POLLIN }, { .fd = node, .events = POLLIN }
  };
  bool go = node != -1;

  if (m->mode == GARBAGE)
    go = send_all (mc->fd, "SERVER_ERROR what is this?\r\n", 28) && go;
  while (go && !m->stop && !m->drop) {
    if (poll (p, 2, 10) <= 0)
      continue;
    if (p[0].revents)
      go = to_node (m, mc->fd, node);
    if (go && p[1].revents)
      go = to_server (m, node, mc->fd);
  }
  close (node);
  close (mc->fd);
  free (mc);
  return NULL;
}

static void *
middle_main (void *arg)
{
  struct middle *m = arg;

  while (!m->stop && m->n < 200) {
    struct pollfd p = { .fd = m->fd, .events = POLLIN };
    if (poll (&p, 1, 10) <= 0)
      continue;
    struct middle_conn *mc = malloc (sizeof *mc);
    *mc = (struct middle_conn) { m, accept (m->fd, NULL, NULL) };
    m->accepted++;
    pthread_create (&m->thread[m->n++], NULL, middle_conn_main, mc);
  }
  return NULL;
}

static inline __attribute__ ((unused)) struct middle *
middle_start (unsigned to, enum mode mode)
{
  struct middle *m = calloc (1, sizeof *m);
  struct sockaddr_in a = {
    .sin_family = AF_INET, .sin_addr = { htonl (INADDR_LOOPBACK) }
  };
  socklen_t len = sizeof a;

  m->to = to;
  m->mode = mode;
  m->fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal (bind (m->fd, (struct sockaddr *) &a, sizeof a), 0);
  assert_int_equal (listen (m->fd, 64), 0);
  assert_int_equal (getsockname (m->fd, (struct sockaddr *) &a, &len), 0);
  m->port = ntohs (a.sin_port);
  pthread_create (&m->main, NULL, middle_main, m);
  return m;
}

static inline __attribute__ ((unused)) void
middle_end (struct middle *m)
{
  m->stop = true;
  pthread_join (m->main, NULL);
  for (unsigned i = 0; i < m->n; ++i)
    pthread_join (m->thread[i], NULL);
  close (m->fd);
  free (m);
}

#endif /* ESPALIER_TLS_TEST_H */
