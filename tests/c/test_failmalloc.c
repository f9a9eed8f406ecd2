/* test_failmalloc.c - a whole conversation between a client and a server engine with one allocator, whose n-th allocation
 * fails, for every n until none does; once alone, once with all that follow. An engine that was refused memory says
 * UAM_ERR_NOMEM from then on, to every call, even when there is memory again; nothing crashes and nothing is left. */
#include "check.h"
#include "heap.h"
#include "notation.h"
#include "uam_int.h"

typedef struct end {
  uam_engine *e;
  uam_buf wire; /* on its way here */
  bool dead;    /* has said UAM_ERR_NOMEM */
  uint32_t session, links[2], n_links;
  unsigned long messages, settled;
} end;

static heap memory;
static unsigned long calls;

/* Every result passes here. */
static int64_t told(end *x, int64_t rc) {
  calls++;
  if (x->dead && rc != UAM_ERR_NOMEM) FAIL("a dead engine says %ld", (long)rc);
  if (rc < 0 && rc != UAM_ERR_NOMEM) FAIL("gives %ld: %s", (long)rc, uam_problem(x->e));
  if (rc == UAM_ERR_NOMEM) x->dead = true;
  return rc;
}

static int64_t with_list(end *x, int what, uint32_t a, uint32_t b, const char *text) {
  uam_span v = list_of(text);
  switch (what) {
    case UAM_COMPOSITE_open: return told(x, uam_open(x->e, v.ptr, v.len));
    case UAM_COMPOSITE_begin: return told(x, uam_begin(x->e, a, v.ptr, v.len));
    default: return told(x, uam_attach(x->e, a, b, v.ptr, v.len));
  }
}

static void settle(end *x, uint32_t link, uint32_t id, int settled, const char *text) {
  uam_span v = value_of(text);
  told(x, uam_settle(x->e, link, id, id, settled, v.ptr, v.len));
}

static void answer(end *x, const uam_event *ev) {
  const bool reply = (ev->flags & UAM_FLAG_REPLY) != 0;
  switch (ev->kind) {
    case UAM_EVENT_SASL_CHALLENGE: told(x, uam_sasl_response(x->e, (const uint8_t *)"r", 1)); break;
    case UAM_EVENT_SASL_INIT: told(x, uam_sasl_challenge(x->e, (const uint8_t *)"c", 1)); break;
    case UAM_EVENT_SASL_RESPONSE: told(x, uam_sasl_outcome(x->e, 0)); break;
    case UAM_EVENT_BEGIN:
      x->session = ev->id;
      if (!reply)
        with_list(x, UAM_COMPOSITE_begin, ev->id, 0,
                  "begin(next-outgoing-id=4294967290 incoming-window=3 outgoing-window=9)");
      break;
    case UAM_EVENT_ATTACH:
      if (x->n_links < 2) x->links[x->n_links++] = ev->id;
      if (!reply)
        with_list(x, UAM_COMPOSITE_attach, ev->first, ev->id,
                  "attach(name=\"\" handle=0 role=true source=source(address=\"q\"))");
      if (!(ev->flags & UAM_FLAG_SENDER)) told(x, uam_flow(x->e, ev->id, 20, UAM_FLAG_ECHO));
      break;
    case UAM_EVENT_CREDIT:
      if (ev->flags & UAM_FLAG_DRAIN && ev->last == 0) (void)uam_drained(x->e, ev->id); /* it may be answered already */
      break;
    case UAM_EVENT_MESSAGE:
      x->messages++;
      if (ev->flags & UAM_FLAG_SETTLED) break;
      if (ev->first % 3 == 0) settle(x, ev->id, ev->first, 1, "accepted()");
      else if (ev->first % 3 == 1) settle(x, ev->id, ev->first, 0, "accepted()");
      else settle(x, ev->id, ev->first, 1, "rejected(error=error(condition=:amqp:not-found description=\"no\"))");
      break;
    case UAM_EVENT_SETTLED: x->settled++; break;
    case UAM_EVENT_PEER_ERROR: FAIL("an engine finds fault"); break;
    default: break;
  }
}

