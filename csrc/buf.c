/* buf.c - memory through the caller's allocator, and the one growable byte buffer: receive window, output, joined
 * messages. Below every other layer; knows nothing of AMQP. A failed allocation leaves everything as it was. */
#include <stdlib.h>

#include "uam_codec.h"

#define FIRST_CAP 256u

static void *default_realloc(void *ctx, void *p, size_t n) {
  (void)ctx;
  if (n == 0) {
    free(p);
    return NULL;
  }
  return realloc(p, n);
}

const uam_mem uam_mem_default = {default_realloc, NULL};

void *uam_mem_alloc(const uam_mem *m, size_t n) {
  void *p = m->realloc(m->ctx, NULL, n != 0 ? n : 1);
  if (p != NULL) memset(p, 0, n);
  return p;
}

void *uam_mem_realloc(const uam_mem *m, void *p, size_t n) { return m->realloc(m->ctx, p, n); }

void uam_mem_free(const uam_mem *m, void *p) {
  if (p != NULL) (void)m->realloc(m->ctx, p, 0);
}

/* Moves what is held to the front when that costs no more than what was consumed since the last move; else doubles. */
bool uam_buf_reserve(uam_buf *b, const uam_mem *m, size_t n) {
  if (b->cap - b->tail >= n) return true;
  size_t held = uam_buf_len(b);
  if (b->head >= held && b->cap - held >= n) {
    memmove(b->data, b->data + b->head, held);
    b->head = 0;
    b->tail = held;
    return true;
  }
  if (n > SIZE_MAX / 4 || b->tail > SIZE_MAX / 4) return false;
  size_t cap = b->cap != 0 ? b->cap : FIRST_CAP;
  while (cap - b->tail < n) cap *= 2;
  uint8_t *data = uam_mem_realloc(m, b->data, cap);
  if (data == NULL) return false;
  b->data = data;
  b->cap = cap;
  return true;
}

bool uam_buf_put(uam_buf *b, const uam_mem *m, const void *p, size_t n) {
  if (n == 0) return true;
  if (!uam_buf_reserve(b, m, n)) return false;
  memcpy(b->data + b->tail, p, n);
  b->tail += n;
  return true;
}

void uam_buf_consume(uam_buf *b, size_t n) {
  b->head += n;
  if (b->head == b->tail) b->head = b->tail = 0;
}

void uam_buf_free(uam_buf *b, const uam_mem *m) {
  uam_mem_free(m, b->data);
  *b = (uam_buf){0};
}
