/* SPDX-License-Identifier: BSD-3-Clause */
/* Signatures: Ed25519 (RFC 8032) over what a text is and the text.
 *
 * A key's id is the beginning of the SHA-256 of its public half in DER, as
 * `openssl pkey -pubin -outform DER | sha256sum` prints it.  It only finds
 * the key; what is believed is the signature.
 */

#include <config.h>

#include <fcntl.h>
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "center/cleanups.h"
#include "center/format-internal.h"
#include "center/keyfile.h"
#include "util/file.h"

#define ALGORITHM "ed25519 "
#define SIGNATURE 64
#define SIGNATURE_TEXT 88       /* in base64 */
#define ID_TEXT 16
/* "ed25519 KEYID BASE64\n" */
#define LINE_LEN (sizeof ALGORITHM - 1 + ID_TEXT + 1 + SIGNATURE_TEXT + 1)

struct esp_signer {
  EVP_PKEY *key;
  char id[17];
};

ESP_DEFINE_CLEANUP (md_ctx, EVP_MD_CTX *, EVP_MD_CTX_free)
#define CLEANUP_MD_CTX ESP_CLEANUP (md_ctx)

int
public_id (EVP_PKEY *key, char id[17])
{
  uint8_t *der = NULL;
  int n = i2d_PUBKEY (key, &der);
  esp_digest digest;
  char hex[65];

  if (n <= 0)
    return format_no_memory ("public key");
  esp_digest_of (der, (size_t) n, &digest);
  OPENSSL_free (der);
  memcpy (id, esp_digest_hex (&digest, hex), ID_TEXT);
  id[ID_TEXT] = 0;
  return 0;
}

EVP_PKEY *
public_parse (const char *pem, size_t len, const char *shown)
{
  CLEANUP_BIO BIO *bio = BIO_new_mem_buf (pem, (int) len);
  CLEANUP_PKEY EVP_PKEY *key = bio ? PEM_read_bio_PUBKEY (bio, NULL, NULL, "")
    : NULL;

  if (key && EVP_PKEY_is_a (key, "ED25519"))
    return ESP_STEAL (key);
  ERR_clear_error ();           /* or libcurl's TLS may take it for its own */
  errno = EBADMSG;
  esp_error ("%s: is no public key: it must be one of Ed25519 in PEM, as"
             " 'espalier key public' prints it", shown);
  return NULL;
}

/* --- the store's own key ----------------------------------------------- */

void
esp_signer_free (struct esp_signer *signer)
{
  if (!signer)
    return;
  EVP_PKEY_free (signer->key);
  free (signer);
}

EVP_PKEY *
signer_key (const struct esp_signer *signer)
{
  return signer->key;
}

/* Takes KEY. */
static struct esp_signer *
make_signer (EVP_PKEY *key)
{
  ESP_CLEANUP (signer) struct esp_signer *signer = calloc (1, sizeof *signer);

  if (!signer) {
    EVP_PKEY_free (key);
    format_no_memory ("signing key");
    return NULL;
  }
  signer->key = key;
  return public_id (key, signer->id) == 0 ? ESP_STEAL (signer) : NULL;
}

/* ENOENT is not reported. */
static struct esp_signer *
read_signer (int fd, const char *shown)
{
  char pem[KEYFILE_MAX];
  ssize_t n = keyfile_read (fd, SIGNING_FILE, KEYFILE_SECRET, shown, pem);
  CLEANUP_BIO BIO *bio = n == -1 ? NULL : BIO_new_mem_buf (pem, (int) n);
  EVP_PKEY *key = NULL;

  if (n == -1)
    return NULL;
  if (bio)
    key = PEM_read_bio_PrivateKey (bio, NULL, NULL, "");
  OPENSSL_cleanse (pem, sizeof pem);
  if (key && EVP_PKEY_is_a (key, "ED25519"))
    return make_signer (key);
  EVP_PKEY_free (key);
  ERR_clear_error ();
  errno = EBADMSG;
  esp_error ("%s: is no private key of Ed25519 in PEM: put it back from a"
             " backup, or remove it, and the next push makes another", shown);
  return NULL;
}

static int
create_signer (int fd, const char *shown)
{
  CLEANUP_PKEY EVP_PKEY *key = EVP_PKEY_Q_keygen (NULL, NULL, "ED25519");
  CLEANUP_BIO BIO *bio = BIO_new (BIO_s_secmem ());
  char *pem;
  long n;

  if (!key || !bio ||
      !PEM_write_bio_PKCS8PrivateKey (bio, key, NULL, NULL, 0, NULL, NULL) ||
      (n = BIO_get_mem_data (bio, &pem)) <= 0) {
    errno = EIO;
    esp_error ("%s: OpenSSL cannot make a key", shown);
    return -1;
  }
  /* Somebody else who was quicker made as good a one. */
  return keyfile_create (fd, SIGNING_FILE, shown, pem, (size_t) n) == 0 ||
    errno == EEXIST ? 0 : -1;
}

struct esp_signer *
esp_signer_load (struct esp_store *store, bool create)
{
  CLEANUP_FREE char *shown = esp_asprintf ("%s/keys/" SIGNING_FILE,
                                           esp_store_path (store));
  int fd = keys_fd (store);
  struct esp_signer *signer;

  if (!shown || fd == -1)
    return NULL;
  signer = read_signer (fd, shown);
  if (!signer && errno == ENOENT && create &&
      create_signer (fd, shown) == 0)
    signer = read_signer (fd, shown);
  if (!signer && errno == ENOENT) {
    errno = ENOKEY;
    esp_error ("this store has no signing key: 'espalier key public', or a"
               " push, makes one");
  }
  return signer;
}

