/* test_limits.c - the bounds of limits.h that take too many frames for a transcript: sessions, answers that nobody reads, a
 * disposition over a hundred thousand deliveries, a range over the whole circle of ids. */
#include "check.h"
#include "heap.h"
#include "notation.h"
#include "uam_int.h"

static heap memory;
static uam_engine *e;
static unsigned long begins, settlements, events, faults;
static uint32_t links[2], n_links, session;
static char fault[512];

static void note(void) {
  const uam_event *evs;
  size_t n = uam_events(e, &evs);
  events += n;
  for (size_t i = 0; i < n; i++) {
    if (evs[i].kind == UAM_EV_BEGIN) begins++, session = evs[i].id;
    if (evs[i].kind == UAM_EV_ATTACH && n_links < 2) links[n_links++] = evs[i].id;
    if (evs[i].kind == UAM_EV_SETTLED) settlements += evs[i].last - evs[i].first + 1;
    if (evs[i].kind == UAM_EV_PEER_ERROR) {
      faults++;
      snprintf(fault, sizeof fault, "%s", text_of_value((const uint8_t *)(uintptr_t)evs[i].offset, (size_t)evs[i].length, 0));
    }
  }
}

static void feed(const uint8_t *p, size_t n) {
  for (size_t k; n > 0; p += k, n -= k) {
    size_t cap;
    uint8_t *w = uam_recv_window(e, &cap);
    if (cap == 0) {
      FAIL("no window");
      return;
    }
    k = n < cap ? n : cap;
    memcpy(w, p, k);
    CHECK(uam_recv_commit(e, k, 0) == UAM_OK);
    note();
  }
}

static void feed_text(const char *text) {
  uam_span f = frame_of(text);
  CHECK(f.ptr != NULL);
  feed(f.ptr, f.len);
}

static size_t swallow(void) {
  size_t n;
  uam_send_window(e, &n);
  CHECK(uam_send_commit(e, n, 0) == UAM_OK);
  note();
  return n;
}

static void start(int role) {
  memory = (heap){0};
  uam_mem mem = heap_mem(&memory);
  begins = settlements = events = faults = 0;
  n_links = 0;
  e = uam_new(&mem, role);
  if (e == NULL) abort();
  uam_span open = list_of("open(container-id=\"u\")");
  CHECK(uam_open(e, open.ptr, open.len) == UAM_OK);
  swallow();
  feed_text("AMQP 0.1.0.0");
  swallow();
  feed_text("open(container-id=\"p\")");
}

static void stop(void) {
  uam_free(e);
  CHECK(memory.live == 0);
}

static void attach_two(void) {
  uam_span begin = list_of("begin(next-outgoing-id=4294967000 incoming-window=9 outgoing-window=9)");
  int64_t s = uam_begin(e, 0, begin.ptr, begin.len);
  uam_span a = list_of("attach(name=\"a\" handle=0 role=false)"), b = list_of("attach(name=\"b\" handle=0 role=false)");
  CHECK(uam_attach(e, (uint32_t)s, 0, a.ptr, a.len) > 0 && uam_attach(e, (uint32_t)s, 0, b.ptr, b.len) > 0);
  swallow();
  feed_text("begin(remote-channel=0 next-outgoing-id=0 incoming-window=4294967295 outgoing-window=9)");
  swallow();
  feed_text("attach(name=\"a\" handle=0 role=true)");
  feed_text("attach(name=\"b\" handle=1 role=true)");
  feed_text("flow(incoming-window=4294967295 next-outgoing-id=0 outgoing-window=9 handle=0 link-credit=4294967295)");
  feed_text("flow(incoming-window=4294967295 next-outgoing-id=0 outgoing-window=9 handle=1 link-credit=4294967295)");
}

static void test_sessions(void) {
  char text[128];
  start(UAM_SERVER);
  for (uint32_t i = 0; i < UAM_MAX_SESSIONS + 10 && faults == 0; i++) {
    snprintf(text, sizeof text, "ch=%u begin(next-outgoing-id=0 incoming-window=1 outgoing-window=1)", i);
    feed_text(text);
  }
  CHECK(begins == UAM_MAX_SESSIONS && faults == 1 && strstr(fault, "amqp:resource-limit-exceeded") != NULL);
  stop();
}

/* Our answers pile up, since the peer reads none of them: not past UAM_OUTPUT_HARD. */
static void test_flood(void) {
  start(UAM_CLIENT);
  attach_two();
  swallow();
  uam_span f = frame_of("flow(incoming-window=1 next-outgoing-id=0 outgoing-window=9 handle=0 link-credit=1 echo=true)");
  static uint8_t frame[256];
  memcpy(frame, f.ptr, f.len);
  unsigned long i = 0;
  for (; i < 4000000 && faults == 0; i++) feed(frame, f.len);
  size_t n;
  uam_send_window(e, &n);
  CHECK(faults == 1 && strstr(fault, "amqp:resource-limit-exceeded") != NULL);
  CHECK(n > UAM_OUTPUT_HARD && n < UAM_OUTPUT_HARD + 10000);
  stop();
}

enum { MANY = 100000 };

/* Two links whose ids alternate: a range makes an event for each. It may also span more than half the circle. */
static void test_ranges(void) {
  static const uint32_t len = 1;
  uint32_t id = 0;
  start(UAM_CLIENT);
  attach_two();
  CHECK(n_links == 2);
  unsigned long sent = 0;
  for (uint32_t i = 0; i < MANY; i++) {
    sent += uam_send_messages(e, links[i % 2], (const uint8_t *)"x", &len, 1, 0, 0, &id) == 1;
    if (i % 1000 == 0) swallow();
  }
  CHECK(sent == MANY && id == 4294967000u + MANY - 1);
  swallow();
  feed_text("disposition(role=true first=4294967000 last=4294967000 settled=true state=accepted())");
  CHECK(settlements == 1);
  feed_text("disposition(role=true first=4294967001 last=2147480000 settled=true state=accepted())");
  CHECK(settlements == MANY && faults == 0);
  uam_link_info info;
  CHECK(uam_link(e, links[0], &info) == UAM_OK && info.unsettled == 0);
  stop();
}

int main(void) {
  test_sessions();
  test_flood();
  test_ranges();
  return done("limits");
}
