/* test_loopback.c - a client engine and a server engine, two queues of bytes between them, a clock moved by hand, and chance
 * (seeded): sizes of pieces, windows, credit, frame sizes, settle modes, outcomes, drains, and in some runs the loss of the
 * transport. What has to hold: every message arrives once, whole and in order; every delivery leaves once, with the outcome
 * that the receiver gave it; none that arrived is called not delivered; neither engine finds fault with the other; and no
 * memory is left. */
#include "check.h"
#include "heap.h"
#include "notation.h"
#include "uam_int.h"

enum { MAX_LINKS_HERE = 8, LARGEST = 40000 };

typedef struct sent {
  uint32_t id, outcome; /* outcome: as told by SETTLED; 0xffffffff while open */
  bool settled, arrived;
} sent;

typedef struct side side;

typedef struct channel { /* one link as one side sees it */
  uint32_t id;
  bool sender, attached, gone;
  uint32_t wanted, offered, taken; /* messages: to send; sent so far; received so far */
  uint32_t first_open;             /* of `log` */
  sent *log;
  uint32_t owed_first, owed_last; /* received, outcome decided and not yet told: a run of ids with one outcome */
  uint32_t owed_outcome, owed_settled;
  bool owes;
  struct channel *other;
} channel;

struct side {
  const char *name;
  uam_engine *e;
  heap heap;
  uam_buf wire; /* on its way to this side */
  size_t sent;
  uint64_t flushed, now;
  uint32_t session;
  channel links[MAX_LINKS_HERE];
  uint32_t n_links;
  bool opened, mapped, ended, closed, lost;
  unsigned long messages, settled;
  side *peer;
};

static uint64_t state;
static uint32_t chance(uint32_t n) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(state >> 33) % n;
}

static const uint32_t outcomes[] = {UAM_OUT_ACCEPTED, UAM_OUT_REJECTED, UAM_OUT_RELEASED, UAM_OUT_MODIFIED,
                                    UAM_OUT_NONE};
static const char *const states[] = {"accepted()", "rejected(error=error(condition=:amqp:not-found))", "released()",
                                     "modified(delivery-failed=true)", ""};

/* What message `i` of a link is: all of it follows from the number. */
static uint32_t scramble(uint32_t i) { return (i ^ 0x9e3779b9u) * 2654435761u; }
static uint32_t size_of(uint32_t i) {
  return scramble(i) % 97 == 0 ? 4 + scramble(i) % LARGEST : 4 + scramble(i) % 200;
}
static uint32_t outcome_index(uint32_t i) { return scramble(i + 7) % 4 != 0 ? 0 : scramble(i + 9) % 5; }
static void fill(uint8_t *p, uint32_t i) {
  uint32_t n = size_of(i);
  store_be32(p, i);
  for (uint32_t k = 4; k < n; k++) p[k] = (uint8_t)(i * 31 + k);
}

static channel *link_of(side *s, uint32_t id) {
  for (uint32_t i = 0; i < s->n_links; i++)
    if (s->links[i].id == id) return &s->links[i];
  return NULL;
}

/* ---- what a side does ---- */
static void pay(side *s, channel *l) {
  if (!l->owes) return;
  l->owes = false;
  uam_span v = {NULL, 0};
  if (states[l->owed_outcome][0] != '\0') v = value_of(states[l->owed_outcome]);
  int rc = uam_settle(s->e, l->id, l->owed_first, l->owed_last, (int)l->owed_settled, v.ptr, v.len);
  if (rc != UAM_OK) FAIL("%s: settle %u..%u gives %d: %s", s->name, l->owed_first, l->owed_last, rc, uam_problem(s->e));
}

static void owe(side *s, channel *l, uint32_t id, uint32_t i) {
  uint32_t outcome = outcome_index(i), settled = outcome == 4 || scramble(i + 11) % 3 != 0;
  bool same = l->owes && l->owed_last + 1 == id && l->owed_outcome == outcome && l->owed_settled == settled;
  if (!same) {
    pay(s, l);
    l->owed_first = id;
  }
  l->owes = true;
  l->owed_last = id;
  l->owed_outcome = outcome;
  l->owed_settled = settled;
}