char *
esp_signer_public (const struct esp_signer *signer)
{
  CLEANUP_BIO BIO *bio = BIO_new (BIO_s_mem ());
  char *pem, *copy = NULL;
  long n;

  if (bio && PEM_write_bio_PUBKEY (bio, signer->key) &&
      (n = BIO_get_mem_data (bio, &pem)) > 0)
    copy = strndup (pem, (size_t) n);
  if (!copy)
    format_no_memory ("public key");
  return copy;
}

/* --- texts ------------------------------------------------------------- */

/* What is signed: "espalier-signed-KIND\n" and BODY.  malloced. */
static uint8_t *
signed_bytes (const char *kind, const char *body, size_t len, size_t *n)
{
  CLEANUP_FREE char *head = esp_asprintf ("espalier-signed-%s\n", kind);
  size_t head_len = head ? strlen (head) : 0;
  uint8_t *buf = head ? malloc (head_len + len) : NULL;

  if (!buf) {
    format_no_memory (kind);
    return NULL;
  }
  memcpy (buf, head, head_len);
  memcpy (buf + head_len, body, len);
  *n = head_len + len;
  return buf;
}

char *
esp_sign_text (const struct esp_signer *signer, const char *kind,
               const char *body, size_t *len)
{
  CLEANUP_MD_CTX EVP_MD_CTX *ctx = EVP_MD_CTX_new ();
  size_t n, siglen = SIGNATURE;
  CLEANUP_FREE uint8_t *bytes = signed_bytes (kind, body, strlen (body), &n);
  uint8_t sig[SIGNATURE], text[SIGNATURE_TEXT + 1];
  char *all;

  if (!bytes)
    return NULL;
  if (!ctx || !EVP_DigestSignInit (ctx, NULL, NULL, NULL, signer->key) ||
      !EVP_DigestSign (ctx, sig, &siglen, bytes, n)) {
    errno = EIO;
    esp_error ("%s: OpenSSL cannot sign", kind);
    return NULL;
  }
  EVP_EncodeBlock (text, sig, SIGNATURE);
  all = esp_asprintf ("%s" ALGORITHM "%s %s\n", body, signer->id, text);
  if (!all)
    format_no_memory (kind);
  else
    *len = strlen (all);
  return all;
}

/* Where the line of the signature begins; LEN where there is none. */
static size_t
find_line (const char *text, size_t len)
{
  size_t end = len > 0 && text[len - 1] == '\n' ? len - 1 : len;
  const char *nl = end > 0 ? memrchr (text, '\n', end) : NULL;
  size_t at = nl ? (size_t) (nl - text) + 1 : 0;

  return len - at >= sizeof ALGORITHM - 1 &&
    memcmp (text + at, ALGORITHM, sizeof ALGORITHM - 1) == 0 ? at : len;
}

static int
rejected (const char *where, const char *what)
{
  errno = EKEYREJECTED;
  esp_error ("%s: %s", where, what);
  return -1;
}

/* The parts of LINE, which has LINE_LEN bytes. */
static bool
split_line (const char *line, char id[17], uint8_t sig[SIGNATURE])
{
  const char *p = line + sizeof ALGORITHM - 1;

  memcpy (id, p, ID_TEXT);
  id[ID_TEXT] = 0;
  return strspn (id, "0123456789abcdef") == ID_TEXT && p[ID_TEXT] == ' ' &&
    line[LINE_LEN - 1] == '\n' &&
    base64_decode (p + ID_TEXT + 1, SIGNATURE_TEXT, sig, SIGNATURE);
}

static int
verify (const struct trusted_key *key, const char *kind, const char *text,
        size_t len, const uint8_t sig[SIGNATURE], const char *where)
{
  CLEANUP_MD_CTX EVP_MD_CTX *ctx = EVP_MD_CTX_new ();
  size_t n;
  CLEANUP_FREE uint8_t *bytes = signed_bytes (kind, text, len, &n);

  if (!bytes)
    return -1;
  if (!ctx || !EVP_DigestVerifyInit (ctx, NULL, NULL, NULL, key->key))
    return format_no_memory (where);
  if (EVP_DigestVerify (ctx, sig, SIGNATURE, bytes, n) == 1)
    return 0;
  ERR_clear_error ();
  errno = EKEYREJECTED;
  esp_error ("%s: its signature by %s (%s) is wrong: it was changed after it"
             " was signed; do not use it", where, key->name, key->id);
  return -1;
}

static int
unknown_key (const char *where, const char *id)
{
  errno = EKEYREJECTED;
  esp_error ("%s: is signed with the key %s, which this store does not trust:"
             " get the public key of the server that pushed it, and trust it"
             " with 'espalier key trust NAME FILE'", where, id);
  return -1;
}

int
esp_verify_text (const struct esp_trust *trust, const char *kind,
                 const char *text, size_t len, size_t *body_len,
                 const char *where)
{
  size_t body = find_line (text, len);
  const struct trusted_key *key;
  uint8_t sig[SIGNATURE];
  char id[17];

  *body_len = body;
  if (!trust)
    return 0;
  if (body == len)
    return rejected (where, "is not signed: push it again with a signing key,"
                     " or, if everyone who can write to the center is"
                     " trusted, add the center with 'espalier center add"
                     " --unsigned'");
  if (len - body != LINE_LEN || !split_line (text + body, id, sig))
    return rejected (where, "its signature is damaged: get it again, or push"
                     " it again");
  if (!(key = trust_find (trust, id)))
    return unknown_key (where, id);
  return verify (key, kind, text, body, sig, where);
}
