/* heap.h - an allocator for tests: counts what lives, and fails the n-th allocation when told to. */
#ifndef HEAP_H
#define HEAP_H

#include <stdlib.h>
#include <string.h>

#include "uam.h"

enum { HEAP_HEAD = 16 };

typedef struct heap {
  long live;          /* blocks not freed */
  size_t bytes, peak; /* in them now, and at most */
  unsigned long made; /* allocations asked for */
  unsigned long fail; /* this one fails (0: none), and so do all after it, unless... */
  int once;           /* ...it fails alone */
} heap;

static inline void *heap_realloc(void *ctx, void *p, size_t n) {
  heap *h = ctx;
  if (n == 0) {
    if (p == NULL) return NULL;
    h->live--;
    h->bytes -= *(size_t *)(void *)((char *)p - HEAP_HEAD);
    free((char *)p - HEAP_HEAD);
    return NULL;
  }
  h->made++;
  if (h->fail != 0 && (h->once ? h->made == h->fail : h->made >= h->fail)) return NULL;
  /* always another place, so that a pointer kept over growth is found; the size stands in front */
  size_t *fresh = malloc(n + HEAP_HEAD), *old = NULL;
  if (fresh == NULL) return NULL;
  fresh[0] = n;
  if (p != NULL) {
    old = (size_t *)(void *)((char *)p - HEAP_HEAD);
    memcpy((char *)fresh + HEAP_HEAD, p, old[0] < n ? old[0] : n);
    h->bytes -= old[0];
    free(old);
  } else {
    h->live++;
  }
  h->bytes += n;
  if (h->bytes > h->peak) h->peak = h->bytes;
  return (char *)fresh + HEAP_HEAD;
}

static inline uam_mem heap_mem(heap *h) { return (uam_mem){heap_realloc, h}; }

#endif