static void on_message(side *s, channel *l, const uam_event *ev, const uint8_t *p, const uint8_t *base) {
  static uint8_t want[LARGEST + 4];
  uint32_t i = ev->length >= 4 ? load_be32(p) : UINT32_MAX;
  s->messages++;
  if (l == NULL || i != l->taken || ev->length != size_of(i)) {
    FAIL("%s: message %u of %lu bytes, awaited was %u", s->name, i, (unsigned long)ev->length, l ? l->taken : 0);
    return;
  }
  fill(want, i);
  CHECK(memcmp(want, p, size_of(i)) == 0);
  sent *x = &l->other->log[i];
  CHECK(!x->arrived && x->id == ev->first && x->settled == ((ev->flags & UAM_FLAG_SETTLED) != 0));
  const uint8_t *tag =
      ev->flags & UAM_FLAG_ADDRESS ? (const uint8_t *)(uintptr_t)ev->tag_offset : base + ev->tag_offset;
  CHECK(ev->tag_length == 4 && (tag[0] | (uint32_t)tag[1] << 8 | (uint32_t)tag[2] << 16) == i + 1);
  x->arrived = true;
  l->taken++;
  if (!x->settled) owe(s, l, ev->first, i);
}

static void on_settled(side *s, channel *l, const uam_event *ev) {
  if (l == NULL) return;
  if (!l->sender) { /* the sender settled what we had given an unsettled outcome */
    s->settled++;
    return;
  }
  bool any = false;
  for (uint32_t i = l->first_open; i < l->offered; i++) {
    sent *x = &l->log[i];
    if (seq_lt(ev->last, x->id)) break;
    if (seq_lt(x->id, ev->first)) continue;
    if (x->outcome != UINT32_MAX) {
      if (ev->first == ev->last) FAIL("%s: delivery %u left twice", s->name, x->id);
      continue;
    }
    any = true;
    x->outcome = ev->code;
    s->settled++;
    uint32_t right = x->settled ? (uint32_t)UAM_OUT_SENT : outcomes[outcome_index(i)];
    bool lost = (s->lost || s->closed) &&
                ((ev->code == UAM_OUT_NOT_DELIVERED && !x->arrived) || (ev->code == UAM_OUT_UNKNOWN && !x->settled));
    if (ev->code != right && !lost) FAIL("%s: message %u left as %u, not %u", s->name, i, ev->code, right);
  }
  if (!any) FAIL("%s: nothing in %u..%u was open", s->name, ev->first, ev->last);
  while (l->first_open < l->offered && l->log[l->first_open].outcome != UINT32_MAX) l->first_open++;
}

static void offer(side *s, channel *l) {
  static uint8_t room[8 * LARGEST];
  uint32_t lens[8], n = 0, at = 0, first = 0, most = 1 + chance(8);
  for (uint32_t i = l->offered; i < l->wanted && n < most; i++, n++) {
    fill(room + at, i);
    lens[n] = size_of(i);
    at += lens[n];
  }
  bool settled = chance(3) == 0;
  int64_t taken = uam_send_messages(s->e, l->id, room, lens, n, 0, settled ? UAM_SEND_SETTLED : 0, &first);
  if (taken < 0) FAIL("%s: send gives %ld: %s", s->name, (long)taken, uam_problem(s->e));
  for (int64_t i = 0; i < taken; i++)
    l->log[l->offered++] = (sent){.id = first++, .outcome = UINT32_MAX, .settled = settled};
}

static void on_attach(side *s, const uam_event *ev) {
  channel *l = link_of(s, ev->id);
  if (!(ev->flags & UAM_FLAG_REPLY)) {
    l = &s->links[s->n_links];
    l->id = ev->id;
    l->sender = (ev->flags & UAM_FLAG_SENDER) != 0;
    l->other = &s->peer->links[s->n_links];
    l->other->other = l;
    s->n_links++;
    uam_span list = list_of("attach(name=\"x\" handle=0 role=false initial-delivery-count=4294967290)");
    CHECK(uam_attach(s->e, ev->first, ev->id, list.ptr, list.len) == (int64_t)ev->id);
  }
  l->attached = true;
}

static void on_begin(side *s, const uam_event *ev) {
  s->mapped = true;
  s->session = ev->id;
  if (ev->flags & UAM_FLAG_REPLY) return;
  char text[128];
  snprintf(text, sizeof text, "begin(next-outgoing-id=%u incoming-window=%u outgoing-window=100)", 0u - chance(20),
           1 + chance(300));
  uam_span list = list_of(text);
  CHECK(uam_begin(s->e, ev->id, list.ptr, list.len) == (int64_t)ev->id);
}

static void open_with(side *s) {
  char text[128];
  snprintf(text, sizeof text, "open(container-id=\"%s\" max-frame-size=%u idle-time-out=%u)", s->name,
           512 + chance(4) * chance(3000), 500 + chance(2000));
  uam_span list = list_of(text);
  CHECK(uam_open(s->e, list.ptr, list.len) == UAM_OK);
}

