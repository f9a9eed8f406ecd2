/* test_limits.c - the bounds of limits.h that take too many frames for a transcript: sessions, names, links, half-received messages,
 * answers that nobody reads, a disposition over a hundred thousand deliveries, a range over the whole circle of ids, one
 * long error for very many deliveries, one delivery that stays open while very many come and go, late frames on a channel that has ended. */
#include "check.h"
#include "heap.h"
#include "notation.h"
#include "uam_int.h"
#include <time.h>

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
    if (evs[i].kind == UAM_EVENT_BEGIN) begins++, session = evs[i].id;
    if (evs[i].kind == UAM_EVENT_ATTACH && n_links < 2) links[n_links++] = evs[i].id;
    if (evs[i].kind == UAM_EVENT_SETTLED) settlements += evs[i].last - evs[i].first + 1;
    if (evs[i].kind == UAM_EVENT_PEER_ERROR) {
      faults++;
      snprintf(fault, sizeof fault, "%s",
               text_of_value((const uint8_t *)(uintptr_t)evs[i].offset, (size_t)evs[i].length, 0));
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

/* A list that outlives the next ones. */
static uam_span kept(const char *text, uint8_t *room, size_t cap) {
  uam_span l = list_of(text);
  CHECK(l.ptr != NULL && l.len <= cap);
  memcpy(room, l.ptr, l.len);
  return (uam_span){room, l.len};
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

/* Every begin is answered; the channels are those of the sessions' order, and one that is free again is taken again. */
static void test_channels(void) {
  char text[128];
  uint8_t out[64], room[64];
  start(UAM_SERVER);
  uam_span begin = kept("begin(next-outgoing-id=0 incoming-window=9 outgoing-window=9)", room, sizeof room);
  for (uint32_t i = 0; i <= UAM_MAX_SESSIONS; i++) {
    uint32_t channel = i < UAM_MAX_SESSIONS ? i : 77;
    if (i == UAM_MAX_SESSIONS) {
      snprintf(text, sizeof text, "ch=%u end()", channel);
      feed_text(text);
      swallow();
    }
    snprintf(text, sizeof text, "ch=%u begin(next-outgoing-id=0 incoming-window=1 outgoing-window=1)", channel);
    feed_text(text);
    CHECK(uam_begin(e, session, begin.ptr, begin.len) == session);
    size_t n;
    const uint8_t *p = uam_send_window(e, &n);
    memcpy(out, p, n < sizeof out ? n : sizeof out);
    CHECK(n > 8 && load_be16(out + 6) == channel);
    swallow();
  }
  CHECK(begins == UAM_MAX_SESSIONS + 1 && faults == 0);
  stop();
}

/* Links cost the peer a frame each, and us the name for as long as it likes. */
/* What comes late on a channel that has ended is ignored so many times, however often the channel has ended before. */
static void test_late(void) {
  uint8_t room[128];
  uam_span begin = kept("begin(next-outgoing-id=0 incoming-window=1 outgoing-window=1)", room, sizeof room);
  start(UAM_SERVER);
  for (int i = 0; i < 3; i++) {
    feed_text("ch=7 begin(next-outgoing-id=0 incoming-window=1 outgoing-window=1)");
    CHECK(uam_begin(e, session, begin.ptr, begin.len) == session);
    swallow();
    feed_text("ch=7 end()");
    swallow();
  }
  unsigned long before = events;
  for (unsigned i = 0; i < UAM_LATE_FRAMES; i++) feed_text("ch=7 end()");
  CHECK(faults == 0);
  CHECK(events == before + 1); /* the first is told */
  feed_text("ch=7 end()");
  CHECK(faults == 1 && strstr(fault, "end on channel 7, which is not begun") != NULL);
  stop();
}

static void test_names(void) {
  enum { NAME = 60000, GONE = 50 };
  static char text[NAME + 200], name[NAME + 1];
  uint8_t room[64];
  start(UAM_SERVER);
  memset(name, 'n', NAME);
  uam_span begin = list_of("begin(next-outgoing-id=0 incoming-window=9 outgoing-window=9)");
  feed_text("begin(next-outgoing-id=0 incoming-window=9 outgoing-window=9)");
  CHECK(uam_begin(e, session, begin.ptr, begin.len) == session);
  swallow();
  uam_span attach = kept("attach(name=\"n\" handle=0 role=false)", room, sizeof room);
  uint32_t i = 0;
  for (; i < 2000 && faults == 0; i++) {
    snprintf(text, sizeof text, "attach(name=\"%s%u\" handle=%u role=true)", name, i, i);
    n_links = 0;
    feed_text(text);
    if (i >= GONE) continue;
    snprintf(text, sizeof text, "detach(handle=%u closed=true)", i);
    feed_text(text);
    CHECK(uam_attach(e, session, links[0], attach.ptr, attach.len) == links[0]);
    swallow();
  }
  CHECK(faults == 1 && strstr(fault, "amqp:resource-limit-exceeded") != NULL);
  CHECK(i > UAM_MAX_NAMES / (NAME + 10) + GONE && memory.peak < UAM_MAX_NAMES * 5 / 2); /* buffers are powers of two */
  stop();
}

/* Nobody attaches links to a client. Those that are refused stay for as long as the peer does not answer the detach. */
static void test_guests(void) {
  char text[128];
  uint8_t room[64];
  start(UAM_CLIENT);
  attach_two();
  uam_span attach = kept("attach(name=\"n\" handle=0 role=false)", room, sizeof room);
  uint32_t i = 2;
  for (; i < 70000 && faults == 0; i++) {
    snprintf(text, sizeof text, "attach(name=\"n%u\" handle=%u role=true)", i, i);
    n_links = 0;
    feed_text(text);
    if (faults != 0) break;
    CHECK(uam_attach(e, e->ids.links[links[0] & 0xffff]->session->id, links[0], attach.ptr, attach.len) == links[0]);
    CHECK(uam_detach(e, links[0], 1, NULL, 0) == UAM_OK);
    swallow();
    if (i >= 12) continue;
    snprintf(text, sizeof text, "detach(handle=%u closed=true)", i);
    feed_text(text);
    swallow();
  }
  CHECK(faults == 1 && strstr(fault, "amqp:resource-limit-exceeded") != NULL && i == 12 + UAM_MAX_ATTACHED_BY_PEER);
  stop();
}

/* Very many links of a server's that go at once take no time to speak of: a look at each for each would be 4 thousand million. */
static void test_farewell(void) {
  char text[128];
  uint8_t room[64];
  uam_span f;
  start(UAM_SERVER);
  uam_span begin = list_of("begin(next-outgoing-id=0 incoming-window=9 outgoing-window=9)");
  feed_text("begin(next-outgoing-id=0 incoming-window=9 outgoing-window=9)");
  CHECK(uam_begin(e, session, begin.ptr, begin.len) == session);
  swallow();
  uam_span attach = kept("attach(name=\"n\" handle=0 role=false)", room, sizeof room);
  for (uint32_t i = 0; i < UAM_MAX_LINKS; i++) {
    snprintf(text, sizeof text, "attach(name=\"%u\" handle=%u role=true)", i, i);
    n_links = 0;
    feed_text(text);
    CHECK(uam_attach(e, session, links[0], attach.ptr, attach.len) == links[0]);
  }
  swallow();
  static uint8_t all[24 * UAM_MAX_LINKS];
  size_t n = 0;
  for (uint32_t i = 0; i < UAM_MAX_LINKS; i++, n += f.len) {
    snprintf(text, sizeof text, "detach(handle=%u closed=true)", i);
    f = frame_of(text);
    CHECK(n + f.len <= sizeof all);
    memcpy(all + n, f.ptr, f.len);
  }
  clock_t start_of_it = clock();
  feed(all, n);
  for (int i = 0; i < 4; i++) { /* UAM_MAX_EVENTS at a time */
    CHECK(uam_recv_commit(e, 0, 0) == UAM_OK);
    note();
  }
  swallow();
  CHECK(e->ids.n_links == 0 && faults == 0);
  CHECK((clock() - start_of_it) / CLOCKS_PER_SEC < 2); /* milliseconds, really */
  stop();
}

static void feed_part(uint32_t handle, uint32_t id, const char *more, uint32_t size) {
  char text[200];
  snprintf(text, sizeof text,
           "transfer(handle=%u delivery-id=%u delivery-tag=h'01' message-format=0 settled=true more=%s) payload=%uB",
           handle, id, more, size);
  feed_text(text);
}

/* Each message is allowed, all together they are not; those that are whole or given up count no more. */
static void test_joining(void) {
  enum { LINKS = 4, PART = 40000 };
  char text[128];
  start(UAM_SERVER);
  uam_span begin = list_of("begin(next-outgoing-id=0 incoming-window=1000 outgoing-window=9)");
  feed_text("begin(next-outgoing-id=0 incoming-window=9 outgoing-window=9)");
  CHECK(uam_begin(e, session, begin.ptr, begin.len) == session);
  swallow();
  for (uint32_t i = 0; i < LINKS; i++) {
    snprintf(text, sizeof text, "attach(name=\"%u\" handle=%u role=false initial-delivery-count=0)", i, i);
    n_links = 0;
    feed_text(text);
    snprintf(text, sizeof text, "attach(name=\"%u\" handle=0 role=true)", i);
    uam_span attach = list_of(text);
    CHECK(uam_attach(e, session, links[0], attach.ptr, attach.len) > 0 && uam_flow(e, links[0], 9, 0) == UAM_OK);
    swallow();
  }
  for (uint32_t i = 0; i < 3; i++) feed_part(i, i, "true", PART);
  CHECK(e->bounds.joining == 3 * PART && faults == 0);
  feed_part(0, 0, "false", PART); /* whole: what was joined before is ours no more */
  feed_text("transfer(handle=1 aborted=true)");
  CHECK(e->bounds.joining == PART && faults == 0);
  e->bounds.joining += UAM_MAX_JOINING - 2 * PART; /* as if other links held that much */
  feed_part(3, 3, "true", PART);
  CHECK(e->bounds.joining == UAM_MAX_JOINING && faults == 0);
  feed_part(3, 3, "true", 1);
  CHECK(faults == 1 && strstr(fault, "amqp:resource-limit-exceeded") != NULL &&
        e->bounds.joining == UAM_MAX_JOINING - PART);
  feed_part(2, 2, "false", PART);
  CHECK(faults == 1 && e->bounds.joining == UAM_MAX_JOINING - 2 * PART);
  e->bounds.joining -= UAM_MAX_JOINING - 2 * PART;
  stop();
}

/* Our answers pile up, since the peer reads none of them: not past UAM_OUTPUT_HARD. */
static void test_flood(void) {
  start(UAM_CLIENT);
  attach_two();
  swallow();
  uam_span f =
      frame_of("flow(incoming-window=1 next-outgoing-id=0 outgoing-window=9 handle=0 link-credit=1 echo=true)");
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

/* A message of ours that is larger than what a peer may provoke waits in the output, and is no reason to close; what the peer
 * provokes on top of it is bounded as ever. */
static void test_large_message(void) {
  static const uint32_t len = UAM_OUTPUT_HARD + 1000000;
  uint8_t *large = calloc(1, len);
  uint32_t id = 0;
  size_t n;
  if (large == NULL) abort();
  start(UAM_CLIENT);
  attach_two();
  swallow();
  CHECK(uam_send_messages(e, links[0], large, &len, 1, 0, 0, &id) == 1);
  free(large);
  uam_send_window(e, &n);
  CHECK(n > len && uam_send_commit(e, 1000, 0) == UAM_OK);
  feed_text("ch=0 empty");
  CHECK(faults == 0);
  uam_span f =
      frame_of("flow(incoming-window=1 next-outgoing-id=0 outgoing-window=9 handle=0 link-credit=1 echo=true)");
  static uint8_t frame[256];
  memcpy(frame, f.ptr, f.len);
  for (unsigned long i = 0; i < 4000000 && faults == 0; i++) feed(frame, f.len);
  size_t more;
  uam_send_window(e, &more);
  CHECK(faults == 1 && more > n + UAM_OUTPUT_HARD - 10000 && more < n + UAM_OUTPUT_HARD + 10000);
  swallow();
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
  CHECK(uam_get_link(e, links[0], &info) == UAM_OK && info.unsettled == 0);
  stop();
}

/* A long reason for each of very many deliveries is kept once, not once for each event. */
static void test_reasons(void) {
  enum { REASON = 30000 };
  static char text[REASON + 200], reason[REASON + 1];
  static const uint32_t len = 1;
  uint32_t id = 0;
  memset(reason, 'r', REASON);
  start(UAM_CLIENT);
  attach_two();
  for (uint32_t i = 0; i < MANY; i++) {
    (void)uam_send_messages(e, links[i % 2], (const uint8_t *)"x", &len, 1, 0, 0, &id);
    if (i % 1000 == 0) swallow();
  }
  swallow();
  snprintf(text, sizeof text,
           "disposition(role=true first=4294967000 last=2147480000 settled=true state=rejected(error=error("
           "condition=:a description=\"%s\")))",
           reason);
  memory.peak = memory.bytes;
  size_t before = memory.bytes;
  uam_span f = frame_of(text);
  size_t cap;
  memcpy(uam_recv_window(e, &cap), f.ptr, f.len);
  CHECK(uam_recv_commit(e, f.len, 0) == UAM_OK);
  const uam_event *evs;
  size_t n = uam_events(e, &evs);
  CHECK(n == MANY);
  for (size_t i = 0; i < n; i += 997)
    CHECK(evs[i].code == UAM_OUT_REJECTED &&
          strstr(text_of_value((const uint8_t *)(uintptr_t)evs[i].offset, (size_t)evs[i].length, 0), "rrr\"))"));
  CHECK(memory.peak - before < 3 * MANY * sizeof(uam_event));
  stop();
}

/* One delivery stays open while more than UAM_MAX_UNSETTLED others come and go. Those are no more unsettled, and cost nothing. */
static void test_one_stays(void) {
  enum { ROUND = 1024 };
  static uint8_t bytes[ROUND];
  static uint32_t lens[ROUND];
  char text[128];
  uint32_t id = 0;
  for (uint32_t i = 0; i < ROUND; i++) lens[i] = 1;
  start(UAM_CLIENT);
  attach_two();
  swallow();
  CHECK(uam_send_messages(e, links[0], bytes, lens, 1, 0, 0, &id) == 1);
  unsigned long sent = 0;
  for (uint32_t i = 0; i <= UAM_MAX_UNSETTLED / ROUND; i++) {
    sent += (unsigned long)uam_send_messages(e, links[0], bytes, lens, ROUND, 0, 0, &id);
    swallow();
    snprintf(text, sizeof text, "disposition(role=true first=%u last=%u settled=true state=accepted())", id,
             id + ROUND - 1);
    feed_text(text);
  }
  uam_link_info info;
  CHECK(sent > UAM_MAX_UNSETTLED && settlements == sent && uam_get_link(e, links[0], &info) == UAM_OK &&
        info.unsettled == 1);
  CHECK(e->ids.links[links[0] & 0xffff]->unsettled.cap <= 4 * ROUND);
  feed_text("disposition(role=true first=4294967000 last=4294967000 settled=true state=accepted())");
  CHECK(settlements == sent + 1 && faults == 0);
  stop();
}

/* The same for what we receive: the first one is kept, all others are settled one by one. */
static void test_one_kept(void) {
  uint8_t room[64];
  static uint8_t frame[256];
  start(UAM_CLIENT);
  uam_span begin = kept("begin(next-outgoing-id=0 incoming-window=4294967295 outgoing-window=9)", room, sizeof room);
  int64_t s = uam_begin(e, 0, begin.ptr, begin.len);
  uam_span a = list_of("attach(name=\"a\" handle=0 role=true)");
  int64_t l = uam_attach(e, (uint32_t)s, 0, a.ptr, a.len);
  CHECK(s > 0 && l > 0);
  swallow();
  feed_text("begin(remote-channel=0 next-outgoing-id=0 incoming-window=9 outgoing-window=9)");
  swallow();
  feed_text("attach(name=\"a\" handle=0 role=false initial-delivery-count=0)");
  CHECK(uam_flow(e, (uint32_t)l, 2 * UAM_MAX_UNSETTLED, 0) == UAM_OK);
  uam_span f = frame_of("transfer(handle=0 delivery-id=4293918720 delivery-tag=h'01' message-format=0)");
  memcpy(frame, f.ptr, f.len);
  uint32_t first = 4293918720u, id = first;
  uint8_t *at = frame + 16; /* behind the list's head, the handle (0x43) and the id's own code (0x70) */
  CHECK(at[-1] == 0x70 && load_be32(at) == first);
  for (uint32_t i = 0; i < UAM_MAX_UNSETTLED + 100 && faults == 0; i++, id++) {
    store_be32(at, id);
    feed(frame, f.len);
    if (i > 0) CHECK(uam_settle(e, (uint32_t)l, id, id, 1, NULL, 0) == UAM_OK);
    if (i % 1000 == 0) swallow();
  }
  uam_link_info info;
  CHECK(faults == 0 && uam_get_link(e, (uint32_t)l, &info) == UAM_OK && info.unsettled == 1);
  CHECK(e->ids.links[(uint32_t)l & 0xffff]->unsettled.cap <= 128);
  CHECK(uam_settle(e, (uint32_t)l, first, first, 1, NULL, 0) == UAM_OK);
  stop();
}

/* Events that come between two batches, again and again, do not let what they say pile up. */
static void test_leftovers(void) {
  uint8_t room[64];
  start(UAM_CLIENT);
  feed_text("begin(next-outgoing-id=0 incoming-window=9 outgoing-window=9)");
  e->conn.remote_channel_max = 0;
  uam_span begin = kept("begin(next-outgoing-id=0 incoming-window=9 outgoing-window=9)", room, sizeof room);
  CHECK(uam_begin(e, session, begin.ptr, begin.len) == session); /* this one has the only channel */
  swallow();
  const uam_event *evs;
  for (int i = 0; i < 1000; i++) {
    fault[0] = '\0';
    CHECK(uam_recv_commit(e, 0, 0) == UAM_OK);
    note();
    CHECK((strstr(fault, "no channel is free") != NULL) == (i > 0));
    int64_t s = uam_begin(e, 0, begin.ptr, begin.len);
    size_t n;
    uam_send_window(e, &n);
    CHECK(s > 0 && n == 0 && uam_end(e, (uint32_t)s, NULL, 0) == UAM_OK);
  }
  CHECK(faults == 999 && e->events.text.tail < 1000 && uam_events(e, &evs) == 1);
  CHECK(uam_recv_commit(e, 0, 0) == UAM_OK &&
        e->ids.n_sessions == 1); /* those without a channel are gone when they are ended */
  stop();
}

int main(void) {
  test_sessions();
  test_channels();
  test_late();
  test_names();
  test_guests();
  test_farewell();
  test_joining();
  test_flood();
  test_large_message();
  test_ranges();
  test_reasons();
  test_one_stays();
  test_one_kept();
  test_leftovers();
  return done("limits");
}