/* Both in turn until nothing moves. */
static bool move(end *x, end *y) {
  const uam_event *evs;
  size_t n = 0, room = 0, lines = 0;
  bool moved = uam_buf_len(&x->wire) > 0;
  uint8_t *w = uam_recv_window(x->e, &room);
  size_t in = uam_buf_len(&x->wire) < 300 ? uam_buf_len(&x->wire) : 300; /* so that frames come in pieces */
  if (w == NULL) {
    told(x, uam_recv_commit(x->e, 0, 0));
    CHECK(x->dead && room == 0);
    return false;
  }
  if (in > 0) memcpy(w, x->wire.data + x->wire.head, in);
  uam_buf_consume(&x->wire, in);
  if (in > 0) told(x, uam_recv_commit(x->e, in, 0));
  size_t count = uam_events(x->e, &evs);
  for (size_t i = 0; i < count && !x->dead; i++) answer(x, &evs[i]);
  const uint8_t *out = uam_send_window(x->e, &n);
  if (x->dead) CHECK(n == 0);
  if (n > 0 && !uam_buf_put(&y->wire, &uam_mem_default, out, n)) abort();
  if (n > 0) told(x, uam_send_commit(x->e, n, 0));
  if (n > 0) told(x, uam_flushed(x->e, uam_committed(x->e)));
  (void)uam_trace(x->e, &lines);
  return moved || n > 0;
}

static void settle_down(end *a, end *b) {
  for (bool on = true; on && !(a->dead && b->dead);) {
    on = move(a, b);
    on |= move(b, a);
  }
}

static void set_up(end *c, end *s) {
  told(c, uam_set(c->e, UAM_OPT_TRACE, 2));
  told(c, uam_sasl_client(c->e, "PLAIN", (const uint8_t *)"\0u\0p", 4, 1, "host"));
  told(s, uam_sasl_server(s->e, "PLAIN ANONYMOUS"));
  with_list(c, UAM_COMPOSITE_open, 0, 0, "open(container-id=\"c\" max-frame-size=600 idle-time-out=1000)");
  with_list(s, UAM_COMPOSITE_open, 0, 0, "open(container-id=\"s\" max-frame-size=512 properties={:a=\"b\"})");
  int64_t session =
      with_list(c, UAM_COMPOSITE_begin, 0, 0, "begin(next-outgoing-id=0 incoming-window=5 outgoing-window=5)");
  if (session <= 0) return;
  with_list(c, UAM_COMPOSITE_attach, (uint32_t)session, 0,
            "attach(name=\"up\" handle=0 role=false target=target(address=\"q\"))");
  with_list(c, UAM_COMPOSITE_attach, (uint32_t)session, 0,
            "attach(name=\"down\" handle=0 role=true source=source(address=\"q\"))");
}

static void talk(end *x, uint32_t link, int flags) {
  static const uint8_t bytes[6000];
  static const uint32_t lens[] = {1, 10, 2000, 0, 300, 3000};
  uint32_t first = 0;
  told(x, uam_send_messages(x->e, link, bytes, lens, 6, 0, flags, &first));
}

static bool whole(const end *c, const end *s) { return !c->dead && !s->dead && c->n_links == 2 && s->n_links == 2; }

static void converse(end *c, end *s) {
  set_up(c, s);
  settle_down(c, s);
  for (int round = 0; round < 4 && whole(c, s); round++) {
    talk(c, c->links[0], round % 2 ? UAM_SEND_SETTLED : UAM_SEND_DATA);
    talk(s, s->links[1], round % 2 ? UAM_SEND_SETTLED : UAM_SEND_DATA);
    settle_down(c, s);
  }
  if (whole(c, s)) told(c, uam_flow(c->e, c->links[1], 30, UAM_FLAG_DRAIN));
  settle_down(c, s);
  if (whole(c, s)) told(c, uam_detach(c->e, c->links[0], 1, NULL, 0));
  settle_down(c, s);
  if (whole(c, s)) {
    uam_span error = value_of("error(condition=:amqp:internal-error description=\"enough\")");
    told(s, uam_end(s->e, s->session, error.ptr, error.len));
  }
  settle_down(c, s);
  if (!c->dead) told(c, uam_lost(c->e));
  if (!s->dead) told(s, uam_close(s->e, NULL, 0));
  settle_down(c, s);
}

