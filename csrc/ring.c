/* ring.c - the deliveries of a link, which stand in the order of their ids by construction. It knows nothing of AMQP but serial
 * arithmetic, and is bounded by what its owners put in. */
#include "uam_int.h"

static bool ring_grow(uam_ring *r, const uam_mem *m) {
  size_t cap = r->cap ? r->cap * 2 : 64;
  uam_delivery *at = uam_mem_alloc(m, cap * sizeof *at);
  if (at == NULL) return false;
  for (size_t i = 0; i < r->count; i++) at[i] = *uam_ring_at(r, i);
  uam_mem_free(m, r->at);
  r->at = at;
  r->cap = cap;
  r->head = 0;
  return true;
}

/* Behind one that stays open for long all others may be gone: their places are taken again, all of them at once. */
static void ring_pack(uam_ring *r) {
  size_t n = 0;
  for (size_t i = 0; i < r->count; i++) {
    const uam_delivery *d = uam_ring_at(r, i);
    if (!d->settled_run) *uam_ring_at(r, n++) = *d;
  }
  r->count = n;
}

bool uam_ring_push(uam_ring *r, const uam_mem *m, uint32_t id, uint64_t end) {
  if (r->count == r->cap && r->live < r->cap / 2) ring_pack(r);
  if (r->count == r->cap && !ring_grow(r, m)) return false;
  *uam_ring_at(r, r->count) = (uam_delivery){.id = id, .settled_run = 0, .end = end};
  r->count++;
  r->live++;
  return true;
}

size_t uam_ring_find(const uam_ring *r, uint32_t id) {
  size_t low = 0, high = r->count;
  while (low < high) {
    size_t mid = low + (high - low) / 2;
    if (seq_lt(uam_ring_at(r, mid)->id, id)) low = mid + 1;
    else high = mid;
  }
  return low;
}

void uam_ring_gone(uam_ring *r, size_t i) {
  uam_delivery *d = uam_ring_at(r, i);
  if (d->settled_run) return;
  d->settled_run = 1;
  r->live--;
}

/* A gone entry holds how many from it on are gone for sure; each who comes along shortens the way for the next one, so a
 * peer that names the same settled ids again and again does not have us walk over all of them every time. */
size_t uam_ring_next(uam_ring *r, size_t i) {
  while (i < r->count) {
    uam_delivery *d = uam_ring_at(r, i);
    if (!d->settled_run) return i;
    if (i + d->settled_run < r->count) d->settled_run += uam_ring_at(r, i + d->settled_run)->settled_run;
    i += d->settled_run;
  }
  return r->count;
}

void uam_ring_trim(uam_ring *r) {
  while (r->count > 0 && r->at[r->head].settled_run) {
    r->head = (r->head + 1) & (r->cap - 1);
    r->count--;
  }
}

void uam_ring_free(uam_ring *r, const uam_mem *m) {
  uam_mem_free(m, r->at);
  memset(r, 0, sizeof *r);
}