static void on_event(side *s, const uam_event *ev, const uint8_t *base) {
  const uint8_t *p = ev->flags & UAM_FLAG_ADDRESS ? (const uint8_t *)(uintptr_t)ev->offset : base + ev->offset;
  switch (ev->kind) {
    case UAM_EVENT_SASL_INIT: CHECK(uam_sasl_outcome(s->e, 0) == UAM_OK); break;
    case UAM_EVENT_OPEN:
      s->opened = true;
      if (s->peer->e != NULL && s->name[0] == 's') open_with(s);
      break;
    case UAM_EVENT_BEGIN: on_begin(s, ev); break;
    case UAM_EVENT_ATTACH: on_attach(s, ev); break;
    case UAM_EVENT_MESSAGE: on_message(s, link_of(s, ev->id), ev, p, base); break;
    case UAM_EVENT_SETTLED: on_settled(s, link_of(s, ev->id), ev); break;
    case UAM_EVENT_DETACH:
      if (link_of(s, ev->id) != NULL) link_of(s, ev->id)->gone = true;
      break;
    case UAM_EVENT_END: s->ended = true; break;
    case UAM_EVENT_CLOSE: s->closed = true; break;
    case UAM_EVENT_PEER_ERROR: FAIL("%s finds fault: %s", s->name, text_of_value(p, (size_t)ev->length, 0)); break;
    default: break;
  }
}

/* Credit, outcomes and messages as chance wants it. */
static void act(side *s) {
  for (uint32_t i = 0; i < s->n_links; i++) {
    channel *l = &s->links[i];
    uam_link_info info;
    if (!l->attached || l->gone || uam_get_link(s->e, l->id, &info) != UAM_OK) continue;
    if (l->sender) {
      if (chance(2) == 0) offer(s, l);
      if (info.drain && chance(2) == 0) uam_drained(s->e, l->id);
    } else {
      if (chance(3) == 0) pay(s, l);
      if (info.credit < 5 && chance(4) == 0)
        uam_flow(s->e, l->id, chance(3) == 0 ? chance(4) : chance(200), chance(20) == 0 ? UAM_FLAG_DRAIN : 0);
    }
  }
}

/* ---- bytes ---- */
static void step(side *s, size_t in, size_t out) {
  uam_io io = {0};
  size_t cap = 0;
  if (s->lost) return;
  uint8_t *w = in > 0 ? uam_recv_window(s->e, &cap) : NULL;
  if (in > cap) in = cap;
  if (in > 0) {
    memcpy(w, s->wire.data + s->wire.head, in);
    uam_buf_consume(&s->wire, in);
  }
  io.received = in;
  io.sent = s->sent;
  s->flushed += s->sent;
  io.flushed = s->flushed;
  io.now = s->now;
  io.dry = uam_buf_len(&s->wire) == 0;
  int rc = uam_step(s->e, &io);
  if (rc != UAM_OK) FAIL("%s: uam_step gives %d: %s", s->name, rc, uam_problem(s->e));
  for (size_t i = 0; i < io.n_events; i++) on_event(s, &io.events[i], io.base);
  const uint8_t *now = uam_send_window(s->e, &io.out_len); /* events may have made more */
  s->sent = io.out_len < out ? io.out_len : out;
  if (!uam_buf_put(&s->peer->wire, &uam_mem_default, now, s->sent)) abort();
}

static size_t some(size_t n) {
  if (n == 0) return 0;
  switch (chance(4)) {
    case 0: return 1;
    case 1: return n;
    default: return 1 + chance((uint32_t)(n < 1000000 ? n : 1000000));
  }
}

static void turn(side *s) {
  if (chance(8) == 0) s->now += chance(100);
  step(s, some(uam_buf_len(&s->wire)), chance(5) == 0 ? 0 : some(100000));
  act(s);
}

/* ---- a conversation ---- */
static void start(side *s, const char *name, int role, side *peer) {
  memset(s, 0, sizeof *s);
  uam_mem mem = heap_mem(&s->heap);
  s->name = name;
  s->peer = peer;
  s->e = uam_new(&mem, role);
  s->now = chance(2) ? 0 : 1000000;
  if (s->e == NULL) abort();
  if (chance(2)) uam_set(s->e, UAM_OPT_TRACE, 1);
}

static void start_client(side *c, uint32_t messages) {
  if (chance(2)) uam_set(c->e, UAM_OPT_PIPELINE, 1);
  CHECK(uam_sasl_client(c->e, "PLAIN", (const uint8_t *)"\0a\0b", 4, 1, NULL) == UAM_OK);
  open_with(c);
  char text[128];
  snprintf(text, sizeof text, "begin(next-outgoing-id=%u incoming-window=%u outgoing-window=100)", 0u - chance(20),
           1 + chance(300));
  uam_span list = list_of(text);
  int64_t session = uam_begin(c->e, 0, list.ptr, list.len);
  CHECK(session > 0);
  c->n_links = 1 + chance(4);
  for (uint32_t i = 0; i < c->n_links; i++) {
    channel *l = &c->links[i];
    l->sender = i % 2 == 0;
    snprintf(text, sizeof text, "attach(name=\"%u\" handle=0 role=%s initial-delivery-count=%u)", i,
             l->sender ? "false" : "true", 0u - chance(50));
    list = list_of(text);
    l->id = (uint32_t)uam_attach(c->e, (uint32_t)session, 0, list.ptr, list.len);
  }
  for (uint32_t i = 0; i < c->n_links; i++) {
    channel *l = c->links[i].sender ? &c->links[i] : &c->peer->links[i];
    l->wanted = messages;
    l->log = calloc(messages, sizeof *l->log);
    if (l->log == NULL) abort();
  }
}