/* Every call says it, and none does harm. */
static void check_dead(end *x) {
  uint8_t b = 0x40;
  uint32_t len = 1, first;
  uam_io io = {0};
  const uam_event *evs;
  uam_conn_info info;
  size_t n;
  told(x, uam_set(x->e, UAM_OPT_TRACE, 0));
  told(x, uam_open(x->e, &b, 1));
  told(x, uam_close(x->e, NULL, 0));
  told(x, uam_begin(x->e, 0, &b, 1));
  told(x, uam_attach(x->e, x->session, 0, &b, 1));
  told(x, uam_end(x->e, x->session, NULL, 0));
  told(x, uam_detach(x->e, x->links[0], 0, NULL, 0));
  told(x, uam_flow(x->e, x->links[0], 1, 0));
  told(x, uam_drained(x->e, x->links[0]));
  told(x, uam_settle(x->e, x->links[0], 0, 0, 1, NULL, 0));
  told(x, uam_send_messages(x->e, x->links[0], &b, &len, 1, 0, 0, &first));
  told(x, uam_sasl_client(x->e, "X", NULL, 0, 0, NULL));
  told(x, uam_sasl_server(x->e, "X"));
  told(x, uam_sasl_challenge(x->e, NULL, 0));
  told(x, uam_sasl_response(x->e, NULL, 0));
  told(x, uam_sasl_outcome(x->e, 0));
  told(x, uam_recv_commit(x->e, 0, 9));
  told(x, uam_send_commit(x->e, 0, 9));
  told(x, uam_flushed(x->e, 0));
  told(x, uam_step(x->e, &io));
  told(x, uam_lost(x->e));
  CHECK(uam_send_window(x->e, &n) == NULL && n == 0);
  CHECK(uam_recv_window(x->e, &n) == NULL && n == 0);
  (void)uam_events(x->e, &evs);
  CHECK(uam_get_conn(x->e, &info) == UAM_OK);
}

static end client, server;

/* One conversation; false when no allocation failed in it. */
static bool attempt(unsigned long n, bool once) {
  memory = (heap){.fail = n, .once = once};
  uam_mem mem = heap_mem(&memory);
  client = (end){.e = uam_new(&mem, UAM_CLIENT)};
  server = (end){.e = uam_new(&mem, UAM_SERVER)};
  if (client.e != NULL && server.e != NULL) {
    converse(&client, &server);
    bool failed = memory.made >= n;
    if (failed && !client.dead && !server.dead) FAIL("allocation %lu failed and nobody said so", n);
    if (once && client.dead && server.dead) FAIL("allocation %lu killed both", n);
    if (client.dead) check_dead(&client);
    if (server.dead) check_dead(&server);
  } else {
    CHECK(memory.made >= n);
  }
  uam_free(client.e);
  uam_free(server.e);
  CHECK(memory.live == 0);
  uam_buf_free(&client.wire, &uam_mem_default);
  uam_buf_free(&server.wire, &uam_mem_default);
  return memory.made >= n;
}

int main(void) {
  unsigned long n = 1, before = check_failures;
  attempt(1000000, true); /* the conversation as it should be */
  CHECK(client.messages >= 12 && server.messages >= 12 && client.settled >= 8 && server.settled >= 8);
  while (attempt(n, false) && attempt(n, true) && check_failures < before + 10) n++;
  if (check_failures != before) fprintf(stderr, "  (at allocation %lu)\n", n);
  CHECK(n > 60);
  printf("failmalloc: %lu allocations failed, each twice; %lu calls\n", n - 1, calls);
  return done("failmalloc");
}
