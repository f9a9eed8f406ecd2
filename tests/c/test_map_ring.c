/* test_map_ring.c - the map of map.c and the ring of ring.c against plain arrays, with chance (seeded), ids that wrap, and memory that
 * runs out in between. */
#include "check.h"
#include "heap.h"
#include "uam_int.h"

static uint64_t state = 1;
static uint32_t chance(uint32_t n) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(state >> 33) % n;
}

enum { KEYS = 300, HELD = 5000 };

static void test_map(void) {
  static int things[KEYS];
  static bool in[KEYS];
  heap h = {0};
  uam_mem mem = heap_mem(&h);
  uam_map m = {0};
  memset(in, 0, sizeof in);
  CHECK(uam_map_get(&m, 7) == NULL);
  uam_map_remove(&m, 7);
  for (int i = 0; i < 200000; i++) {
    uint32_t k = chance(KEYS), key = k * 0x01000193u;
    switch (chance(3)) {
      case 0:
        if (!in[k]) {
          h.fail = chance(10) == 0 ? h.made + 1 : 0;
          in[k] = uam_map_put(&m, &mem, key, &things[k]);
          if (!in[k]) CHECK(h.fail != 0);
          h.fail = 0;
        }
        break;
      case 1:
        uam_map_remove(&m, key);
        in[k] = false;
        break;
      default:
        if (uam_map_get(&m, key) != (in[k] ? (void *)&things[k] : NULL)) FAIL("key %u", k);
    }
  }
  CHECK(m.cap <= 4 * KEYS);
  uam_map_free(&m, &mem);
  CHECK(h.live == 0);
}

/* The model: ids held, oldest first, and which are gone. */
static uint32_t ids[HELD];
static bool gone[HELD];
static size_t from, to;

static void compare(uam_ring *r, uint32_t id) {
  size_t live = 0, at = from;
  while (at < to && gone[at]) at++;
  CHECK(r->count == to - at);
  for (size_t i = 0; i < r->count; i++) {
    const uam_delivery *d = uam_ring_at(r, i);
    if (d->id != ids[at + i] || (d->settled_run != 0) != gone[at + i] || d->end != (uint64_t)ids[at + i] * 3)
      FAIL("entry %zu", i);
    live += !gone[at + i];
  }
  CHECK(r->live == live);
  size_t found = 0;
  while (found < r->count && seq_lt(ids[at + found], id)) found++;
  CHECK(uam_ring_find(r, id) == found);
  for (int i = 0; i < 5; i++) {
    size_t start = chance((uint32_t)r->count + 1), next = start;
    while (next < r->count && gone[at + next]) next++;
    CHECK(uam_ring_next(r, start) == next);
  }
}

static void test_ring(uint32_t first) {
  heap h = {0};
  uam_mem mem = heap_mem(&h);
  uam_ring r = {0};
  uint32_t id = first;
  from = to = 0;
  while (to < HELD) {
    size_t at = from;
    uint32_t burst = 1 + chance(100), settle = chance(90);
    for (uint32_t i = 0; i < burst && to < HELD; i++) {
      id += 1 + chance(3);
      h.fail = chance(20) == 0 ? h.made + 1 : 0;
      if (uam_ring_push(&r, &mem, id, (uint64_t)id * 3)) {
        gone[to] = false;
        ids[to++] = id;
      } else {
        CHECK(h.fail != 0);
      }
      h.fail = 0;
    }
    while (at < to && gone[at]) at++;
    for (uint32_t i = 0; i < settle && r.count > 0; i++) {
      size_t k = chance(3) ? i % r.count : chance((uint32_t)r.count);
      uam_ring_gone(&r, k);
      gone[at + k] = true;
    }
    uam_ring_trim(&r);
    compare(&r, to > 0 ? ids[to - 1] - chance(200) : first);
  }
  uam_ring_free(&r, &mem);
  CHECK(h.live == 0);
}

/* A long way over gone entries is walked once. Two doublings more than its logarithm leave nothing to walk. */
static void test_gone_way(void) {
  enum { LONG = 1 << 16 };
  heap h = {0};
  uam_mem mem = heap_mem(&h);
  uam_ring r = {0};
  for (uint32_t i = 0; i < LONG; i++) CHECK(uam_ring_push(&r, &mem, i, 0));
  for (size_t i = 1; i < LONG; i++) uam_ring_gone(&r, i);
  for (int i = 0; i < 18; i++) CHECK(uam_ring_next(&r, 1) == LONG);
  CHECK(uam_ring_at(&r, 1)->settled_run == LONG - 1);
  CHECK(uam_ring_next(&r, 0) == 0);
  uam_ring_free(&r, &mem);
}

int main(void) {
  test_map();
  test_gone_way();
  test_ring(0);
  test_ring(4294966000u);
  test_ring(2147483000u);
  return done("map_ring");
}