static bool side_done(const side *s) {
  for (uint32_t i = 0; i < s->n_links; i++) {
    const channel *l = &s->links[i];
    if (l->sender && (l->first_open < l->wanted || l->offered < l->wanted)) return false;
    if (l->owes || (!l->sender && l->taken < l->other->wanted)) return false;
  }
  return s->mapped && s->n_links == s->peer->n_links;
}

static void finish(side *c, side *v) {
  for (uint32_t i = 0; i < c->n_links; i++) CHECK(uam_detach(c->e, c->links[i].id, 1, NULL, 0) == UAM_OK);
  CHECK(uam_end(c->e, c->session, NULL, 0) == UAM_OK);
  for (int i = 0; i < 1000 && !c->ended; i++)
    step(c, uam_buf_len(&c->wire), SIZE_MAX), step(v, uam_buf_len(&v->wire), SIZE_MAX);
  CHECK(c->ended && v->ended);
  CHECK(uam_close(c->e, NULL, 0) == UAM_OK);
  for (int i = 0; i < 1000 && !c->closed; i++)
    step(c, uam_buf_len(&c->wire), SIZE_MAX), step(v, uam_buf_len(&v->wire), SIZE_MAX);
  uam_conn_info a, b;
  uam_get_conn(c->e, &a);
  uam_get_conn(v->e, &b);
  CHECK(a.transport_done && b.transport_done);
}

static void lose(side *s) {
  const uam_event *evs;
  s->lost = true;
  CHECK(uam_send_commit(s->e, s->sent, s->now) == UAM_OK);
  s->flushed += s->sent;
  CHECK(uam_flushed(s->e, s->flushed) == UAM_OK);
  CHECK(uam_lost(s->e) == UAM_OK);
  size_t n = uam_events(s->e, &evs);
  for (size_t i = 0; i < n; i++) on_event(s, &evs[i], s->e->in.window[s->e->in.current].data);
  for (uint32_t i = 0; i < s->n_links; i++)
    for (uint32_t k = 0; k < s->links[i].offered; k++)
      if (s->links[i].log[k].outcome == UINT32_MAX) FAIL("%s: message %u has no end", s->name, k);
}

static void stop(side *s) {
  uam_free(s->e);
  CHECK(s->heap.live == 0);
  uam_buf_free(&s->wire, &uam_mem_default);
  for (uint32_t i = 0; i < MAX_LINKS_HERE; i++) free(s->links[i].log);
}

static unsigned long messages, settlements, turns;

static void converse(uint32_t seed, uint32_t count, bool lossy) {
  static side client, server;
  state = seed * 77777777777u + 1;
  start(&client, "client", UAM_CLIENT, &server);
  start(&server, "server", UAM_SERVER, &client);
  CHECK(uam_sasl_server(server.e, "PLAIN") == UAM_OK);
  start_client(&client, count);
  uint32_t limit = 2000000, breaks = lossy ? chance(4000) : UINT32_MAX, i = 0;
  unsigned long before = check_failures;
  for (; i < limit && i < breaks && check_failures == before && !(side_done(&client) && side_done(&server)); i++)
    turn(chance(2) ? &client : &server);
  if (i == limit) FAIL("seed %u: no end: %lu and %lu messages", seed, client.messages, server.messages);
  if (lossy && i == breaks) {
    lose(&client);
    lose(&server);
  } else if (check_failures == before) {
    finish(&client, &server);
  }
  if (check_failures != before) fprintf(stderr, "  (seed %u)\n", seed);
  messages += client.messages + server.messages;
  settlements += client.settled + server.settled;
  turns += i;
  stop(&client);
  stop(&server);
}

int main(void) {
  for (uint32_t seed = 1; seed <= 40; seed++) converse(seed, 300, false);
  for (uint32_t seed = 1; seed <= 120; seed++) converse(1000 + seed, 200, true);
  converse(5000, 8000, false);
  printf("loopback: %lu messages, %lu settlements, %lu turns\n", messages, settlements, turns);
  return done("loopback");
}
